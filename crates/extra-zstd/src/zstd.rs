//! Compressing responses with Zstandard (RFC 8878), under the directives of the module `zstd-nginx-module`.
//!
//! A client that accepts Brotli too gets Brotli, one that accepts gzip too Zstandard.

use std::rc::Rc;

use ::zstd::zstd_safe::zstd_sys::ZSTD_EndDirective as End;
use ::zstd::zstd_safe::{CCtx, CParameter, ErrorCode, InBuffer, OutBuffer, ResetDirective};
use buf::Buf;
use conf::values::{Bufs, bufs, conf_path, flag, number_between, size};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use engine::log::Errno;
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
pub struct Zstd;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// How responses are compressed.
    pub struct ZstdConf, raw ZstdRaw, module "ngx_http_zstd_filter_module", level HTTP Location;

    /// Compresses responses with Zstandard for clients that accept it.
    ///
    /// Effect: holds for responses with status 200, 403 or 404 whose type is in `zstd_types`, whose length is at least
    /// `zstd_min_length` or unknown, and which aren't encoded already. A compressed response has no `Content-Length`, and
    /// its `ETag` becomes a weak one. A client that accepts Brotli too, where `brotli` is on, gets that. `gzip_vary` holds,
    /// and none of the other conditions of `gzip`.
    ///
    /// Cost: processor time for each response, more with a higher `zstd_comp_level`, and some MiB of memory while it is
    /// sent. Files are read instead of being sent by the kernel. `zstd_static` serves files that were compressed before.
    ///
    /// Danger: under TLS the length of a compressed page tells something of its contents: if it contains both a secret
    /// and what an attacker sends (BREACH), the secret can be guessed. Don't compress such pages.
    ///
    /// ```nginx
    /// zstd on;
    /// zstd_types text/css application/javascript application/json;
    /// gzip_vary on;
    /// ```
    "zstd" in AND_IF, Args::FLAG, default "off",
        scalar(flag) zstd: bool = false;
    /// Sets the size of the buffers for compressed data.
    ///
    /// Form: `zstd_buffers number size`
    ///
    /// - `number`: accepted and unused: buffers are made as they are needed.
    /// - `size`: the size of a buffer; less than 1k counts as 1k, more than 64k as 64k.
    ///
    /// Effect: compressed data is passed on when a buffer is full, or when data must be sent at once.
    ///
    /// ```nginx
    /// zstd on;
    /// zstd_buffers 16 8k;
    /// ```
    "zstd_buffers" in EVERYWHERE, Args::exactly(2), default "32 4k",
        scalar(bufs) zstd_buffers: Bufs = Bufs { count: 32, size: 4096 };
    /// Sets the media types that are compressed besides `text/html`, which always is.
    ///
    /// Form: `zstd_types type ...`
    ///
    /// - `type`: a media type; its parameters (`charset`) aren't compared. `*` stands for all types.
    ///
    /// Effect: holds where `zstd` is on, for the field `Content-Type` of the response.
    ///
    /// Cost: types that are compressed already (images, videos, archives) take processor time and don't become smaller,
    /// so `*` is seldom a good choice.
    ///
    /// ```nginx
    /// zstd on;
    /// zstd_types text/plain text/css application/javascript image/svg+xml;
    /// ```
    "zstd_types" in EVERYWHERE, Args::at_least(1), default "text/html",
        set(|raw: &mut ZstdRaw, loader: &mut Loader<'_>, d: &Directive| add_types(&mut raw.zstd_types, loader, d))
        zstd_types: Rc<TypeSet> = TypeSet::html();
    /// Sets how hard responses are compressed.
    ///
    /// Form: `zstd_comp_level level`
    ///
    /// - `level`: from 1, the fastest, to 22, the smallest result.
    ///
    /// Effect: holds where `zstd` is on.
    ///
    /// Cost: levels above 9 take much more processor time and memory for little.
    ///
    /// ```nginx
    /// zstd on;
    /// zstd_comp_level 3;
    /// ```
    "zstd_comp_level" in EVERYWHERE, ONE, default "1",
        scalar(number_between(1, 22)) zstd_comp_level: i32 = 1;
    /// Sets a dictionary with which all responses are compressed.
    ///
    /// Form: `zstd_dict_file file`
    ///
    /// - `file`: a path; a relative one begins at the folder of the main configuration file. `zstd --train` makes such files.
    ///
    /// Effect: short responses that resemble what the dictionary was made from become much smaller. It is read at the start.
    ///
    /// Danger: only clients that have the same dictionary can read the responses, and nothing in a request or a response
    /// tells of it. Browsers can't: use it between programs of your own.
    ///
    /// ```nginx
    /// zstd_dict_file dictionary;
    /// ```
    "zstd_dict_file" in Context::HTTP, ONE, default none,
        scalar(dictionary) zstd_dict_file: Option<Dictionary> = None;
    /// Sets the shortest response that is compressed.
    ///
    /// Form: `zstd_min_length length`
    ///
    /// - `length`: in bytes; it is compared with `Content-Length`.
    ///
    /// Effect: shorter responses are sent as they are. Responses of unknown length are compressed in any case.
    ///
    /// ```nginx
    /// zstd on;
    /// zstd_min_length 1000;
    /// ```
    "zstd_min_length" in EVERYWHERE, ONE, default "20",
        scalar(size) zstd_min_length: usize = 20;
}

