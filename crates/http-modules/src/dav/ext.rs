//! `dav_ext_methods`: OPTIONS and PROPFIND, by which clients look at folders. nginx has them in a module of others.
//!
//! PROPFIND gives the properties that a file system has, whichever of them were asked for (RFC 4918 §9.1).

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use conf::values::bitmask;
use conf::{Args, Directive, Loader};
use http::config::core::EVERYWHERE;
use http::files::open_file::etag;
use wire::date::format_http_time;
use wire::uri::{Escape, escape, escape_html};

use super::tree::{Done, Failed, failed};

pub(super) const PROPFIND: u32 = 2;
pub(super) const OPTIONS: u32 = 4;
const METHODS: &[(&str, u32)] = &[("off", 1), ("propfind", PROPFIND), ("options", OPTIONS)];

conf::table! {
    /// How clients look at folders.
    pub struct DavExtConf, raw DavExtRaw, module "ngx_http_dav_ext_module", level HTTP Location;

    /// Allows methods by which WebDAV clients look at files and folders.
    ///
    /// Form: `dav_ext_methods off | [PROPFIND] [OPTIONS]`
    ///
    /// - `off`: none of them.
    /// - `PROPFIND`: the properties of a file, or of a folder and what is in it: size, time, tag and kind.
    /// - `OPTIONS`: what the location allows.
    ///
    /// Effect: with these and `dav_methods` clients such as rclone, cadaver and file managers work. What is below the folders
    /// in a folder isn't told (`Depth: infinity` gets status 403), and locks aren't there.
    ///
    /// Cost: PROPFIND reads the folder and looks at each of its files, in a thread.
    ///
    /// ```nginx
    /// location /files/ {
    ///     dav_methods PUT DELETE MKCOL COPY MOVE;
    ///     dav_ext_methods PROPFIND OPTIONS;
    ///     auth_basic "members only";
    ///     auth_basic_user_file passwords;
    /// }
    /// ```
    "dav_ext_methods" in EVERYWHERE, Args::at_least(1), default "off",
        set(|raw: &mut DavExtRaw, l: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.methods, METHODS, l, d))
        methods: u32 = 1;
}

/// What PROPFIND is asked for.
pub(super) struct Question {
    /// The URI of what is at the path.
    pub(super) uri: Vec<u8>,
    /// Whether the members of a folder are told too.
    pub(super) members: bool,
    /// Whether links are followed.
    pub(super) follow: bool,
}

/// The properties of what is at a path, as XML.
pub(super) fn properties(path: &Path, question: &Question) -> Result<Vec<u8>, Failed> {
    let Question { uri, members, follow } = question;
    let meta = look(path, *follow).map_err(failed("stat()", path))?;
    let mut out = b"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">\n".to_vec();
    let mut own = Vec::new();
    escape(Escape::Uri, uri, &mut own);
    if meta.is_dir() && own.last() != Some(&b'/') {
        own.push(b'/');
    }
    response(&own, &meta, &mut out);
    if meta.is_dir() && *members {
        list(path, &own, *follow, &mut out)?;
    }
    out.extend_from_slice(b"</D:multistatus>\n");
    Ok(out)
}

fn list(path: &Path, uri: &[u8], follow: bool, out: &mut Vec<u8>) -> Done {
    for entry in fs::read_dir(path).map_err(failed("opendir()", path))? {
        let entry = entry.map_err(failed("readdir()", path))?;
        // What is gone by now, or a link to nothing, has no properties.
        let Ok(meta) = look(&entry.path(), follow) else { continue };
        if meta.is_symlink() {
            continue;
        }
        let mut href = uri.to_vec();
        escape(Escape::UriComponent, entry.file_name().as_bytes(), &mut href);
        if meta.is_dir() {
            href.push(b'/');
        }
        response(&href, &meta, out);
    }
    Ok(())
}

fn look(path: &Path, follow: bool) -> std::io::Result<Metadata> {
    if follow { fs::metadata(path) } else { fs::symlink_metadata(path) }
}

fn response(href: &[u8], meta: &Metadata, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<D:response><D:href>");
    escape_html(href, out);
    out.extend_from_slice(b"</D:href><D:propstat><D:prop>");
    if meta.is_dir() {
        out.extend_from_slice(b"<D:resourcetype><D:collection/></D:resourcetype>");
    } else {
        out.extend_from_slice(b"<D:resourcetype/>");
        property("getcontentlength", meta.len().to_string().as_bytes(), out);
        property("getetag", &etag(meta.mtime(), meta.len()), out);
    }
    property("getlastmodified", &format_http_time(meta.mtime()), out);
    out.extend_from_slice(b"</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>\n");
}

fn property(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("<D:{name}>").as_bytes());
    escape_html(value, out);
    out.extend_from_slice(format!("</D:{name}>").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_odd_names() {
        let folder = tempfile::TempDir::with_prefix("tidegate-propfind-").expect("create");
        let folder = folder.path();
        fs::create_dir(folder.join("a&b <c>")).expect("create");
        fs::write(folder.join("50% \"x\""), "text").expect("write");
        std::os::unix::fs::symlink("nowhere", folder.join("broken")).expect("link");
        let ask = |members| {
            let question = Question { uri: b"/d r".to_vec(), members, follow: true };
            String::from_utf8(properties(folder, &question).expect("it is there")).expect("ASCII")
        };
        let (alone, all) = (ask(false), ask(true));
        assert_eq!((alone.matches("<D:response>").count(), all.matches("<D:response>").count()), (1, 3), "{all}");
        assert!(alone.contains("<D:href>/d%20r/</D:href>"), "{alone}");
        assert!(
            all.contains("<D:href>/d%20r/a%26b%20%3Cc%3E/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/>")
        );
        assert!(all.contains("<D:href>/d%20r/50%25%20%22x%22</D:href>"), "{all}");
        assert!(all.contains("<D:getcontentlength>4</D:getcontentlength><D:getetag>&quot;"), "{all}");
    }
}
