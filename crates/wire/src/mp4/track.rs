//! A track of a movie: its tables, and what is left of them between two samples.

use std::ops::Range;

use super::{Clip, Header, Mp4Error, Result, Writer, be32, be64, boxes, child, ticks};

/// In how many bytes a number stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Four,
    Eight,
}

impl Length {
    pub(super) fn bytes(self) -> usize {
        match self {
            Length::Four => 4,
            Length::Eight => 8,
        }
    }

    pub(super) fn read(self, bytes: &[u8], at: usize) -> Option<u64> {
        match self {
            Length::Four => be32(bytes, at).map(u64::from),
            Length::Eight => be64(bytes, at),
        }
    }

    /// Writes a number over the one at `at`; one that four bytes can't hold becomes the highest that they can, which
    /// means "unknown" for a duration.
    pub(super) fn write(self, bytes: &mut [u8], at: usize, value: u64) {
        let Some(place) = bytes.get_mut(at..at + self.bytes()) else { return };
        match self {
            Length::Four => place.copy_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes()),
            Length::Eight => place.copy_from_slice(&value.to_be_bytes()),
        }
    }
}

/// A table: a row of entries of the same size.
#[derive(Clone, Copy)]
struct Rows<'b, const SIZE: usize>(&'b [[u8; SIZE]]);

impl<'b, const SIZE: usize> Rows<'b, SIZE> {
    /// The entries after `skip` bytes and their number.
    fn read(contents: &'b [u8], skip: usize, name: &'static str) -> Result<Rows<'b, SIZE>> {
        let count = be32(contents, skip).ok_or(Mp4Error::Table(name))? as usize;
        let (rows, _) = contents.get(skip + 4..).ok_or(Mp4Error::Table(name))?.as_chunks::<SIZE>();
        Ok(Rows(rows.get(..count).ok_or(Mp4Error::Table(name))?))
    }
}

fn number(row: &[u8], index: usize) -> u32 {
    be32(row, index * 4).unwrap_or_default()
}

/// The sizes of samples.
#[derive(Clone, Copy)]
enum Sizes<'b> {
    /// All have the same.
    Same(u32, u32),
    Each(Rows<'b, 4>),
}

impl Sizes<'_> {
    fn read(contents: &[u8]) -> Result<Sizes<'_>> {
        let error = Mp4Error::Table("stsz");
        match be32(contents, 4).ok_or(error)? {
            0 => Ok(Sizes::Each(Rows::read(contents, 8, "stsz")?)),
            size => Ok(Sizes::Same(size, be32(contents, 8).ok_or(error)?)),
        }
    }

    /// How many bytes a range of samples has.
    fn sum(self, range: Range<u64>) -> Result<u64> {
        match self {
            Sizes::Same(size, count) if range.end <= u64::from(count) => {
                Ok((range.end - range.start).saturating_mul(u64::from(size)))
            }
            Sizes::Same(..) => Err(Mp4Error::Table("stsz")),
            Sizes::Each(rows) => {
                let rows = rows.0.get(range.start as usize..range.end as usize).ok_or(Mp4Error::Table("stsz"))?;
                Ok(rows.iter().map(|row| u64::from(number(row, 0))).sum())
            }
        }
    }
}

/// The places of chunks in the file.
#[derive(Clone, Copy)]
enum Offsets<'b> {
    Short(Rows<'b, 4>),
    Long(Rows<'b, 8>),
}

impl Offsets<'_> {
    fn len(self) -> u64 {
        match self {
            Offsets::Short(rows) => rows.0.len() as u64,
            Offsets::Long(rows) => rows.0.len() as u64,
        }
    }

    fn get(self, index: u64) -> Result<u64> {
        let found = match self {
            Offsets::Short(rows) => rows.0.get(index as usize).map(|row| u64::from(number(row, 0))),
            Offsets::Long(rows) => rows.0.get(index as usize).map(|row| u64::from_be_bytes(*row)),
        };
        found.ok_or(Mp4Error::Table("stco"))
    }

    fn length(self) -> Length {
        match self {
            Offsets::Short(_) => Length::Four,
            Offsets::Long(_) => Length::Eight,
        }
    }
}

