//! `autoindex`: what is in a folder, as a page or as data.
//!
//! What differs from nginx: names that are UTF-8 are measured in characters whatever the charset is, so none is cut in
//! the middle of a character; `autoindex_format styled` is ours.

mod styled;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{DirEntry, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use buf::number::digits;
use buf::{Bytes, Chain};
use conf::values::{flag, one_of};
use conf::{Args, Registry, Result};
use engine::log::Errno;
use http::config::core::EVERYWHERE;
use http::fault::Fault;
use http::files::open_file::errno;
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{Flow, PromptHandler};
use http::request::Request;
use http::response::Body;
use http::server::location::Handlers;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use wire::h1::Method;
use wire::strftime::{self, Time};
use wire::uri::{Escape, escape, escape_html};

/// The module.
pub struct Autoindex;

/// The forms of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// nginx's page.
    Html,
    /// A page made for reading.
    Styled,
    /// JSON.
    Json,
    /// A call of the function that the argument `callback` names, else JSON.
    Jsonp,
    /// XML.
    Xml,
}

conf::table! {
    /// How folders are listed.
    pub struct AutoindexConf, raw AutoindexRaw, module "ngx_http_autoindex_module", level HTTP Location;

    /// Lists the files of a folder for which there is no `index` file.
    ///
    /// Effect: holds for GET and HEAD requests whose URI ends with a slash. With `off` such a request gets status 403.
    /// Hidden files, whose names begin with a dot, aren't listed. `autoindex_format` chooses the form.
    ///
    /// Cost: a system call for each file in the folder, each time, in the worker: a folder of many thousand files holds
    /// other requests up.
    ///
    /// Danger: everybody sees the names of all files, also of those that no page links to.
    ///
    /// ```nginx
    /// location /downloads/ {
    ///     root site;
    ///     autoindex on;
    /// }
    /// ```
    "autoindex" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) autoindex: bool = false;
    /// Sets the form of the list of a folder.
    ///
    /// Form: `autoindex_format html | styled | xml | json | jsonp`
    ///
    /// - `html`: nginx's plain page.
    /// - `styled`: a page for readers, which nginx doesn't have: UTF-8, for narrow and wide screens, light and dark,
    ///   without scripts; folders first, then files, sorted without regard to upper and lower case.
    /// - `xml`: XML.
    /// - `json`: JSON, an array of objects.
    /// - `jsonp`: JSON as the argument of the function that the request's argument `callback` names; without that
    ///   argument JSON.
    ///
    /// Effect: holds where `autoindex` is on. `autoindex_exact_size` and `autoindex_localtime` hold for `html` and
    /// `styled`.
    ///
    /// Danger: `jsonp` lets other sites' pages read the list.
    ///
    /// ```nginx
    /// location /downloads/ {
    ///     autoindex on;
    ///     autoindex_format styled;
    /// }
    /// ```
    "autoindex_format" in EVERYWHERE, Args::exactly(1), default "html",
        scalar(one_of(&[
            ("html", Format::Html), ("styled", Format::Styled), ("json", Format::Json), ("jsonp", Format::Jsonp),
            ("xml", Format::Xml),
        ])) autoindex_format: Format = Format::Html;
    /// Shows times in the list of a folder in the local time zone, instead of UTC.
    ///
    /// Effect: holds for the formats `html` and `styled`.
    ///
    /// ```nginx
    /// location /downloads/ {
    ///     autoindex on;
    ///     autoindex_localtime on;
    /// }
    /// ```
    "autoindex_localtime" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) autoindex_localtime: bool = false;
    /// Shows sizes in the list of a folder in bytes, instead of rounded to kilobytes, megabytes and gigabytes.
    ///
    /// Effect: holds for the formats `html` and `styled`.
    ///
    /// ```nginx
    /// location /downloads/ {
    ///     autoindex on;
    ///     autoindex_exact_size off;
    /// }
    /// ```
    "autoindex_exact_size" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) autoindex_exact_size: bool = true;
}