/// A dictionary that was read.
#[derive(Clone, Debug)]
pub struct Dictionary(Rc<[u8]>);

impl PartialEq for Dictionary {
    fn eq(&self, other: &Dictionary) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

fn dictionary(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Dictionary>> {
    let path = conf_path(loader, d)?;
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(Dictionary(bytes.into()))),
        Err(error) => {
            let failed = format!("open() \"{}\" failed{}", buf::text::path(&path), Errno(&error));
            Err(Error::at(d.arg(0), failed))
        }
    }
}

impl HttpModule for Zstd {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<ZstdConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        http::variables! { setup, "ngx_http_zstd_filter_module";
            /// How many times smaller Zstandard made the response. Empty if it wasn't compressed with it.
            "zstd_ratio", Flags::NONE, Getter::Plain(compress::ratio::<ZstdCodec>);
        }
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<ZstdConf>();
        if conf.zstd {
            out.filters.push(Rc::new(Filter(conf)));
        }
        Ok(())
    }
}

struct Filter(Rc<ZstdConf>);

impl HeaderFilter for Filter {
    fn order(&self) -> Order {
        Order::Zstd
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let conf = &self.0;
        if compress::fits(r, &conf.zstd_types, conf.zstd_min_length) && accepts(r, b"zstd") {
            let from = Recipe { level: conf.zstd_comp_level, dictionary: conf.zstd_dict_file.clone() };
            let codec = ZstdCodec { from, length: r.response.content_length, state: None };
            compress::install(r, codec, Pace { buffer: conf.zstd_buffers.size, postpone: 0, unbuffered: false });
        }
        Ok(())
    }
}

/// Windows above 8 MiB aren't for HTTP (RFC 9659).
const WINDOW: u32 = 23;

/// What a compressor is made from.
#[derive(Clone, PartialEq)]
struct Recipe {
    level: i32,
    dictionary: Option<Dictionary>,
}

/// How many bytes unused compressors may take. One takes from 1 MiB at the lowest level to some 100 MiB at the highest.
const SPARES: usize = 16 << 20;

thread_local! {
    static SPARE: Spare<Recipe, CCtx<'static>> = const { Spare::new(SPARES) };
}

/// What the library's calls end with.
type Outcome<T> = std::result::Result<T, ErrorCode>;

impl Recipe {
    fn make(&self) -> Outcome<CCtx<'static>> {
        let mut state = CCtx::create();
        state.set_parameter(CParameter::CompressionLevel(self.level))?;
        if self.level > WIDE {
            state.set_parameter(CParameter::WindowLog(WINDOW))?;
        }
        if let Some(dictionary) = &self.dictionary {
            state.load_dictionary(&dictionary.0)?;
        }
        Ok(state)
    }
}

/// The compressor of one response.
struct ZstdCodec {
    from: Recipe,
    /// The length of the response, where that is known: it decides how large the tables have to be.
    length: Option<u64>,
    state: Option<CCtx<'static>>,
}