/// The tables of a track as the file has them.
struct Tables<'b> {
    /// `stsd`, whole.
    descriptions: &'b [u8],
    /// Of each run of samples: their number, the duration of each.
    times: Rows<'b, 8>,
    /// The numbers of key frames, from 1 on.
    keys: Option<Rows<'b, 4>>,
    /// Of each run of samples: their number, the offset of each in composition; with the head of the table.
    compositions: Option<(&'b [u8], Rows<'b, 8>)>,
    /// Of each run of chunks: the number of the first, from 1 on, samples in each, their description.
    chunks: Rows<'b, 12>,
    sizes: Sizes<'b>,
    offsets: Offsets<'b>,
}

impl<'b> Tables<'b> {
    fn read(stbl: &'b [u8]) -> Result<Tables<'b>> {
        let (mut descriptions, mut times, mut keys, mut compositions) = (None, None, None, None);
        let (mut chunks, mut sizes, mut offsets) = (None, None, None);
        for found in boxes(stbl) {
            let (kind, whole, contents) = found?;
            match &kind {
                b"stsd" => descriptions = Some(whole),
                b"stts" => times = Some(Rows::read(contents, 4, "stts")?),
                b"stss" => keys = Some(Rows::read(contents, 4, "stss")?),
                b"ctts" => compositions = Some((contents, Rows::read(contents, 4, "ctts")?)),
                b"stsc" => chunks = Some(Rows::read(contents, 4, "stsc")?),
                b"stsz" => sizes = Some(Sizes::read(contents)?),
                b"stco" => offsets = Some(Offsets::Short(Rows::read(contents, 4, "stco")?)),
                b"co64" => offsets = Some(Offsets::Long(Rows::read(contents, 4, "co64")?)),
                _ => {}
            }
        }
        Ok(Tables {
            descriptions: descriptions.ok_or(Mp4Error::Missing("stsd"))?,
            times: times.ok_or(Mp4Error::Missing("stts"))?,
            keys,
            compositions,
            chunks: chunks.ok_or(Mp4Error::Missing("stsc"))?,
            sizes: sizes.ok_or(Mp4Error::Missing("stsz"))?,
            offsets: offsets.ok_or(Mp4Error::Missing("stco"))?,
        })
    }

    /// The sample `after` ticks after the start of sample `from`, counting whole samples; `None` beyond the last one.
    fn sample_at(&self, from: u64, after: u64) -> Option<u64> {
        let (mut first, mut left) = (0, after);
        for row in self.times.0 {
            let (count, duration) = (u64::from(number(row, 0)), u64::from(number(row, 1)));
            let end = first + count;
            let usable = end.saturating_sub(first.max(from));
            if left < usable * duration {
                return Some(first.max(from) + left / duration);
            }
            left -= usable * duration;
            first = end;
        }
        None
    }

    /// How long a range of samples lasts.
    fn duration(&self, range: &Range<u64>) -> u64 {
        overlaps(self.times, range).map(|(count, duration)| u64::from(count) * u64::from(duration)).sum()
    }

    fn samples(&self) -> u64 {
        self.times.0.iter().map(|row| u64::from(number(row, 0))).sum()
    }

    /// The last key frame that isn't after a sample.
    fn key_before(&self, sample: u64) -> u64 {
        let Some(keys) = self.keys else { return sample };
        let after = keys.0.partition_point(|row| u64::from(number(row, 0)) <= sample + 1);
        let key = after.checked_sub(1).and_then(|index| keys.0.get(index));
        key.map_or(sample, |row| u64::from(number(row, 0)).saturating_sub(1).min(sample))
    }
}

/// What of the runs of a table falls into a range of samples: numbers of samples, values.
fn overlaps<'b>(rows: Rows<'b, 8>, range: &Range<u64>) -> impl Iterator<Item = (u32, u32)> + use<'b> {
    let (mut first, range) = (0u64, range.clone());
    rows.0.iter().filter_map(move |row| {
        let end = first + u64::from(number(row, 0));
        let count = end.min(range.end).saturating_sub(first.max(range.start));
        first = end;
        (count > 0).then(|| (count as u32, number(row, 1)))
    })
}

