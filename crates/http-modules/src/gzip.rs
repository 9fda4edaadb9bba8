//! Compressing responses with gzip (RFC 1952).
//!
//! What differs from nginx: the levels compress at least as well as zlib's, by other means and in less time; the sizes of
//! window and hash are the compressor's own. Compressors are kept in the worker and used again.

use std::rc::Rc;

use buf::Buf;
use conf::values::{Bufs, bufs, flag, number_between, size};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use expr::vars::Flags;
use http::body::Broken;
use http::config::core::{AND_IF, EVERYWHERE};
use http::config::mime::{TypeSet, add_types};
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::request::variables::{Getter, Setup};
use http::response::compress::{self, Codec, Op, Pace, Spare, Step};
use http::response::gzip::{GzipConf, gzip_ok};
use http::server::location::Handlers;
use sirocco::Format;
use sirocco::deflate::{Encoder, Flush, Level, MIN_BUFFER_LEN, TABLES_LEN};

/// The module.
pub struct Gzip;

const ONE: Args = Args::exactly(1);
const GZIP: Context = AND_IF;

conf::table! {
    /// How responses are compressed.
    pub struct GzipFilterConf, raw GzipFilterRaw, module "ngx_http_gzip_filter_module", level HTTP Location;

    /// Compresses responses with gzip for clients that accept it.
    ///
    /// Effect: holds for responses with status 200, 403 or 404 whose type is in `gzip_types`, whose length is at least
    /// `gzip_min_length` or unknown, and which aren't encoded already. A compressed response has no `Content-Length`,
    /// and its `ETag` becomes a weak one. `gzip_http_version`, `gzip_proxied` and `gzip_disable` leave out further
    /// clients.
    ///
    /// Cost: processor time for each response, more with a higher `gzip_comp_level`, and about 350 KiB of memory while
    /// it is sent, with up to 256 KiB more for one that comes in parts. Files are read instead of being sent by the kernel. `gzip_static` serves files that were compressed
    /// before.
    ///
    /// Danger: under TLS the length of a compressed page tells something of its contents: if it contains both a secret
    /// and what an attacker sends (BREACH), the secret can be guessed. Don't compress such pages.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_types text/css application/javascript application/json;
    /// gzip_vary on;
    /// ```
    "gzip" in GZIP, Args::FLAG, default "off",
        scalar(flag) gzip: bool = false;
    /// Sets the size of the buffers for compressed data.
    ///
    /// Form: `gzip_buffers number size`
    ///
    /// - `number`: accepted and unused: buffers are made as they are needed.
    /// - `size`: the size of a buffer; less than 1k counts as 1k, more than 64k as 64k.
    ///
    /// Effect: compressed data is passed on when a buffer is full, or when data must be sent at once.
    ///
    /// Cost: one buffer for each response that is being compressed.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_buffers 16 8k;
    /// ```
    "gzip_buffers" in EVERYWHERE, Args::exactly(2), default "32 4k",
        scalar(bufs) gzip_buffers: Bufs = Bufs { count: 32, size: 4096 };
    /// Sets the media types that are compressed besides `text/html`, which always is.
    ///
    /// Form: `gzip_types type ...`
    ///
    /// - `type`: a media type; its parameters (`charset`) aren't compared. `*` stands for all types.
    ///
    /// Effect: holds where `gzip` is on, for the field `Content-Type` of the response.
    ///
    /// Cost: types that are compressed already (images, videos, archives) take processor time and don't become smaller,
    /// so `*` is seldom a good choice.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_types text/plain text/css application/javascript image/svg+xml;
    /// ```
    "gzip_types" in EVERYWHERE, Args::at_least(1), default "text/html",
        set(|raw: &mut GzipFilterRaw, loader: &mut Loader<'_>, d: &Directive| add_types(&mut raw.gzip_types, loader, d))
        gzip_types: Rc<TypeSet> = TypeSet::html();
    /// Sets how hard responses are compressed.
    ///
    /// Form: `gzip_comp_level level`
    ///
    /// - `level`: from 1, the fastest, to 9, the smallest result.
    ///
    /// Effect: each level compresses about as well as zlib's level of that number.
    ///
    /// Cost: levels above 5 or 6 take much more processor time for little.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_comp_level 5;
    /// ```
    "gzip_comp_level" in EVERYWHERE, ONE, default "1",
        scalar(number_between(1, 9)) gzip_comp_level: u8 = 1;
    /// Accepted for compatibility: the compressor's window has 32 KiB, as clients expect.
    "gzip_window" in EVERYWHERE, ONE, default "32k",
        scalar(gzip_window) gzip_window: u8 = 15;
    /// Accepted for compatibility: the compressor's tables have one size.
    "gzip_hash" in EVERYWHERE, ONE, default "64k",
        scalar(gzip_hash) gzip_hash: u8 = 8;
    /// Sets how much of a response is gathered before it is compressed.
    ///
    /// Form: `postpone_gzipping size`
    ///
    /// - `size`: in bytes, or with `k`; `0` compresses at once.
    ///
    /// Effect: compression begins when this much has arrived, at the end of the response, or when data must be sent at
    /// once.
    ///
    /// Cost: up to this much memory for each response.
    ///
    /// ```nginx
    /// gzip on;
    /// postpone_gzipping 1460;
    /// ```
    "postpone_gzipping" in EVERYWHERE, ONE, default "0",
        scalar(size) postpone_gzipping: usize = 0;
    /// Sends on whatever was compressed after each part of a response, instead of when a buffer is full.
    ///
    /// Effect: holds for responses that come in parts, from a backend for instance.
    ///
    /// Cost: results become larger, and more packets are sent.
    ///
    /// ```nginx
    /// location /events/ {
    ///     gzip on;
    ///     gzip_no_buffer on;
    ///     proxy_pass http://127.0.0.1:8080;
    /// }
    /// ```
    "gzip_no_buffer" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) gzip_no_buffer: bool = false;
    /// Sets the shortest response that is compressed.
    ///
    /// Form: `gzip_min_length length`
    ///
    /// - `length`: in bytes; it is compared with `Content-Length`.
    ///
    /// Effect: shorter responses are sent as they are. Responses of unknown length are compressed in any case.
    ///
    /// Cost: very short responses become larger by compression.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_min_length 1000;
    /// ```
    "gzip_min_length" in EVERYWHERE, ONE, default "20",
        scalar(size) gzip_min_length: usize = 20;
}

