//! `slice`: a response fetched in slices, each by a subrequest of its own, so that each can be stored by itself.
//!
//! The backend is asked for the slice in which the wanted range begins (`$slice_range` in a field `Range`), and its answer
//! tells how long the whole is. From then on the response is that of the whole, of which the body begins somewhere: the
//! filters for conditions and ranges act as usual. The other slices are fetched as the client takes them.
//!
//! What differs from nginx: a request that turns out to want other slices than the first one that was fetched gets them; a
//! background update keeps its slice.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use buf::{Bytes, Chain};
use conf::values::size;
use conf::{Args, Registry, Result};
use engine::log::Level;
use expr::vars::Flags;
use http::body::{BodyFilter, Broken};
use http::config::core::EVERYWHERE;
use http::module::{HttpModule, LocationContext};
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::request::subrequest::SubResponse;
use http::request::variables::{Getter, Setup, show};
use http::response::range::asked_for;
use http::server::location::Handlers;
use wire::h1::KnownHeader;
use wire::range::Ranges;

/// The module.
pub struct Slice;

conf::table! {
    /// Slices.
    pub struct SliceConf, raw SliceRaw, module "ngx_http_slice_module", level HTTP Location;

    /// Fetches responses in slices of this size, each with a request of its own.
    ///
    /// Form: `slice size`
    ///
    /// - `size`: bytes; 0 turns it off.
    ///
    /// Effect: the variable `$slice_range` holds the range of a slice. It has to be sent to the backend as `Range`, to be
    /// part of the cache's key, and 206 has to be among the statuses that are stored. A range of a large response is then
    /// served without fetching what comes before it, and slices that are stored aren't fetched again. Only one range is
    /// served; a request for several gets the whole.
    ///
    /// Cost: a request to the backend, and a file in the cache, for each slice. Small slices mean many of both.
    ///
    /// Danger: slices are put together from several responses of the backend: without an `ETag` it isn't noticed if the
    /// file has changed between them. If it is, the connection to the client is closed.
    ///
    /// ```nginx
    /// proxy_cache_path cache keys_zone=parts:10m;
    /// server {
    ///     location / {
    ///         slice 1m;
    ///         proxy_cache parts;
    ///         proxy_cache_key $uri$is_args$args$slice_range;
    ///         proxy_cache_valid 200 206 1h;
    ///         proxy_set_header Range $slice_range;
    ///         proxy_pass http://127.0.0.1:8000;
    ///     }
    /// }
    /// ```
    "slice" in EVERYWHERE, Args::exactly(1), default "0",
        scalar(size) slice: usize = 0;
}

/// The slice that a request is for.
#[derive(Clone, Default)]
struct Part {
    start: u64,
    size: u64,
    /// The tag of the slices before, if this isn't the first one.
    expect: Option<Bytes>,
    /// It is one of a response whose head has been made.
    further: bool,
    /// What the answer said: where it ends, and how long the whole is.
    got: Option<(u64, u64)>,
}

impl HttpModule for Slice {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<SliceConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        http::variables! { setup, "ngx_http_slice_module";
            /// The range of the slice that is fetched: `bytes=0-1048575`. Empty without `slice`.
            "slice_range", Flags::NOCACHEABLE, Getter::Plain(slice_range);
        }
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if cx.set.get::<SliceConf>().slice > 0 {
            out.filters.push(Rc::new(Slice));
        }
        Ok(())
    }
}

fn slice_range(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let size = r.location.set.get::<SliceConf>().slice as u64;
    if size == 0 {
        return false;
    }
    if r.find_slot::<Part>().is_none() {
        let start = first_byte(r) / size * size;
        *r.copied_slot() = Part { start, size, ..Part::default() };
    }
    let Some(Part { start, size, .. }) = r.find_slot::<Part>() else { return false };
    show(out, format_args!("bytes={start}-{}", start + size - 1))
}

