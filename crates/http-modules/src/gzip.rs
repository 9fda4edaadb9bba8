//! Compressing responses with gzip (RFC 1952).
//!
//! What differs from nginx: the state of a compressor is kept in the worker and used again, so the window and hash
//! sizes are those of the configuration even where a response is known to be short; level 1 is the library's level 2,
//! which compresses as zlib's level 1 does (its own level 1 is faster and much weaker).

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use buf::{Buf, Bytes, Chain, Piece};
use conf::values::{Bufs, bufs, flag, number_between, size};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use expr::vars::Flags;
use http::body::BodyFilter;
use http::body::Broken;
use http::config::core::{AND_IF, EVERYWHERE};
use http::config::mime::TypeSet;
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::request::variables::{Getter, Setup, show};
use http::response::gzip::{GzipConf, gzip_ok};
use http::server::location::Handlers;
use wire::h1::KnownHeader;
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
        set(gzip_types) gzip_types: Rc<TypeSet> = TypeSet::html();
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

fn gzip_types(raw: &mut GzipFilterRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let types = raw.gzip_types.get_or_insert_with(TypeSet::html);
    Rc::make_mut(types).extend(loader, d);
    Ok(())
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
            "gzip_ratio", Flags::NONE, Getter::Plain(gzip_ratio);
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
        let response = &r.response;
        let fits = matches!(response.status, 200 | 403 | 404)
            && response.content_length.is_none_or(|length| length >= self.0.gzip_min_length as u64)
            && self.0.gzip_types.has(response.content_type.as_deref().unwrap_or_default())
            && response.headers.find(KnownHeader::ContentEncoding).is_none();
        if !fits {
            return Ok(());
        }
        r.response.gzip_vary = true;
        if !gzip_ok(r) {
            return Ok(());
        }
        let counts = Rc::new(Counts::default());
        r.slot::<Ratio>().0 = Some(counts.clone());
        let response = &mut r.response;
        response.headers.add(KnownHeader::ContentEncoding, Bytes::from_static(b"gzip"));
        response.clear_length();
        response.weaken();
        response.filters.push(Box::new(Compress::new(&self.0, counts)));
        Ok(())
    }
}

/// Bytes in and out, for `$gzip_ratio`.
#[derive(Default)]
struct Counts {
    plain: Cell<u64>,
    packed: Cell<u64>,
}

#[derive(Default)]
struct Ratio(Option<Rc<Counts>>);

fn gzip_ratio(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(counts) = r.find_slot::<Ratio>().and_then(|ratio| ratio.0.as_ref()) else { return false };
    match hundredths(counts.plain.get(), counts.packed.get()) {
        Some(ratio) => show(out, format_args!("{}.{:02}", ratio / 100, ratio % 100)),
        None => false,
    }
}

/// The ratio in hundredths, rounded.
fn hundredths(plain: u64, packed: u64) -> Option<u64> {
    (plain > 0).then(|| (plain * 1000).checked_div(packed)).flatten().map(|ratio| (ratio + 5) / 10)
}

/// The compressor of one response.
struct Compress {
    conf: Rc<GzipFilterConf>,
    state: Option<Box<Deflate>>,
    crc: crc32fast::Hasher,
    counts: Rc<Counts>,
    begun: bool,
    /// Data that waits for `postpone_gzipping`.
    held: Chain,
    out: Buf,
}

impl Compress {
    fn new(conf: &Rc<GzipFilterConf>, counts: Rc<Counts>) -> Compress {
        Compress {
            conf: conf.clone(),
            state: None,
            crc: crc32fast::Hasher::new(),
            counts,
            begun: false,
            held: Chain::new(),
            out: Buf::empty(),
        }
    }

    fn feed(&mut self, input: &[u8], flush: DeflateFlush, out: &mut Chain) -> std::result::Result<(), Broken> {
        let state = self.state.get_or_insert_with(|| take_state(config(&self.conf)));
        let size = self.conf.gzip_buffers.size.clamp(1024, 64 << 10);
        let mut rest = input;
        loop {
            if self.out.room() < TRAILER {
                flush_buffer(&mut self.out, out, &self.counts);
                self.out = Buf::with_capacity(size);
            }
            let (before_in, before_out) = (state.total_in(), state.total_out());
            let status = state.compress(rest, self.out.room_mut(), flush).map_err(|_| Broken)?;
            rest = rest.get((state.total_in() - before_in) as usize..).unwrap_or_default();
            self.out.filled((state.total_out() - before_out) as usize);
            let full = self.out.room() == 0;
            if matches!(status, Status::StreamEnd) || (rest.is_empty() && !full) {
                return Ok(());
            }
            if !full && matches!(status, Status::BufError) {
                return Ok(());
            }
        }
    }

