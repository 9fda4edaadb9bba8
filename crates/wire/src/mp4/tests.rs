use proptest::prelude::*;

use super::*;

/// A box.
fn boxed(kind: &str, contents: &[u8]) -> Vec<u8> {
    [&(contents.len() as u32 + 8).to_be_bytes()[..], kind.as_bytes(), contents].concat()
}

/// A box with version, flags, numbers.
fn numbers(kind: &str, numbers: &[u32]) -> Vec<u8> {
    let contents: Vec<u8> = [0].iter().chain(numbers).flat_map(|number| number.to_be_bytes()).collect();
    boxed(kind, &contents)
}

/// A box with a table.
fn table<const N: usize>(kind: &str, rows: &[[u32; N]]) -> Vec<u8> {
    numbers(kind, &[&[rows.len() as u32], rows.as_flattened()].concat())
}

/// What a track is made of.
#[derive(Clone, Debug)]
struct Spec {
    times: Vec<[u32; 2]>,
    keys: Option<Vec<[u32; 1]>>,
    compositions: Option<Vec<[u32; 2]>>,
    chunks: Vec<[u32; 3]>,
    /// Of each sample.
    sizes: Vec<[u32; 1]>,
    offsets: Vec<[u32; 1]>,
}

/// Ticks a second, of movies and tracks.
const SCALE: u32 = 1000;

fn movie(specs: &[Spec]) -> Vec<u8> {
    let duration = |spec: &Spec| spec.times.iter().map(|[count, each]| count * each).sum::<u32>();
    let longest = specs.iter().map(duration).max().unwrap_or(0);
    let mut moov = numbers("mvhd", &[0, 0, SCALE, longest, 7]);
    for spec in specs {
        let mut stbl = boxed("stsd", b"how to decode");
        stbl.extend(table("stts", &spec.times));
        stbl.extend(spec.keys.iter().flat_map(|keys| table("stss", keys)));
        stbl.extend(spec.compositions.iter().flat_map(|compositions| table("ctts", compositions)));
        stbl.extend(table("stsc", &spec.chunks));
        stbl.extend(numbers("stsz", &[&[0, spec.sizes.len() as u32], spec.sizes.as_flattened()].concat()));
        stbl.extend(table("stco", &spec.offsets));
        stbl.extend(boxed("sdtp", b"of each sample"));
        let minf = [boxed("vmhd", b"video"), boxed("stbl", &stbl)].concat();
        let mdhd = numbers("mdhd", &[0, 0, SCALE, duration(spec), 0]);
        let mdia = [mdhd, boxed("hdlr", b"vide"), boxed("minf", &minf)].concat();
        let tkhd = numbers("tkhd", &[0, 0, 1, 0, duration(spec), 9]);
        moov.extend(boxed("trak", &[tkhd, boxed("edts", b"old"), boxed("mdia", &mdia)].concat()));
    }
    moov.extend(boxed("udta", b"user data"));
    moov
}

/// A sample as its tables describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    duration: u32,
    key: bool,
    composition: Option<u32>,
    description: u32,
    size: u32,
    offset: u64,
}

fn rows(stbl: &[u8], kind: &[u8; 4], per_row: usize) -> Option<Vec<Vec<u32>>> {
    let contents = child(stbl, kind).expect("the boxes are sound")?;
    let skip = if kind == b"stsz" { 8 } else { 4 };
    let all: Vec<u32> = contents[skip + 4..].chunks(4).map(|n| be32(n, 0).expect("four bytes")).collect();
    assert_eq!(all.len(), be32(contents, skip).expect("a count") as usize * per_row, "{kind:?}");
    Some(all.chunks(per_row).map(<[u32]>::to_vec).collect())
}

fn each(runs: Option<Vec<Vec<u32>>>) -> Option<Vec<u32>> {
    runs.map(|runs| runs.iter().flat_map(|run| vec![run[1]; run[0] as usize]).collect())
}

/// The samples of each track, one by one.
fn expand(moov: &[u8]) -> Vec<Vec<Sample>> {
    let mut tracks = Vec::new();
    for found in boxes(moov) {
        let (kind, _, trak) = found.expect("the boxes are sound");
        if kind != *b"trak" {
            continue;
        }
        let [mdia, minf, stbl] = [b"mdia", b"minf", b"stbl"];
        let inner = |bytes, kind| child(bytes, kind).expect("the boxes are sound").expect("it is there");
        let stbl = inner(inner(inner(trak, mdia), minf), stbl);
        let times = each(rows(stbl, b"stts", 2)).expect("a table");
        let compositions = each(rows(stbl, b"ctts", 2));
        let keys = rows(stbl, b"stss", 1);
        let (chunks, offsets) = (rows(stbl, b"stsc", 3).expect("a table"), rows(stbl, b"stco", 1).expect("a table"));
        let mut sizes = rows(stbl, b"stsz", 1).expect("a table").into_iter();
        let mut samples = Vec::new();
        for (index, offset) in offsets.iter().enumerate() {
            let run = chunks.iter().rev().find(|run| run[0] as usize <= index + 1).expect("the first is 1");
            let mut offset = u64::from(offset[0]);
            for _ in 0..run[1] {
                let (number, size) = (samples.len(), sizes.next().expect("as many sizes as samples")[0]);
                samples.push(Sample {
                    duration: times[number],
                    key: keys.as_ref().is_none_or(|keys| keys.contains(&vec![number as u32 + 1])),
                    composition: compositions.as_ref().map(|compositions| compositions[number]),
                    description: run[2],
                    size,
                    offset,
                });
                offset += u64::from(size);
            }
        }
        assert_eq!((samples.len(), sizes.next()), (times.len(), None));
        tracks.push(samples);
    }
    tracks
}