impl HttpModule for Autoindex {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<AutoindexConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<AutoindexConf>();
        if conf.autoindex && !out.exclusive {
            out.content.push(Rc::new(Lister(conf)));
        }
        Ok(())
    }
}

struct Lister(Rc<AutoindexConf>);

impl PromptHandler for Lister {
    fn answer(&self, r: &mut Request) -> Flow<'static> {
        if r.uri.last() != Some(&b'/') || !matches!(r.method, Method::Get | Method::Head) {
            return Flow::Next;
        }
        let format = self.0.autoindex_format;
        let callback = match format {
            Format::Jsonp => match callback(r) {
                Ok(callback) => callback,
                Err(fault) => return fault.into(),
            },
            _ => None,
        };
        let mut path = match r.path_of_uri() {
            Ok(path) => path,
            Err(fault) => return fault.into(),
        };
        if path.len() > 1 && path.last() == Some(&b'/') {
            path.pop();
        }
        let entries = match entries(r, &path) {
            Ok(entries) => entries,
            Err(fault) => return fault.into(),
        };
        let text = match format {
            Format::Html => page(&self.0, &r.uri, &entries),
            Format::Styled => styled::page(&self.0, &r.uri, entries),
            Format::Xml => xml(&entries),
            Format::Json | Format::Jsonp => json(callback.as_deref(), &entries),
        };
        let (content_type, charset) = match format {
            Format::Html => ("text/html", None),
            Format::Styled => ("text/html", Some("utf-8")),
            Format::Xml => ("text/xml", Some("utf-8")),
            Format::Json | Format::Jsonp if callback.is_none() => ("application/json", None),
            Format::Json | Format::Jsonp => ("application/javascript", None),
        };
        let response = &mut r.response;
        response.status = 200;
        response.content_type = Some(Bytes::from_static(content_type.as_bytes()));
        response.charset = charset.map(|charset| Bytes::from_static(charset.as_bytes()));
        response.body = Body::Chain(Chain::from(Bytes::from(text)));
        Flow::Respond
    }
}

/// The function's name of a JSONP request, as it was sent; an error for one that isn't a name.
fn callback(r: &Request) -> std::result::Result<Option<Vec<u8>>, Fault> {
    let mut pairs = r.args.split(|&c| c == b'&').filter_map(|pair| pair.split_at_checked(b"callback=".len()));
    let Some((_, name)) = pairs.find(|(name, _)| name.eq_ignore_ascii_case(b"callback=")) else { return Ok(None) };
    if name.iter().all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.')) {
        return Ok((!name.is_empty()).then(|| name.to_vec()));
    }
    let shown = buf::text::encode(name);
    Err(Fault::InvalidRequest.log_with(r, &format_args!("client sent invalid callback name: \"{shown}\"")))
}

/// One name of a folder.
struct Entry {
    name: Vec<u8>,
    kind: EntryKind,
    size: u64,
    modified: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    Directory,
    File,
    Other,
}

impl EntryKind {
    fn name(self) -> &'static str {
        match self {
            EntryKind::Directory => "directory",
            EntryKind::File => "file",
            EntryKind::Other => "other",
        }
    }
}

/// The names of a folder, without hidden ones; folders first.
fn entries(r: &Request, path: &[u8]) -> std::result::Result<Vec<Entry>, Fault> {
    let folder = std::fs::read_dir(OsStr::from_bytes(path)).map_err(|error| {
        let fault = match error.raw_os_error().unwrap_or(0) {
            errno::NOENT | errno::NOTDIR | errno::NAMETOOLONG => Fault::MissingFile,
            errno::ACCES => Fault::ForbiddenFile,
            _ => Fault::FailedFile,
        };
        let path = buf::text::encode(path);
        fault.log_with(r, &format_args!("opendir() \"{path}\" failed{}", Errno(&error)))
    })?;
    let mut entries = Vec::new();
    for item in folder {
        let item = item.map_err(|error| {
            let path = buf::text::encode(path);
            Fault::FailedFile.log_with(r, &format_args!("readdir() \"{path}\" failed{}", Errno(&error)))
        })?;
        let name = item.file_name().into_vec();
        if name.starts_with(b".") {
            continue;
        }
        if let Some(meta) = quick(&item).map_or_else(|| describe(r, &item.path()), |meta| Ok(Some(meta)))? {
            entries.push(entry(name, &meta));
        }
    }
    entries.sort_by(|a, b| {
        let folders_first = (b.kind == EntryKind::Directory).cmp(&(a.kind == EntryKind::Directory));
        folders_first.then_with(|| a.name.cmp(&b.name))
    });
    Ok(entries)
}