    fn finish(&mut self, out: &mut Chain) -> std::result::Result<(), Broken> {
        self.feed(b"", DeflateFlush::Finish, out)?;
        self.out.extend_from_slice(&self.crc.clone().finalize().to_le_bytes());
        self.out.extend_from_slice(&(self.counts.plain.get() as u32).to_le_bytes());
        flush_buffer(&mut self.out, out, &self.counts);
        if let Some(state) = self.state.take() {
            give_state(config(&self.conf), state);
        }
        Ok(())
    }
}

impl BodyFilter for Compress {
    fn apply(&mut self, input: Chain, end: bool, flush: bool, out: &mut Chain) -> std::result::Result<(), Broken> {
        let mut input = input;
        if !self.begun {
            self.held.append(&mut input);
            if !end && !flush && (self.held.is_empty() || self.held.len() < self.conf.postpone_gzipping as u64) {
                return Ok(());
            }
            input = std::mem::take(&mut self.held);
            self.begun = true;
            let size = self.conf.gzip_buffers.size.clamp(1024, 64 << 10);
            self.out = Buf::with_capacity(size);
            self.out.extend_from_slice(HEAD);
        }
        while let Some(piece) = input.pop() {
            let Piece::Bytes(bytes) = piece else { return Err(Broken) };
            self.crc.update(&bytes);
            self.counts.plain.set(self.counts.plain.get() + bytes.len() as u64);
            self.feed(&bytes, DeflateFlush::NoFlush, out)?;
        }
        if end {
            return self.finish(out);
        }
        if flush || self.conf.gzip_no_buffer {
            self.feed(b"", DeflateFlush::SyncFlush, out)?;
            flush_buffer(&mut self.out, out, &self.counts);
        }
        Ok(())
    }
}

/// Passes on the compressed data.
fn flush_buffer(buf: &mut Buf, out: &mut Chain, counts: &Counts) {
    if !buf.is_empty() {
        counts.packed.set(counts.packed.get() + buf.len() as u64);
        out.push_bytes(std::mem::replace(buf, Buf::empty()));
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

impl Drop for Compress {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            give_state(config(&self.conf), state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(postpone_gzipping: usize, size: usize) -> Rc<GzipFilterConf> {
        Rc::new(GzipFilterConf {
            gzip: true,
            gzip_buffers: Bufs { count: 4, size },
            gzip_types: TypeSet::html(),
            gzip_comp_level: 1,
            gzip_window: 15,
            gzip_hash: 8,
            postpone_gzipping,
            gzip_no_buffer: false,
            gzip_min_length: 0,
        })
    }

    fn bytes(chain: &Chain) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in chain.pieces() {
            if let Piece::Bytes(bytes) = piece {
                all.extend_from_slice(bytes);
            }
        }
        all
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
        for (postpone, part, size) in [(0, 20_000, 4096), (0, 7, 1024), (5000, 1000, 4096), (0, 4096, 1 << 20)] {
            for flush in [false, true] {
                let counts = Rc::new(Counts::default());
                let mut filter = Compress::new(&conf(postpone, size), counts.clone());
                let mut out = Chain::new();
                for part in text.chunks(part) {
                    let before = out.len();
                    assert!(filter.apply(Chain::from(Bytes::copy_from(part)), false, flush, &mut out).is_ok());
                    assert!(!flush || out.len() > before);
                }
                assert!(filter.apply(Chain::new(), true, false, &mut out).is_ok());
                assert_eq!(unpack(&bytes(&out)), text, "{postpone} {part} {size} {flush}");
                assert_eq!(counts.packed.get(), out.len());
            }
        }
    }

    #[test]
    fn ratios() {
        assert_eq!(hundredths(100, 50), Some(200));
        assert_eq!(hundredths(1000, 299), Some(334));
        assert_eq!(hundredths(0, 20), None);
        assert_eq!(hundredths(5, 0), None);
    }
}
