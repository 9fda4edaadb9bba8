//! `dav`: files that clients write: PUT, DELETE, MKCOL, COPY and MOVE of WebDAV (RFC 4918).
//!
//! What is written appears whole: it is made beside its place, and renamed. What differs from nginx: what may take long,
//! such as copying a folder, is done in a thread; links in a folder that is copied stay links; a folder that is missing is
//! status 409; `disable_symlinks` holds here too; OPTIONS and PROPFIND are there (`ext.rs`).

mod ext;
mod headers;
mod tree;

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use buf::{Bytes, Chain};
use conf::values::{bitmask, flag, number};
use conf::{Args, Directive, Loader, Registry, Result};
use engine::log::Errno;
use engine::worker::sandbox::Needs;
use http::body::temp::{Lasting, TempFile};
use http::body::{Body, Buffered};
use http::config::core::{Alias, CoreLocation, EVERYWHERE, Symlinks, permissions};
use http::fault::Fault;
use http::files::open_file::{Files, errno};
use http::module::{HttpModule, LocationContext};
use http::phases::{Flow, Handler, Reply};
use http::request::Request;
use http::server::location::Handlers;
use wire::h1::{KnownHeader, Method};

use self::ext::{DavExtConf, Question};
use self::headers::{BadDestination, Depth};
use self::tree::Failed;

/// The module.
pub struct Dav;

const PUT: u32 = 2;
const DELETE: u32 = 4;
const MKCOL: u32 = 8;
const COPY: u32 = 16;
const MOVE: u32 = 32;
const METHODS: &[(&str, u32)] =
    &[("off", 1), ("put", PUT), ("delete", DELETE), ("mkcol", MKCOL), ("copy", COPY), ("move", MOVE)];

conf::table! {
    /// What clients may write.
    pub struct DavConf, raw DavRaw, module "ngx_http_dav_module", level HTTP Location;

    /// Allows methods by which clients write files.
    ///
    /// Form: `dav_methods off | method ...`
    ///
    /// - `off`: none of them.
    /// - `method`: `PUT`, `DELETE`, `MKCOL`, `COPY` or `MOVE`.
    ///
    /// Effect: PUT writes its body to the file that `root` or `alias` and the URI name. The body is gathered in
    /// `client_body_temp_path` and renamed when it is whole; a field `Date` sets the file's time. URIs that end with a slash
    /// mean folders. Other methods of WebDAV, which some clients need, aren't served.
    ///
    /// Cost: if the temporary folder is on another file system than the files, each body is copied.
    ///
    /// Danger: whoever may send these methods changes and removes files: demand a password, or allow your own addresses
    /// only. The workers' user must be able to write to the folder.
    ///
    /// ```nginx
    /// location /files/ {
    ///     dav_methods PUT DELETE MKCOL COPY MOVE;
    ///     limit_except GET {
    ///         allow 192.168.1.0/24;
    ///         deny all;
    ///     }
    /// }
    /// ```
    "dav_methods" in EVERYWHERE, Args::at_least(1), default "off",
        set(|raw: &mut DavRaw, l: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.methods, METHODS, l, d))
        methods: u32 = 1;
    /// Makes the folders that are missing on the way to a file that PUT writes.
    ///
    /// Effect: they get the permissions of `dav_access`. With `off` the status is 409, as WebDAV wants it.
    ///
    /// ```nginx
    /// location /files/ {
    ///     dav_methods PUT;
    ///     create_full_put_path on;
    /// }
    /// ```
    "create_full_put_path" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) full_path: bool = false;
    /// Sets how many elements the path of a request must have at least for DELETE.
    ///
    /// Form: `min_delete_depth number`
    ///
    /// - `number`: `/users/00/00/name` has four elements, `/users/00/00/` three.
    ///
    /// Effect: other requests get status 409, so that folders near the root stay.
    ///
    /// ```nginx
    /// location /users/ {
    ///     dav_methods PUT DELETE;
    ///     min_delete_depth 4;
    /// }
    /// ```
    "min_delete_depth" in EVERYWHERE, Args::exactly(1), default "0",
        scalar(number) min_delete_depth: usize = 0;
    /// Sets the permissions of files and folders that PUT and MKCOL make.
    ///
    /// Form: `dav_access who:rights ...`
    ///
    /// - `who`: `user`, `group` or `all`.
    /// - `rights`: `rw` or `r`. Whoever may read a folder may also search it.
    ///
    /// Effect: without `user` the owner may read and write.
    ///
    /// ```nginx
    /// location /files/ {
    ///     dav_methods PUT MKCOL;
    ///     dav_access group:rw all:r;
    /// }
    /// ```
    "dav_access" in EVERYWHERE, Args::between(1, 3), default "user:rw",
        scalar(permissions) access: u32 = 0o600;
}

