//! MP4 files (ISO/IEC 14496-12): the movie between two points in time, without its media data being read.
//!
//! A file is a row of boxes. `moov` holds, for each track, tables of what its samples last and weigh and where they lie in
//! the file; `mdat` holds the samples. [`cut`] makes a `moov` for a part of the movie, and tells which bytes of the file
//! are its samples.

mod track;

use std::ops::Range;

use track::{Length, Track};

/// Why a file can't be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mp4Error {
    /// A box is longer than what surrounds it, or shorter than its head.
    BoxSize,
    /// A box of this kind is missing.
    Missing(&'static str),
    /// A table is shorter than it says, or contradicts another one.
    Table(&'static str),
    /// A chunk of samples lies where it can't be.
    Chunk,
    /// No track has a sample between the two points.
    Empty,
}

impl std::fmt::Display for Mp4Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mp4Error::BoxSize => f.write_str("mp4 atom has an invalid size"),
            Mp4Error::Missing(name) => write!(f, "no mp4 {name} atom was found"),
            Mp4Error::Table(name) => write!(f, "mp4 {name} atom is invalid"),
            Mp4Error::Chunk => f.write_str("mp4 chunk lies outside of the media data"),
            Mp4Error::Empty => f.write_str("mp4 start time exceeds file duration"),
        }
    }
}

type Result<T> = std::result::Result<T, Mp4Error>;

/// The head of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxHead {
    /// What it is.
    pub kind: [u8; 4],
    /// The length of the head.
    pub head: u64,
    /// The length of the box, its head included.
    pub size: u64,
}

/// How many bytes suffice to read a head.
pub const MAX_HEAD: usize = 16;

/// Reads the head that `bytes` begin with, where `left` bytes are left of what surrounds the box: all of them, or at least
/// [`MAX_HEAD`], are in `bytes`.
pub fn box_head(bytes: &[u8], left: u64) -> Result<BoxHead> {
    let size = be32(bytes, 0).ok_or(Mp4Error::BoxSize)?;
    let kind = bytes.get(4..8).and_then(|kind| kind.try_into().ok()).ok_or(Mp4Error::BoxSize)?;
    let (head, size) = match size {
        0 => (8, left),
        1 => (16, be64(bytes, 8).ok_or(Mp4Error::BoxSize)?),
        size => (8, u64::from(size)),
    };
    if size < head || size > left {
        return Err(Mp4Error::BoxSize);
    }
    Ok(BoxHead { kind, head, size })
}

/// Which part of a movie is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clip {
    /// From when on, in milliseconds.
    pub start_ms: u64,
    /// Until when, if not to its end.
    pub end_ms: Option<u64>,
    /// Whether each track begins with a key frame; what comes before the start is hidden by an edit list.
    pub key_frame: bool,
}

impl Clip {
    /// How long it is.
    fn length_ms(&self) -> Option<u64> {
        self.end_ms.map(|end| end.saturating_sub(self.start_ms))
    }

    /// The duration that remains of a movie or a track, in its own unit.
    fn remains(&self, duration: u64, timescale: u32) -> u64 {
        let remains = duration.saturating_sub(ticks(self.start_ms, timescale));
        self.length_ms().map_or(remains, |length| remains.min(ticks(length, timescale)))
    }
}

fn ticks(ms: u64, timescale: u32) -> u64 {
    (u128::from(ms) * u128::from(timescale) / 1000).try_into().unwrap_or(u64::MAX)
}

/// A part of a movie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The box `moov`, and the head of the box `mdat`.
    pub head: Vec<u8>,
    /// The bytes of the file that are the contents of `mdat`.
    pub data: Range<u64>,
}