fn gzip_window(loader: &mut Loader<'_>, d: &Directive) -> Result<u8> {
    let bits = power_of_two(size(loader, d)?, 9, 15);
    bits.ok_or_else(|| Error::on(d, "\"gzip_window\" directive must be 512, 1k, 2k, 4k, 8k, 16k, or 32k"))
}

fn gzip_hash(loader: &mut Loader<'_>, d: &Directive) -> Result<u8> {
    let bits = power_of_two(size(loader, d)?, 9, 17);
    let bits = bits
        .ok_or_else(|| Error::on(d, "\"gzip_hash\" directive must be 512, 1k, 2k, 4k, 8k, 16k, 32k, 64k, or 128k"))?;
    Ok(bits - 8)
}

/// The exponent of a power of two between two others.
fn power_of_two(size: usize, low: u8, high: u8) -> Option<u8> {
    (low..=high).find(|&bits| size == 1 << bits)
}

impl HttpModule for Gzip {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<GzipConf>();
        registry.add::<GzipFilterConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        http::variables! { setup, "ngx_http_gzip_filter_module";
            /// How many times smaller compression made the response. Empty if it wasn't compressed.
            "gzip_ratio", Flags::NONE, Getter::Plain(compress::ratio::<GzipCodec>);
        }
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<GzipFilterConf>();
        if conf.gzip {
            out.filters.push(Rc::new(GzipFilter(conf)));
        }
        Ok(())
    }
}

struct GzipFilter(Rc<GzipFilterConf>);

impl HeaderFilter for GzipFilter {
    fn order(&self) -> Order {
        Order::Gzip
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let conf = &self.0;
        if compress::fits(r, &conf.gzip_types, conf.gzip_min_length) && gzip_ok(r) {
            let pace = Pace {
                buffer: conf.gzip_buffers.size,
                postpone: conf.postpone_gzipping,
                unbuffered: conf.gzip_no_buffer,
            };
            let codec = GzipCodec::new(conf.gzip_comp_level, r.response.content_length);
            compress::install(r, codec, pace);
        }
        Ok(())
    }
}

/// The compressor of one response.
struct GzipCodec {
    level: Level,
    /// The length of the response, where that is known.
    length: Option<u64>,
    state: Option<Box<Compressor>>,
    /// The response came whole: it is compressed where it is.
    whole: bool,
}

/// A compressor and its input.
struct Compressor {
    encoder: Encoder,
    /// What has come of a response that comes in parts, as far as it is still needed.
    parts: Vec<u8>,
}

/// The most of a response that is kept for the compressor: some times its window.
const MOST: usize = 256 << 10;
const _: () = assert!(MOST > MIN_BUFFER_LEN);

/// The least memory for parts.
const LEAST: usize = 16 << 10;

impl Compressor {
    fn new(level: Level) -> Box<Compressor> {
        Box::new(Compressor { encoder: Encoder::new(Format::Gzip, level), parts: Vec::new() })
    }