/// Where the range begins that the client asks for; 0 if that isn't known before the response is.
fn first_byte(r: &Request) -> u64 {
    if r.header(KnownHeader::IfRange).is_some() {
        return 0;
    }
    let range = r.header(KnownHeader::Range).unwrap_or_default();
    let Some((unit, ranges)) = range.split_at_checked(6) else { return 0 };
    if !unit.eq_ignore_ascii_case(b"bytes=") || ranges.contains(&b',') {
        return 0;
    }
    let first = ranges.trim_ascii_start();
    let end = first.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(first.len());
    buf::parse::parse_number(first.get(..end).unwrap_or_default()).unwrap_or(0)
}

impl HeaderFilter for Slice {
    fn order(&self) -> Order {
        Order::Slice
    }

    fn on_subrequests(&self) -> bool {
        true
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let Some(part) = r.find_slot::<Part>().cloned() else { return Ok(()) };
        if r.response.status != 206 {
            if part.further {
                let status = r.response.status;
                r.log_error(format_args!("unexpected status code {status} in slice response"));
            }
            return Ok(());
        }
        let got = check(r, &part).map_err(|why| {
            r.log_error(format_args!("{why}"));
            Reply(CLOSE)
        })?;
        r.copied_slot::<Part>().got = Some(got);
        if !part.further {
            begin(r, &part, got);
        }
        Ok(())
    }
}

/// How much goes out at a time.
const MOST_AT_ONCE: u64 = 64 << 10;

/// The status that closes the connection: no response would be right.
const CLOSE: u16 = 444;

/// Checks an answer; gives its end and the length of the whole. The error is a log line.
fn check(r: &Request, part: &Part) -> std::result::Result<(u64, u64), String> {
    let etag = r.response.headers.find(KnownHeader::ETag);
    if part.expect.is_some() && part.expect.as_ref() != etag {
        return Err("etag mismatch in slice response".to_owned());
    }
    let range = r.response.headers.find(KnownHeader::ContentRange);
    let Some((start, end, complete)) = range.and_then(|range| content_range(range)) else {
        return Err("invalid range in slice response".to_owned());
    };
    let Some(complete) = complete else {
        return Err("no complete length in slice response".to_owned());
    };
    if start != part.start || end != (part.start + part.size).min(complete) {
        return Err(format!("unexpected range in slice response: {start}-{end}"));
    }
    Ok((end, complete))
}

/// The parts of `bytes 0-1/5`: the first byte, the one after the last, the length of the whole (which may be `*`).
fn content_range(value: &[u8]) -> Option<(u64, u64, Option<u64>)> {
    let number = |text: &[u8]| buf::parse::parse_number(text.trim_ascii());
    let rest = value.trim_ascii().strip_prefix(b"bytes")?.trim_ascii_start();
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    let (range, complete) = rest.split_at(slash);
    let dash = range.iter().position(|byte| *byte == b'-')?;
    let (start, last) = range.split_at(dash);
    let (start, end) = (number(start)?, number(last.get(1..)?)?.checked_add(1)?);
    let complete = match complete.get(1..)?.trim_ascii() {
        b"*" => None,
        text => Some(number(text)?),
    };
    (start < end && complete.is_none_or(|complete| end <= complete)).then_some((start, end, complete))
}

/// Makes the answer to the first slice the response of the whole, the body of which begins where the client's range does.
fn begin(r: &mut Request, part: &Part, (end, complete): (u64, u64)) {
    let response = &mut r.response;
    response.status = 200;
    response.status_line = None;
    response.content_length = Some(complete);
    response.headers.remove(KnownHeader::ContentRange);
    response.headers.remove(KnownHeader::AcceptRanges);
    (response.allow_ranges, response.single_range) = (true, true);
    let wanted = match asked_for(r, complete) {
        Ranges::Satisfiable(ranges) => ranges.first().map(|range| (range.start, range.end)),
        Ranges::Ignore => Some((0, complete)),
        Ranges::Unsatisfiable => None,
    };
    let (from, to) = wanted.unwrap_or((part.start, part.start));
    let first = from / part.size * part.size;
    let fits = first == part.start;
    let expect = r.response.headers.find(KnownHeader::ETag).cloned();
    r.response.body_offset = first;
    r.response.filters.push(Box::new(Slices {
        next: if fits { end } else { first },
        end: to,
        size: part.size,
        expect,
        drops: !fits,
        ended: false,
        response: None,
        held: Some(Chain::new()),
        hold: r.location.core.postpone_output as u64,
    }));
}

