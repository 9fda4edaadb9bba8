//! `gunzip`: responses that are compressed with gzip, decompressed for clients that don't accept that.
//!
//! What differs from nginx: a compressor's state is as large as it has to be, so `gunzip_buffers` only sets the size of a
//! buffer; and bytes after the last member (padding, usually) end a response instead of breaking it off.

use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use buf::{Buf, Chain, Piece};
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
    /// Sets the size of the buffers for decompressed data.
    ///
    /// Form: `gunzip_buffers number size`
    ///
    /// - `number`: accepted and unused: buffers are made as they are needed.
    /// - `size`: the size of a buffer; less than 1k counts as 1k, more than 64k as 64k.
    ///
    /// Effect: decompressed data is passed on when a buffer is full, or when data must be sent at once.
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
            out.filters.push(Rc::new(Filter { size: conf.gunzip_buffers.size.clamp(1024, 64 << 10) }));
        }
        Ok(())
    }
}

struct Filter {
    size: usize,
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
        response.filters.push(Box::new(Decompress::new(self.size)));
        Ok(())
    }
}

/// The decompressor of one response: a row of members (RFC 1952 §2.2).
struct Decompress {
    state: Box<Inflate>,
    size: usize,
    out: Buf,
    at: At,
    failure: Option<Failure>,
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
    fn new(size: usize) -> Decompress {
        let state = Box::new(Inflate::new(true, GZIP_WINDOW));
        Decompress { state, size, out: Buf::empty(), at: At::Start, failure: None }
    }

    fn feed(&mut self, mut input: &[u8], out: &mut Chain) -> std::result::Result<(), Failure> {
        while !input.is_empty() {
            match self.at {
                At::Over => return Ok(()),
                At::Between if input.first() != MAGIC.first() => self.at = At::Over,
                At::Between => {
                    *self.state = Inflate::new(true, GZIP_WINDOW);
                    self.at = At::Member;
                }
                At::Start | At::Member => {
                    self.at = At::Member;
                    input = self.inflate(input, out)?;
                }
            }
        }
        Ok(())
    }

    /// Decompresses of one member what there is; returns the rest of the input.
    fn inflate<'i>(&mut self, mut input: &'i [u8], out: &mut Chain) -> std::result::Result<&'i [u8], Failure> {
        loop {
            if self.out.room() == 0 {
                self.pass_on(out);
                self.out = Buf::with_capacity(self.size);
            }
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(input, self.out.room_mut(), InflateFlush::NoFlush);
            let status = status.map_err(|_| Failure::Damaged)?;
            input = input.get((self.state.total_in() - before_in) as usize..).unwrap_or_default();
            self.out.filled((self.state.total_out() - before_out) as usize);
            match status {
                Status::StreamEnd => {
                    self.at = At::Between;
                    return Ok(input);
                }
                _ if self.out.room() == 0 => {}
                _ => return Ok(input),
            }
        }
    }

    fn pass_on(&mut self, out: &mut Chain) {
        if !self.out.is_empty() {
            out.push_bytes(std::mem::replace(&mut self.out, Buf::empty()));
        }
    }

    fn take(&mut self, mut input: Chain, end: bool, out: &mut Chain) -> std::result::Result<(), Failure> {
        while let Some(piece) = input.pop() {
            let Piece::Bytes(bytes) = piece else { return Err(Failure::Damaged) };
            self.feed(&bytes, out)?;
        }
        let whole = matches!(self.at, At::Between | At::Over);
        if end && !whole { Err(Failure::CutShort) } else { Ok(()) }
    }
}

impl BodyFilter for Decompress {
    fn apply(&mut self, input: Chain, end: bool, flush: bool, out: &mut Chain) -> std::result::Result<(), Broken> {
        self.failure = self.take(input, end, out).err();
        if end || flush || self.failure.is_some() {
            self.pass_on(out);
        }
        Ok(())
    }

    fn poll_waiting(
        &mut self,
        r: &mut Request,
        _: &mut TaskContext<'_>,
        _: &mut Chain,
    ) -> Poll<std::result::Result<(), Broken>> {
        let said = match self.failure {
            None => return Poll::Ready(Ok(())),
            Some(Failure::Damaged) => "inflate() failed: the response isn't valid gzip",
            Some(Failure::CutShort) => "inflate() failed: the response ends before its gzip data does",
        };
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
    use buf::Bytes;
    use zlib_rs::{DeflateConfig, compress_slice};

    use super::*;

    fn pack(text: &[u8]) -> Vec<u8> {
        let mut room = vec![0; text.len() + 100];
        let config = DeflateConfig { window_bits: 31, ..DeflateConfig::default() };
        compress_slice(&mut room, text, config).0.to_vec()
    }

    fn unpack(parts: &[&[u8]]) -> std::result::Result<Vec<u8>, Failure> {
        let mut filter = Decompress::new(1024);
        let mut out = Chain::new();
        for (index, part) in parts.iter().enumerate() {
            let end = index + 1 == parts.len();
            filter.take(Chain::from(Bytes::copy_from(part)), end, &mut out)?;
        }
        filter.pass_on(&mut out);
        let bytes = out.pieces().iter().flat_map(|piece| match piece {
            Piece::Bytes(bytes) => bytes.to_vec(),
            Piece::File(_) => Vec::new(),
        });
        Ok(bytes.collect())
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