/// What is no link is looked at from its folder, which spares the kernel the way to it. `None` for all else.
fn quick(item: &DirEntry) -> Option<Metadata> {
    item.file_type().ok().filter(|kind| !kind.is_symlink()).and_then(|_| item.metadata().ok())
}

/// The target of a link; the link itself, if it has no target.
fn describe(r: &Request, path: &std::path::Path) -> std::result::Result<Option<Metadata>, Fault> {
    let failed = |call: &str, error: &std::io::Error| {
        let path = buf::text::path(path);
        Fault::FailedFile.log_with(r, &format_args!("{call} \"{path}\" failed{}", Errno(error)))
    };
    match std::fs::metadata(path) {
        Ok(meta) => return Ok(Some(meta)),
        Err(error) => match error.raw_os_error().unwrap_or(0) {
            errno::NOENT | errno::LOOP => {}
            errno::ACCES => {
                failed("stat()", &error);
                return Ok(None);
            }
            _ => return Err(failed("stat()", &error)),
        },
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        // Removed since it was read.
        Err(error) if error.raw_os_error() == Some(errno::NOENT) => Ok(None),
        Err(error) => Err(failed("lstat()", &error)),
    }
}

fn entry(name: Vec<u8>, meta: &Metadata) -> Entry {
    let kind = match meta {
        meta if meta.is_dir() => EntryKind::Directory,
        meta if meta.is_file() => EntryKind::File,
        _ => EntryKind::Other,
    };
    Entry { name, kind, size: meta.len(), modified: meta.mtime() }
}

/// How many characters of a name a page shows.
const NAME_LEN: usize = 50;

/// In which zone a page gives times.
fn zone(conf: &AutoindexConf) -> TimeZone {
    if conf.autoindex_localtime { engine::clock::zone() } else { TimeZone::UTC }
}

fn page(conf: &AutoindexConf, uri: &[u8], entries: &[Entry]) -> Vec<u8> {
    let zone = zone(conf);
    let mut out = Vec::with_capacity(256 + entries.len() * 160);
    out.extend_from_slice(b"<html>\r\n<head><title>Index of ");
    escape_html(uri, &mut out);
    out.extend_from_slice(b"</title></head>\r\n<body>\r\n<h1>Index of ");
    escape_html(uri, &mut out);
    out.extend_from_slice(b"</h1><hr><pre><a href=\"../\">../</a>\r\n");
    for entry in entries {
        row(conf, &zone, entry, &mut out);
    }
    out.extend_from_slice(b"</pre><hr></body>\r\n</html>\r\n");
    out
}

