//! A backend's 304: what is stored is fresh again.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::rc::Rc;

use ::cache::entry::Room;
use ::cache::keeper::now;
use ::cache::keys::Fetched;
use ::cache::{Cache, Entry, Stored};
use buf::Bytes;
use engine::log::{Errno, Level};
use http::exchange::Exchange;
use http::fault::{Fault, Retry};
use http::phases::Flow;
use http::request::Request;
use wire::Span;
use wire::h1::{HeaderSpan, KnownHeader, ResponseHead};

use super::policy::Judgement;
use super::{Fill, Status, Work, fill, hit};
use crate::engine::Backend;

/// Serves what is stored, if the backend's answer says that it may be: a 304 to our conditions, or an error in whose
/// place the configuration wants it.
pub(super) fn instead(b: &Backend, r: &mut Request, exchange: &Rc<Exchange>, status: u16) -> Option<Flow<'static>> {
    let work = r.lasting_slot::<Work>();
    let stale = work.fill.as_ref()?.stale.as_ref()?;
    if status == 304 && exchange.validators.borrow().is_some() {
        let mut fill = work.fill.take()?;
        let stored = fill.stale.take()?;
        return Some(revalidated(b, r, exchange, fill, stored));
    }
    let Retry::Sent(kind) = Fault::of_answer(status)?.retry() else { return None };
    let never = stale.entry.flags & super::policy::flags::NEVER_STALE != 0;
    if never || work.fill.as_ref()?.caching.conf.use_stale() & kind == 0 {
        return None;
    }
    let stored = work.fill.take()?.stale.take()?;
    Some(hit::serve(b, r, exchange, &stored, Status::Stale))
}

fn revalidated(
    b: &Backend,
    r: &mut Request,
    exchange: &Rc<Exchange>,
    fill: Box<Fill>,
    mut stored: Rc<Stored>,
) -> Flow<'static> {
    let update = update(b, r, exchange, &fill, &stored.entry);
    let key = stored.key;
    let mut fetched = Fetched::Nothing;
    match update {
        Some(mut entry) => {
            match rewrite(b, r, &fill.cache, &stored, &mut entry) {
                Ok(size) => fetched = size.map_or(fetched, Fetched::Stored),
                Err(error) => r.log_at(Level::Crit, format_args!("{error}")),
            }
            stored = Rc::new(Stored { entry: Rc::new(entry), ..Stored::clone(&stored) });
        }
        // By the standard it isn't to be stored any more.
        None if fill::is_rfc(&stored.entry) => {
            fill.cache.remove(&key);
        }
        None => {}
    }
    fill.end(&key, fetched);
    hit::serve(b, r, exchange, &stored, Status::Revalidated)
}

/// What the stored head becomes; `None`: the answer says nothing of its freshness, or that it isn't to be stored.
fn update(b: &Backend, r: &Request, exchange: &Exchange, fill: &Fill, old: &Entry) -> Option<Entry> {
    let head = exchange.head.borrow();
    let (bytes, head) = &*head;
    let ignored = b.up.ignore_headers;
    let conf = &fill.caching.conf;
    if conf.cache_rfc {
        let (text, merged) = merge(old, bytes, head);
        let judgement = fill::judge_head(fill, ignored, r, &text, &merged)?;
        let valid = judgement.valid?;
        let mut entry = Entry { head: ResponseHead::default(), ..old.clone() };
        fill::take_head(&mut entry, &text, &merged, &judgement.unstored);
        set_times(&mut entry, &judgement, valid);
        return Some(entry);
    }
    let mut judgement = fill::judge_head(fill, ignored, r, bytes, head)?;
    if judgement.valid.is_none() {
        // What the stored response said counts from now on.
        judgement = fill::judge_head(fill, ignored, r, &old.text, &old.head)?;
    }
    let configured = || Some(now().secs.saturating_add(conf.valid(old.head.status)?));
    let valid = judgement.valid.or_else(configured)?;
    let mut entry = old.clone();
    set_times(&mut entry, &judgement, valid);
    Some(entry)
}

fn set_times(entry: &mut Entry, judgement: &Judgement, valid: i64) {
    entry.valid = valid;
    let until = |seconds| if seconds > 0 { valid.saturating_add(seconds) } else { i64::MIN };
    entry.while_updating = until(judgement.while_updating);
    entry.on_error = until(judgement.on_error);
    (entry.born, entry.flags) = (judgement.born, judgement.flags);
}