/// The part of a track between two points in time, and what is hidden of it.
fn clipped(samples: &[Sample], clip: &Clip) -> Vec<Sample> {
    let mut starts = vec![0];
    samples.iter().for_each(|sample| starts.push(starts[starts.len() - 1] + u64::from(sample.duration)));
    let at = |time: u64| (0..samples.len()).find(|&index| starts[index + 1] > time);
    let Some(start) = at(clip.start_ms) else { return Vec::new() };
    let end = clip.length_ms().and_then(|length| at(starts[start] + length)).unwrap_or(samples.len());
    let is_key = |index: &usize| samples[*index].key;
    let first = if clip.key_frame { (0..=start).rev().find(is_key).unwrap_or(start) } else { start };
    if start < end { samples[first..end].to_vec() } else { Vec::new() }
}

fn check(specs: &[Spec], clip: &Clip) {
    let moov = movie(specs);
    let expect: Vec<Vec<Sample>> = expand(&moov).iter().map(|samples| clipped(samples, clip)).collect();
    let expect: Vec<&Vec<Sample>> = expect.iter().filter(|samples| !samples.is_empty()).collect();
    let cut = match cut(&moov, clip, 100) {
        Ok(cut) => cut,
        Err(error) => {
            assert!(expect.is_empty() && error == Mp4Error::Empty, "{error}");
            return;
        }
    };
    let all = || expect.iter().flat_map(|samples| samples.iter());
    assert_eq!(Some(cut.data.start), all().map(|sample| sample.offset).min());
    assert_eq!(Some(cut.data.end), all().map(|sample| sample.offset + u64::from(sample.size)).max());
    let head = box_head(&cut.head, cut.head.len() as u64).expect("a box");
    assert_eq!(head.kind, *b"moov");
    let after = 100 + cut.head.len() as u64;
    let moved = |sample: &Sample| Sample { offset: sample.offset - cut.data.start + after, ..sample.clone() };
    let expect: Vec<Vec<Sample>> = expect.iter().map(|samples| samples.iter().map(moved).collect()).collect();
    assert_eq!(expand(&cut.head[8..head.size as usize]), expect);
}

/// A track of one sample for each size; chunks of so many samples each, one after the other from `place` on.
fn track(times: &[[u32; 2]], keys: Option<&[u32]>, chunks: &[u32], place: u32) -> Spec {
    let samples: u32 = times.iter().map(|[count, _]| count).sum();
    let sizes: Vec<[u32; 1]> = (0..samples).map(|index| [index % 5 + 1]).collect();
    let (mut offsets, mut rows, mut at, mut place) = (Vec::new(), Vec::<[u32; 3]>::new(), 0, place);
    for (index, &count) in chunks.iter().cycle().enumerate() {
        let count = count.min(samples - at);
        if count == 0 {
            break;
        }
        offsets.push([place]);
        if rows.last().is_none_or(|row| row[1] != count) {
            rows.push([index as u32 + 1, count, 1]);
        }
        place += sizes[at as usize..(at + count) as usize].iter().map(|size| size[0]).sum::<u32>() + 3;
        at += count;
    }
    Spec {
        times: times.to_vec(),
        keys: keys.map(|keys| keys.iter().map(|&key| [key]).collect()),
        compositions: Some(vec![[samples / 2, 5], [samples - samples / 2, 0]]),
        chunks: rows,
        sizes,
        offsets,
    }
}

#[test]
fn every_part_of_a_movie() {
    let specs =
        [track(&[[10, 100], [20, 50]], Some(&[1, 8, 20]), &[1, 4, 4, 2], 50), track(&[[12, 80]], None, &[5], 60)];
    for start_ms in (0..2200).step_by(37) {
        for end_ms in [None, Some(start_ms + 1), Some(start_ms + 120), Some(start_ms + 777), Some(5000)] {
            for key_frame in [false, true] {
                check(&specs, &Clip { start_ms, end_ms, key_frame });
            }
        }
    }
}

