//! Replacing strings in a text that comes in parts, whatever the case of their ASCII letters.
//!
//! All strings are searched for in one pass. Where several begin at the same place, the first in the list counts. What
//! follows a replaced string is searched on; replacements aren't. A search steps over as many bytes as the shortest string
//! is long where the byte in sight ends none (Horspool's rule, for several strings).

use std::ops::Range;
use std::rc::Rc;

use buf::{Buf, Bytes, Chain, Piece};

/// The strings that are searched for.
#[derive(Clone)]
pub struct Needles {
    /// In lower case; none is empty.
    texts: Rc<[Box<[u8]>]>,
    /// Those that are still searched for, in order.
    live: Vec<usize>,
    /// How many bytes are looked at as one window: no more than the shortest string has.
    window: usize,
    /// The length of the longest string.
    longest: usize,
    /// How far a window moves by its last byte; 0 if a string may begin where the window does.
    shifts: Box<[u8; 256]>,
}

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hit {
    /// A string.
    Match {
        at: usize,
        which: usize,
    },
    /// A string may begin here, which more of the text decides.
    Open {
        at: usize,
    },
    Nothing,
}

/// What stands at a place of the text.
enum Verdict {
    Match(usize),
    Open,
    Nothing,
}

impl Needles {
    /// Strings in the order of preference; an empty one is never found.
    pub fn new<'t>(texts: impl IntoIterator<Item = &'t [u8]>) -> Needles {
        let texts: Rc<[_]> = texts.into_iter().map(|text| text.to_ascii_lowercase().into_boxed_slice()).collect();
        let live = (0..texts.len()).filter(|&index| !texts[index].is_empty()).collect();
        Needles::of(texts, live)
    }

    fn of(texts: Rc<[Box<[u8]>]>, live: Vec<usize>) -> Needles {
        let lengths = || live.iter().map(|&index| texts[index].len());
        let longest = lengths().max().unwrap_or(0);
        let window = lengths().min().unwrap_or(1).min(usize::from(u8::MAX));
        let mut shifts = Box::new([window as u8; 256]);
        for &index in &live {
            for (at, &byte) in texts[index].iter().take(window).enumerate() {
                let shift = (window - 1 - at) as u8;
                for byte in [byte, byte.to_ascii_uppercase()] {
                    let own = &mut shifts[usize::from(byte)];
                    *own = shift.min(*own);
                }
            }
        }
        Needles { texts, live, window, longest, shifts }
    }

    /// Whether nothing is searched for.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// The same strings without one of them.
    fn without(&self, which: usize) -> Needles {
        let live = self.live.iter().copied().filter(|&index| index != which).collect();
        Needles::of(self.texts.clone(), live)
    }

    /// The first string in `text`, from `from` on; `last` if nothing follows the text.
    fn find(&self, text: &[u8], from: usize, last: bool) -> Hit {
        if self.is_empty() {
            return Hit::Nothing;
        }
        let mut end = from + self.window - 1;
        while let Some(&byte) = text.get(end) {
            let shift = self.shifts[usize::from(byte)];
            if shift > 0 {
                end += usize::from(shift);
                continue;
            }
            let at = end + 1 - self.window;
            match self.judge(&text[at..], last) {
                Verdict::Match(which) => return Hit::Match { at, which },
                Verdict::Open => return Hit::Open { at },
                Verdict::Nothing => end += 1,
            }
        }
        if last {
            return Hit::Nothing;
        }
        // What is left is shorter than every string.
        let rest = end + 1 - self.window..text.len();
        let open = rest.into_iter().find(|&at| matches!(self.judge(&text[at..], false), Verdict::Open));
        open.map_or(Hit::Nothing, |at| Hit::Open { at })
    }

    fn judge(&self, text: &[u8], last: bool) -> Verdict {
        for &index in &self.live {
            let needle = &self.texts[index];
            match text.get(..needle.len()) {
                Some(start) if start.eq_ignore_ascii_case(needle) => return Verdict::Match(index),
                None if !last && text.eq_ignore_ascii_case(&needle[..text.len()]) => return Verdict::Open,
                _ => {}
            }
        }
        Verdict::Nothing
    }
}