impl HttpModule for Dav {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<DavConf>();
        registry.add::<DavExtConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let (conf, ext) = (cx.set.share::<DavConf>(), cx.set.get::<DavExtConf>().methods);
        if (conf.methods | ext) & !1 == 0 || out.exclusive {
            return Ok(());
        }
        let core = cx.set.get::<CoreLocation>();
        if let Some(text) = core.root.as_ref().and_then(|root| root.path.is_const())
            && conf.methods & !1 != 0
        {
            cx.loader.store.entry::<Needs>().change(OsStr::from_bytes(text));
        }
        out.content.push(Rc::new(Writer { conf, ext, files: Files::uncached(cx.set) }));
        Ok(())
    }
}

struct Writer {
    conf: Rc<DavConf>,
    /// The methods of `dav_ext_methods`.
    ext: u32,
    /// How links are checked.
    files: Files,
}

impl Handler for Writer {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        let bit = match r.method {
            Method::Put => PUT,
            Method::Delete => DELETE,
            Method::Mkcol => MKCOL,
            Method::Copy => COPY,
            Method::Move => MOVE,
            Method::Propfind if self.ext & ext::PROPFIND != 0 => return Flow::wait(self.propfind(r)),
            Method::Options if self.ext & ext::OPTIONS != 0 => return self.options(r),
            _ => return Flow::Next,
        };
        if self.conf.methods & bit == 0 {
            return Flow::Next;
        }
        Flow::wait(async move {
            let done = match bit {
                PUT => self.put(r).await,
                DELETE => self.delete(r).await,
                MKCOL => self.mkcol(r),
                _ => self.transfer(r, bit == COPY).await,
            };
            match done {
                Ok(Reply(status)) | Err(Reply(status)) => Flow::Status(status),
            }
        })
    }
}

/// Made, changed, or refused: the status of a response without a body.
type Answer = std::result::Result<Reply, Reply>;
type Checked<T = ()> = std::result::Result<T, Reply>;

const CREATED: Reply = Reply(201);
const NO_CONTENT: Reply = Reply(204);
const CONFLICT: u16 = 409;

/// Logs why a request is refused.
fn refuse(r: &Request, status: u16, why: std::fmt::Arguments<'_>) -> Reply {
    r.log_error(why);
    Reply(status)
}

/// Logs the error of a call, and says what status it is; that of something missing depends on the method.
fn refuse_error(r: &Request, missing: u16, what: &str, error: &io::Error) -> Reply {
    let code = error.raw_os_error().unwrap_or(0);
    let status = match code {
        errno::NOENT | errno::NAMETOOLONG => missing,
        errno::NOTDIR => CONFLICT,
        errno::EXIST => 405,
        errno::ACCES | errno::PERM | errno::LOOP => 403,
        errno::NOSPC => 507,
        _ => 500,
    };
    let why = format_args!("{what} failed{}", Errno(error));
    match status {
        500 | 507 => r.log_at(engine::log::Level::Crit, why),
        _ => r.log_error(why),
    }
    Reply(status)
}

/// A path of the file system, and whether its URI means a folder.
struct Place {
    path: PathBuf,
    folder: bool,
}

impl Place {
    /// What is there; links aren't followed.
    fn look(&self, r: &Request) -> Checked<Option<Metadata>> {
        let what = || format!("lstat() \"{}\"", buf::text::path(&self.path));
        match fs::symlink_metadata(&self.path) {
            // As if the slash at the end had been looked for.
            Ok(meta) if self.folder && !meta.is_dir() && !meta.is_symlink() => {
                Err(refuse_error(r, 404, &what(), &io::Error::from_raw_os_error(errno::NOTDIR)))
            }
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.raw_os_error() == Some(errno::NOENT) => Ok(None),
            Err(error) => Err(refuse_error(r, 404, &what(), &error)),
        }
    }

    /// The same of what must be there.
    fn expect(&self, r: &Request) -> Checked<Metadata> {
        let what = || format!("lstat() \"{}\"", buf::text::path(&self.path));
        self.look(r)?.ok_or_else(|| refuse_error(r, 404, &what(), &io::Error::from_raw_os_error(errno::NOENT)))
    }
}

