//! `gunzip`: responses that are compressed with gzip, decompressed for clients that don't accept that.
//!
//! What differs from nginx: a compressor's state is as large as it has to be, so `gunzip_buffers` only sets the size of a
//! buffer; and bytes after the last member (padding, usually) end a response instead of breaking it off.

use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use buf::{Buf, Bytes, Chain, Piece};
use conf::values::{Bufs, bufs, flag};
use conf::{Args, Registry, Result};
use http::body::{BodyFilter, Broken};
use http::config::core::EVERYWHERE;
use http::module::{HttpModule, LocationContext};
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::response::gzip::gzip_ok;
use http::server::location::Handlers;
use wire::h1::KnownHeader;
use zlib_rs::{Inflate, InflateFlush, Status};

/// The module.
pub struct Gunzip;

conf::table! {
    /// Whether responses are decompressed.
    pub struct GunzipConf, raw GunzipRaw, module "ngx_http_gunzip_filter_module", level HTTP Location;

    /// Decompresses responses with `Content-Encoding: gzip` for clients that don't accept gzip.
    ///
    /// Effect: holds for backends' responses, and for files with `gzip_static always`. A decompressed response has no
    /// `Content-Length` and no ranges, and its `ETag` becomes a weak one. `gzip_http_version`, `gzip_proxied`,
    /// `gzip_disable` and `gzip_vary` hold, `gzip` needn't be on.
    ///
    /// Cost: processor time and about 40 KiB of memory for each such response.
    ///
    /// ```nginx
    /// location /storage/ {
    ///     root site;
    ///     gzip_static always;
    ///     gunzip on;
    /// }
    /// ```
    "gunzip" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) gunzip: bool = false;
    /// Sets the number and size of the buffers for decompressed data.
    ///
    /// Form: `gunzip_buffers number size`
    ///
    /// - `number`: how many buffers of a response may be full before they are sent; at least so many that they hold 64k.
    /// - `size`: the size of a buffer; less than 1k counts as 1k, more than 64k as 64k.
    ///
    /// Effect: decompressed data is passed on when a buffer is full, or when data must be sent at once. While the client
    /// takes none of it, no more than the buffers hold is decompressed.
    ///
    /// Cost: up to number × size of memory for each such response.
    ///
    /// ```nginx
    /// gunzip on;
    /// gunzip_buffers 16 8k;
    /// ```
    "gunzip_buffers" in EVERYWHERE, Args::exactly(2), default "32 4k",
        scalar(bufs) gunzip_buffers: Bufs = Bufs { count: 32, size: 4096 };
}

impl HttpModule for Gunzip {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<GunzipConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.get::<GunzipConf>();
        if conf.gunzip {
            let Bufs { count, size } = conf.gunzip_buffers;
            let size = size.clamp(1024, 64 << 10);
            out.filters.push(Rc::new(Filter { size, most: (count as u64 * size as u64).max(LEAST) }));
        }
        Ok(())
    }
}

/// The least that is decompressed before it is sent, in bytes.
const LEAST: u64 = 64 << 10;

struct Filter {
    size: usize,
    most: u64,
}

impl HeaderFilter for Filter {
    fn order(&self) -> Order {
        Order::Gunzip
    }

    fn on_subrequests(&self) -> bool {
        true
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let encoding = r.response.headers.find(KnownHeader::ContentEncoding);
        if !encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case(b"gzip")) {
            return Ok(());
        }
        r.response.gzip_vary = true;
        if gzip_ok(r) {
            return Ok(());
        }
        let response = &mut r.response;
        response.headers.remove(KnownHeader::ContentEncoding);
        response.clear_length();
        response.weaken();
        response.filters.push(Box::new(Decompress::new(self.size, self.most)));
        Ok(())
    }
}

/// The decompressor of one response: a row of members (RFC 1952 §2.2).
struct Decompress {
    state: Box<Inflate>,
    /// The size of a buffer.
    size: usize,
    /// The most that is given at once: a little input may become very much.
    most: u64,
    out: Buf,
    at: At,
    /// Whether the state may have more to give without input.
    full: bool,
    /// What isn't decompressed yet.
    input: Chain,
    ended: bool,
    flush: bool,
}

/// Where the input stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the first member.
    Start,
    /// In a member.
    Member,
    /// After a member.
    Between,
    /// After the last one: what comes is ignored.
    Over,
}

/// Why a body can't be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// It isn't what `Content-Encoding` says, or is damaged.
    Damaged,
    /// It ends too early.
    CutShort,
}

impl Decompress {
    fn new(size: usize, most: u64) -> Decompress {
        Decompress {
            state: Box::new(Inflate::new(true, GZIP_WINDOW)),
            size,
            most,
            out: Buf::empty(),
            at: At::Start,
            full: false,
            input: Chain::new(),
            ended: false,
            flush: false,
        }
    }

    /// Decompresses what there is, until `out` holds as much as it may; whether that was all.
    fn run(&mut self, out: &mut Chain) -> std::result::Result<bool, Failure> {
        loop {
            let bytes = match self.input.first() {
                Some(Piece::Bytes(bytes)) => bytes.clone(),
                Some(Piece::File(_)) => return Err(Failure::Damaged),
                None if self.full => Bytes::default(),
                None => break,
            };
            let taken = self.feed(&bytes, out)?;
            self.input.advance(taken as u64);
            if out.len() >= self.most {
                return Ok(false);
            }
        }
        let whole = matches!(self.at, At::Between | At::Over);
        if self.ended && !whole {
            return Err(Failure::CutShort);
        }
        if self.ended || self.flush {
            self.pass_on(out);
        }
        Ok(true)
    }

