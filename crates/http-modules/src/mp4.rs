//! `mp4`: videos from any of their seconds on.
//!
//! The file's index is read and written anew for the part that is asked for; the media data is a range of the file, which
//! the kernel can send. What differs from nginx: exactly the index is read, so no buffer has to be sized beforehand.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use buf::{Bytes, Chain};
use conf::values::{flag, size};
use conf::{Args, Context, Registry, Result};
use engine::log::Errno;
use http::config::core::EVERYWHERE;
use http::fault::Fault;
use http::files::open_file::{Files, Found};
use http::files::regular::{set_length, wants_file};
use http::module::{HttpModule, LocationContext};
use http::phases::{Flow, Handler};
use http::request::Request;
use http::response::Body;
use http::server::location::Handlers;
use wire::mp4::{BoxHead, Clip, MAX_HEAD, Mp4Error, box_head, cut};

/// The module.
pub struct Mp4;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// Whether videos are served from a second on.
    pub struct Mp4Conf, raw Mp4Raw, module "ngx_http_mp4_module", level HTTP Location;

    /// Serves MP4 videos from a second on that the request asks for, or up to one.
    ///
    /// Effect: with the arguments `start=seconds` and `end=seconds`, which may have decimals, the response is a video of
    /// that part. With `start=0` it is the whole video with its index in front, which players need first. Other requests
    /// get the file as it is.
    ///
    /// Cost: the index is read into memory and written anew, in a thread, for each such request: some MiB for a long video.
    /// Files whose index stands in front are the quickest (`ffmpeg -movflags +faststart`).
    ///
    /// ```nginx
    /// location /video/ {
    ///     root site;
    ///     mp4;
    ///     mp4_max_buffer_size 20m;
    /// }
    /// ```
    "mp4" in Context::LOCATION, Args::exactly(0), default none,
        last(|_, _| Ok(())) mp4: ();
    /// Lets the index of a video have this size, even if `mp4_max_buffer_size` is smaller. Memory is taken as the index needs
    /// it.
    ///
    /// Form: `mp4_buffer_size size`
    ///
    /// - `size`: in bytes, or with `k` or `m`.
    ///
    /// Effect: the larger one of this size and of `mp4_max_buffer_size` is the bound: to lower it, both are set.
    ///
    /// ```nginx
    /// location /video/ {
    ///     root site;
    ///     mp4;
    ///     mp4_buffer_size 64k;
    ///     mp4_max_buffer_size 256k;
    /// }
    /// ```
    "mp4_buffer_size" in EVERYWHERE, ONE, default "512k",
        scalar(size) mp4_buffer_size: usize = 512 << 10;
    /// Sets how large the index of a video may be.
    ///
    /// Form: `mp4_max_buffer_size size`
    ///
    /// - `size`: in bytes, or with `k` or `m`.
    ///
    /// Effect: requests for parts of a video with a larger index are answered with status 500, and the log tells the
    /// index's size. A size below that of `mp4_buffer_size` has no effect.
    ///
    /// Cost: so much memory twice for each such request, for a short time.
    ///
    /// ```nginx
    /// location /video/ {
    ///     root site;
    ///     mp4;
    ///     mp4_max_buffer_size 20m;
    /// }
    /// ```
    "mp4_max_buffer_size" in EVERYWHERE, ONE, default "10m",
        scalar(size) mp4_max_buffer_size: usize = 10 << 20;
    /// Makes each part of a video begin with a key frame, so that no player shows broken pictures.
    ///
    /// Effect: the part begins with the last key frame before the start; an edit list in it tells players to hide what
    /// comes before the start.
    ///
    /// Danger: players that ignore edit lists show what should be hidden.
    ///
    /// ```nginx
    /// location /video/ {
    ///     root site;
    ///     mp4;
    ///     mp4_start_key_frame on;
    /// }
    /// ```
    "mp4_start_key_frame" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) mp4_start_key_frame: bool = false;
}

impl HttpModule for Mp4 {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<Mp4Conf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<Mp4Conf>();
        if conf.mp4.is_some() && !out.exclusive {
            out.content.push(Rc::new(Server { files: Files::of(cx.set, cx.loader), conf }));
        }
        Ok(())
    }
}

struct Server {
    files: Files,
    conf: Rc<Mp4Conf>,
}

