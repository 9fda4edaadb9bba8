//! `…_store`: files made of backends' responses.
//!
//! A response of status 200 to anything but HEAD is written to a temporary file and moved to its place when it is whole:
//! nobody sees a part of it, and one that breaks off leaves nothing. Clients that leave don't end it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use conf::{Directive, Error, Loader, Result};
use engine::log::Level;
use engine::worker::sandbox::Needs;
use expr::vars::Template;
use http::body::temp::{Lasting, TempFile};
use http::exchange::Exchange;
use http::module::LocationContext;
use http::request::Request;
use http::request::variables::template_of;
use http::response::Body;

use crate::conf::UpstreamConf;
use crate::engine::Backend;
use crate::shared::{self, Keeper, Purpose, RequestLog, WriteError};

/// `…_store`
#[derive(Clone, Debug, Default)]
pub enum Store {
    /// Nothing is stored.
    #[default]
    Off,
    /// Files stand where `root` and `alias` say.
    On,
    /// A path; a relative one counts from the prefix.
    To(Rc<Template>, Rc<Path>),
}

impl PartialEq for Store {
    fn eq(&self, other: &Store) -> bool {
        match (self, other) {
            (Store::Off, Store::Off) | (Store::On, Store::On) => true,
            (Store::To(path, _), Store::To(other, _)) => Rc::ptr_eq(path, other),
            _ => false,
        }
    }
}

/// Reads `…_store`.
pub fn store(loader: &mut Loader<'_>, d: &Directive) -> Result<Store> {
    let word = d.arg(0);
    match &word.text[..] {
        b"" => Err(Error::at(word, "empty path")),
        b"off" => Ok(Store::Off),
        b"on" => Ok(Store::On),
        text => {
            let prefix = loader.env.prefix.clone();
            if !text.starts_with(b"$") {
                loader.store.entry::<Needs>().change(prefix.join(OsStr::from_bytes(text)));
            }
            Ok(Store::To(template_of(loader, d, text)?, prefix.as_path().into()))
        }
    }
}

/// Lets the sandbox know where files of a location are stored.
pub fn check(cx: &mut LocationContext<'_, '_>, up: &UpstreamConf) {
    let core = cx.set.get::<http::config::core::CoreLocation>();
    if let (Store::On, Some(root)) = (&up.store, &core.root)
        && let Some(text) = root.path.is_const()
    {
        cx.loader.store.entry::<Needs>().change(OsStr::from_bytes(text));
    }
}

impl UpstreamConf {
    /// Whether responses are stored.
    pub fn stores(&self) -> bool {
        !matches!(self.store, Store::Off)
    }
}

/// A response's place.
struct Place {
    path: PathBuf,
    lasting: Lasting,
}

impl Keeper for Place {
    fn keep(self: Box<Self>, file: TempFile, _: u64) -> std::result::Result<(), WriteError> {
        Ok(file.persist(&self.path, &self.lasting)?)
    }
}

/// Stores the response, if the location stores it: what there is of it at once, the rest as it comes.
pub(super) fn keep(b: &Backend, r: &mut Request, exchange: &Exchange) {
    if !b.up.stores() || r.response.status != 200 || exchange.to_head.get() {
        return;
    }
    let Some(path) = path(b, r) else { return };
    let lasting = Lasting { mode: b.up.store_access, modified: r.response.last_modified };
    let file = match TempFile::create(&b.up.temp_path, false, &r.http.worker.temp_numbers) {
        Ok(file) => file,
        Err(error) => {
            r.log_at(Level::Crit, format_args!("{error} while reading upstream"));
            return;
        }
    };
    let place = Box::new(Place { path, lasting });
    let kept = match std::mem::take(&mut r.response.body) {
        Body::Empty => place.keep(file, 0),
        Body::Chain(chain) => {
            let written = chain.pieces().iter().try_for_each(|piece| shared::write_piece(&file, piece));
            let len = chain.len();
            r.response.body = Body::Chain(chain);
            written.and_then(|()| place.keep(file, len))
        }
        Body::Stream(source) => {
            let purpose = Purpose { keeper: Some(place), ahead: 0, base: 0 };
            let reader = shared::produce(&r.http, source, file, purpose, RequestLog::new(r));
            r.response.body = Body::Stream(Box::new(reader));
            Ok(())
        }
    };
    if let Err(error) = kept {
        r.log_at(Level::Crit, format_args!("{error} while reading upstream"));
    }
}

/// Where the response is stored; none if that is no path.
fn path(b: &Backend, r: &mut Request) -> Option<PathBuf> {
    let (path, prefix) = match &b.up.store {
        Store::Off => return None,
        Store::On => (r.path_of_uri().ok()?, None),
        Store::To(template, prefix) => (r.render(template), Some(prefix.clone())),
    };
    if path.is_empty() || path.last() == Some(&b'/') || path.contains(&0) {
        return None;
    }
    let path = Path::new(OsStr::from_bytes(&path));
    Some(prefix.map_or_else(|| path.to_path_buf(), |prefix| prefix.join(path)))
}