/// Replaces strings in one text.
pub struct Replacer {
    needles: Rc<Needles>,
    /// By the strings' numbers.
    replacements: Rc<[Bytes]>,
    /// Whether each string is replaced at its first place only.
    once: bool,
    /// The end of what was seen, which a string may begin with; shorter than the longest string.
    held: Vec<u8>,
}

impl Replacer {
    /// A replacement for each string; with `once` each is replaced at its first place only.
    pub fn new(needles: Rc<Needles>, replacements: Rc<[Bytes]>, once: bool) -> Replacer {
        debug_assert_eq!(needles.texts.len(), replacements.len());
        Replacer { needles, replacements, once, held: Vec::new() }
    }

    /// Takes a part of the text, and appends what is decided of it; `last` if it is the end.
    pub fn push(&mut self, part: Bytes, last: bool, out: &mut Chain) {
        let mut out = Writer { out, small: Buf::empty() };
        let mut part = part;
        if !self.held.is_empty() {
            self.decide_held(&mut part, last, &mut out);
        }
        let (mut from, mut decided) = (0, part.len());
        while self.held.is_empty() {
            match self.needles.find(&part, from, last) {
                Hit::Match { at, which } => {
                    out.slice(&part, from..at);
                    from = at + self.replace(which, &mut out);
                }
                Hit::Open { at } => {
                    self.held.extend_from_slice(&part[at..]);
                    decided = at;
                }
                Hit::Nothing => break,
            }
        }
        out.slice(&part, from..decided);
        out.flush();
    }

    /// Finds out about places in what is held back, with as much of the next part as one string can reach into; takes
    /// that from `part`.
    fn decide_held(&mut self, part: &mut Bytes, last: bool, out: &mut Writer<'_>) {
        let held = std::mem::take(&mut self.held);
        let reach = part.len().min(self.needles.longest);
        let joint = Bytes::from([&held[..], &part[..reach]].concat());
        let last = last && reach == part.len();
        let mut from = 0;
        while from < held.len() {
            match self.needles.find(&joint, from, last) {
                Hit::Match { at, which } if at < held.len() => {
                    out.slice(&joint, from..at);
                    from = at + self.replace(which, out);
                }
                Hit::Open { at } if at < held.len() => {
                    // No string is that long, so this is all there is.
                    out.slice(&joint, from..at);
                    self.held.extend_from_slice(&joint[at..]);
                    *part = Bytes::default();
                    return;
                }
                _ => {
                    out.slice(&joint, from..held.len());
                    from = held.len();
                }
            }
        }
        part.advance(from - held.len());
    }

    /// Appends a replacement; the length of what it replaces.
    fn replace(&mut self, which: usize, out: &mut Writer<'_>) -> usize {
        let replacement = &self.replacements[which];
        out.slice(replacement, 0..replacement.len());
        if self.once {
            self.needles = Rc::new(self.needles.without(which));
        }
        self.needles.texts[which].len()
    }
}

/// Appends slices to a chain; short ones are joined, so that many replacements don't make many pieces.
struct Writer<'o> {
    out: &'o mut Chain,
    small: Buf,
}

/// Slices below this length are copied.
const SMALL: usize = 256;
/// The size of the buffers that they are copied into.
const BUFFER: usize = 4096;

impl Writer<'_> {
    fn slice(&mut self, bytes: &Bytes, range: Range<usize>) {
        let len = range.len();
        if len >= SMALL {
            self.flush();
            self.out.push(Piece::Bytes(bytes.slice(range)));
        } else if len > 0 {
            if self.small.room() < len {
                self.flush();
                self.small = Buf::with_capacity(BUFFER);
            }
            self.small.extend_from_slice(&bytes[range]);
        }
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.out.push_bytes(std::mem::replace(&mut self.small, Buf::empty()));
        }
    }
}