    /// The memory that it takes.
    fn bytes(&self) -> usize {
        TABLES_LEN * size_of::<u16>() + size_of::<Compressor>() + self.parts.capacity()
    }

    /// Appends the beginning of the input to the parts; how many bytes of it.
    fn append(&mut self, input: &[u8], expected: Option<u64>) -> usize {
        if self.parts.capacity() - self.parts.len() < input.len() {
            self.make_room(input.len(), expected);
        }
        let room = self.parts.capacity().min(MOST) - self.parts.len();
        let some = input.get(..room).unwrap_or(input);
        self.parts.extend_from_slice(some);
        some.len()
    }

    /// Makes room for so many bytes, up to the most. What isn't needed any more is dropped first; if that is little, the
    /// memory grows, at once to the response's size where that is known.
    fn make_room(&mut self, more: usize, expected: Option<u64>) {
        let size = self.parts.capacity();
        let gone = self.encoder.make_room(&mut self.parts);
        self.parts.truncate(self.parts.len() - gone);
        let needed = self.parts.len() + more;
        if size >= MOST || needed <= size && gone >= size / 4 {
            return;
        }
        let expected = expected.and_then(|length| usize::try_from(length).ok()).unwrap_or(LEAST);
        let size = needed.max(2 * size).max(expected).clamp(LEAST, MOST);
        self.parts.reserve_exact(size.saturating_sub(self.parts.len()));
    }
}

impl GzipCodec {
    fn new(level: u8, length: Option<u64>) -> GzipCodec {
        GzipCodec { level: equivalent(level), length, state: None, whole: false }
    }

    fn give_back(&mut self) {
        if let Some(mut state) = self.state.take() {
            state.encoder.reset();
            state.parts.clear();
            let bytes = state.bytes();
            SPARE.with(|spare| spare.keep(self.level, state, bytes));
        }
    }
}

/// The library's level that compresses at least as well as zlib's.
fn equivalent(level: u8) -> Level {
    Level::new(if level < 4 { level } else { 9.min(level + 1) })
}

impl Codec for GzipCodec {
    const NAME: &'static str = "gzip";

    fn settings(&self) -> Option<u32> {
        Some(u32::from(self.level.get()))
    }

    fn step(&mut self, input: &[u8], op: Op, out: &mut Buf) -> std::result::Result<Step, Broken> {
        let state = match &mut self.state {
            Some(state) => state,
            none => {
                self.whole = op == Op::End;
                none.insert(SPARE.with(|spare| spare.take(&self.level)).unwrap_or_else(|| Compressor::new(self.level)))
            }
        };
        let mut taken = if self.whole { 0 } else { state.append(input, self.length) };
        let Compressor { encoder, parts } = &mut **state;
        let (bytes, flush) = match op {
            _ if self.whole => (input, Flush::Finish),
            Op::Flush if taken == input.len() => (&parts[..], Flush::Sync),
            Op::End if taken == input.len() => (&parts[..], Flush::Finish),
            _ => (&parts[..], Flush::None),
        };
        let progress = encoder.compress(bytes, out.room_mut(), flush);
        let (written, done, full) = (progress.output.len(), progress.done, progress.full);
        out.filled(written);
        if done {
            taken = input.len();
            self.give_back();
        }
        Ok(Step { taken, more: !done && (full || op == Op::End) })
    }
}

/// How many bytes unused compressors may take: some of them, of about 350 KiB each and the memory for their input.
const SPARES: usize = 4 << 20;

thread_local! {
    static SPARE: Spare<Level, Box<Compressor>> = const { Spare::new(SPARES) };
}

impl Drop for GzipCodec {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compresses as the filter does, into buffers of that size.
    fn pack(text: &[u8], level: u8, part: usize, size: usize, flush: bool) -> Vec<u8> {
        let (mut codec, mut packed, mut out) = (GzipCodec::new(level, None), Vec::new(), Buf::empty());
        let mut feed = |mut input: &[u8], op| {
            loop {
                if out.room() < compress::ROOM {
                    packed.extend_from_slice(&out);
                    out = Buf::with_capacity(size);
                }
                let Ok(Step { taken, more }) = codec.step(input, op, &mut out) else { panic!("it compresses") };
                input = &input[taken..];
                if input.is_empty() && !more {
                    break;
                }
            }
        };
        let mut parts = text.chunks(part).peekable();
        while let Some(part) = parts.next() {
            feed(part, if parts.peek().is_none() && !flush { Op::End } else { Op::Continue });
            if flush {
                feed(b"", Op::Flush);
            }
        }
        if flush || text.is_empty() {
            feed(b"", Op::End);
        }
        packed.extend_from_slice(&out);
        packed
    }

