//! Compressing responses: what the filters of all codings share.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;

use buf::{Buf, Bytes, Chain, Piece};
use wire::h1::{KnownHeader, Method};

use super::KeptFile;
use crate::body::{Body, BodyFilter, Broken};
use crate::config::mime::TypeSet;
use crate::files::made::Share;
use crate::request::Request;
use crate::request::variables::show;

/// A compressor of one response.
pub trait Codec {
    /// The coding's name in `Content-Encoding`.
    const NAME: &'static str;

    /// A number for its settings: what two codecs of a name with the same number make of a text is the same. `None`: no
    /// number says all of them.
    fn settings(&self) -> Option<u32>;

    /// Compresses input into the room of `out`, of which there is at least [`ROOM`].
    fn step(&mut self, input: &[u8], op: Op, out: &mut Buf) -> Result<Step, Broken>;
}

/// Compressors that no response uses, each with what it was made from. To make one costs more than to compress a short
/// response.
pub struct Spare<K, S> {
    list: RefCell<Vec<Kept<K, S>>>,
    most: usize,
}

struct Kept<K, S> {
    from: K,
    spare: S,
    bytes: usize,
}

impl<K: PartialEq, S> Spare<K, S> {
    /// Keeps at most so many bytes of them.
    pub const fn new(most: usize) -> Spare<K, S> {
        Spare { list: RefCell::new(Vec::new()), most }
    }

    /// One that was made from the same, the last one that was kept.
    pub fn take(&self, from: &K) -> Option<S> {
        let mut list = self.list.borrow_mut();
        let at = list.iter().rposition(|kept| kept.from == *from)?;
        Some(list.remove(at).spare)
    }

    /// Keeps one that takes so many bytes; the oldest ones go as long as all of them take too many.
    pub fn keep(&self, from: K, spare: S, bytes: usize) {
        if bytes > self.most {
            return;
        }
        let mut list = self.list.borrow_mut();
        list.push(Kept { from, spare, bytes });
        let mut all: usize = list.iter().map(|kept| kept.bytes).sum();
        while all > self.most {
            all -= list.remove(0).bytes;
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.borrow().len()
    }
}

/// What follows the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// More input.
    Continue,
    /// All that has been taken must come out.
    Flush,
    /// Nothing.
    End,
}

/// What a codec has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the input it has taken.
    pub taken: usize,
    /// Whether it is to be called again with more room, though the input is empty.
    pub more: bool,
}

/// The least room for output.
pub const ROOM: usize = 16;

/// In which portions data is passed on.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The size of a buffer.
    pub buffer: usize,
    /// How much is gathered before compression begins.
    pub postpone: usize,
    /// Whether each part is passed on at once.
    pub unbuffered: bool,
}

/// The sizes of buffers that are taken as configured.
const BUFFERS: std::ops::RangeInclusive<usize> = 1024..=64 << 10;

/// Whether a response is one that may be compressed; if so, it may differ by what clients accept.
pub fn fits(r: &mut Request, types: &TypeSet, min_length: usize) -> bool {
    let response = &mut r.response;
    let fits = matches!(response.status, 200 | 403 | 404)
        && response.content_length.is_none_or(|length| length >= min_length as u64)
        && types.has(response.content_type.as_deref().unwrap_or_default())
        && response.headers.find(KnownHeader::ContentEncoding).is_none();
    response.gzip_vary |= fits;
    fits
}

/// Makes the body of the response go through a codec. If it is a file that is kept in memory, so is its compressed form.
pub fn install<C: Codec + 'static>(r: &mut Request, codec: C, pace: Pace) {
    let counts = Rc::new(Counts::default());
    r.slot::<Ratio<C>>().counts = Some(counts.clone());
    let is_head = r.method == Method::Head;
    let response = &mut r.response;
    response.headers.add(KnownHeader::ContentEncoding, Bytes::from_static(C::NAME.as_bytes()));
    response.clear_length();
    response.weaken();
    let mut filter = Compress::new(codec, pace, counts);
    match response.unchanged_file().filter(|_| !is_head).and_then(|file| filter.form_of(file)) {
        Some(form) => response.body = Body::Chain(Chain::from(form)),
        None => response.filters.push(Box::new(filter)),
    }
}

