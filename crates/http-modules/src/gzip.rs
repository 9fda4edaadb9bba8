//! Compressing responses with gzip (RFC 1952).
//!
//! What differs from nginx: the state of a compressor is kept in the worker and used again, so the window and hash
//! sizes are those of the configuration even where a response is known to be short; level 1 is the library's level 2,
//! which compresses as zlib's level 1 does (its own level 1 is faster and much weaker).

use std::cell::RefCell;
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
use http::response::compress::{self, Codec, Op, Pace, Step};
use http::response::gzip::{GzipConf, gzip_ok};
use http::server::location::Handlers;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status};

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
    /// Cost: processor time for each response, more with a higher `gzip_comp_level`, and about 256 KiB of memory while
    /// it is sent. Files are read instead of being sent by the kernel. `gzip_static` serves files that were compressed
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
    /// Effect: `1` compresses as zlib's level 1 does, and `2` is the same here.
    ///
    /// Cost: levels above 5 or 6 take much more processor time for little.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_comp_level 5;
    /// ```
    "gzip_comp_level" in EVERYWHERE, ONE, default "1",
        scalar(number_between(1, 9)) gzip_comp_level: u8 = 1;
    /// Sets the size of the window in which the compressor finds repetitions.
    ///
    /// Form: `gzip_window size`
    ///
    /// - `size`: a power of two from 512 to 32k.
    ///
    /// Effect: a larger window makes results smaller.
    ///
    /// Cost: about four times the size in memory for each response that is being compressed.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_window 16k;
    /// ```
    "gzip_window" in EVERYWHERE, ONE, default "32k",
        scalar(gzip_window) gzip_window: u8 = 15;
    /// Sets the size of the table by which the compressor finds repetitions.
    ///
    /// Form: `gzip_hash size`
    ///
    /// - `size`: a power of two from 512 to 128k.
    ///
    /// Effect: a larger table makes compression faster and results a little smaller.
    ///
    /// Cost: about twice the size in memory for each response that is being compressed.
    ///
    /// ```nginx
    /// gzip on;
    /// gzip_hash 32k;
    /// ```
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
            compress::install(r, GzipCodec::new(conf.clone()), pace);
        }
        Ok(())
    }
}

/// The compressor of one response.
struct GzipCodec {
    conf: Rc<GzipFilterConf>,
    state: Option<Box<Deflate>>,
    crc: crc32fast::Hasher,
    /// The length of what was compressed, modulo 2^32.
    length: u32,
    at: At,
}

/// Which part of the format comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    Data,
    Trailer,
}

impl GzipCodec {
    fn new(conf: Rc<GzipFilterConf>) -> GzipCodec {
        GzipCodec { conf, state: None, crc: crc32fast::Hasher::new(), length: 0, at: At::Head }
    }

    fn write_trailer(&mut self, out: &mut Buf) {
        out.extend_from_slice(&self.crc.clone().finalize().to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        self.give_back();
    }

    fn give_back(&mut self) {
        if let Some(state) = self.state.take() {
            give_state(config(&self.conf), state);
        }
    }
}

impl Codec for GzipCodec {
    const NAME: &'static str = "gzip";