    /// Decompresses input; how many bytes of it were taken.
    fn feed(&mut self, bytes: &[u8], out: &mut Chain) -> std::result::Result<usize, Failure> {
        let mut input = bytes;
        loop {
            match self.at {
                At::Over => return Ok(bytes.len()),
                _ if input.is_empty() && !self.full => return Ok(bytes.len()),
                At::Between if input.first() != MAGIC.first() => self.at = At::Over,
                At::Between => {
                    *self.state = Inflate::new(true, GZIP_WINDOW);
                    self.at = At::Member;
                }
                At::Start | At::Member => {
                    self.at = At::Member;
                    if self.out.room() == 0 {
                        self.pass_on(out);
                        if out.len() >= self.most {
                            return Ok(bytes.len() - input.len());
                        }
                        self.out = Buf::with_capacity(self.size);
                    }
                    input = self.inflate(input)?;
                }
            }
        }
    }

    /// Decompresses of one member what there is room for; returns the rest of the input.
    fn inflate<'i>(&mut self, input: &'i [u8]) -> std::result::Result<&'i [u8], Failure> {
        let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
        let status = self.state.decompress(input, self.out.room_mut(), InflateFlush::NoFlush);
        let status = status.map_err(|_| Failure::Damaged)?;
        self.out.filled((self.state.total_out() - before_out) as usize);
        self.full = self.out.room() == 0;
        if status == Status::StreamEnd {
            (self.at, self.full) = (At::Between, false);
        }
        Ok(input.get((self.state.total_in() - before_in) as usize..).unwrap_or_default())
    }

    fn pass_on(&mut self, out: &mut Chain) {
        if !self.out.is_empty() {
            out.push_bytes(std::mem::replace(&mut self.out, Buf::empty()));
        }
    }
}

impl BodyFilter for Decompress {
    fn apply(&mut self, mut input: Chain, end: bool, flush: bool, _: &mut Chain) -> std::result::Result<(), Broken> {
        self.input.append(&mut input);
        (self.ended, self.flush) = (end, flush);
        Ok(())
    }

    fn poll_waiting(
        &mut self,
        r: &mut Request,
        _: &mut TaskContext<'_>,
        out: &mut Chain,
    ) -> Poll<std::result::Result<(), Broken>> {
        let said = match self.run(out) {
            Ok(true) => return Poll::Ready(Ok(())),
            // It is sent first: the pipeline asks again after that.
            Ok(false) => return Poll::Pending,
            Err(Failure::Damaged) => "inflate() failed: the response isn't valid gzip",
            Err(Failure::CutShort) => "inflate() returned -5 on response end",
        };
        self.pass_on(out);
        r.log_error(format_args!("{said} while sending response to client"));
        Poll::Ready(Err(Broken))
    }
}

/// A window of 32 KiB, with the head of gzip.
const GZIP_WINDOW: u8 = 16 + 15;
/// What a member begins with.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

#[cfg(test)]
mod tests {
    use zlib_rs::{DeflateConfig, compress_slice};

    use super::*;

    fn pack(text: &[u8]) -> Vec<u8> {
        let mut room = vec![0; text.len() + 100];
        let config = DeflateConfig { window_bits: 31, ..DeflateConfig::default() };
        compress_slice(&mut room, text, config).0.to_vec()
    }

    fn unpack(parts: &[&[u8]]) -> std::result::Result<Vec<u8>, Failure> {
        let (size, most) = (1024, 2048);
        let mut filter = Decompress::new(size, most);
        let mut all = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            filter.input.push_bytes(Bytes::copy_from(part));
            filter.ended = index + 1 == parts.len();
            loop {
                let mut out = Chain::new();
                let done = filter.run(&mut out)?;
                assert!(out.len() <= most + size as u64, "{}", out.len());
                all.extend(out.pieces().iter().flat_map(|piece| match piece {
                    Piece::Bytes(bytes) => bytes.to_vec(),
                    Piece::File(_) => Vec::new(),
                }));
                if done {
                    break;
                }
            }
        }
        Ok(all)
    }

    #[test]
    fn a_little_that_becomes_much() {
        let zeros = vec![0; 1 << 20];
        assert_eq!(unpack(&[&pack(&zeros)]), Ok(zeros));
    }

    #[test]
    fn members() {
        let text = b"tide and gate, ".repeat(500);
        let packed = pack(&text);
        let twice = [&packed[..], &packed].concat();
        for cut in 0..=twice.len() {
            let (first, second) = twice.split_at(cut);
            assert_eq!(unpack(&[first, second]).as_deref(), Ok(&text.repeat(2)[..]), "cut at {cut}");
        }
        assert_eq!(unpack(&[&packed, b"\0\0", b"junk"]).as_deref(), Ok(&text[..]));
        assert_eq!(unpack(&[&pack(b"")]).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn what_is_no_gzip() {
        let packed = pack(b"tide and gate");
        assert_eq!(unpack(&[b""]), Err(Failure::CutShort));
        assert_eq!(unpack(&[b"not compressed"]), Err(Failure::Damaged));
        for end in 0..packed.len() {
            assert_eq!(unpack(&[&packed[..end]]), Err(Failure::CutShort), "{end}");
        }
        let mut damaged = packed.clone();
        let last = damaged.len() - 6;
        damaged[last] ^= 1;
        assert_eq!(unpack(&[&damaged]), Err(Failure::Damaged));
    }
}
