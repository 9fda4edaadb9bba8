//! Compressing responses with Brotli (RFC 7932), under the directives of the module `ngx_brotli`.
//!
//! A client that accepts both gets Brotli rather than gzip. What differs from that module: where the length of a response
//! is known, the window is no larger than it has to be.

use std::rc::Rc;

use ::brotli::enc::StandardAlloc;
use ::brotli::enc::backward_references::{AnyHasher, UnionHasher};
use ::brotli::enc::encode::{BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct};
use buf::Buf;
use conf::values::{Bufs, bufs, flag, number_between, size};
use conf::{Args, Directive, Error, Loader, Registry, Result};
use expr::vars::Flags;
use http::body::Broken;
use http::config::core::{AND_IF, EVERYWHERE};
use http::config::mime::{TypeSet, add_types};
use http::module::{HttpModule, LocationContext};
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::request::variables::{Getter, Setup};
use http::response::compress::{self, Codec, Op, Pace, Spare, Step};
use http::response::gzip::accepts;
use http::server::location::Handlers;

/// The module.
pub struct Brotli;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// How responses are compressed.
    pub struct BrotliConf, raw BrotliRaw, module "ngx_http_brotli_filter_module", level HTTP Location;

    /// Compresses responses with Brotli for clients that accept it.
    ///
    /// Effect: holds for responses with status 200, 403 or 404 whose type is in `brotli_types`, whose length is at least
    /// `brotli_min_length` or unknown, and which aren't encoded already. A compressed response has no `Content-Length`,
    /// and its `ETag` becomes a weak one. A client that accepts gzip too gets Brotli. `gzip_vary` holds, and none of the
    /// other conditions of `gzip`.
    ///
    /// Cost: processor time for each response, more with a higher `brotli_comp_level`, and some MiB of memory while it is
    /// sent. Files are read instead of being sent by the kernel. `brotli_static` serves files that were compressed before.
    ///
    /// Danger: under TLS the length of a compressed page tells something of its contents: if it contains both a secret
    /// and what an attacker sends (BREACH), the secret can be guessed. Don't compress such pages.
    ///
    /// ```nginx
    /// brotli on;
    /// brotli_types text/css application/javascript application/json;
    /// gzip_vary on;
    /// ```
    "brotli" in AND_IF, Args::FLAG, default "off",
        scalar(flag) brotli: bool = false;
    /// Sets the size of the buffers for compressed data.
    ///
    /// Form: `brotli_buffers number size`
    ///
    /// - `number`: accepted and unused: buffers are made as they are needed.
    /// - `size`: the size of a buffer; less than 1k counts as 1k, more than 64k as 64k.
    ///
    /// Effect: compressed data is passed on when a buffer is full, or when data must be sent at once.
    ///
    /// ```nginx
    /// brotli on;
    /// brotli_buffers 16 8k;
    /// ```
    "brotli_buffers" in EVERYWHERE, Args::exactly(2), default "32 4k",
        scalar(bufs) brotli_buffers: Bufs = Bufs { count: 32, size: 4096 };
    /// Sets the media types that are compressed besides `text/html`, which always is.
    ///
    /// Form: `brotli_types type ...`
    ///
    /// - `type`: a media type; its parameters (`charset`) aren't compared. `*` stands for all types.
    ///
    /// Effect: holds where `brotli` is on, for the field `Content-Type` of the response.
    ///
    /// Cost: types that are compressed already (images, videos, archives) take processor time and don't become smaller,
    /// so `*` is seldom a good choice.
    ///
    /// ```nginx
    /// brotli on;
    /// brotli_types text/plain text/css application/javascript image/svg+xml;
    /// ```
    "brotli_types" in EVERYWHERE, Args::at_least(1), default "text/html",
        set(|raw: &mut BrotliRaw, loader: &mut Loader<'_>, d: &Directive| add_types(&mut raw.brotli_types, loader, d))
        brotli_types: Rc<TypeSet> = TypeSet::html();
    /// Sets how hard responses are compressed.
    ///
    /// Form: `brotli_comp_level level`
    ///
    /// - `level`: from 0, the fastest, to 11, the smallest result.
    ///
    /// Effect: holds where `brotli` is on.
    ///
    /// Cost: 4 and 5 suit responses that are compressed as they are sent; 10 and 11 take a hundred times as long, and
    /// suit files only (`brotli_static`).
    ///
    /// ```nginx
    /// brotli on;
    /// brotli_comp_level 5;
    /// ```
    "brotli_comp_level" in EVERYWHERE, ONE, default "6",
        scalar(number_between(0, 11)) brotli_comp_level: u8 = 6;
    /// Sets the size of the window in which the compressor finds repetitions.
    ///
    /// Form: `brotli_window size`
    ///
    /// - `size`: a power of two from 1k to 16m.
    ///
    /// Effect: a larger window makes long results smaller. For a response of known length a smaller one is used if that
    /// does as well.
    ///
    /// Cost: some times the size in memory for each response that is being compressed, and the size for the client. With
    /// less than 128k levels 5 to 8 take ten times as long.
    ///
    /// ```nginx
    /// brotli on;
    /// brotli_window 256k;
    /// ```
    "brotli_window" in EVERYWHERE, ONE, default "512k",
        scalar(brotli_window) brotli_window: u8 = 19;
    /// Sets the shortest response that is compressed.
    ///
    /// Form: `brotli_min_length length`
    ///
    /// - `length`: in bytes; it is compared with `Content-Length`.
    ///
    /// Effect: shorter responses are sent as they are. Responses of unknown length are compressed in any case.
    ///
    /// ```nginx
    /// brotli on;
    /// brotli_min_length 1000;
    /// ```
    "brotli_min_length" in EVERYWHERE, ONE, default "20",
        scalar(size) brotli_min_length: usize = 20;
}