/// The stored fields, replaced by those of a 304 (RFC 9111 §3.2) but for what describes the body as it was sent.
fn merge(old: &Entry, bytes: &[u8], head: &ResponseHead) -> (Bytes, ResponseHead) {
    let mut text = old.head.status_line.of(&old.text).to_vec();
    let mut merged = ResponseHead::default();
    (merged.version, merged.status) = (old.head.version, old.head.status);
    merged.status_line = Span::new(0, text.len());
    let mut add = |name: &[u8], value: &[u8], known: KnownHeader| {
        let start = text.len();
        text.extend_from_slice(name);
        text.extend_from_slice(value);
        let middle = start + name.len();
        let (name, value) = (Span::new(start, middle), Span::new(middle, text.len()));
        merged.push(HeaderSpan { name, value, known, invalid: false });
    };
    let keeps = |known| {
        fill::is_framing(known)
            || matches!(known, KnownHeader::ContentLength | KnownHeader::ContentEncoding | KnownHeader::ContentRange)
            || known == KnownHeader::ContentType
    };
    let new: Vec<&HeaderSpan> = head.headers.iter().filter(|field| !keeps(field.known)).collect();
    for field in &old.head.headers {
        let name = field.name.of(&old.text);
        // An old age says nothing any more.
        let replaced = new.iter().any(|other| other.name.of(bytes).eq_ignore_ascii_case(name));
        if !replaced && field.known != KnownHeader::Age {
            add(name, field.value.of(&old.text), field.known);
        }
    }
    for field in new {
        add(field.name.of(bytes), field.value.of(bytes), field.known);
    }
    (Bytes::from(text), merged)
}

/// Bodies up to this length are copied after a head that is too long for its place: the worker waits for that.
const COPIED: u64 = 1 << 20;

/// Writes a new head to the file of a stored response: in its place, or if it is too long for that into a copy, whose size on
/// disk is returned; before a long body the old fields stay, with the new times.
fn rewrite(b: &Backend, r: &Request, cache: &Cache, stored: &Stored, entry: &mut Entry) -> Result<Option<u64>, String> {
    let path = cache.path(&stored.key);
    let failed = |error: io::Error| format!("updating \"{}\" failed{}", buf::text::path(&path), Errno(&error));
    let file = File::options().read(true).write(true).open(&path).map_err(failed)?;
    if os::file::fstat(&file).map_err(failed)?.identity != stored.identity {
        // Another request has stored a newer one.
        return Ok(None);
    }
    let mut head = entry.encode(Room::Kept(stored.start));
    if head.is_none() && entry.body_len > COPIED {
        let old = &*stored.entry;
        (entry.head, entry.text) = (old.head.clone(), old.text.clone());
        (entry.etag, entry.last_modified) = (old.etag.clone(), old.last_modified);
        head = entry.encode(Room::Kept(stored.start));
    }
    if let Some(head) = head {
        return file.write_all_at(&head, 0).map(|()| None).map_err(failed);
    }
    let head = entry.encode(Room::of_body(Some(entry.body_len)));
    let mut bytes = head.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
    let start = bytes.len();
    bytes.resize(start + entry.body_len as usize, 0);
    file.read_exact_at(&mut bytes[start..], stored.start as u64).map_err(failed)?;
    let copied = fill::temp_file(cache, &b.up.temp_path, r).and_then(|copy| {
        copy.append(&bytes)?;
        let file = copy.file();
        copy.persist(&path, &fill::LASTING).map(|()| file)
    });
    let copy = copied.map_err(|error| error.to_string())?;
    Ok(Some(copy.metadata().map_or(0, |stat| stat.blocks() * 512)))
}

#[cfg(test)]
mod tests {
    use wire::h1::ResponseParser;

    use super::*;

    fn parsed(text: &str) -> (Bytes, ResponseHead) {
        let bytes = Bytes::copy_from(text.replace('|', "\r\n").as_bytes());
        let mut head = ResponseHead::default();
        ResponseParser::default().parse(&bytes, 10_000, &mut head).expect("it is a head");
        (bytes, head)
    }

    #[test]
    fn fields_are_updated() {
        let (text, head) = parsed("HTTP/1.1 200 OK|A: 1|Content-Length: 5|Age: 9|Date: x|B: 2||");
        let old = Entry { text, head, ..Entry::default() };
        let (bytes, head) = parsed("HTTP/1.1 304 Not Modified|date: y|a: 3|A: 4|Content-Length: 7|C: 6||");
        let (text, merged) = merge(&old, &bytes, &head);
        let fields: Vec<String> = merged
            .headers
            .iter()
            .map(|field| [field.name.of(&text), b"=", field.value.of(&text)].concat())
            .map(|field| String::from_utf8_lossy(&field).into_owned())
            .collect();
        assert_eq!(fields, ["Content-Length=5", "B=2", "date=y", "a=3", "A=4", "C=6"]);
        assert_eq!((merged.status, merged.status_line.of(&text)), (200, &b"200 OK"[..]));
    }
}