fn row(conf: &AutoindexConf, zone: &TimeZone, entry: &Entry, out: &mut Vec<u8>) {
    let folder = entry.kind == EntryKind::Directory;
    out.extend_from_slice(b"<a href=\"");
    escape(Escape::UriComponent, &entry.name, out);
    out.extend_from_slice(if folder { b"/\">" } else { b"\">" });
    let len = length(&entry.name);
    if len > NAME_LEN {
        escape_html(front(&entry.name, NAME_LEN - 3), out);
        out.extend_from_slice(b"..&gt;</a>");
    } else {
        escape_html(&entry.name, out);
        let slash = folder && len < NAME_LEN;
        out.extend_from_slice(if slash { b"/</a>" } else { b"</a>" });
        let shown = len + usize::from(slash);
        out.resize(out.len() + NAME_LEN - shown, b' ');
    }
    out.push(b' ');
    date(entry.modified, zone, out);
    out.push(b' ');
    match (conf.autoindex_exact_size, folder) {
        (true, true) => right(b"-", 19, out),
        (true, false) => right(digits(entry.size, &mut [0; 20]), 19, out),
        (false, true) => right(b"-", 7, out),
        (false, false) => rounded(entry.size, out),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a text at the right edge of a column.
fn right(text: &[u8], width: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + width.saturating_sub(text.len()), b' ');
    out.extend_from_slice(text);
}

/// The characters of a name; the bytes, if it isn't text.
fn length(name: &[u8]) -> usize {
    std::str::from_utf8(name).map_or(name.len(), |text| text.chars().count())
}

fn front(name: &[u8], len: usize) -> &[u8] {
    let end = match std::str::from_utf8(name) {
        Ok(text) => text.char_indices().nth(len).map_or(name.len(), |(at, _)| at),
        Err(_) => len.min(name.len()),
    };
    &name[..end]
}

fn rounded(size: u64, out: &mut Vec<u8>) {
    let (unit, letter) = match size {
        0..=9999 => return right(digits(size, &mut [0; 20]), 7, out),
        10_000..=0xf_ffff => (1 << 10, b'K'),
        0x10_0000..=0x3fff_ffff => (1 << 20, b'M'),
        _ => (1u64 << 30, b'G'),
    };
    let up = u64::from(size % unit >= unit / 2);
    right(digits(size / unit + up, &mut [0; 20]), 6, out);
    out.push(letter);
}

/// Appends a date and the time in a zone.
fn date(seconds: i64, zone: &TimeZone, out: &mut Vec<u8>) {
    /// The last second of the year 9999.
    const LAST: i64 = 253_402_300_799;
    let local = if *zone == TimeZone::UTC { seconds } else { seconds.saturating_add(offset(seconds, zone).into()) };
    if !(0..=LAST).contains(&local) {
        return time(seconds, zone, b"%d-%b-%Y %H:%M", out);
    }
    // `Thu, 01 Jan 1970 00:00:00 GMT` has all of it.
    let text = wire::date::format_http_time(local);
    for part in [&text[5..7], b"-", &text[8..11], b"-", &text[12..22]] {
        out.extend_from_slice(part);
    }
}

/// How many seconds a zone is ahead of UTC at a time.
fn offset(seconds: i64, zone: &TimeZone) -> i32 {
    Timestamp::from_second(seconds).map_or(0, |time| zone.to_offset(time).seconds())
}

/// Appends a time in a zone.
fn time(seconds: i64, zone: &TimeZone, format: &[u8], out: &mut Vec<u8>) {
    let offset_s = if *zone == TimeZone::UTC { 0 } else { offset(seconds, zone) };
    strftime::format(format, Time { seconds, offset_s, zone: "" }, out);
}

fn json(callback: Option<&[u8]>, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + entries.len() * 128);
    if let Some(callback) = callback {
        out.extend_from_slice(b"/* callback */\r\n");
        out.extend_from_slice(callback);
        out.push(b'(');
    }
    out.push(b'[');
    for (i, entry) in entries.iter().enumerate() {
        out.extend_from_slice(if i > 0 { b",\r\n{ \"name\":\"" } else { b"\r\n{ \"name\":\"" });
        escape_json(&entry.name, &mut out);
        let date = wire::date::format_http_time(entry.modified);
        let (kind, date) = (entry.kind.name(), String::from_utf8_lossy(&date));
        let mut rest = format!("\", \"type\":\"{kind}\", \"mtime\":\"{date}\"");
        if entry.kind == EntryKind::File {
            // Writing into a String can't fail.
            let _ = write!(rest, ", \"size\":{}", entry.size);
        }
        out.extend_from_slice(rest.as_bytes());
        out.extend_from_slice(b" }");
    }
    out.extend_from_slice(b"\r\n]");
    if callback.is_some() {
        out.extend_from_slice(b");");
    }
    out
}

fn escape_json(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04X}").as_bytes()),
            _ => out.push(byte),
        }
    }
}

