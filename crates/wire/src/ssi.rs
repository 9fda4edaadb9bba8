//! Server-side includes: commands in the text of a page, `<!--# name parameter="value" -->`, and the values in them.
//!
//! A [`Parser`] takes the page in pieces, cut anywhere, and tells texts and commands apart. It holds no more of a page than
//! one command, whose parts have limits. What a syntax error makes unreadable ends with the next `-->`.
//!
//! In a value a backslash before the value's own quote, or before another backslash, makes it an ordinary character; before
//! a dollar it does where variables are looked up ([`Value::parts`]).

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use buf::text::encode;
use smallvec::SmallVec;

mod value;
mod whole;

pub use value::{Condition, Operator, Part, Parts, Value, ValueError};

/// What a command begins with.
const MARK: &[u8] = b"<!--#";
/// The longest name of a command, and of a parameter.
const MAX_NAME: usize = 32;

/// The commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `block`: what follows is kept, up to `endblock`.
    Block,
    /// `config`.
    Config,
    /// `echo`: the value of a variable.
    Echo,
    /// `elif`.
    Elif,
    /// `else`.
    Else,
    /// `endblock`.
    Endblock,
    /// `endif`.
    Endif,
    /// `if`.
    If,
    /// `include`: the response to a subrequest.
    Include,
    /// `set`: sets a variable.
    Set,
}

/// A parameter that a command may have, and whether it must.
type Param = (&'static str, bool);

/// Each command with its name and its parameters.
const COMMANDS: &[(Kind, &str, &[Param])] = &[
    (Kind::Block, "block", &[("name", true)]),
    (Kind::Config, "config", &[("errmsg", false), ("timefmt", false)]),
    (Kind::Echo, "echo", &[("var", true), ("default", false), ("encoding", false)]),
    (Kind::Elif, "elif", &[("expr", true)]),
    (Kind::Else, "else", &[]),
    (Kind::Endblock, "endblock", &[]),
    (Kind::Endif, "endif", &[]),
    (Kind::If, "if", &[("expr", true)]),
    (
        Kind::Include,
        "include",
        &[("virtual", false), ("file", false), ("wait", false), ("set", false), ("stub", false)],
    ),
    (Kind::Set, "set", &[("var", true), ("value", true)]),
];

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        COMMANDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }

    fn of(name: &[u8]) -> Option<Kind> {
        COMMANDS.iter().find(|(_, own, _)| own.as_bytes() == name).map(|(kind, ..)| *kind)
    }

    fn params(self) -> &'static [Param] {
        COMMANDS.iter().find(|(kind, ..)| *kind == self).map_or(&[], |(.., params)| params)
    }

    /// A parameter that it must have and that isn't among these.
    fn lacking(self, params: &Params) -> Option<&'static str> {
        let lacking = self.params().iter().find(|(name, needed)| *needed && !params.iter().any(|(own, _)| own == name));
        lacking.map(|(name, _)| *name)
    }
}

/// A command that was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Which one.
    pub kind: Kind,
    /// Its parameters, in order. Those that it must have are there, and none is there twice.
    params: Params,
}