fn brotli_window(loader: &mut Loader<'_>, d: &Directive) -> Result<u8> {
    let size = size(loader, d)?;
    let bits = (LEAST_WINDOW..=24).find(|&bits| size == 1 << bits);
    bits.ok_or_else(|| Error::on(d, "\"brotli_window\" directive must be a power of two from 1k to 16m"))
}

/// The smallest window, as a power of two.
const LEAST_WINDOW: u8 = 10;

impl HttpModule for Brotli {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<BrotliConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        http::variables! { setup, "ngx_http_brotli_filter_module";
            /// How many times smaller Brotli made the response. Empty if it wasn't compressed with it.
            "brotli_ratio", Flags::NONE, Getter::Plain(compress::ratio::<BrotliCodec>);
        }
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<BrotliConf>();
        if conf.brotli {
            out.filters.push(Rc::new(Filter(conf)));
        }
        Ok(())
    }
}

struct Filter(Rc<BrotliConf>);

impl HeaderFilter for Filter {
    fn order(&self) -> Order {
        Order::Brotli
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let conf = &self.0;
        if compress::fits(r, &conf.brotli_types, conf.brotli_min_length) && accepts(r, b"br") {
            let codec = BrotliCodec {
                level: conf.brotli_comp_level,
                window: window(conf.brotli_window, conf.brotli_comp_level, r.response.content_length),
                length: r.response.content_length,
                state: None,
            };
            compress::install(r, codec, Pace { buffer: conf.brotli_buffers.size, postpone: 0, unbuffered: false });
        }
        Ok(())
    }
}

/// The window for a response: no larger than its length needs.
fn window(most: u8, level: u8, length: Option<u64>) -> u8 {
    let needed = length.map_or(most, |length| (u64::BITS - length.leading_zeros() + 1) as u8);
    let least = if SEARCHING.contains(&level) { SEARCHED_WINDOW } else { LEAST_WINDOW };
    needed.max(least).min(most)
}

/// Levels for which the library has no quick search in windows below [`SEARCHED_WINDOW`]: it takes ten times as long there.
const SEARCHING: std::ops::RangeInclusive<u8> = 5..=8;
const SEARCHED_WINDOW: u8 = 17;

/// The compressor of one response.
struct BrotliCodec {
    level: u8,
    window: u8,
    length: Option<u64>,
    state: Option<Box<BrotliEncoderStateStruct<StandardAlloc>>>,
}

impl BrotliCodec {
    fn begin(&self) -> Box<BrotliEncoderStateStruct<StandardAlloc>> {
        let mut state = Box::new(BrotliEncoderStateStruct::new(StandardAlloc::default()));
        state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_QUALITY, self.level.into());
        state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_LGWIN, self.window.into());
        if let Some(length) = self.length.and_then(|length| u32::try_from(length).ok()) {
            state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_SIZE_HINT, length);
        }
        if let Some(mut table) = SPARE.with(|spare| spare.take(&self.kind())) {
            state.params.hasher = table.GetHasherCommon().params;
            state.hasher_ = table;
        }
        state
    }

    /// What the encoder chooses its table by: the level, the window, and whether so much is to be expected.
    fn kind(&self) -> Kind {
        let exceeds = |length: u64| self.length.is_some_and(|expected| expected > length);
        (self.level, self.window, [exceeds(1 << 20), exceeds(1 << 22)])
    }
}

/// See [`BrotliCodec::kind`].
type Kind = (u8, u8, [bool; 2]);

/// Where an encoder has seen each text before.
type Table = UnionHasher<StandardAlloc>;

