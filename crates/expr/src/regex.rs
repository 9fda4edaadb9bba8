//! Regexes with PCRE's syntax, on an engine without C.
//!
//! A pattern is parsed as PCRE2 parses it (`parse`) into a tree (`ast`) and written anew for the engine (`emit`):
//! nothing reaches the engine that we haven't understood, so that no pattern changes its meaning silently. What the
//! engine can't do (recursion, backtracking verbs, `\X`, properties outside UTF) is refused with an error like PCRE's.
//!
//! Patterns and texts are bytes. `(*UTF)`, or `(*UTF8)` as older versions had it, in front of a pattern makes it one of
//! characters.

mod ast;
mod class;
mod edges;
mod emit;
mod escape;
mod group;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use ast::Pattern;
use edges::Edges;
use emit::End;

/// Why a pattern doesn't compile. It reads as nginx's message does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexError {
    /// The reason, in PCRE2's words where PCRE2 has one.
    pub why: String,
    /// The pattern.
    pub pattern: Vec<u8>,
    /// Where in the pattern.
    pub offset: usize,
}

impl fmt::Display for RegexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = String::from_utf8_lossy(&self.pattern);
        write!(f, "pcre2_compile() failed: {} in \"{pattern}\"", self.why)?;
        match self.pattern.get(self.offset..) {
            None | Some([]) => Ok(()),
            Some(rest) => write!(f, " at \"{}\"", String::from_utf8_lossy(rest)),
        }
    }
}

impl std::error::Error for RegexError {}

/// A search that was given up: it took more steps than a pattern may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchError;

impl fmt::Display for MatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("match limit exceeded")
    }
}

impl std::error::Error for MatchError {}

/// Where the groups of a match are. Keep one and use it again: it holds on to its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// Group 0 is the whole match; a group that took no part has [`UNSET`].
    spans: Vec<(u32, u32)>,
}

const UNSET: (u32, u32) = (u32::MAX, u32::MAX);

impl Captures {
    /// No groups.
    pub const fn new() -> Captures {
        Captures { spans: Vec::new() }
    }

    /// How many groups the last match has, group 0 counted; 0 if there was none.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there was no match.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Forgets the last match.
    pub fn clear(&mut self) {
        self.spans.clear();
    }

    /// Where group `n` is in the text, if it took part in the match.
    pub fn range(&self, n: usize) -> Option<Range<usize>> {
        self.spans.get(n).filter(|span| **span != UNSET).map(|(start, end)| *start as usize..*end as usize)
    }

    /// Group `n` of `text`, which must be the text that was searched.
    pub fn slice<'t>(&self, text: &'t [u8], n: usize) -> Option<&'t [u8]> {
        text.get(self.range(n)?)
    }
}

/// A compiled pattern.
#[derive(Debug)]
pub struct Regex {
    engine: fancy_regex::Regex,
    edges: Edges,
    /// For texts that end in a newline, if the pattern means something else there.
    other: Option<Box<Other>>,
    source: Box<[u8]>,
    groups: usize,
    names: Box<[(String, usize)]>,
    /// Group and slot of the engine, where they differ (`(?|…)`).
    slots: Option<Box<[(usize, usize)]>>,
}

#[derive(Debug)]
struct Other {
    caseless: bool,
    engine: OnceLock<Option<fancy_regex::Regex>>,
}

/// Steps of backtracking for one search.
const BACKTRACK_LIMIT: usize = 1_000_000;

impl Regex {
    /// Compiles a pattern; `caseless` as `~*` makes it.
    pub fn new(source: &[u8], caseless: bool) -> Result<Regex, RegexError> {
        let fail = |why: String, offset: usize| RegexError { why, pattern: source.to_vec(), offset };
        let pattern = parse::parse(source, caseless).map_err(|problem| fail(problem.why, problem.at))?;
        let text = emit::emit(&pattern, End::Other).map_err(|problem| fail(problem.why, problem.at))?;
        let engine = build(text, pattern.utf).map_err(|error| fail(reason(&error, &pattern), source.len()))?;
        let slots = (pattern.slots != pattern.groups).then(|| pattern.slots_of.clone().into());
        let (groups, names) = (pattern.groups, pattern.names.as_slice().into());
        let other = emit::depends_on_end(&pattern).then(|| Box::new(Other { caseless, engine: OnceLock::new() }));
        let edges = Edges::of(&pattern);
        Ok(Regex { engine, edges, other, source: source.into(), groups, names, slots })
    }

