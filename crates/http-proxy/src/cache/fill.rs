//! Storing a response: the decision when its head has come, and the file.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::rc::Rc;

use ::cache::entry::Room;
use ::cache::keeper::now;
use ::cache::stored::Contents;
use ::cache::{Cache, Entry, Key, Stored};
use buf::{Bytes, Piece};
use engine::log::Level;
use http::body::temp::{Lasting, TempError, TempFile};
use http::config::core::TempPath;
use http::exchange::Exchange;
use http::request::Request;
use http::response::Body;
use wire::Span;
use wire::h1::{KnownHeader, ResponseHead};

use super::policy::{self, Asked, Judgement, Said, by_nginx, by_rfc};
use super::{Caching, Fill, Work, field, hit, is_authorized, request, vary};
use crate::engine::Backend;
use crate::respond;
use crate::shared::{self, Keeper, Purpose, RequestLog, WriteError};

/// What the response says of its storing, and until when it is fresh; `None`: it isn't stored.
pub(super) fn judge(b: &Backend, fill: &Fill, r: &mut Request, exchange: &Exchange) -> Option<(Judgement, i64)> {
    let judgement = may_be_stored(b, fill, r, exchange)?;
    let valid = until(b, fill, &judgement, r, exchange)?;
    Some((judgement, valid))
}

/// What the response says of its storing; `None`: it says no.
fn may_be_stored(b: &Backend, fill: &Fill, r: &Request, exchange: &Exchange) -> Option<Judgement> {
    let head = exchange.head.borrow();
    judge_head(fill, b.up.ignore_headers, r, &head.0, &head.1)
}

/// Until when a response that may be stored is fresh; `None`: it isn't stored.
fn until(b: &Backend, fill: &Fill, judgement: &Judgement, r: &mut Request, exchange: &Exchange) -> Option<i64> {
    let conf = &fill.caching.conf;
    // What isn't buffered is passed on as it comes.
    if !respond::buffering(b, exchange) || Caching::any(&conf.no_cache, r) {
        return None;
    }
    let status = exchange.head.borrow().1.status;
    judgement.valid.or_else(|| Some(now().secs.saturating_add(conf.valid(status)?)))
}

/// What any head says of its storing; by nginx's rules it may say nothing of its freshness.
pub(super) fn judge_head(
    fill: &Fill,
    ignored: u32,
    r: &Request,
    bytes: &[u8],
    head: &ResponseHead,
) -> Option<Judgement> {
    let conf = &fill.caching.conf;
    let now = now().secs;
    let said = Said { head, bytes, asked: fill.asked, now };
    if !conf.cache_rfc {
        return by_nginx(&said, ignored).ok();
    }
    let configured = conf.valid(head.status);
    // A part is stored only where the configuration asks for parts.
    if head.status == 304 || head.status == 206 && configured.is_none() {
        return None;
    }
    let asked = Asked {
        authorized: is_authorized(r),
        no_store: request::control(r).no_store,
        targeted: &conf.cache_targeted,
        configured,
    };
    let judgement = by_rfc(&said, &asked, ignored).ok()?;
    let valid = judgement.valid?;
    let later = judgement.while_updating > 0 || judgement.on_error > 0 || conf.use_stale() != 0;
    let validated = head.has(KnownHeader::ETag) || head.has(KnownHeader::LastModified);
    // What could never be served isn't stored.
    (valid > now || later || validated).then_some(judgement)
}

/// A response that is going to be stored.
pub(crate) struct Filling {
    fill: Box<Fill>,
    judgement: Judgement,
    valid: i64,
}

/// Decides whether the response is stored, once its fields are those of the client's response.
pub(crate) fn decide(b: &Backend, r: &mut Request, exchange: &Exchange) -> Option<Filling> {
    b.caching.as_ref()?;
    let fill = r.lasting_slot::<Work>().fill.take();
    let whole = fill.filter(|_| !r.response.headless).and_then(|fill| {
        let judgement = may_be_stored(b, &fill, r, exchange)?;
        Some((fill, judgement))
    });
    let is_whole = whole.is_some();
    let filling = whole.and_then(|(fill, judgement)| {
        let valid = until(b, &fill, &judgement, r, exchange)?;
        Some(Filling { fill, judgement, valid })
    });
    field::of_fetched(b, r, exchange, filling.is_some());
    if filling.is_some() && b.caching.as_ref().is_some_and(|caching| caching.conf.cache_rfc) {
        field::standard(r, exchange);
    }
    // The backend was asked for the whole, so conditions and ranges are for us, whether or not it is stored.
    if is_whole {
        let response = &mut r.response;
        response.allow_ranges = hit::ranges(response, b, &exchange.head.borrow().1);
        response.single_range = true;
        response.disable_not_modified = false;
    }
    filling
}

impl Filling {
    /// The head of the file, and its key.
    fn entry(&self, r: &Request, exchange: &Exchange) -> (Entry, Key) {
        let judgement = &self.judgement;
        let head = exchange.head.borrow();
        let variant = vary::variant(&judgement.vary, r);
        let (key, generation) = self.fill.place(&judgement.vary, &variant);
        let mut entry = Entry {
            valid: self.valid,
            while_updating: self.valid.saturating_add(judgement.while_updating),
            on_error: self.valid.saturating_add(judgement.on_error),
            stored_ns: self.fill.asked_ns,
            born: judgement.born,
            generation,
            variant,
            flags: judgement.flags,
            key: self.fill.text.clone(),
            vary: Bytes::copy_from(&judgement.vary),
            ..Entry::default()
        };
        if judgement.while_updating == 0 {
            entry.while_updating = i64::MIN;
        }
        if judgement.on_error == 0 {
            entry.on_error = i64::MIN;
        }
        take_head(&mut entry, &head.0, &head.1, &judgement.unstored);
        (entry, key)
    }