fn xml(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + entries.len() * 128);
    out.extend_from_slice(b"<?xml version=\"1.0\"?>\r\n<list>\r\n");
    for entry in entries {
        let kind = entry.kind.name();
        for part in ["<", kind, " mtime=\""] {
            out.extend_from_slice(part.as_bytes());
        }
        time(entry.modified, &TimeZone::UTC, b"%Y-%m-%dT%H:%M:%SZ", &mut out);
        out.push(b'"');
        if entry.kind == EntryKind::File {
            out.extend_from_slice(b" size=\"");
            out.extend_from_slice(digits(entry.size, &mut [0; 20]));
            out.push(b'"');
        }
        out.push(b'>');
        escape_html(&entry.name, &mut out);
        for part in ["</", kind, ">\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"</list>\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (size, expect) in [
            (0, "      0"),
            (9999, "   9999"),
            (10_000, "    10K"),
            (10_751, "    10K"),
            (10_752, "    11K"),
            ((1 << 20) - 1, "  1024K"),
            (5_000_001, "     5M"),
            (3 << 29, "     2G"),
        ] {
            let mut out = Vec::new();
            rounded(size, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expect);
        }
    }

    #[test]
    fn dates() {
        let zone = TimeZone::fixed(jiff::tz::offset(-1));
        for (seconds, utc, local) in [
            (0, "01-Jan-1970 00:00", "31-Dec-1969 23:00"),
            (951_826_799, "29-Feb-2000 12:19", "29-Feb-2000 11:19"),
            (-1, "31-Dec-1969 23:59", "31-Dec-1969 22:59"),
            (253_402_300_800, "01-Jan-10000 00:00", "01-Jan-10000 00:00"),
        ] {
            for (zone, expect) in [(&TimeZone::UTC, utc), (&zone, local)] {
                let (mut out, mut slow) = (Vec::new(), Vec::new());
                date(seconds, zone, &mut out);
                time(seconds, zone, b"%d-%b-%Y %H:%M", &mut slow);
                assert_eq!((String::from_utf8_lossy(&out), out == slow), (expect.into(), true), "{seconds}");
            }
        }
    }

    #[test]
    fn rows() {
        let conf = |exact| AutoindexConf {
            autoindex: true,
            autoindex_format: Format::Html,
            autoindex_localtime: false,
            autoindex_exact_size: exact,
        };
        let check = |exact, name: &[u8], kind, expect: &str| {
            let entry = Entry { name: name.to_vec(), kind, size: 3, modified: 0 };
            let mut out = Vec::new();
            row(&conf(exact), &TimeZone::UTC, &entry, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expect);
        };
        let space = " ".repeat(44);
        check(
            true,
            b"dir x",
            EntryKind::Directory,
            &format!("<a href=\"dir%20x/\">dir x/</a>{space} 01-Jan-1970 00:00                   -\r\n"),
        );
        let long = [b'<'; 51];
        let (escaped, shown) = ("%3C".repeat(51), "&lt;".repeat(47));
        check(
            false,
            &long,
            EntryKind::File,
            &format!("<a href=\"{escaped}\">{shown}..&gt;</a> 01-Jan-1970 00:00       3\r\n"),
        );
    }

    #[test]
    fn data() {
        let entry = Entry { name: b"a\"\n<".to_vec(), kind: EntryKind::File, size: 3, modified: 0 };
        let entries = [entry];
        let object =
            "{ \"name\":\"a\\\"\\n<\", \"type\":\"file\", \"mtime\":\"Thu, 01 Jan 1970 00:00:00 GMT\", \"size\":3 }";
        assert_eq!(String::from_utf8_lossy(&json(None, &entries)), format!("[\r\n{object}\r\n]"));
        let call = format!("/* callback */\r\nf([\r\n{object}\r\n]);");
        assert_eq!(String::from_utf8_lossy(&json(Some(b"f"), &entries)), call);
        let text = "<?xml version=\"1.0\"?>\r\n<list>\r\n<file mtime=\"1970-01-01T00:00:00Z\" size=\"3\">a&quot;\n&lt;</file>\r\n</list>\r\n";
        assert_eq!(String::from_utf8_lossy(&xml(&entries)), text);
    }
}