    /// Unpacks by another library, and checks the trailer.
    fn unpack(packed: &[u8]) -> Vec<u8> {
        let (head, rest) = packed.split_at(10);
        assert_eq!(head[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
        let (body, trailer) = rest.split_at(rest.len() - 8);
        let mut plain = vec![0; 2 << 20];
        let mut inflate = zlib_rs::Inflate::new(false, 15);
        assert!(inflate.decompress(body, &mut plain, zlib_rs::InflateFlush::Finish).is_ok());
        plain.truncate(inflate.total_out() as usize);
        let crc = crc32fast::hash(&plain).to_le_bytes();
        assert_eq!(trailer, [crc, (plain.len() as u32).to_le_bytes()].concat());
        plain
    }

    fn text(len: u32) -> Vec<u8> {
        let mut seed = 1u32;
        let bytes = (0..len).map(|i| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if i % 3 == 0 { (seed >> 24) as u8 } else { b'a' + (i / 5000 % 26) as u8 }
        });
        bytes.collect()
    }

    #[test]
    fn round_trips() {
        let (short, long) = (text(20_000), text(1_000_000));
        for level in 1..=9 {
            for (part, size) in [(20_000, 4096), (7, 1024), (1000, 64), (4096, 1 << 20)] {
                for flush in [false, true] {
                    assert!(unpack(&pack(&short, level, part, size, flush)) == short, "{level} {part} {size} {flush}");
                }
            }
            for (part, size, flush) in [(1_000_000, 4096, false), (300_000, 4096, false), (9000, 1024, true)] {
                assert!(unpack(&pack(&long, level, part, size, flush)) == long, "{level} {part} {size} {flush}");
            }
            assert_eq!(unpack(&pack(b"", level, 1, 1024, false)), b"");
        }
    }

    #[test]
    fn what_is_flushed_can_be_read() {
        let (mut codec, mut out) = (GzipCodec::new(1, None), Buf::with_capacity(1024));
        assert!(codec.step(b"tide", Op::Continue, &mut out).is_ok_and(|step| step == Step { taken: 4, more: false }));
        assert!(codec.step(b"", Op::Flush, &mut out).is_ok_and(|step| step == Step { taken: 0, more: false }));
        let (mut plain, mut inflate) = ([0; 64], zlib_rs::Inflate::new(false, 15));
        assert!(inflate.decompress(&out[10..], &mut plain, zlib_rs::InflateFlush::SyncFlush).is_ok());
        assert_eq!(&plain[..inflate.total_out() as usize], b"tide");
    }

    /// The memory for parts after a response of so many, each so long.
    fn memory(length: Option<u64>, parts: usize, part: usize, op: Op) -> usize {
        let mut codec = GzipCodec::new(1, length);
        for text in text((parts * part) as u32).chunks(part) {
            let mut input = text;
            loop {
                let step =
                    codec.step(input, op, &mut Buf::with_capacity(64 << 10)).unwrap_or_else(|_| panic!("it works"));
                input = &input[step.taken..];
                if input.is_empty() && !step.more {
                    break;
                }
            }
        }
        let capacity = codec.state.as_ref().map_or(0, |state| state.parts.capacity());
        // The next one begins without memory.
        std::mem::forget(codec);
        capacity
    }

    #[test]
    fn memory_for_parts() {
        for (length, parts, part, op, expect) in [
            // Of a known length: that at once, up to the bound.
            (Some(100_000), 1, 30_000, Op::Continue, 100_000),
            (Some(100_000), 3, 30_000, Op::Continue, 100_000),
            (Some(1 << 40), 1, 1000, Op::Continue, MOST),
            // A length that isn't true.
            (Some(10), 2, 40_000, Op::Continue, 80_000),
            // As it grows, never beyond the bound.
            (None, 1, 1, Op::Continue, LEAST),
            (None, 100, 48 << 10, Op::Continue, 192 << 10),
            (None, 100, 64 << 10, Op::Continue, 128 << 10),
            // What is passed on at once needs no more than the window.
            (None, 3000, 1000, Op::Flush, 4 * LEAST),
        ] {
            assert_eq!(memory(length, parts, part, op), expect, "{length:?} {parts} of {part}");
        }
    }

    #[test]
    fn compressors_are_used_again() {
        let text = text(5000);
        let first = pack(&text, 6, 5000, 4096, false);
        // One that breaks off leaves nothing to the next.
        let mut codec = GzipCodec::new(6, None);
        assert!(codec.step(b"some", Op::Continue, &mut Buf::with_capacity(64)).is_ok());
        drop(codec);
        assert_eq!(pack(&text, 6, 5000, 4096, false), first);
        assert_eq!(SPARE.with(Spare::count), 1);
    }
}