    /// The pattern as it was given.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// How many capturing groups there are, group 0 not counted.
    pub fn capture_count(&self) -> usize {
        self.groups
    }

    /// The names of groups and their numbers, in order; a name may have several with `(?J)`.
    pub fn names(&self) -> &[(String, usize)] {
        &self.names
    }

    /// Whether the pattern may match in `text`: a comparison that rules out most texts.
    #[inline]
    pub fn may_match(&self, text: &[u8]) -> bool {
        self.edges.fit(text)
    }

    /// Whether the pattern matches somewhere in `text`. Where the groups are is not found out, which is much faster.
    pub fn is_match(&self, text: &[u8]) -> Result<bool, MatchError> {
        if !self.may_match(text) {
            return Ok(false);
        }
        self.engine(text)?.is_match(text).map_err(|_| MatchError)
    }

    /// Whether the pattern matches somewhere in `text`, and where its groups are. Without a match `captures` stay as
    /// they were.
    pub fn captures(&self, text: &[u8], captures: &mut Captures) -> Result<bool, MatchError> {
        if !self.may_match(text) {
            return Ok(false);
        }
        let engine = self.engine(text)?;
        if self.groups == 0 {
            let Some(found) = engine.find(text).map_err(|_| MatchError)? else { return Ok(false) };
            captures.spans.clear();
            captures.spans.push(narrow(found.start(), found.end()));
            return Ok(true);
        }
        let Some(found) = engine.captures(text).map_err(|_| MatchError)? else { return Ok(false) };
        let slot = |slot: usize| found.get(slot).map_or(UNSET, |part| narrow(part.start(), part.end()));
        captures.spans.clear();
        match &self.slots {
            None => captures.spans.extend((0..=self.groups).map(slot)),
            Some(slots) => {
                captures.spans.resize(self.groups + 1, UNSET);
                captures.spans.splice(..1, [slot(0)]);
                for (number, index) in slots {
                    let (span, new) = (captures.spans.get_mut(*number), slot(*index));
                    // Of the groups with one number the one that matched last counts.
                    if let Some(span) = span.filter(|span| new != UNSET && (**span == UNSET || span.1 <= new.1)) {
                        *span = new;
                    }
                }
            }
        }
        Ok(true)
    }

    fn engine(&self, text: &[u8]) -> Result<&fancy_regex::Regex, MatchError> {
        match &self.other {
            Some(other) if text.last() == Some(&b'\n') => {
                // Rare enough to parse again instead of keeping the tree.
                let build = || {
                    let pattern = parse::parse(&self.source, other.caseless).ok()?;
                    let text = emit::emit(&pattern, End::Newline).ok()?;
                    build(text, pattern.utf).ok()
                };
                other.engine.get_or_init(build).as_ref().ok_or(MatchError)
            }
            _ => Ok(&self.engine),
        }
    }
}

/// Texts beyond 4 GiB don't occur; there the end is cut.
fn narrow(start: usize, end: usize) -> (u32, u32) {
    let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX - 1);
    (narrow(start), narrow(end))
}

fn build(text: String, utf: bool) -> Result<fancy_regex::Regex, fancy_regex::Error> {
    use fancy_regex::BytesMode;
    fancy_regex::RegexBuilder::new("")
        .pattern(text)
        .unicode_mode(utf)
        .bytes_mode(if utf { BytesMode::UnicodeBytes } else { BytesMode::Ascii })
        .backtrack_limit(BACKTRACK_LIMIT)
        .build()
}

/// The engine's reason in PCRE2's words, where we know which it is.
fn reason(error: &fancy_regex::Error, pattern: &Pattern) -> String {
    use ast::Node;
    let mut property = |node: &Node| matches!(node, Node::Set { set, .. } if !set.properties.is_empty());
    if pattern.root.any(&mut property) {
        return "unknown property after \\P or \\p".to_owned();
    }
    match error {
        fancy_regex::Error::CompileError(_) => "regular expression is too large".to_owned(),
        _ => error.to_string(),
    }
}