/// The same, plainly: for tests and fuzzing.
pub fn replace_naively(text: &[u8], needles: &[&[u8]], replacements: &[&[u8]], once: bool) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    let mut live: Vec<bool> = needles.iter().map(|needle| !needle.is_empty()).collect();
    while at < text.len() {
        let begins = |needle: &[u8]| text[at..].get(..needle.len()).is_some_and(|s| s.eq_ignore_ascii_case(needle));
        match (0..needles.len()).find(|&index| live[index] && begins(needles[index])) {
            Some(index) => {
                out.extend_from_slice(replacements[index]);
                at += needles[index].len();
                live[index] = !once;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replace(parts: &[&[u8]], needles: &[&[u8]], replacements: &[&[u8]], once: bool) -> Vec<u8> {
        let replacements = replacements.iter().map(|text| Bytes::copy_from(text)).collect();
        let mut replacer = Replacer::new(Rc::new(Needles::new(needles.iter().copied())), replacements, once);
        let mut out = Chain::new();
        for part in parts {
            replacer.push(Bytes::copy_from(part), false, &mut out);
            assert!(replacer.held.len() <= replacer.needles.longest);
        }
        replacer.push(Bytes::default(), true, &mut out);
        out.pieces()
            .iter()
            .flat_map(|piece| match piece {
                Piece::Bytes(bytes) => bytes.to_vec(),
                Piece::File(_) => Vec::new(),
            })
            .collect()
    }

    #[test]
    fn rules() {
        let check = |needles: &[&str], once, text: &str, expect: &str| {
            let needles: Vec<&[u8]> = needles.iter().map(|needle| needle.as_bytes()).collect();
            let replacements: [&[u8]; 3] = [b"1", b"2", b"3"];
            let replacements = &replacements[..needles.len()];
            let text = text.as_bytes();
            for cut in 0..=text.len() {
                let parts = [&text[..cut], &text[cut..]];
                let found = replace(&parts, &needles, replacements, once);
                assert_eq!(String::from_utf8_lossy(&found), expect, "{needles:?} in {text:?} cut at {cut}");
            }
            assert_eq!(replace_naively(text, &needles, replacements, once), expect.as_bytes());
        };
        check(&["foo"], false, "FOOfOoo fo", "11o fo");
        check(&["foo"], true, "foofoo", "1foo");
        check(&["ab", "abc"], false, "abcab", "1c1");
        check(&["abc", "ab"], false, "abcab", "12");
        check(&["bc", "abcd"], false, "abcd xbcd abce", "2 x1d a1e");
        check(&["abcde", "bc", "cd"], false, "abcdf abcde xcdbc", "a2df 1 x32");
        check(&["ab", "AB"], true, "ababab", "12ab");
        check(&["", "b"], false, "abc", "a2c");
        check(&["a"], true, "", "");
        check(&["aab"], false, "aaaab", "aa1");
        check(&["x"], false, "xXax", "11a1");
    }

    #[test]
    fn long_strings_and_many_pieces() {
        let needle = b"0123456789abcdef".repeat(40);
        let text = [&b"ABC"[..], &needle, b"yz"].concat().repeat(200);
        let expect = b"ABC+-".repeat(200);
        for part in [1000, 4096, 100_000] {
            let parts: Vec<&[u8]> = text.chunks(part).collect();
            assert!(replace(&parts, &[&needle, b"yz"], &[b"+", b"-"], false) == expect, "{part}");
        }
    }

    proptest! {
        #[test]
        fn equals_the_naive_way(
            text in "[abAB]{0,60}",
            needles in proptest::collection::vec("[abAB]{0,6}", 0..5),
            cuts in proptest::collection::vec(0usize..60, 0..5),
            once: bool,
        ) {
            let needles: Vec<&[u8]> = needles.iter().map(|needle| needle.as_bytes()).collect();
            let replacements: Vec<&[u8]> = [&b"<0>"[..], b"", b"a", b"<3>", b"<4>"][..needles.len()].to_vec();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut <= text.len()).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let (mut parts, mut from) = (Vec::new(), 0);
            for cut in cuts {
                parts.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            let expect = replace_naively(text.as_bytes(), &needles, &replacements, once);
            prop_assert_eq!(replace(&parts, &needles, &replacements, once), expect);
        }
    }
}