/// Chunks in a row that have the same number of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    chunks: u32,
    samples: u32,
    description: u32,
}

/// Where a range of samples lies.
#[derive(Debug, Default, PartialEq, Eq)]
struct Layout {
    runs: Vec<Run>,
    /// Which chunks of the file they are.
    chunks: Range<u64>,
    /// How many samples of the first chunk are left out.
    skipped: u64,
}

impl Layout {
    /// Finds a range of samples, which isn't empty, among all chunks.
    fn of(rows: Rows<'_, 12>, all_chunks: u64, range: &Range<u64>) -> Result<Layout> {
        let error = Mp4Error::Table("stsc");
        let (mut layout, mut first) = (Layout::default(), 0u64);
        for (index, row) in rows.0.iter().enumerate() {
            let chunk = u64::from(number(row, 0)).checked_sub(1).ok_or(error)?;
            let next = rows.0.get(index + 1).map_or(Some(all_chunks), |next| u64::from(number(next, 0)).checked_sub(1));
            let count = next.and_then(|next| next.min(all_chunks).checked_sub(chunk)).ok_or(error)?;
            let (samples, description) = (number(row, 1), number(row, 2));
            if samples == 0 {
                return Err(error);
            }
            let end = first + count * u64::from(samples);
            let inside = first.max(range.start)..end.min(range.end);
            if inside.start < inside.end {
                layout.add(chunk, &(inside.start - first..inside.end - first), samples, description);
            }
            first = end;
        }
        if first < range.end { Err(error) } else { Ok(layout) }
    }

    /// Adds samples of a run that begins with `chunk`; they are counted from its beginning.
    fn add(&mut self, chunk: u64, inside: &Range<u64>, samples: u32, description: u32) {
        let each = u64::from(samples);
        let skipped = inside.start % each;
        if self.runs.is_empty() {
            (self.chunks.start, self.skipped) = (chunk + inside.start / each, skipped);
        }
        self.chunks.end = chunk + inside.end.div_ceil(each);
        let mut left = inside.end - inside.start;
        if skipped > 0 {
            let part = left.min(each - skipped);
            self.push(1, part as u32, description);
            left -= part;
        }
        self.push((left / each) as u32, samples, description);
        self.push(u32::from(!left.is_multiple_of(each)), (left % each) as u32, description);
    }

    fn push(&mut self, chunks: u32, samples: u32, description: u32) {
        match self.runs.last_mut() {
            _ if chunks == 0 => {}
            Some(last) if (last.samples, last.description) == (samples, description) => last.chunks += chunks,
            _ => self.runs.push(Run { chunks, samples, description }),
        }
    }
}

/// A track that was cut.
pub(super) struct Track<'b> {
    /// `tkhd` with its new duration.
    header: Vec<u8>,
    /// The duration in the movie's unit, and the media before it that is hidden.
    shown: (u64, u64),
    mdia: &'b [u8],
    minf: &'b [u8],
    /// `mdhd` with its new duration.
    media_header: Vec<u8>,
    tables: Tables<'b>,
    samples: Range<u64>,
    layout: Layout,
    /// How many bytes of the first chunk are left out.
    skipped: u64,
    data: Range<u64>,
}

