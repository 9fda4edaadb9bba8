//! `random_index`: a request for a folder becomes one for any of its files.

use std::ffi::OsStr;
use std::fs::{DirEntry, FileType, metadata, read_dir};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;

use conf::values::flag;
use conf::{Args, Context, Registry, Result};
use engine::log::Errno;
use http::fault::Fault;
use http::files::open_file::OpenError;
use http::module::{HttpModule, LocationContext};
use http::phases::{Flow, PromptHandler};
use http::request::Request;
use http::server::location::Handlers;
use wire::h1::Method;

/// The module.
pub struct RandomIndex;

conf::table! {
    /// Whether any file stands for its folder.
    pub struct RandomIndexConf, raw RandomIndexRaw, module "ngx_http_random_index_module", level HTTP Location;

    /// Responds to requests for a folder with any of its files.
    ///
    /// Effect: holds for requests whose URI ends with a slash, before `index` is looked at. The file is chosen anew for each
    /// request, and leads to an internal redirect to its URI. Names that begin with a dot and folders aren't chosen; without
    /// any other file `index` responds.
    ///
    /// Cost: the folder is read for each request, which for thousands of files stops the worker for some time.
    ///
    /// ```nginx
    /// location /pictures/ {
    ///     random_index on;
    /// }
    /// ```
    "random_index" in Context::LOCATION, Args::FLAG, default "off",
        scalar(flag) random_index: bool = false;
}

impl HttpModule for RandomIndex {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<RandomIndexConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if !out.exclusive && cx.set.get::<RandomIndexConf>().random_index {
            out.content.push(Rc::new(RandomIndex));
        }
        Ok(())
    }
}

impl PromptHandler for RandomIndex {
    fn answer(&self, r: &mut Request) -> Flow<'static> {
        if r.uri.last() != Some(&b'/') || !matches!(r.method, Method::Get | Method::Head | Method::Post) {
            return Flow::Next;
        }
        match choose(r) {
            Ok(None) => Flow::Next,
            Ok(Some(name)) => {
                let uri = [&r.uri[..], &name].concat();
                let args = r.taken_args();
                r.redirect(&uri, args.as_deref())
            }
            Err(fault) => fault.into(),
        }
    }
}

/// The name of any file in the request's folder; `None` if it has none.
fn choose(r: &mut Request) -> std::result::Result<Option<Vec<u8>>, Fault> {
    let path = r.path_of_uri()?;
    let failed = |call, error| {
        let error = OpenError { call, error };
        let path = buf::text::encode(path.strip_suffix(b"/").unwrap_or(&path));
        error.fault().log_with(r, &format_args!("{call} \"{path}\" failed{}", Errno(&error.error)))
    };
    let folder = read_dir(OsStr::from_bytes(&path)).map_err(|error| failed("opendir()", error))?;
    let mut names = Vec::new();
    for entry in folder {
        let entry = entry.map_err(|error| failed("readdir()", error))?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !entry.file_name().as_bytes().starts_with(b".") && !is_folder {
            names.push(entry);
        }
    }
    // Only what is chosen is looked at.
    while !names.is_empty() {
        let number = u128::from_ne_bytes(rt::random_bytes()) % names.len() as u128;
        let entry = names.swap_remove(number as usize);
        if is_file(&entry) {
            return Ok(Some(entry.file_name().into_vec()));
        }
    }
    Ok(None)
}

/// Whether it is a file, or a link to one.
fn is_file(entry: &DirEntry) -> bool {
    let kind = entry.file_type().ok().filter(|kind| !kind.is_symlink());
    kind.or_else(|| metadata(entry.path()).ok().map(|meta| meta.file_type()))
        .is_some_and(|kind| FileType::is_file(&kind))
}