impl Handler for Server {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        let Some(mut clip) = asked_for(r) else { return Flow::Next };
        if !wants_file(r) {
            return Flow::Next;
        }
        clip.key_frame = self.conf.mp4_start_key_frame;
        let (path, found) = match self.files.open_of_uri(r) {
            Ok(opened) => opened,
            Err(flow) => return flow,
        };
        let ask = Ask { clip, size: found.size, most: self.conf.mp4_max_buffer_size.max(self.conf.mp4_buffer_size) };
        match &found.content {
            Some(content) => {
                let part = ask.part(&Source::Memory(content));
                conclude(r, &path, &found, part)
            }
            None => Flow::wait(elsewhere(r, path, found, ask)),
        }
    }
}

/// Makes the part in a thread: the index of a long video takes time to be read and written.
async fn elsewhere(r: &mut Request, path: Vec<u8>, found: Rc<Found>, ask: Ask) -> Flow<'static> {
    let file = match found.file.as_ref().map(|file| file.try_clone()) {
        Some(Ok(file)) => file,
        Some(Err(error)) => return conclude(r, &path, &found, Err(error.into())),
        None => return conclude(r, &path, &found, Err(Mp4Error::Missing("moov").into())),
    };
    match r.http.worker.in_thread(move || ask.part(&Source::File(&file))).await {
        Ok(part) => conclude(r, &path, &found, part),
        Err(full) => Fault::FailedFile.log_with(r, &full).into(),
    }
}

fn conclude(r: &mut Request, path: &[u8], found: &Found, part: std::result::Result<Part, Mistake>) -> Flow<'static> {
    match part {
        Ok(part) => respond(r, found, part),
        Err(mistake) => {
            let path = buf::text::encode(path);
            Fault::UnusableFile.log_with(r, &format_args!("\"{path}\" {mistake}")).into()
        }
    }
}

/// The part that a request asks for, if any.
fn asked_for(r: &Request) -> Option<Clip> {
    let point = |name: &[u8]| r.argument(name).and_then(milliseconds);
    let (start, end) = (point(b"start"), point(b"end"));
    let end_ms = end.filter(|end| *end > start.unwrap_or(0));
    (start.is_some() || end_ms.is_some()).then(|| Clip { start_ms: start.unwrap_or(0), end_ms, key_frame: false })
}

/// Seconds with decimals, of which three count.
fn milliseconds(text: &[u8]) -> Option<u64> {
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let (whole, decimals) = (parts.next()?, parts.next().unwrap_or_default());
    let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    if whole.len() + decimals.len() == 0 || !digits(whole) || !digits(decimals) {
        return None;
    }
    let place = |index: usize| decimals.get(index).map_or(0, |digit| u64::from(digit - b'0'));
    let seconds = if whole.is_empty() { 0 } else { buf::parse::parse_number(whole)? };
    seconds.checked_mul(1000)?.checked_add(place(0) * 100 + place(1) * 10 + place(2))
}

/// A part of a video.
enum Part {
    /// The file as it is.
    Whole,
    /// What comes first, and the range of the file that follows.
    Made(Vec<u8>, Range<u64>),
}

/// Why there is no part to be served.
#[derive(Debug)]
enum Mistake {
    Read(io::Error),
    Format(Mp4Error),
    TooLarge(u64),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mistake::Read(error) => write!(f, "mp4 file can't be read{}", Errno(error)),
            Mistake::Format(error) => error.fmt(f),
            Mistake::TooLarge(size) => {
                write!(f, "mp4 moov atom is too large:{size}, you may want to increase mp4_max_buffer_size")
            }
        }
    }
}

impl From<io::Error> for Mistake {
    fn from(error: io::Error) -> Mistake {
        Mistake::Read(error)
    }
}

impl From<Mp4Error> for Mistake {
    fn from(error: Mp4Error) -> Mistake {
        Mistake::Format(error)
    }
}

/// What files are read from: their contents may be in memory.
enum Source<'f> {
    Memory(&'f [u8]),
    File(&'f File),
}

impl Source<'_> {
    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        match self {
            Source::Memory(bytes) => {
                let part = usize::try_from(at).ok().and_then(|at| bytes.get(at..at + len));
                part.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Source::File(file) => {
                let mut memory = vec![0; len];
                file.read_exact_at(&mut memory, at).map(|()| memory)
            }
        }
    }
}

/// What is asked for.
struct Ask {
    clip: Clip,
    /// The size of the file.
    size: u64,
    /// The most memory for its index.
    most: usize,
}