    /// Stores the response: what there is of its body at once, the rest as it comes.
    pub(crate) fn keep(self, b: &Backend, r: &mut Request, exchange: &Exchange) {
        if let Err(error) = self.begin(b, r, exchange) {
            r.log_at(Level::Crit, format_args!("{error} while reading upstream"));
        }
    }

    fn begin(self, b: &Backend, r: &mut Request, exchange: &Exchange) -> Result<(), WriteError> {
        let (entry, key) = self.entry(r, exchange);
        let length = match &r.response.body {
            Body::Empty => Some(0),
            Body::Chain(chain) => Some(chain.len()),
            Body::Stream(_) => None,
        };
        let Some(head) = entry.encode(Room::of_body(length)) else { return Ok(()) };
        let cache = self.fill.cache.clone();
        let file = temp_file(&cache, &b.up.temp_path, r)?;
        let place = Box::new(Place { entry, room: head.len(), fill: self.fill, key });
        match std::mem::take(&mut r.response.body) {
            Body::Empty => place.write(file, &[]),
            Body::Chain(chain) => {
                let written = place.write(file, chain.pieces());
                r.response.body = Body::Chain(chain);
                written
            }
            Body::Stream(source) => {
                if let Err(error) = file.append(&head) {
                    r.response.body = Body::Stream(source);
                    return Err(error.into());
                }
                let purpose = Purpose { keeper: Some(place), ahead: 0, base: head.len() as u64 };
                let reader = shared::produce(&r.http, source, file, purpose, RequestLog::new(r));
                r.response.body = Body::Stream(Box::new(reader));
                Ok(())
            }
        }
    }
}

/// A temporary file for a response.
pub(super) fn temp_file(cache: &Cache, place: &TempPath, r: &Request) -> Result<TempFile, TempError> {
    let own;
    let place = if cache.settings.own_temp {
        own = TempPath { path: Rc::new(cache.settings.path.clone()), levels: Rc::new([]) };
        &own
    } else {
        place
    };
    TempFile::create(place, false, &r.http.worker.temp_numbers)
}

/// How files are left in a cache.
pub(super) const LASTING: Lasting = Lasting { mode: 0o600, modified: None };

/// Takes over a backend's head, without the fields of its connection and those that aren't to be stored.
pub(super) fn take_head(entry: &mut Entry, bytes: &Bytes, head: &ResponseHead, unstored: &[Vec<u8>]) {
    (entry.head.version, entry.head.status) = (head.version, head.status);
    entry.head.status_line = head.status_line;
    entry.text = bytes.clone();
    for field in &head.headers {
        let name = field.name.of(bytes);
        if !is_framing(field.known) && !unstored.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            entry.head.push(*field);
        }
    }
    // Only these have a body that conditions can refer to.
    if matches!(head.status, 200 | 206) {
        entry.last_modified = head.value(KnownHeader::LastModified, bytes).and_then(wire::date::parse_http_time);
        entry.etag = head.find(KnownHeader::ETag).map(|field| part(bytes, field.value)).unwrap_or_default();
    }
}

/// Fields of the connection to the backend.
pub(super) fn is_framing(known: KnownHeader) -> bool {
    matches!(known, KnownHeader::Connection | KnownHeader::KeepAlive | KnownHeader::TransferEncoding)
}

fn part(bytes: &Bytes, span: Span) -> Bytes {
    Bytes::copy_from(span.of(bytes))
}

/// A response's place in the cache.
struct Place {
    entry: Entry,
    /// The length of its head.
    room: usize,
    fill: Box<Fill>,
    key: Key,
}

impl Place {
    /// Writes all of a body, and moves the file to its place.
    fn write(mut self: Box<Self>, file: TempFile, body: &[Piece]) -> Result<(), WriteError> {
        self.entry.body_len = body.iter().map(Piece::len).sum();
        let Some(mut bytes) = self.entry.encode(Room::Kept(self.room)) else { return Ok(()) };
        // A small response is one write.
        let small = body.iter().all(|piece| matches!(piece, Piece::Bytes(_))) && self.entry.body_len < SMALL;
        if small {
            body.iter().for_each(|piece| {
                if let Piece::Bytes(part) = piece {
                    bytes.extend_from_slice(part);
                }
            });
            file.append(&bytes)?;
        } else {
            file.append(&bytes)?;
            body.iter().try_for_each(|piece| shared::write_piece(&file, piece))?;
        }
        self.finish(file)
    }

    fn finish(self: Box<Self>, file: TempFile) -> Result<(), WriteError> {
        let Place { entry, room, fill, key } = *self;
        let opened = file.file();
        file.persist(&fill.cache.path(&key), &LASTING)?;
        let (size, identity) =
            opened.metadata().map_or((0, (0, 0)), |stat| (stat.blocks() * 512, (stat.dev(), stat.ino())));
        let entry = Rc::new(entry);
        fill.stored(Stored { key, entry, start: room, contents: Contents::File(opened), identity }, size);
        Ok(())
    }
}

/// Up to this length a body is copied to be written with its head.
const SMALL: u64 = 64 << 10;

impl Keeper for Place {
    fn keep(mut self: Box<Self>, file: TempFile, len: u64) -> Result<(), WriteError> {
        self.entry.body_len = len;
        let Some(bytes) = self.entry.encode(Room::Kept(self.room)) else { return Ok(()) };
        let written = file.file().write_all_at(&bytes, 0);
        written.map_err(|error| WriteError::Rewrite(file.path().clone(), error))?;
        self.finish(file)
    }
}

/// Whether a stored response was judged by the standard.
pub(super) fn is_rfc(entry: &Entry) -> bool {
    entry.flags & policy::flags::RFC != 0
}