impl<'b> Track<'b> {
    /// Cuts a track; `None` if it has no sample in that part of the movie.
    pub(super) fn cut(trak: &'b [u8], clip: &Clip, movie_timescale: u32) -> Result<Option<Track<'b>>> {
        let mdia = child(trak, b"mdia")?.ok_or(Mp4Error::Missing("mdia"))?;
        let mdhd = child(mdia, b"mdhd")?.ok_or(Mp4Error::Missing("mdhd"))?;
        let minf = child(mdia, b"minf")?.ok_or(Mp4Error::Missing("minf"))?;
        let tables = Tables::read(child(minf, b"stbl")?.ok_or(Mp4Error::Missing("stbl"))?)?;
        let media = Header::read(mdhd, "mdhd")?;
        let Some(start) = tables.sample_at(0, ticks(clip.start_ms, media.timescale)) else { return Ok(None) };
        let length = clip.length_ms().map(|length| ticks(length, media.timescale));
        let end = length.and_then(|length| tables.sample_at(start, length)).unwrap_or_else(|| tables.samples());
        if start >= end {
            return Ok(None);
        }
        let key = if clip.key_frame { tables.key_before(start) } else { start };
        let hidden = tables.duration(&(key..start));
        let samples = key..end;
        let layout = Layout::of(tables.chunks, tables.offsets.len(), &samples)?;
        let skipped = tables.sizes.sum(samples.start - layout.skipped..samples.start)?;
        let data = extent(&tables, &layout, &samples, skipped)?;
        let (header, shown) = track_header(trak, clip, movie_timescale)?;
        let media_header =
            media.with_duration(mdhd, clip.remains(media.duration, media.timescale).saturating_add(hidden));
        let shown = (shown, hidden);
        Ok(Some(Track { header, shown, mdia, minf, media_header, tables, samples, layout, skipped, data }))
    }

    /// The first byte of its samples in the file.
    pub(super) fn start(&self) -> u64 {
        self.data.start
    }

    /// The end of its samples in the file.
    pub(super) fn end(&self) -> u64 {
        self.data.end
    }

    /// Writes the track; returns where the places of its chunks are to stand.
    pub(super) fn write(&self, out: &mut Writer) -> Result<usize> {
        let trak = out.begin(b"trak");
        out.whole(b"tkhd", &self.header);
        if self.shown.1 > 0 {
            self.write_edits(out);
        }
        let mdia = out.begin(b"mdia");
        out.whole(b"mdhd", &self.media_header);
        copy_others(self.mdia, &[b"mdhd", b"minf"], out)?;
        let minf = out.begin(b"minf");
        copy_others(self.minf, &[b"stbl"], out)?;
        let offsets = self.write_tables(out)?;
        for place in [minf, mdia, trak] {
            out.end(place)?;
        }
        Ok(offsets)
    }

    /// An edit list that hides what comes before the start.
    fn write_edits(&self, out: &mut Writer) {
        let (shown, hidden) = self.shown;
        // Version 1, one entry, at normal speed.
        let list = [&[1, 0, 0, 0, 0, 0, 0, 1][..], &shown.to_be_bytes(), &hidden.to_be_bytes(), &[0, 1, 0, 0]].concat();
        out.u32((list.len() + 16) as u32);
        out.0.extend_from_slice(b"edts");
        out.whole(b"elst", &list);
    }

    fn write_tables(&self, out: &mut Writer) -> Result<usize> {
        let stbl = out.begin(b"stbl");
        out.copy(self.tables.descriptions)?;
        write_runs(b"stts", &[0; 4], self.tables.times, &self.samples, out)?;
        if let Some(keys) = self.tables.keys {
            let inside = keys.0.iter().map(|row| u64::from(number(row, 0)));
            let inside = inside.filter(|key| key.checked_sub(1).is_some_and(|key| self.samples.contains(&key)));
            write_table(b"stss", &[0; 4], inside.map(|key| [(key - self.samples.start) as u32]), out)?;
        }
        if let Some((head, rows)) = self.tables.compositions {
            write_runs(b"ctts", &head[..4], rows, &self.samples, out)?;
        }
        let mut chunk = 1;
        let runs = self.layout.runs.iter().map(|run| {
            let first = chunk;
            chunk += run.chunks;
            [first, run.samples, run.description]
        });
        write_table(b"stsc", &[0; 4], runs, out)?;
        self.write_sizes(out)?;
        let (kind, each) = match self.tables.offsets.length() {
            Length::Four => (b"stco", 4),
            Length::Eight => (b"co64", 8),
        };
        let place = out.begin(kind);
        out.u32(0);
        let chunks = self.layout.chunks.end - self.layout.chunks.start;
        out.u32(chunks as u32);
        let offsets = out.0.len();
        out.0.resize(offsets + chunks as usize * each, 0);
        out.end(place)?;
        out.end(stbl)?;
        Ok(offsets)
    }

    fn write_sizes(&self, out: &mut Writer) -> Result<()> {
        let place = out.begin(b"stsz");
        out.u32(0);
        let count = (self.samples.end - self.samples.start) as u32;
        let inside = self.samples.start as usize..self.samples.end as usize;
        match self.tables.sizes {
            Sizes::Same(size, all) if self.samples.end <= u64::from(all) => {
                out.u32(size);
                out.u32(count);
            }
            Sizes::Same(..) => return Err(Mp4Error::Table("stsz")),
            Sizes::Each(rows) => {
                out.u32(0);
                out.u32(count);
                let rows = rows.0.get(inside).ok_or(Mp4Error::Table("stsz"))?;
                out.0.extend_from_slice(rows.as_flattened());
            }
        }
        out.end(place)
    }

    /// Writes the places of the chunks: those in the file, of which `data` follows after `after` bytes.
    pub(super) fn write_offsets(&self, out: &mut [u8], at: usize, data: &Range<u64>, after: u64) -> Result<()> {
        let length = self.tables.offsets.length();
        for (index, chunk) in self.layout.chunks.clone().enumerate() {
            let skipped = if index == 0 { self.skipped } else { 0 };
            let old = self.tables.offsets.get(chunk)?.checked_add(skipped).ok_or(Mp4Error::Chunk)?;
            let new = Some(old).filter(|old| data.contains(old)).map(|old| old - data.start + after);
            let fits = |new: &u64| length == Length::Eight || u32::try_from(*new).is_ok();
            length.write(out, at + index * length.bytes(), new.filter(fits).ok_or(Mp4Error::Chunk)?);
        }
        Ok(())
    }
}

/// The bytes of the file between the first and the last of some samples.
fn extent(tables: &Tables<'_>, layout: &Layout, samples: &Range<u64>, skipped: u64) -> Result<Range<u64>> {
    let chunks = &layout.chunks;
    let place = |chunk: u64| {
        let skipped = if chunk == chunks.start { skipped } else { 0 };
        tables.offsets.get(chunk)?.checked_add(skipped).ok_or(Mp4Error::Chunk)
    };
    let mut start = u64::MAX;
    for chunk in chunks.clone() {
        start = start.min(place(chunk)?);
    }
    let in_last = layout.runs.last().map_or(0, |run| u64::from(run.samples));
    let last = tables.sizes.sum(samples.end - in_last..samples.end)?;
    let end = place(chunks.end - 1)?.checked_add(last).ok_or(Mp4Error::Chunk)?;
    if start < end { Ok(start..end) } else { Err(Mp4Error::Chunk) }
}

/// `tkhd` with the duration that remains, and that duration.
fn track_header(trak: &[u8], clip: &Clip, timescale: u32) -> Result<(Vec<u8>, u64)> {
    let mut header = child(trak, b"tkhd")?.ok_or(Mp4Error::Missing("tkhd"))?.to_vec();
    let (at, length) = if header.first() == Some(&1) { (28, Length::Eight) } else { (20, Length::Four) };
    let duration = length.read(&header, at).ok_or(Mp4Error::Table("tkhd"))?;
    let remains = clip.remains(duration, timescale);
    length.write(&mut header, at, remains);
    Ok((header, remains))
}

/// Copies the boxes of other kinds.
fn copy_others(bytes: &[u8], without: &[&[u8; 4]], out: &mut Writer) -> Result<()> {
    for found in boxes(bytes) {
        let (kind, whole, _) = found?;
        if !without.contains(&&kind) {
            out.copy(whole)?;
        }
    }
    Ok(())
}

fn write_runs(kind: &[u8; 4], head: &[u8], rows: Rows<'_, 8>, range: &Range<u64>, out: &mut Writer) -> Result<()> {
    write_table(kind, head, overlaps(rows, range).map(|(count, value)| [count, value]), out)
}

/// Writes a table: its version and flags, the number of rows, the rows.
fn write_table<const N: usize>(
    kind: &[u8; 4],
    head: &[u8],
    rows: impl Iterator<Item = [u32; N]>,
    out: &mut Writer,
) -> Result<()> {
    let place = out.begin(kind);
    out.0.extend_from_slice(head);
    let count_at = out.0.len();
    out.u32(0);
    let mut count = 0u32;
    for row in rows {
        row.iter().for_each(|number| out.u32(*number));
        count += 1;
    }
    out.0[count_at..count_at + 4].copy_from_slice(&count.to_be_bytes());
    out.end(place)
}