impl ZstdCodec {
    fn begin(&self) -> Outcome<CCtx<'static>> {
        let mut state = SPARE.with(|spare| spare.take(&self.from)).map_or_else(|| self.from.make(), Ok)?;
        state.set_pledged_src_size(self.length)?;
        Ok(state)
    }

    fn run(&mut self, input: &[u8], op: Op, out: &mut Buf) -> Outcome<Step> {
        let state = match &mut self.state {
            Some(state) => state,
            None => {
                let state = self.begin()?;
                self.state.insert(state)
            }
        };
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(out.room_mut());
        let end = match op {
            Op::Continue => End::ZSTD_e_continue,
            Op::Flush => End::ZSTD_e_flush,
            Op::End => End::ZSTD_e_end,
        };
        let left = state.compress_stream2(&mut to, &mut from, end)?;
        let (taken, written, full) = (from.pos(), to.pos(), to.pos() == to.capacity());
        out.filled(written);
        Ok(Step { taken, more: if op == Op::Continue { full } else { left > 0 } })
    }
}

impl Drop for ZstdCodec {
    fn drop(&mut self) {
        // What a response that broke off has left in it is dropped.
        if let Some(mut state) = self.state.take()
            && state.reset(ResetDirective::SessionOnly).is_ok()
        {
            let bytes = state.sizeof();
            SPARE.with(|spare| spare.keep(self.from.clone(), state, bytes));
        }
    }
}

/// Levels above this one have wider windows.
const WIDE: i32 = 19;

impl Codec for ZstdCodec {
    const NAME: &'static str = "zstd";

    fn settings(&self) -> Option<u32> {
        self.from.dictionary.is_none().then(|| self.from.level.cast_unsigned())
    }

    fn step(&mut self, input: &[u8], op: Op, out: &mut Buf) -> std::result::Result<Step, Broken> {
        self.run(input, op, out).map_err(|_| Broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(text: &[u8], from: &Recipe, part: usize, flush: bool) -> Vec<u8> {
        let length = Some(text.len() as u64).filter(|_| part.is_multiple_of(2));
        let mut codec = ZstdCodec { from: from.clone(), length, state: None };
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
        for level in [1, 3, 9, 22] {
            for (text, part, flush) in
                [(&text[..], 4096, false), (&text, 70_001, true), (&text[..9], 2, true), (b"", 1, false)]
            {
                let packed = pack(text, &Recipe { level, dictionary: None }, part, flush);
                let plain = ::zstd::decode_all(&packed[..]);
                assert!(plain.is_ok_and(|plain| plain == text), "level {level}, parts of {part}, {} bytes", text.len());
            }
        }
    }

    #[test]
    fn compressors_are_used_again() {
        let from = Recipe { level: 3, dictionary: None };
        let text = b"one text, and one text".repeat(100);
        let first = pack(&text, &from, 4096, false);
        assert_eq!(SPARE.with(Spare::count), 1);
        // One that broke off leaves nothing to the next.
        let mut codec = ZstdCodec { from: from.clone(), length: Some(9), state: None };
        assert!(codec.run(b"some", Op::Continue, &mut Buf::with_capacity(64)).is_ok());
        drop(codec);
        assert_eq!(pack(&text, &from, 4096, false), first);
        assert_eq!(SPARE.with(Spare::count), 1);
        // Nor does one of another dictionary.
        let with = Recipe { dictionary: Some(Dictionary(text.clone().into())), ..from.clone() };
        let packed = pack(&text[..200], &with, 4096, false);
        let mut reader = ::zstd::stream::Decoder::with_dictionary(&packed[..], &text).expect("a reader");
        let mut plain = Vec::new();
        assert!(std::io::Read::read_to_end(&mut reader, &mut plain).is_ok() && plain == text[..200]);
        assert!(packed.len() < pack(&text[..200], &from, 4096, false).len());
    }

    #[test]
    fn large_compressors_are_not_kept() {
        for (level, kept) in [(1, 1), (19, 0)] {
            SPARE.with(|spare| while spare.take(&Recipe { level: 1, dictionary: None }).is_some() {});
            pack(b"a text of unknown length", &Recipe { level, dictionary: None }, 7, false);
            assert_eq!(SPARE.with(Spare::count), kept, "level {level}");
        }
    }

    #[test]
    fn a_wrong_length_is_noticed() {
        let from = Recipe { level: 1, dictionary: None };
        let mut codec = ZstdCodec { from, length: Some(9), state: None };
        let mut out = Buf::with_capacity(1024);
        assert!(codec.run(b"sho", Op::Continue, &mut out).is_ok());
        assert!(codec.run(b"rt", Op::End, &mut out).is_err());
    }
}