/// Compressed forms of a file's contents.
#[derive(Default)]
struct Forms(RefCell<Vec<Form>>);

struct Form {
    name: &'static str,
    settings: u32,
    bytes: Bytes,
    /// Counts the bytes among those that are kept of files.
    _share: Share,
}

/// How many forms of a file are kept: of the codings that clients accept, with the settings of most locations.
const FORMS: usize = 3;

/// Bytes in and out.
#[derive(Default)]
struct Counts {
    plain: Cell<u64>,
    packed: Cell<u64>,
}

/// A request's slot with the counts of a codec.
struct Ratio<C> {
    counts: Option<Rc<Counts>>,
    codec: PhantomData<C>,
}

impl<C> Default for Ratio<C> {
    fn default() -> Ratio<C> {
        Ratio { counts: None, codec: PhantomData }
    }
}

/// The variable that tells how many times smaller a codec has made the response.
pub fn ratio<C: Codec + 'static>(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let Some(counts) = r.find_slot::<Ratio<C>>().and_then(|ratio| ratio.counts.as_ref()) else { return false };
    match hundredths(counts.plain.get(), counts.packed.get()) {
        Some(ratio) => show(out, format_args!("{}.{:02}", ratio / 100, ratio % 100)),
        None => false,
    }
}

/// The ratio in hundredths, rounded.
fn hundredths(plain: u64, packed: u64) -> Option<u64> {
    (plain > 0).then(|| (plain * 1000).checked_div(packed)).flatten().map(|ratio| (ratio + 5) / 10)
}

/// The body filter.
struct Compress<C> {
    codec: C,
    pace: Pace,
    counts: Rc<Counts>,
    begun: bool,
    /// The codec has failed: what it would make further isn't sound.
    broken: bool,
    /// Data that waits for more of it.
    held: Chain,
    out: Buf,
}

impl<C: Codec> Compress<C> {
    fn new(codec: C, pace: Pace, counts: Rc<Counts>) -> Compress<C> {
        let pace = Pace { buffer: pace.buffer.clamp(*BUFFERS.start(), *BUFFERS.end()), ..pace };
        Compress { codec, pace, counts, begun: false, broken: false, held: Chain::new(), out: Buf::empty() }
    }

    /// The compressed form of a file's contents: the one that is kept, or a new one. `None` if none can be kept, or if the
    /// codec fails: the response then breaks off as any other.
    fn form_of(&mut self, file: &KeptFile) -> Option<Bytes> {
        let KeptFile { contents, made } = file;
        let mut forms = made.get_or_init(Forms::default)?.0.borrow_mut();
        let settings = self.codec.settings()?;
        if let Some(known) = forms.iter().find(|form| (form.name, form.settings) == (C::NAME, settings)) {
            self.counts.plain.set(contents.len() as u64);
            self.counts.packed.set(known.bytes.len() as u64);
            return Some(known.bytes.clone());
        }
        if forms.len() >= FORMS {
            return None;
        }
        let mut packed = Chain::new();
        self.apply(Chain::from(contents.clone()), true, false, &mut packed).ok()?;
        let parts = packed.pieces().iter().filter_map(|piece| match piece {
            Piece::Bytes(bytes) => Some(&bytes[..]),
            Piece::File(_) => None,
        });
        let bytes = Bytes::from(parts.collect::<Vec<_>>().concat());
        // A form that saves nothing isn't worth its memory.
        if bytes.len() < contents.len()
            && let Some(share) = made.room().take(bytes.len())
        {
            forms.push(Form { name: C::NAME, settings, bytes: bytes.clone(), _share: share });
        }
        Some(bytes)
    }