/// Appends the further slices.
struct Slices {
    /// Where the next one begins.
    next: u64,
    /// Up to where they are wanted.
    end: u64,
    size: u64,
    expect: Option<Bytes>,
    /// The first slice isn't wanted.
    drops: bool,
    /// All of the first slice has come.
    ended: bool,
    response: Option<SubResponse>,
    /// The first bytes, until it is worth while to send them: before that a bad slice can be answered by nothing at all.
    held: Option<Chain>,
    hold: u64,
}

impl Slices {
    fn push(&mut self, mut chain: Chain, out: &mut Chain) {
        let Some(held) = &mut self.held else { return out.append(&mut chain) };
        held.append(&mut chain);
        if held.len() >= self.hold {
            self.release(out);
        }
    }

    fn release(&mut self, out: &mut Chain) {
        if let Some(mut held) = self.held.take() {
            out.append(&mut held);
        }
    }

    /// Begins to fetch the next slice.
    fn fetch(&self, r: &mut Request) -> std::result::Result<SubResponse, Broken> {
        let part = Part { start: self.next, size: self.size, expect: self.expect.clone(), further: true, got: None };
        r.clone_request(|child| *child.copied_slot() = part).map_err(|_| Broken)
    }

    /// Takes what there is of a slice; whether all of it has come.
    fn poll_slice(
        &mut self,
        r: &mut Request,
        cx: &mut Context<'_>,
        out: &mut Chain,
    ) -> Poll<std::result::Result<bool, Broken>> {
        let Some(response) = &mut self.response else { return Poll::Ready(Ok(true)) };
        ready!(response.poll_head(cx));
        let got = response.request().and_then(|child| child.find_slot::<Part>()?.got);
        let Some((end, _)) = got else { return Poll::Ready(Err(Broken)) };
        let portion = ready!(response.poll_portion(r, cx))?;
        if portion.end {
            self.next = end;
        }
        self.push(portion.chain, out);
        Poll::Ready(Ok(portion.end))
    }
}

impl BodyFilter for Slices {
    fn apply(&mut self, input: Chain, end: bool, _: bool, out: &mut Chain) -> std::result::Result<(), Broken> {
        self.ended = end;
        if !self.drops {
            self.push(input, out);
        }
        Ok(())
    }

    fn reads(&self) -> bool {
        false
    }

    fn holds_back(&self) -> bool {
        self.held.is_some()
    }

    fn poll_waiting(
        &mut self,
        r: &mut Request,
        cx: &mut Context<'_>,
        out: &mut Chain,
    ) -> Poll<std::result::Result<(), Broken>> {
        while self.ended {
            if self.response.is_none() {
                if self.next >= self.end {
                    self.release(out);
                    break;
                }
                match self.fetch(r) {
                    Ok(response) => self.response = Some(response),
                    Err(Broken) => return Poll::Ready(Err(Broken)),
                }
            }
            match self.poll_slice(r, cx, out) {
                Poll::Ready(Ok(end)) => {
                    if end {
                        self.response = None;
                    }
                    if out.len() >= MOST_AT_ONCE {
                        // It goes out first, since stored slices never wait: the pipeline asks again after that.
                        return Poll::Pending;
                    }
                }
                Poll::Ready(Err(Broken)) => {
                    r.log_at(Level::Info, format_args!("a slice is missing, the connection is closed"));
                    return Poll::Ready(Err(Broken));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_answers() {
        for (value, expect) in [
            ("bytes 0-1/100", Some((0, 2, Some(100)))),
            ("bytes 0-1/*", Some((0, 2, None))),
            (" bytes 5 - 5 / 6 ", Some((5, 6, Some(6)))),
            ("bytes", None),
            ("bytes 2-1/5", None),
            ("bytes 0-5/5", None),
            ("bytes 0-1", None),
            ("bytes */5", None),
            ("bytes 0-18446744073709551615/*", None),
            ("items 0-1/5", None),
        ] {
            assert_eq!(content_range(value.as_bytes()), expect, "{value}");
        }
    }
}