    fn step(&mut self, input: &[u8], op: Op, out: &mut Buf) -> std::result::Result<Step, Broken> {
        match self.at {
            At::Head => {
                out.extend_from_slice(HEAD);
                self.at = At::Data;
            }
            At::Data => {}
            At::Trailer => {
                self.write_trailer(out);
                return Ok(Step { taken: 0, more: false });
            }
        }
        let state = self.state.get_or_insert_with(|| take_state(config(&self.conf)));
        let flush = match op {
            Op::Continue => DeflateFlush::NoFlush,
            Op::Flush => DeflateFlush::SyncFlush,
            Op::End => DeflateFlush::Finish,
        };
        let (before_in, before_out) = (state.total_in(), state.total_out());
        let status = state.compress(input, out.room_mut(), flush).map_err(|_| Broken)?;
        let taken = (state.total_in() - before_in) as usize;
        out.filled((state.total_out() - before_out) as usize);
        let taken_input = input.get(..taken).unwrap_or_default();
        self.crc.update(taken_input);
        self.length = self.length.wrapping_add(taken as u32);
        if status == Status::StreamEnd {
            self.at = At::Trailer;
            if out.room() >= TRAILER {
                self.write_trailer(out);
                return Ok(Step { taken, more: false });
            }
            return Ok(Step { taken, more: true });
        }
        Ok(Step { taken, more: out.room() == 0 })
    }
}

/// No name, no time, made on Unix (RFC 1952 §2.3).
const HEAD: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
/// Checksum and length.
const TRAILER: usize = 8;

fn config(conf: &GzipFilterConf) -> DeflateConfig {
    DeflateConfig {
        level: i32::from(conf.gzip_comp_level.max(2)),
        window_bits: -i32::from(conf.gzip_window),
        mem_level: i32::from(conf.gzip_hash),
        ..DeflateConfig::default()
    }
}

/// How many unused compressors a worker keeps.
const KEPT: usize = 8;

thread_local! {
    static STATES: RefCell<Vec<(DeflateConfig, Box<Deflate>)>> = const { RefCell::new(Vec::new()) };
}

fn take_state(config: DeflateConfig) -> Box<Deflate> {
    let kept = STATES.with_borrow_mut(|states| {
        let at = states.iter().rposition(|(own, _)| *own == config)?;
        Some(states.swap_remove(at).1)
    });
    kept.unwrap_or_else(|| Box::new(Deflate::new_with_config(config)))
}

fn give_state(config: DeflateConfig, mut state: Box<Deflate>) {
    state.reset();
    STATES.with_borrow_mut(|states| {
        if states.len() >= KEPT {
            states.remove(0);
        }
        states.push((config, state));
    });
}

impl Drop for GzipCodec {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf() -> Rc<GzipFilterConf> {
        Rc::new(GzipFilterConf {
            gzip: true,
            gzip_buffers: Bufs { count: 4, size: 4096 },
            gzip_types: TypeSet::html(),
            gzip_comp_level: 1,
            gzip_window: 15,
            gzip_hash: 8,
            postpone_gzipping: 0,
            gzip_no_buffer: false,
            gzip_min_length: 0,
        })
    }

    /// Compresses as the filter does, into buffers of that size.
    fn pack(text: &[u8], part: usize, size: usize, flush: bool) -> Vec<u8> {
        let (mut codec, mut packed, mut out) = (GzipCodec::new(conf()), Vec::new(), Buf::empty());
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
        for part in text.chunks(part) {
            feed(part, Op::Continue);
            if flush {
                feed(b"", Op::Flush);
            }
        }
        feed(b"", Op::End);
        packed.extend_from_slice(&out);
        packed
    }

    /// Unpacks and checks the trailer.
    fn unpack(packed: &[u8]) -> Vec<u8> {
        let (head, rest) = packed.split_at(HEAD.len());
        assert_eq!(head, HEAD);
        let (body, trailer) = rest.split_at(rest.len() - TRAILER);
        let mut plain = vec![0; 1 << 20];
        let mut inflate = zlib_rs::Inflate::new(false, 15);
        assert!(inflate.decompress(body, &mut plain, zlib_rs::InflateFlush::Finish).is_ok());
        plain.truncate(inflate.total_out() as usize);
        let crc = crc32fast::hash(&plain).to_le_bytes();
        assert_eq!(trailer, [crc, (plain.len() as u32).to_le_bytes()].concat());
        plain
    }

    #[test]
    fn round_trips() {
        let mut text = Vec::new();
        let mut seed = 1u32;
        for i in 0..20_000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (seed >> 24) as u8;
            text.push(if i % 3 == 0 { noise } else { b'a' });
        }
        for (part, size) in [(20_000, 4096), (7, 1024), (1000, 64), (4096, 1 << 20)] {
            for flush in [false, true] {
                assert_eq!(unpack(&pack(&text, part, size, flush)), text, "{part} {size} {flush}");
            }
        }
        assert_eq!(unpack(&pack(b"", 1, 1024, false)), b"");
        // A compressor that has served is used again.
        assert_eq!(STATES.with_borrow(Vec::len), 1);
    }
}
