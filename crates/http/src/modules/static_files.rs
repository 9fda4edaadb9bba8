//! Static files: the last content handler of every location.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::rc::Rc;

use buf::{Bytes, Chain, FileRange, Piece};
use conf::Result;
use engine::log::{Errno, Level};
use wire::h1::Method;

use super::{HttpModule, LocationContext, shared};
use crate::core::location::Handlers;
use crate::core::phase::{Flow, Handler};
use crate::core::request::Request;
use crate::core::response::Body;

/// The module.
pub struct StaticFiles;

impl HttpModule for StaticFiles {
    fn location(&self, _: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if !out.exclusive {
            out.content.push(shared(StaticFiles));
        }
        Ok(())
    }
}

impl Handler for StaticFiles {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        if r.uri.last() == Some(&b'/') {
            return Flow::Next;
        }
        if !matches!(r.method, Method::Get | Method::Head | Method::Post) {
            return Flow::Status(405);
        }
        let Some(path) = r.path_of_uri() else { return Flow::Status(500) };
        match open(&path) {
            Ok(found) => respond(r, found),
            Err(error) => refuse(r, &path, &error),
        }
    }
}

/// A file that was found.
pub struct Found {
    /// Open for reading.
    pub file: Rc<File>,
    /// Its size.
    pub size: u64,
    /// When it was changed, in seconds since 1970.
    pub modified: i64,
    /// Whether it is a folder, or something that is no file.
    pub kind: FoundKind,
}

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FoundKind {
    /// A file.
    File,
    /// A folder.
    Directory,
    /// Something else.
    Other,
}

fn open(path: &[u8]) -> io::Result<Found> {
    let file = File::options().read(true).custom_flags(2048 /* O_NONBLOCK */).open(OsStr::from_bytes(path))?;
    let meta = file.metadata()?;
    let kind = if meta.is_dir() {
        FoundKind::Directory
    } else if meta.is_file() {
        FoundKind::File
    } else {
        FoundKind::Other
    };
    Ok(Found { file: Rc::new(file), size: meta.len(), modified: meta.mtime(), kind })
}

fn refuse(r: &mut Request, path: &[u8], error: &io::Error) -> Flow<'static> {
    let (status, level) = match error.raw_os_error() {
        // ENOENT, ENOTDIR, ENAMETOOLONG
        Some(2 | 20 | 36) => (404, Level::Error),
        // EACCES, ELOOP
        Some(13 | 40) => (403, Level::Error),
        _ => (500, Level::Crit),
    };
    if status != 404 || r.location.core.log_not_found {
        let path = String::from_utf8_lossy(path);
        r.log_at(level, format_args!("open() \"{path}\" failed{}", Errno(error)));
    }
    Flow::Status(status)
}

/// Makes a found file the response.
pub fn respond(r: &mut Request, found: Found) -> Flow<'static> {
    match found.kind {
        FoundKind::Directory => return add_slash(r),
        FoundKind::Other => return Flow::Status(404),
        FoundKind::File => {}
    }
    if r.method == Method::Post && r.error_status == 0 {
        return Flow::Status(405);
    }
    let core = r.location.core.clone();
    let content_type = core.types.of(&r.uri).unwrap_or_else(|| core.default_type.clone());
    let response = &mut r.response;
    response.status = 200;
    response.content_type = (!content_type.is_empty()).then_some(content_type);
    response.content_length = Some(found.size);
    response.last_modified = Some(found.modified);
    response.etag = core.etag.then(|| etag(found.modified, found.size));
    response.allow_ranges = true;
    let mut chain = Chain::new();
    chain.push(Piece::File(FileRange { file: found.file, offset: 0, len: found.size }));
    response.body = Body::Chain(chain);
    Flow::Respond
}

/// The tag of a file: its time and size.
pub fn etag(modified: i64, size: u64) -> Bytes {
    Bytes::from(format!("\"{modified:x}-{size:x}\"").into_bytes())
}

/// A folder's name without its slash: the client is sent to the name with it.
fn add_slash(r: &mut Request) -> Flow<'static> {
    let mut target = Vec::with_capacity(r.uri.len() + 1);
    wire::uri::escape(wire::uri::Escape::Uri, &r.uri, &mut target);
    target.push(b'/');
    if !r.args.is_empty() {
        target.push(b'?');
        target.extend_from_slice(&r.args);
    }
    r.response.location = Some(Bytes::from(target));
    Flow::Status(301)
}