impl Writer {
    /// The place of the request's URI. What is above it must have no links, if the location says so.
    fn place(&self, r: &mut Request) -> Checked<Place> {
        let folder = r.uri.last() == Some(&b'/');
        let mut path = r.path_of_uri()?;
        while path.len() > 1 && path.last() == Some(&b'/') {
            path.pop();
        }
        if path.is_empty() {
            return Err(Reply(404));
        }
        let path = PathBuf::from(OsStr::from_bytes(&path));
        if r.location.core.disable_symlinks.mode != Symlinks::Allowed
            && let Some(above) = path.parent()
            && let Err(error) = self.files.info(r, above.as_os_str().as_bytes())
            && error.code() != errno::NOENT
        {
            let what = format!("{} \"{}\"", error.call, buf::text::path(above));
            return Err(match error.code() {
                // A link in the place of a folder, where none may be.
                errno::NOTDIR => refuse(r, 403, format_args!("{what} failed{}", Errno(&error.error))),
                _ => refuse_error(r, 404, &what, &error.error),
            });
        }
        Ok(Place { path, folder })
    }

    /// The place of `Destination`, with its URI.
    fn destination(&self, r: &mut Request) -> Checked<(Place, Vec<u8>)> {
        let Some(value) = r.header(KnownHeader::Destination).filter(|value| !value.is_empty()) else {
            return Err(refuse(r, 400, format_args!("client sent no \"Destination\" header")));
        };
        let shown = buf::text::encode(value).into_owned();
        let foreign = |r: &Request| {
            let why = "is handled by different repository than the source URI";
            refuse(r, 400, format_args!("\"Destination\" URI \"{shown}\" {why}"))
        };
        let merge = r.server.core.merge_slashes;
        let uri = match headers::destination(value, r.scheme(), &r.host, merge) {
            Ok(uri) => uri,
            Err(BadDestination::Foreign) => return Err(foreign(r)),
            Err(BadDestination::Invalid) => {
                return Err(refuse(r, 400, format_args!("client sent invalid \"Destination\" header: \"{shown}\"")));
            }
        };
        // It is in the folder of this location, whatever location its URI would find.
        let own = match r.location.core.root.as_ref().and_then(|root| root.alias) {
            None => true,
            Some(Alias::Prefix(length)) => uri.get(..length) == r.uri.get(..length),
            Some(Alias::All) => false,
        };
        if !own {
            return Err(foreign(r));
        }
        let source = std::mem::replace(&mut r.uri, uri);
        let place = self.place(r);
        let uri = std::mem::replace(&mut r.uri, source);
        Ok((place?, uri))
    }

    async fn put(&self, r: &mut Request) -> Answer {
        if r.uri.last() == Some(&b'/') {
            return Err(refuse(r, CONFLICT, format_args!("cannot PUT to a collection")));
        }
        if r.line.has(KnownHeader::ContentRange) {
            return Err(refuse(r, 501, format_args!("PUT with range is unsupported")));
        }
        r.read_body().await?;
        let place = self.place(r)?;
        let shown = buf::text::path(&place.path).to_string();
        let known = fs::metadata(&place.path).ok();
        if known.as_ref().is_some_and(Metadata::is_dir) {
            let error = io::Error::from_raw_os_error(errno::ISDIR);
            return Err(refuse(r, CONFLICT, format_args!("\"{shown}\" could not be created{}", Errno(&error))));
        }
        if !self.conf.full_path && place.path.parent().is_some_and(|folder| !folder.is_dir()) {
            let error = io::Error::from_raw_os_error(errno::NOENT);
            return Err(refuse(r, CONFLICT, format_args!("\"{shown}\" could not be created{}", Errno(&error))));
        }
        let modified = r.header(KnownHeader::Date).and_then(wire::date::parse_http_time);
        let file = in_file(r).await?;
        let lasting = Lasting { mode: self.conf.access, modified };
        let kept = file.persist_in_thread(&r.http.worker, &place.path, lasting).await;
        kept.map_err(|error| refuse_error(r, CONFLICT, &error.what(), error.cause()))?;
        if known.is_some() { Ok(NO_CONTENT) } else { Ok(created(r)) }
    }

    async fn delete(&self, r: &mut Request) -> Answer {
        without_body(r, "DELETE with body is unsupported")?;
        let elements = headers::elements(&r.uri);
        if elements < self.conf.min_delete_depth {
            return Err(refuse(r, CONFLICT, format_args!("insufficient URI depth:{elements} to DELETE")));
        }
        let place = self.place(r)?;
        let meta = place.expect(r)?;
        if meta.is_dir() && !place.folder {
            let (path, error) = (buf::text::path(&place.path), io::Error::from_raw_os_error(errno::ISDIR));
            return Err(refuse(r, CONFLICT, format_args!("DELETE \"{path}\" failed{}", Errno(&error))));
        }
        check_depth(r, meta.is_dir())?;
        elsewhere(r, 404, move || tree::remove(&place.path, meta.is_dir())).await?;
        Ok(NO_CONTENT)
    }