/// The parameters of a command, of which there are few.
type Params = SmallVec<[(&'static str, Value); 2]>;

impl Command {
    /// The value of a parameter.
    pub fn param(&self, name: &str) -> Option<&Value> {
        self.params.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// Appends the command as a page has it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MARK);
        out.extend_from_slice(self.kind.name().as_bytes());
        for (name, value) in &self.params {
            for part in [b" ", name.as_bytes(), b"=", &[value.quote], &value.raw, &[value.quote]] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b" -->");
    }
}

/// A command that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Which one, if that is known.
    pub kind: Option<Kind>,
    text: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What there is at the beginning of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Text: this part of the input.
    Text(Range<usize>),
    /// Text that came with earlier inputs, and might have begun a command.
    Held(&'static [u8]),
    /// A command.
    Command(Command),
    /// What should be a command.
    Error(SyntaxError),
    /// Nothing before there is more input.
    More,
}

/// Takes a page apart.
#[derive(Debug)]
pub struct Parser {
    state: State,
    /// The longest value, with its backslashes.
    max_value: usize,
    /// The name that is being read.
    name: Vec<u8>,
    kind: Option<Kind>,
    params: Params,
    value: Value,
}

#[derive(Debug)]
enum State {
    /// Text, of which the last bytes are so many of the mark's first ones.
    Text(usize),
    /// Before the name of the command.
    Start,
    /// In the name.
    Name,
    /// A blank, the end of the command, or a parameter.
    Between,
    Param,
    /// An equals sign follows.
    AfterParam,
    /// A quote follows.
    BeforeValue,
    Value {
        escaped: bool,
    },
    /// A blank or the end of the command follows.
    AfterValue,
    /// In `-->`, after so many dashes.
    End(u8),
    /// Nothing is read up to `-->`, of which there are so many dashes.
    Failed(SyntaxError, u8),
}

impl Parser {
    /// A parser at the beginning of a page; values have at most `max_value` bytes.
    pub fn new(max_value: usize) -> Parser {
        Parser {
            state: State::Text(0),
            max_value,
            name: Vec::with_capacity(MAX_NAME + 1),
            kind: None,
            params: Params::new(),
            value: Value::default(),
        }
    }

    /// Takes the beginning of the input: how many bytes of it, and what they mean.
    pub fn step(&mut self, input: &[u8]) -> (usize, Event) {
        let mut used = 0;
        if let State::Text(matched) = self.state {
            match self.text(matched, input) {
                (passed, Some(event)) => return (passed, event),
                (passed, None) => used = passed,
            }
        }
        if matches!(self.state, State::Start)
            && let Some((command, len)) = whole::command(&input[used..], self.max_value)
        {
            self.state = State::Text(0);
            return (used + len, Event::Command(command));
        }
        loop {
            if matches!(self.state, State::Value { escaped: false }) {
                used += self.plain_run(&input[used..]);
            }
            let Some(&byte) = input.get(used) else { return (used, Event::More) };
            used += 1;
            if let Some(event) = self.byte(byte) {
                return (used, event);
            }
        }
    }

    /// Takes the beginning of the input that is nothing but a value, as far as that may be long; how many bytes it has.
    fn plain_run(&mut self, input: &[u8]) -> usize {
        let room = self.max_value.saturating_sub(self.value.raw.len()).min(input.len());
        let run = memchr::memchr2(self.value.quote, b'\\', &input[..room]).unwrap_or(room);
        self.value.raw.extend_from_slice(&input[..run]);
        run
    }

    /// The end of the page. What was taken for the beginning of a command, and is none, is text; a command that doesn't end
    /// is an error, which stands nowhere in the page.
    pub fn finish(&mut self) -> Result<&'static [u8], SyntaxError> {
        match std::mem::replace(&mut self.state, State::Text(0)) {
            State::Text(matched) => Ok(&MARK[..matched]),
            State::Failed(error, _) => Err(error),
            _ => {
                let text = format!("the \"{}\" SSI command doesn't end", self.command());
                Err(SyntaxError { kind: self.kind, text })
            }
        }
    }

    /// Looks for the mark in text; without an event a command begins after so many bytes.
    fn text(&mut self, matched: usize, input: &[u8]) -> (usize, Option<Event>) {
        if matched > 0 {
            let rest = &MARK[matched..];
            let same = rest.iter().zip(input).take_while(|(a, b)| a == b).count();
            if same == rest.len() {
                self.begin();
                return (same, None);
            }
            if same == input.len() {
                self.state = State::Text(matched + same);
                return (same, Some(Event::More));
            }
            // The mark's first byte is in it only once: none of what was held begins it anew.
            self.state = State::Text(0);
            return (0, Some(Event::Held(&MARK[..matched])));
        }
        if let Some(at) = find_mark(input) {
            self.begin();
            return (at + MARK.len(), (at > 0).then_some(Event::Text(0..at)));
        }
        let tail = (1..MARK.len()).rev().find(|&len| input.ends_with(&MARK[..len])).unwrap_or(0);
        self.state = State::Text(tail);
        let text = input.len() - tail;
        (input.len(), Some(if text > 0 { Event::Text(0..text) } else { Event::More }))
    }

    fn begin(&mut self) {
        self.state = State::Start;
        self.name.clear();
        self.params.clear();
        self.kind = None;
    }

    /// A byte of a command.
    fn byte(&mut self, byte: u8) -> Option<Event> {
        let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match &mut self.state {
            State::Text(_) => {}
            State::Start if blank => {}
            State::Start => {
                self.name.push(byte);
                self.state = State::Name;
            }
            State::Name if blank || byte == b'-' => self.named(byte),
            State::Name => self.grow_name(byte),
            State::Between if blank => {}
            State::Between | State::AfterValue if byte == b'-' => self.state = State::End(1),
            State::Between => {
                self.name.clear();
                self.name.push(byte);
                self.state = State::Param;
            }
            State::Param if blank || byte == b'=' => self.param_named(byte),
            State::Param if byte == b'-' => self.unexpected_after_param(byte),
            State::Param => self.grow_name(byte),
            State::AfterParam if blank => {}
            State::AfterParam if byte == b'=' => self.state = State::BeforeValue,
            State::AfterParam => self.unexpected_after_param(byte),
            State::BeforeValue if blank => {}
            State::BeforeValue if matches!(byte, b'"' | b'\'') => {
                self.value = Value { quote: byte, ..Value::default() };
                self.state = State::Value { escaped: false };
            }
            State::BeforeValue => {
                let what = format!("unexpected \"{}\" symbol before value of {}", encode(&[byte]), self.here());
                self.fail(what, byte);
            }
            State::Value { escaped } => {
                let escapes = std::mem::replace(escaped, byte == b'\\' && !*escaped);
                self.value_byte(byte, escapes);
            }
            State::AfterValue if blank => self.state = State::Between,
            State::AfterValue => {
                let value = self.params.last().map(|(_, value)| encode(&value.raw).into_owned()).unwrap_or_default();
                let sign = encode(&[byte]).into_owned();
                let what = format!("unexpected \"{sign}\" symbol after \"{value}\" value of {}", self.here());
                self.fail(what, byte);
            }
            State::End(1) if byte == b'-' => self.state = State::End(2),
            State::End(2) if byte == b'>' => return Some(self.end()),
            State::End(_) => {
                let what = format!("unexpected \"{}\" symbol in \"{}\" SSI command", encode(&[byte]), self.command());
                self.fail(what, byte);
            }
            State::Failed(error, dashes) => match (byte, *dashes) {
                (b'>', 2) => {
                    let error = SyntaxError { kind: error.kind, text: std::mem::take(&mut error.text) };
                    self.state = State::Text(0);
                    return Some(Event::Error(error));
                }
                (b'-', seen) => *dashes = (seen + 1).min(2),
                _ => *dashes = 0,
            },
        }
        None
    }

    fn grow_name(&mut self, byte: u8) {
        self.name.push(byte);
        if self.name.len() > MAX_NAME {
            let name = encode(&self.name);
            let what = match self.kind {
                None => format!("the \"{name}...\" SSI command is too long"),
                Some(kind) => format!("too long \"{name}...\" parameter in \"{}\" SSI command", kind.name()),
            };
            self.fail(what, byte);
        }
    }

    /// The name of the command ends with this byte.
    fn named(&mut self, byte: u8) {
        self.kind = Kind::of(&self.name);
        match self.kind {
            // A dash that begins no name is the first one of the command's end.
            None if self.name == b"-" && byte == b'-' => self.state = State::End(2),
            None => {
                let what = format!("invalid SSI command: \"{}\"", encode(&self.name));
                self.fail(what, byte);
            }
            Some(_) if byte == b'-' => self.state = State::End(1),
            Some(_) => self.state = State::Between,
        }
    }

    /// The name of a parameter ends with this byte.
    fn param_named(&mut self, byte: u8) {
        let known = self.kind.map_or(&[][..], Kind::params);
        let Some((name, _)) = known.iter().find(|(name, _)| name.as_bytes() == self.name) else {
            let what =
                format!("invalid parameter name: \"{}\" in \"{}\" SSI command", encode(&self.name), self.command());
            return self.fail(what, byte);
        };
        if self.params.iter().any(|(own, _)| own == name) {
            let what = format!("duplicate \"{name}\" parameter in \"{}\" SSI command", self.command());
            return self.fail(what, byte);
        }
        self.state = if byte == b'=' { State::BeforeValue } else { State::AfterParam };
    }

    fn unexpected_after_param(&mut self, byte: u8) {
        let what = format!("unexpected \"{}\" symbol after {}", encode(&[byte]), self.here());
        self.fail(what, byte);
    }

    /// A byte of a value; `escaped` if a backslash stands before it.
    fn value_byte(&mut self, byte: u8, escaped: bool) {
        if byte == self.value.quote && !escaped {
            let value = std::mem::take(&mut self.value);
            let known = self.kind.map_or(&[][..], Kind::params);
            if let Some((name, _)) = known.iter().find(|(name, _)| name.as_bytes() == self.name) {
                self.params.push((name, value));
            }
            self.state = State::AfterValue;
            return;
        }
        self.value.raw.push(byte);
        if self.value.raw.len() > self.max_value {
            let what = format!("too long \"{}...\" value of {}", encode(&self.value.raw), self.here());
            self.fail(what, byte);
        }
    }

    /// The end of a command.
    fn end(&mut self) -> Event {
        self.state = State::Text(0);
        let Some(kind) = self.kind else {
            let text = format!("invalid SSI command: \"{}\"", encode(&self.name));
            return Event::Error(SyntaxError { kind: None, text });
        };
        if let Some(name) = kind.lacking(&self.params) {
            let text = format!("mandatory \"{name}\" parameter is absent in \"{}\" SSI command", kind.name());
            return Event::Error(SyntaxError { kind: Some(kind), text });
        }
        Event::Command(Command { kind, params: std::mem::take(&mut self.params) })
    }

    /// Gives the command up at this byte, which may begin its end.
    fn fail(&mut self, text: String, byte: u8) {
        self.state = State::Failed(SyntaxError { kind: self.kind, text }, u8::from(byte == b'-'));
    }

    /// The name of the command.
    fn command(&self) -> Cow<'_, str> {
        self.kind.map_or_else(|| encode(&self.name), |kind| kind.name().into())
    }

    /// The place in a command, for messages.
    fn here(&self) -> String {
        format!("\"{}\" parameter in \"{}\" SSI command", encode(&self.name), self.command())
    }
}

/// Where the mark is. Its last byte is the rarest in pages.
fn find_mark(input: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'#', input).find_map(|at| {
        let start = (at + 1).checked_sub(MARK.len())?;
        (input.get(start..=at) == Some(MARK)).then_some(start)
    })
}

#[cfg(test)]
mod tests;