    fn feed(&mut self, mut input: &[u8], op: Op, out: &mut Chain) -> Result<(), Broken> {
        loop {
            if self.out.room() < ROOM {
                self.pass_on(out);
                self.out = Buf::with_capacity(self.pace.buffer);
            }
            let step = if self.broken { Err(Broken) } else { self.codec.step(input, op, &mut self.out) };
            let Step { taken, more } = step.inspect_err(|_| self.broken = true)?;
            input = input.get(taken..).unwrap_or_default();
            if input.is_empty() && !more {
                return Ok(());
            }
        }
    }

    fn pass_on(&mut self, out: &mut Chain) {
        if !self.out.is_empty() {
            self.counts.packed.set(self.counts.packed.get() + self.out.len() as u64);
            out.push_bytes(std::mem::replace(&mut self.out, Buf::empty()));
        }
    }
}

impl<C: Codec> BodyFilter for Compress<C> {
    fn apply(&mut self, input: Chain, end: bool, flush: bool, out: &mut Chain) -> Result<(), Broken> {
        let mut input = input;
        if !self.begun {
            self.held.append(&mut input);
            if !end && !flush && (self.held.is_empty() || self.held.len() < self.pace.postpone as u64) {
                return Ok(());
            }
            input = std::mem::take(&mut self.held);
            self.begun = true;
        }
        while let Some(piece) = input.pop() {
            let Piece::Bytes(bytes) = piece else { return Err(Broken) };
            self.counts.plain.set(self.counts.plain.get() + bytes.len() as u64);
            // The codec gets its last input with the end, so that it knows how long the data is.
            let op = if end && input.is_empty() { Op::End } else { Op::Continue };
            self.feed(&bytes, op, out)?;
            if op == Op::End {
                self.pass_on(out);
                return Ok(());
            }
        }
        if end {
            self.feed(b"", Op::End, out)?;
        } else if flush || self.pace.unbuffered {
            self.feed(b"", Op::Flush, out)?;
        }
        if end || flush || self.pace.unbuffered {
            self.pass_on(out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::made::{Made, Room};

    /// Leaves out every second byte, tells the parts apart, and needs a call of its own for the end.
    #[derive(Default)]
    struct Half {
        odd: bool,
        ended: bool,
    }

    impl Codec for Half {
        const NAME: &'static str = "half";

        fn settings(&self) -> Option<u32> {
            Some(0)
        }

        fn step(&mut self, input: &[u8], op: Op, out: &mut Buf) -> Result<Step, Broken> {
            let Some(&byte) = input.first() else {
                let mark = match op {
                    Op::Continue => "",
                    Op::Flush => "|",
                    Op::End if self.ended => ".",
                    Op::End => {
                        self.ended = true;
                        return Ok(Step { taken: 0, more: true });
                    }
                };
                out.extend_from_slice(mark.as_bytes());
                return Ok(Step { taken: 0, more: false });
            };
            self.odd = !self.odd;
            if self.odd {
                out.extend_from_slice(&[byte]);
            }
            Ok(Step { taken: 1, more: op == Op::End && input.len() == 1 })
        }
    }

    fn run(pace: Pace, parts: &[(&'static str, bool)]) -> (Vec<String>, Rc<Counts>) {
        let counts = Rc::new(Counts::default());
        let mut filter = Compress::new(Half::default(), pace, counts.clone());
        let mut portions = Vec::new();
        for (index, (part, flush)) in parts.iter().enumerate() {
            let mut out = Chain::new();
            let input = Chain::from(Bytes::from_static(part.as_bytes()));
            assert!(filter.apply(input, index + 1 == parts.len(), *flush, &mut out).is_ok());
            let text = out.pieces().iter().map(|piece| match piece {
                Piece::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Piece::File(_) => String::new(),
            });
            portions.push(text.collect());
        }
        (portions, counts)
    }

    const PACE: Pace = Pace { buffer: 0, postpone: 0, unbuffered: false };

    #[test]
    fn portions() {
        let parts = [("abcd", false), ("ef", true), ("", false), ("gh", false)];
        let (portions, counts) = run(PACE, &parts);
        assert_eq!(portions, ["", "ace|", "", "g."]);
        assert_eq!((counts.plain.get(), counts.packed.get()), (8, 6));
        assert_eq!(run(Pace { unbuffered: true, ..PACE }, &parts).0, ["ac|", "e|", "|", "g."]);
        assert_eq!(run(Pace { postpone: 5, ..PACE }, &[("abc", false), ("d", false), ("", false)]).0, ["", "", "ac."]);
        assert_eq!(run(Pace { postpone: 5, ..PACE }, &[("abc", true), ("d", false), ("", false)]).0, ["ac|", "", "."]);
        assert_eq!(run(PACE, &[("", false)]).0, ["."]);
    }

    #[test]
    fn spare_ones() {
        let spare = Spare::new(20);
        for (from, name, bytes) in [(1, "a", 5), (2, "b", 5), (1, "c", 11)] {
            spare.keep(from, name, bytes);
        }
        assert_eq!((spare.count(), spare.take(&1), spare.take(&1), spare.take(&2)), (2, Some("c"), None, Some("b")));
        spare.keep(3, "d", 20);
        spare.keep(4, "e", 21);
        assert_eq!((spare.take(&1), spare.take(&4), spare.take(&3), spare.count()), (None, None, Some("d"), 0));
    }

    fn form(file: &KeptFile) -> (Option<Bytes>, Rc<Counts>) {
        let counts = Rc::new(Counts::default());
        (Compress::new(Half::default(), PACE, counts.clone()).form_of(file), counts)
    }

    fn kept(file: &KeptFile) -> usize {
        file.made.get_or_init(Forms::default).map_or(0, |forms| forms.0.borrow().len())
    }

    #[test]
    fn forms_are_kept() {
        let room = Room::new(5);
        let file = |contents| KeptFile { contents: Bytes::from_static(contents), made: Made::new(&room) };
        let first = file(b"abcd");
        for _ in 0..2 {
            let (form, counts) = form(&first);
            assert_eq!(form.as_deref(), Some(&b"ac."[..]));
            assert_eq!((counts.plain.get(), counts.packed.get()), (4, 3));
            assert_eq!((kept(&first), room.taken()), (1, 3));
        }
        // One for which there is no room, and one that is no smaller than the file.
        for (contents, expect, taken) in [(&b"efgh"[..], &b"eg."[..], 3), (b"i", b"i.", 3)] {
            let file = file(contents);
            assert_eq!(form(&file).0.as_deref(), Some(expect));
            assert_eq!((kept(&file), room.taken()), (0, taken));
        }
        drop(first);
        assert_eq!(room.taken(), 0);
        let other = file(b"abcd");
        other.made.set(Rc::new(1_u8));
        assert!(form(&other).0.is_none());
    }

    #[test]
    fn a_codec_that_has_failed_is_used_no_more() {
        struct Fails(bool);
        impl Codec for Fails {
            const NAME: &'static str = "fails";
            fn settings(&self) -> Option<u32> {
                Some(0)
            }
            fn step(&mut self, input: &[u8], _: Op, _: &mut Buf) -> Result<Step, Broken> {
                let failed = std::mem::replace(&mut self.0, true);
                if failed { Ok(Step { taken: input.len(), more: false }) } else { Err(Broken) }
            }
        }
        let file = KeptFile { contents: Bytes::from_static(b"abcd"), made: Made::new(&Room::new(100)) };
        let mut filter = Compress::new(Fails(false), PACE, Rc::default());
        assert!(filter.form_of(&file).is_none());
        assert!(filter.apply(Chain::from(file.contents.clone()), true, false, &mut Chain::new()).is_err());
        assert_eq!(kept(&file), 0);
    }

    #[test]
    fn ratios() {
        assert_eq!(hundredths(100, 50), Some(200));
        assert_eq!(hundredths(1000, 299), Some(334));
        assert_eq!(hundredths(0, 20), None);
        assert_eq!(hundredths(5, 0), None);
    }
}