impl Ask {
    fn part(&self, source: &Source<'_>) -> std::result::Result<Part, Mistake> {
        let clip = &self.clip;
        let places = Places::find(source, self.size)?;
        let whole = Clip { start_ms: 0, end_ms: None, key_frame: clip.key_frame };
        if *clip == whole && places.index.0 < places.media {
            return Ok(Part::Whole);
        }
        let (at, head) = places.index;
        let contents = head.size - head.head;
        if contents > self.most as u64 {
            return Err(Mistake::TooLarge(contents));
        }
        let index = source.read(at + head.head, contents as usize)?;
        let mut first = match places.kind {
            Some((at, head)) if head.size <= MAX_KIND => source.read(at, head.size as usize)?,
            _ => Vec::new(),
        };
        let made = cut(&index, clip, first.len() as u64)?;
        if made.data.end > self.size {
            return Err(Mp4Error::Chunk.into());
        }
        first.extend_from_slice(&made.head);
        Ok(Part::Made(first, made.data))
    }
}

/// A longer `ftyp` isn't one.
const MAX_KIND: u64 = 1024;
/// The most boxes that are looked at: each is read by itself.
const MAX_BOXES: usize = 4096;

/// Where the boxes of a file stand.
#[derive(Debug)]
struct Places {
    /// `ftyp`
    kind: Option<(u64, BoxHead)>,
    /// `moov`
    index: (u64, BoxHead),
    /// `mdat`
    media: u64,
}

impl Places {
    fn find(source: &Source<'_>, size: u64) -> std::result::Result<Places, Mistake> {
        let (mut kind, mut index, mut media, mut at) = (None, None, None, 0);
        for _ in 0..MAX_BOXES {
            if at >= size || index.is_some() && media.is_some() {
                break;
            }
            let left = size - at;
            let head = box_head(&source.read(at, left.min(MAX_HEAD as u64) as usize)?, left)?;
            match &head.kind {
                b"ftyp" => kind = Some((at, head)),
                b"moov" => index = Some((at, head)),
                b"mdat" => media = Some(at),
                _ => {}
            }
            at += head.size;
        }
        let index = index.ok_or(Mp4Error::Missing("moov"))?;
        Ok(Places { kind, index, media: media.ok_or(Mp4Error::Missing("mdat"))? })
    }
}

fn respond(r: &mut Request, found: &Found, part: Part) -> Flow<'static> {
    let modified = found.modified;
    found.respond(r);
    r.response.allow_ranges = true;
    let Part::Made(first, data) = part else { return Flow::Respond };
    let Body::Chain(file) = std::mem::take(&mut r.response.body) else { return Fault::FailedFile.into() };
    let mut chain = Chain::from(Bytes::from(first));
    chain.append(&mut range_of(file, data));
    set_length(r, modified, chain.len());
    r.response.body = Body::Chain(chain);
    Flow::Respond
}

/// A range of a file, which is inside of it.
fn range_of(mut file: Chain, range: Range<u64>) -> Chain {
    file.advance(range.start);
    file.split_to(range.end - range.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time() {
        for (text, expect) in [
            ("0", Some(0)),
            ("2", Some(2000)),
            ("7.1", Some(7100)),
            ("1.0004", Some(1000)),
            ("1.23456", Some(1234)),
            (".5", Some(500)),
            ("3.", Some(3000)),
            ("", None),
            (".", None),
            ("x", None),
            ("-1", None),
            ("1..2", None),
            ("1.2.3", None),
            ("18446744073709551615", None),
        ] {
            assert_eq!(milliseconds(text.as_bytes()), expect, "{text}");
        }
    }

    #[test]
    fn boxes_of_a_file() {
        let find = |parts: &[&[u8]]| {
            let file = parts.concat();
            Places::find(&Source::Memory(&file), file.len() as u64).map(|places| (places.index.0, places.media))
        };
        let (index, media) = (b"\0\0\0\x0amoovxx", b"\0\0\0\0mdat, to the end");
        assert_eq!(find(&[b"\0\0\0\x08ftyp", index, media]).ok(), Some((8, 18)));
        assert_eq!(find(&[b"\0\0\0\x08free", b"\0\0\0\x08mdat", index]).ok(), Some((16, 8)));
        assert!(matches!(find(&[media, index]), Err(Mistake::Format(Mp4Error::Missing("moov")))));
        assert!(matches!(find(&[index]), Err(Mistake::Format(Mp4Error::Missing("mdat")))));
        assert!(matches!(find(&[b"\0\0\0\x07free"]), Err(Mistake::Format(Mp4Error::BoxSize))));
        assert!(matches!(find(&[b"\0\0"]), Err(Mistake::Format(Mp4Error::BoxSize))));
        let many = b"\0\0\0\x08free".repeat(MAX_BOXES - 1);
        assert!(matches!(find(&[&many, index, media]), Err(Mistake::Format(Mp4Error::Missing("mdat")))));
    }
}