    fn mkcol(&self, r: &mut Request) -> Answer {
        without_body(r, "MKCOL with body is unsupported")?;
        let place = self.place(r)?;
        if !place.folder {
            return Err(refuse(r, CONFLICT, format_args!("MKCOL can create a collection only")));
        }
        // Whoever may read it may search it.
        let mode = self.conf.access | self.conf.access >> 2 & 0o111;
        match DirBuilder::new().mode(mode).create(&place.path) {
            Ok(()) => Ok(created(r)),
            Err(error) => {
                let what = format!("mkdir() \"{}\"", buf::text::path(&place.path));
                Err(refuse_error(r, CONFLICT, &what, &error))
            }
        }
    }

    async fn propfind(&self, r: &mut Request) -> Flow<'static> {
        match self.find_properties(r).await {
            Ok(text) => {
                let response = &mut r.response;
                response.status = 207;
                response.status_line = Some(Bytes::from_static(b"207 Multi-Status"));
                response.content_type = Some(Bytes::from_static(b"text/xml"));
                response.charset = Some(Bytes::from_static(b"utf-8"));
                response.content_length = Some(text.len() as u64);
                response.body = Body::Chain(Chain::from(Bytes::from(text)));
                Flow::Respond
            }
            Err(Reply(status)) => Flow::Status(status),
        }
    }

    async fn find_properties(&self, r: &mut Request) -> Checked<Vec<u8>> {
        let members = match headers::depth(r.header(KnownHeader::Depth)) {
            Some(Depth::Zero) => false,
            Some(Depth::One) => true,
            _ => return Err(refuse(r, 403, format_args!("\"Depth\" header must be 0 or 1"))),
        };
        // It names properties, and all are given.
        r.read_body().await?;
        let place = self.place(r)?;
        let follow = r.location.core.disable_symlinks.mode == Symlinks::Allowed;
        let question = Question { uri: r.uri.clone(), members, follow };
        elsewhere(r, 404, move || ext::properties(&place.path, &question)).await
    }

    /// The methods of the location.
    fn options(&self, r: &mut Request) -> Flow<'static> {
        let mut methods = "GET, HEAD, OPTIONS".to_owned();
        if self.ext & ext::PROPFIND != 0 {
            methods.push_str(", PROPFIND");
        }
        for (name, _) in METHODS.iter().filter(|(_, bit)| bit & !1 & self.conf.methods != 0) {
            methods.push_str(", ");
            methods.push_str(&name.to_ascii_uppercase());
        }
        r.response.headers.push(Bytes::from_static(b"Allow"), methods.into_bytes());
        r.response.headers.push(Bytes::from_static(b"DAV"), Bytes::from_static(b"1"));
        Flow::Status(200)
    }

    /// COPY and MOVE.
    async fn transfer(&self, r: &mut Request, copies: bool) -> Answer {
        without_body(r, "COPY and MOVE with body are unsupported")?;
        let (to, uri) = self.destination(r)?;
        let overwrite = r.header(KnownHeader::Overwrite);
        let Some(overwrites) = headers::overwrite(overwrite) else {
            let shown = buf::text::encode(overwrite.unwrap_or_default()).into_owned();
            return Err(refuse(r, 400, format_args!("client sent invalid \"Overwrite\" header: \"{shown}\"")));
        };
        check_depth(r, !copies)?;
        let (source, target) = (buf::text::encode(&r.uri).into_owned(), buf::text::encode(&uri).into_owned());
        let from = self.place(r)?;
        if from.path == to.path {
            let why = "point to the same location";
            return Err(refuse(
                r,
                403,
                format_args!("both URI \"{source}\" and \"Destination\" URI \"{target}\" {why}"),
            ));
        }
        if from.folder != to.folder {
            let why = "should be either collections or non-collections";
            let both = format_args!("both URI \"{source}\" and \"Destination\" URI \"{target}\" {why}");
            return Err(refuse(r, CONFLICT, both));
        }
        let method = if copies { "COPY" } else { "MOVE" };
        let collision = format!("\"{source}\" could not be {method}ed to collection \"{target}\"");
        if to.path.starts_with(&from.path) || from.path.starts_with(&to.path) {
            return Err(refuse(r, 403, format_args!("{collision}")));
        }
        let meta = from.expect(r)?;
        if meta.is_dir() && !from.folder {
            return Err(refuse(r, 400, format_args!("\"{source}\" is collection")));
        }
        let known = fs::symlink_metadata(&to.path).ok();
        if known.as_ref().is_some_and(|known| known.is_dir() && !to.folder) {
            return Err(refuse(r, CONFLICT, format_args!("{collision}")));
        }
        if known.is_some() && !overwrites {
            let (path, error) = (buf::text::path(&to.path), io::Error::from_raw_os_error(errno::EXIST));
            return Err(refuse(r, 412, format_args!("\"{path}\" could not be created{}", Errno(&error))));
        }
        let answer = if meta.is_dir() { CREATED } else { NO_CONTENT };
        elsewhere(r, CONFLICT, move || replace(&from.path, &to.path, &meta, known.as_ref(), copies)).await?;
        Ok(answer)
    }
}