/// How many bytes of tables a worker keeps: eight of the levels 5 and 6, or one of level 7; those of level 8 take 16 MiB.
const SPARES: usize = 9 << 20;

thread_local! {
    /// Tables that no response uses. To have a new one cleared would cost more than a short response: of these only the
    /// counters are.
    static SPARE: Spare<Kind, Table> = const { Spare::new(SPARES) };
}

impl Drop for BrotliCodec {
    fn drop(&mut self) {
        let Some(mut state) = self.state.take().filter(|_| SEARCHING.contains(&self.level)) else { return };
        let mut table = std::mem::replace(&mut state.hasher_, UnionHasher::Uninit);
        if matches!(table, UnionHasher::Uninit) {
            return;
        }
        let common = table.GetHasherCommon();
        common.is_prepared_ = 0;
        let bytes = (4 << (common.params.bucket_bits + common.params.block_bits)) + (2 << common.params.bucket_bits);
        SPARE.with(|spare| spare.keep(self.kind(), table, bytes));
    }
}

impl Codec for BrotliCodec {
    const NAME: &'static str = "br";

    fn settings(&self) -> Option<u32> {
        Some(u32::from_le_bytes([self.level, self.window, 0, 0]))
    }

    fn step(&mut self, input: &[u8], op: Op, out: &mut Buf) -> std::result::Result<Step, Broken> {
        if self.state.is_none() {
            self.state = Some(self.begin());
        }
        let Some(state) = &mut self.state else { return Err(Broken) };
        let op = match op {
            Op::Continue => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
            Op::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
            Op::End => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
        };
        let (mut left, mut taken) = (input.len(), 0);
        let (mut room, mut written) = (out.room(), 0);
        let done = state.compress_stream(
            op,
            &mut left,
            input,
            &mut taken,
            &mut room,
            out.room_mut(),
            &mut written,
            &mut None,
            &mut |_, _, _, _| (),
        );
        out.filled(written);
        if !done {
            return Err(Broken);
        }
        Ok(Step { taken, more: state.has_more_output() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(text: &[u8], level: u8, part: usize, flush: bool) -> Vec<u8> {
        let length = Some(text.len() as u64).filter(|_| part.is_multiple_of(2));
        let mut codec = BrotliCodec { level, window: window(19, level, length), length, state: None };
        let (mut packed, mut out) = (Vec::new(), Buf::empty());
        let mut feed = |mut input: &[u8], op| {
            loop {
                if out.room() < compress::ROOM {
                    packed.extend_from_slice(&out);
                    out = Buf::with_capacity(1024);
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

    #[test]
    fn round_trips() {
        let text: Vec<u8> = (0..30_000u32).flat_map(|i| format!("{} tide and gate ", i % 977).into_bytes()).collect();
        for level in [0, 1, 4, 5, 9] {
            for (text, part, flush) in
                [(&text[..], 4096, false), (&text, 70_001, true), (&text[..9], 2, true), (b"", 1, false)]
            {
                let packed = pack(text, level, part, flush);
                let mut plain = Vec::new();
                let read = ::brotli::BrotliDecompress(&mut &packed[..], &mut plain);
                assert!(read.is_ok() && plain == text, "level {level}, parts of {part}, {} bytes", text.len());
            }
        }
    }

    #[test]
    fn tables_are_used_again() {
        let text: Vec<u8> = (0..3000u32).flat_map(|i| format!("{} tide and gate ", i % 977).into_bytes()).collect();
        for level in [5, 6, 7] {
            let (window, length) = (window(19, level, Some(text.len() as u64)), Some(text.len() as u64));
            let first = pack(&text, level, 4096, false);
            // One that breaks off leaves nothing to the next.
            let mut codec = BrotliCodec { level, window, length, state: None };
            assert!(codec.step(&text[9..9000], Op::Flush, &mut Buf::with_capacity(9000)).is_ok());
            let kind = codec.kind();
            drop(codec);
            assert!(pack(&text, level, 4096, false) == first, "level {level}");
            assert!(SPARE.with(|spare| spare.take(&kind)).is_some(), "level {level}");
        }
    }

    #[test]
    fn windows() {
        for (most, level, length, expect) in [
            (19, 4, None, 19),
            (19, 4, Some(0), 10),
            (19, 4, Some(1000), 11),
            (19, 4, Some(30_000), 16),
            (19, 4, Some(1 << 30), 19),
            (19, 5, Some(1000), 17),
            (19, 8, Some(30_000), 17),
            (19, 9, Some(30_000), 16),
            (19, 5, Some(200_000), 19),
            // As configured, though it is slow.
            (14, 5, Some(200_000), 14),
        ] {
            assert_eq!(window(most, level, length), expect, "{most} {level} {length:?}");
        }
    }
}