#[test]
fn durations_and_edits() {
    let moov = movie(&[track(&[[20, 100]], Some(&[1, 11]), &[3], 50)]);
    let clip = Clip { start_ms: 1230, end_ms: Some(1800), key_frame: true };
    let cut = cut(&moov, &clip, 0).expect("it can be cut");
    let moov = &cut.head[8..box_head(&cut.head, 1 << 20).expect("a box").size as usize];
    let number = |contents: Option<&[u8]>, at| be32(contents.expect("the box is there"), at);
    assert_eq!(number(child(moov, b"mvhd").expect("sound"), 16), Some(570));
    let trak = child(moov, b"trak").expect("sound").expect("a track");
    assert_eq!(number(child(trak, b"tkhd").expect("sound"), 20), Some(570));
    let mdia = child(trak, b"mdia").expect("sound").expect("the media");
    // The key frame is the sample at 1000, the start the one at 1200.
    assert_eq!(number(child(mdia, b"mdhd").expect("sound"), 16), Some(770));
    let edits = child(trak, b"edts").expect("sound").expect("edits");
    let list = child(edits, b"elst").expect("sound").expect("a list");
    assert_eq!((be64(list, 8), be64(list, 16)), (Some(570), Some(200)));
    assert!(child(moov, b"udta").expect("sound").is_none());
}

#[test]
fn what_is_broken() {
    let sound = movie(&[track(&[[20, 100]], None, &[3], 50)]);
    let clip = Clip { start_ms: 300, end_ms: None, key_frame: false };
    assert_eq!(cut(b"", &clip, 0), Err(Mp4Error::Missing("mvhd")));
    assert_eq!(cut(&sound, &Clip { start_ms: 2000, ..clip }, 0), Err(Mp4Error::Empty));
    for end in 1..sound.len() {
        // No part of a movie is a movie, but for one without the last box.
        let _ = cut(&sound[..end], &clip, 0);
    }
    for (kind, error) in [
        (b"stts", Mp4Error::Missing("stts")),
        (b"stsz", Mp4Error::Missing("stsz")),
        (b"stco", Mp4Error::Missing("stco")),
        (b"mdhd", Mp4Error::Missing("mdhd")),
    ] {
        let at = sound.windows(4).position(|window| window == kind).expect("it is there");
        let mut broken = sound.clone();
        broken[at] = b'x';
        assert_eq!(cut(&broken, &clip, 0), Err(error));
        // A count beyond the table's end, a box beyond its parent.
        broken.copy_from_slice(&sound);
        broken[at - 4] = 0x7f;
        assert_eq!(cut(&broken, &clip, 0), Err(Mp4Error::BoxSize));
    }
}

#[test]
fn heads() {
    let check = |bytes: &[u8], left, expect| {
        let found = box_head(bytes, left).map(|head| (head.head, head.size));
        assert_eq!(found.ok(), expect, "{bytes:?}");
    };
    check(b"\0\0\0\x10free", 16, Some((8, 16)));
    check(b"\0\0\0\x10free", 15, None);
    check(b"\0\0\0\0mdat", 99, Some((8, 99)));
    check(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x20", 99, Some((16, 32)));
    check(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x08", 99, None);
    check(b"\0\0\0\x01mdat", 99, None);
    check(b"\0\0\0\x04mdat", 99, None);
    check(b"\0\0\0", 99, None);
    assert_eq!(mdat_head(5), b"\0\0\0\x0dmdat");
    assert_eq!(mdat_head(1 << 32), b"\0\0\0\x01mdat\0\0\0\x01\0\0\0\x10");
}

proptest! {
    #[test]
    fn any_movie(
        times in proptest::collection::vec((1u32..6, 1u32..200), 1..5),
        more in proptest::collection::vec((1u32..6, 1u32..200), 1..5),
        chunks in proptest::collection::vec(1u32..5, 1..6),
        keys in proptest::collection::btree_set(1u32..20, 0..6),
        start_ms in 0u64..1500,
        length in proptest::option::of(1u64..1500),
        key_frame: bool,
    ) {
        let rows = |times: &[(u32, u32)]| times.iter().map(|&(count, each)| [count, each]).collect::<Vec<_>>();
        let samples: u32 = times.iter().map(|(count, _)| count).sum();
        let keys: Vec<u32> = keys.into_iter().filter(|key| *key <= samples).collect();
        let specs = [track(&rows(&times), Some(&keys), &chunks, 9), track(&rows(&more), None, &chunks[..1], 1000)];
        check(&specs, &Clip { start_ms, end_ms: length.map(|length| start_ms + length), key_frame });
    }
}

#[test]
fn a_copied_box_has_a_size() {
    for head in [[0; 4], [0, 0, 0, 13]] {
        let mut out = Writer::default();
        out.copy(&[&head[..], b"hdlrvideo"].concat()).expect("it is short");
        out.whole(b"free", b"");
        assert_eq!(out.0, [boxed("hdlr", b"video"), boxed("free", b"")].concat(), "{head:?}");
    }
}