/// Cuts a movie: `moov` are the contents of that box, `before` is how many bytes will precede the new one in the file.
pub fn cut(moov: &[u8], clip: &Clip, before: u64) -> Result<Cut> {
    let mvhd = child(moov, b"mvhd")?.ok_or(Mp4Error::Missing("mvhd"))?;
    let movie = Header::read(mvhd, "mvhd")?;
    let mut tracks = Vec::new();
    for found in boxes(moov) {
        let (kind, _, contents) = found?;
        if kind == *b"trak"
            && let Some(track) = Track::cut(contents, clip, movie.timescale)?
        {
            tracks.push(track);
        }
    }
    let start = tracks.iter().map(Track::start).min().ok_or(Mp4Error::Empty)?;
    let end = tracks.iter().map(Track::end).max().ok_or(Mp4Error::Empty)?;
    let mut out = Writer::default();
    let place = out.begin(b"moov");
    out.whole(b"mvhd", &movie.with_duration(mvhd, clip.remains(movie.duration, movie.timescale)));
    let offsets: Vec<usize> = tracks.iter().map(|track| track.write(&mut out)).collect::<Result<_>>()?;
    out.end(place)?;
    let data_head = mdat_head(end - start);
    let after = before + out.0.len() as u64 + data_head.len() as u64;
    for (track, at) in tracks.iter().zip(offsets) {
        track.write_offsets(&mut out.0, at, &(start..end), after)?;
    }
    out.0.extend_from_slice(&data_head);
    Ok(Cut { head: out.0, data: start..end })
}

/// The head of a box `mdat` with so many bytes in it.
fn mdat_head(len: u64) -> Vec<u8> {
    match u32::try_from(len + 8) {
        Ok(size) => [&size.to_be_bytes()[..], b"mdat"].concat(),
        Err(_) => [&1u32.to_be_bytes()[..], b"mdat", &(len + 16).to_be_bytes()].concat(),
    }
}

/// The boxes in `bytes`: kind, whole box, contents.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = Result<([u8; 4], &[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let head = match box_head(bytes, bytes.len() as u64) {
            Ok(head) => head,
            Err(error) => {
                bytes = &[];
                return Some(Err(error));
            }
        };
        let (whole, rest) = bytes.split_at(head.size as usize);
        bytes = rest;
        Some(Ok((head.kind, whole, &whole[head.head as usize..])))
    })
}

/// The contents of the first box of a kind.
fn child<'b>(bytes: &'b [u8], kind: &[u8; 4]) -> Result<Option<&'b [u8]>> {
    for found in boxes(bytes) {
        let (own, _, contents) = found?;
        if own == *kind {
            return Ok(Some(contents));
        }
    }
    Ok(None)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// What the boxes `mvhd` and `mdhd` say of time.
#[derive(Clone, Copy, Debug)]
struct Header {
    /// Units a second.
    timescale: u32,
    duration: u64,
    /// Where the duration stands in the contents, and in how many bytes.
    place: (usize, Length),
}

impl Header {
    fn read(contents: &[u8], name: &'static str) -> Result<Header> {
        let (scale_at, length) = if contents.first() == Some(&1) { (20, Length::Eight) } else { (12, Length::Four) };
        let timescale = be32(contents, scale_at).filter(|scale| *scale > 0).ok_or(Mp4Error::Table(name))?;
        let duration = length.read(contents, scale_at + 4).ok_or(Mp4Error::Table(name))?;
        Ok(Header { timescale, duration, place: (scale_at + 4, length) })
    }

    /// The same contents with another duration.
    fn with_duration(&self, contents: &[u8], duration: u64) -> Vec<u8> {
        let mut contents = contents.to_vec();
        let (at, length) = self.place;
        length.write(&mut contents, at, duration);
        contents
    }
}

/// Writes boxes.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    /// Begins a box; returns its place for [`Writer::end`].
    fn begin(&mut self, kind: &[u8; 4]) -> usize {
        let place = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(kind);
        place
    }

    fn end(&mut self, place: usize) -> Result<()> {
        let size = u32::try_from(self.0.len() - place).map_err(|_| Mp4Error::BoxSize)?;
        self.0[place..place + 4].copy_from_slice(&size.to_be_bytes());
        Ok(())
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// A copy of a whole box. One without a size, which goes to the end of what surrounds it, gets one: here others follow.
    fn copy(&mut self, whole: &[u8]) -> Result<()> {
        match whole.strip_prefix(&[0; 4]) {
            Some(rest) => {
                self.u32(u32::try_from(whole.len()).map_err(|_| Mp4Error::BoxSize)?);
                self.0.extend_from_slice(rest);
            }
            None => self.0.extend_from_slice(whole),
        }
        Ok(())
    }

    /// A box of known contents; they are as long as those of a box that was read.
    fn whole(&mut self, kind: &[u8; 4], contents: &[u8]) {
        self.u32((contents.len() + 8) as u32);
        self.0.extend_from_slice(kind);
        self.0.extend_from_slice(contents);
    }
}

#[cfg(test)]
mod tests;