/// Copies or moves. A file replaces another one in one step.
fn replace(from: &Path, to: &Path, meta: &Metadata, known: Option<&Metadata>, copies: bool) -> tree::Done {
    match known.filter(|_| meta.is_dir()) {
        Some(known) => tree::replace_by_folder(from, to, meta, known, copies),
        None if copies => tree::copy(from, to, meta),
        None => tree::rename(from, to, meta),
    }
}

/// Does work that may take long in a thread.
async fn elsewhere<T: Send + 'static>(
    r: &Request,
    missing: u16,
    work: impl FnOnce() -> std::result::Result<T, Failed> + Send + 'static,
) -> Checked<T> {
    let done = r.http.worker.in_thread(work).await.map_err(|full| Fault::FailedFile.log_with(r, &full))?;
    done.map_err(|failed| refuse_error(r, missing, &failed.what, &failed.error))
}

fn without_body(r: &Request, why: &str) -> Checked {
    if r.body.exists() { Err(refuse(r, 415, format_args!("{why}"))) } else { Ok(()) }
}

/// Checks `Depth`: what is moved, and a folder that is removed, is so with all that is in it.
fn check_depth(r: &Request, whole: bool) -> Checked {
    let value = r.header(KnownHeader::Depth);
    match headers::depth(value) {
        Some(Depth::Infinity) => Ok(()),
        Some(Depth::Zero) if !whole => Ok(()),
        Some(_) if whole => Err(refuse(r, 400, format_args!("\"Depth\" header must be infinity"))),
        Some(_) => Err(refuse(r, 400, format_args!("\"Depth\" header must be 0 or infinity"))),
        None => {
            let shown = buf::text::encode(value.unwrap_or_default());
            Err(refuse(r, 400, format_args!("client sent invalid \"Depth\" header: \"{shown}\"")))
        }
    }
}

/// Something new has the request's URI.
fn created(r: &mut Request) -> Reply {
    let mut target = Vec::with_capacity(r.uri.len());
    wire::uri::escape(wire::uri::Escape::Uri, &r.uri, &mut target);
    r.response.headers.set_fixed(KnownHeader::Location, target);
    CREATED
}

/// The request's body as a file of its own.
async fn in_file(r: &mut Request) -> Checked<TempFile> {
    let Buffered { pieces, file, .. } = r.body.take_buffered().unwrap_or_default();
    let shared = match file.map(Rc::try_unwrap) {
        Some(Ok(file)) => return Ok(file),
        Some(Err(shared)) => Some(shared),
        None => None,
    };
    let place = r.location.core.client_body_temp_path.clone();
    let failed = |r: &Request, error: &dyn std::fmt::Display| Reply::from(Fault::FailedFile.log_with(r, error));
    let made = TempFile::create(&place, false, &r.http.worker.temp_numbers).map_err(|error| failed(r, &error))?;
    made.append_all(&pieces).map_err(|error| failed(r, &error))?;
    // Somebody else has the body too, a subrequest that goes on without its parent, say.
    if let Some(shared) = shared {
        let what = format!("copying \"{}\"", buf::text::path(shared.path()));
        let ready = File::open(shared.path()).and_then(|source| Ok((source, made.file().try_clone()?)));
        let copied = match ready {
            Ok((mut source, mut copy)) => {
                let copied = r.http.worker.in_thread(move || io::copy(&mut source, &mut copy)).await;
                copied.map_err(|full| failed(r, &full))?
            }
            Err(error) => Err(error),
        };
        copied.map_err(|error| failed(r, &format_args!("{what} failed{}", Errno(&error))))?;
    }
    Ok(made)
}
