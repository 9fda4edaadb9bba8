//! A page while it passes: its commands, and the queue of what they give.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use buf::{Bytes, Chain, Piece};
use http::body::{BodyFilter, Broken};
use http::request::Request;
use http::request::subrequest::{SubRequest, SubResponse};
use wire::ssi::{Command, Event, Kind, Operator, Parser, SyntaxError, Value, ValueError};
use wire::uri::{Escape, escape, escape_html, is_unsafe, unescape};

use super::include::{Include, Sink};
use super::shared::{BadRegex, Full, MAX_TOTAL, Shared, TooMany, lower_case};
use super::{SsiConf, TimeFormat};

/// How many includes of a page run at a time.
const MAX_INCLUDES: usize = 128;
/// How much text of a page may wait to be passed on while further commands are looked for.
const MAX_QUEUED: u64 = 64 << 10;
/// How deep conditions may be nested.
const MAX_CONDITIONS: usize = 64;
/// The longest block.
const MAX_BLOCK: usize = 1 << 20;
/// How much goes out at a time.
const MOST_AT_ONCE: u64 = 64 << 10;

/// What stands in a page where a command fails.
const ERROR: &[u8] = b"[an error occurred while processing the directive]";
/// The value of a variable that isn't there.
const NO_VALUE: &[u8] = b"(none)";

/// A block that is being kept.
struct Block {
    name: Vec<u8>,
    text: Vec<u8>,
    /// It is longer than a block may be.
    too_long: bool,
}

impl Block {
    /// Appends text, unless the block gets too long; then nothing of it counts.
    fn push(&mut self, text: &[u8]) {
        self.too_long |= self.text.len() + text.len() > MAX_BLOCK;
        if !self.too_long {
            self.text.extend_from_slice(text);
        }
    }
}

/// A page.
pub(super) struct Page {
    conf: Rc<SsiConf>,
    shared: Rc<Shared>,
    parser: Parser,
    /// What hasn't been looked at yet, and whether that is the last of the page.
    unread: Chain,
    ended: bool,
    queue: VecDeque<Item>,
    /// How many bytes of text are in it, and how many includes.
    queued: u64,
    includes: usize,
    /// Nothing more is looked at before the queue is empty.
    waits: bool,
    conditions: Vec<Condition>,
    /// How many conditions have begun inside of the deepest one that is looked at.
    too_deep: usize,
    /// The block that is being kept.
    block: Option<Block>,
    error: Bytes,
    encoding: Encoding,
    /// Some of it was passed on.
    has_begun: bool,
}

/// What comes of a page, in order.
enum Item {
    Text(Chain),
    Include(Box<Include>),
}

/// How `echo` writes values.
#[derive(Clone, Copy)]
enum Encoding {
    None,
    Url,
    Entity,
}

/// An `if` that hasn't ended.
struct Condition {
    /// The text around it is seen.
    outer: bool,
    /// The text of the current branch is.
    seen: bool,
    /// One of its branches was taken.
    taken: bool,
    /// The branch is that of `else`.
    last: bool,
    /// It couldn't be read: all its branches are seen.
    broken: bool,
}

/// Why a command fails: the log line, unless the log has it.
struct Failed(Option<String>);

impl From<ValueError> for Failed {
    fn from(error: ValueError) -> Failed {
        Failed(Some(error.to_string()))
    }
}

impl From<BadRegex> for Failed {
    fn from(BadRegex(why): BadRegex) -> Failed {
        Failed(Some(why))
    }
}

impl From<Full> for Failed {
    fn from(_: Full) -> Failed {
        failed(format_args!("SSI variables take too much memory"))
    }
}

fn failed(why: fmt::Arguments<'_>) -> Failed {
    Failed(Some(why.to_string()))
}

impl Page {
    /// A page of which nothing has come yet.
    pub(super) fn new(conf: Rc<SsiConf>, shared: Rc<Shared>) -> Page {
        Page {
            parser: Parser::new(conf.ssi_value_length),
            conf,
            shared,
            unread: Chain::new(),
            ended: false,
            queue: VecDeque::new(),
            queued: 0,
            includes: 0,
            waits: false,
            conditions: Vec::new(),
            too_deep: 0,
            block: None,
            error: Bytes::from_static(ERROR),
            encoding: Encoding::Entity,
            has_begun: false,
        }
    }

    /// The text of a block as a page.
    pub(super) fn of_block(conf: Rc<SsiConf>, shared: Rc<Shared>, text: Bytes) -> Page {
        Page { unread: Chain::from(text), ended: true, ..Page::new(conf, shared) }
    }

    /// Appends what there is to `out`; ready once nothing of what came is left.
    pub(super) fn poll(&mut self, r: &mut Request, cx: &mut Context<'_>, out: &mut Chain) -> Poll<Result<(), Broken>> {
        loop {
            self.read(r);
            ready!(self.poll_queue(r, cx, out))?;
            self.waits = false;
            if self.unread.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if !self.has_room() {
                // Not before its turn: then it is asked again.
                return Poll::Pending;
            }
        }
    }

    /// Takes what came apart, as far as that is possible before the queue is empty.
    fn read(&mut self, r: &mut Request) {
        while self.may_read()
            && let Some(Piece::Bytes(piece)) = self.unread.first()
        {
            let piece = piece.clone();
            let (used, event) = self.parser.step(&piece);
            self.unread.advance(used as u64);
            match event {
                Event::Text(range) => self.text(piece.slice(range)),
                Event::Held(text) => self.text(Bytes::from_static(text)),
                Event::Command(command) => self.command(r, &command),
                Event::Error(error) => self.unreadable(r, &error),
                Event::More => {}
            }
        }
        if self.ended && self.unread.is_empty() {
            self.finish(r);
        }
    }

    /// The end of the page. What is done twice finds nothing the second time.
    fn finish(&mut self, r: &Request) {
        match self.parser.finish() {
            Ok(text) => self.text(Bytes::from_static(text)),
            Err(error) => r.log_error(format_args!("{error}")),
        }
    }

    fn may_read(&self) -> bool {
        !self.waits && self.includes < MAX_INCLUDES && self.queued < MAX_QUEUED && self.has_room()
    }

    /// Whether another include may begin.
    fn has_room(&self) -> bool {
        self.shared.includes.has_room(self.includes)
    }

    /// Moves what is at the front of the queue to `out`; ready when the queue is empty. All includes in it make progress.
    fn poll_queue(&mut self, r: &mut Request, cx: &mut Context<'_>, out: &mut Chain) -> Poll<Result<(), Broken>> {
        let mut first = true;
        for item in &mut self.queue {
            if let Item::Include(include) = item
                && !std::mem::take(&mut first)
            {
                self.shared.includes.ahead(|| include.poll_ahead(cx));
            }
        }
        while let Some(item) = self.queue.front_mut() {
            match item {
                Item::Text(text) => {
                    self.queued -= text.len();
                    out.append(text);
                }
                Item::Include(include) => {
                    ready!(include.poll(r, cx, out))?;
                    self.includes -= 1;
                }
            }
            self.queue.pop_front();
            if out.len() >= MOST_AT_ONCE {
                // It goes out first: the pipeline asks again after that.
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Text of the page, or what stands for a command.
    fn text(&mut self, text: Bytes) {
        if let Some(block) = &mut self.block {
            block.push(&text);
        } else if self.is_seen() && !text.is_empty() {
            self.queued += text.len() as u64;
            if !matches!(self.queue.back(), Some(Item::Text(_))) {
                self.queue.push_back(Item::Text(Chain::new()));
            }
            if let Some(Item::Text(chain)) = self.queue.back_mut() {
                chain.push_bytes(text);
            }
        }
    }

    /// Whether the text here is seen.
    fn is_seen(&self) -> bool {
        self.conditions.last().is_none_or(|condition| condition.seen)
    }

    fn fail(&mut self, r: &Request, why: &dyn fmt::Display) {
        r.log_error(format_args!("{why}"));
        self.tell();
    }

    /// Puts the message where a command has failed.
    fn tell(&mut self) {
        if !self.conf.ssi_silent_errors {
            self.text(self.error.clone());
        }
    }

    /// What should be a command.
    fn unreadable(&mut self, r: &Request, error: &SyntaxError) {
        if self.block.is_some() {
            return r.log_error(format_args!("{error}"));
        }
        match error.kind {
            Some(Kind::If) => {
                // Its `endif` isn't that of the condition around it.
                let outer = self.is_seen();
                if outer {
                    self.fail(r, error);
                }
                self.push_condition(Condition { outer, seen: outer, taken: true, last: false, broken: true });
            }
            Some(Kind::Endif) => {
                self.pop_condition();
                if self.is_seen() {
                    self.fail(r, error);
                }
            }
            Some(Kind::Elif) if self.too_deep > 0 => {}
            Some(Kind::Elif) => self.unreadable_branch(r, error),
            _ if self.is_seen() => self.fail(r, error),
            _ => {}
        }
    }

    /// An `elif` without a condition: the error is seen where its text would be.
    fn unreadable_branch(&mut self, r: &Request, error: &SyntaxError) {
        match self.conditions.last_mut() {
            Some(condition) if condition.outer && !condition.taken => {
                condition.seen = true;
                self.fail(r, error);
                self.hide();
            }
            Some(condition) => condition.seen = condition.broken && condition.outer,
            None => self.fail(r, error),
        }
    }

    /// From here on the branch isn't seen.
    fn hide(&mut self) {
        if let Some(condition) = self.conditions.last_mut() {
            condition.seen = false;
        }
    }

    fn command(&mut self, r: &mut Request, command: &Command) {
        if let Some(block) = &mut self.block {
            match command.kind {
                Kind::Endblock => self.end_block(r),
                _ => {
                    let mut text = Vec::new();
                    command.write(&mut text);
                    block.push(&text);
                }
            }
            return;
        }
        let done = match command.kind {
            Kind::If => self.begin_condition(r, command),
            Kind::Elif | Kind::Else if self.too_deep > 0 => Ok(()),
            Kind::Elif | Kind::Else => self.branch(r, command),
            Kind::Endif if self.too_deep > 0 => {
                self.pop_condition();
                Ok(())
            }
            Kind::Endif => match self.pop_condition() {
                Some(condition) if !condition.broken => Ok(()),
                Some(condition) if !condition.outer => Ok(()),
                _ => Err(misplaced(command.kind)),
            },
            _ if !self.is_seen() => return,
            Kind::Block => {
                let name = command.param("name").map(Value::plain).unwrap_or_default();
                self.block = Some(Block { name: name.into_owned(), text: Vec::new(), too_long: false });
                Ok(())
            }
            Kind::Endblock => Ok(()),
            Kind::Config => {
                self.config(r, command);
                Ok(())
            }
            Kind::Echo => self.echo(r, command),
            Kind::Include => self.include(r, command),
            Kind::Set => self.set(r, command),
        };
        match done {
            Ok(()) => {}
            Err(Failed(Some(why))) => self.fail(r, &why),
            Err(Failed(None)) => self.tell(),
        }
    }

    fn end_block(&mut self, r: &mut Request) {
        let Some(Block { name, text, too_long }) = self.block.take() else { return };
        if too_long || self.shared.keep_block(name, text).is_err() {
            self.fail(r, &"SSI blocks take too much memory");
        }
    }

    fn config(&mut self, r: &mut Request, command: &Command) {
        if let Some(format) = command.param("timefmt") {
            r.slot::<TimeFormat>().0 = Some(Bytes::copy_from(&format.plain()));
        }
        if let Some(text) = command.param("errmsg") {
            self.error = Bytes::copy_from(&text.plain());
        }
    }

    fn echo(&mut self, r: &mut Request, command: &Command) -> Result<(), Failed> {
        let mut value = Vec::new();
        let name = command.param("var").map(Value::plain).unwrap_or_default();
        if !self.shared.variable(r, &name, &mut value) {
            value.extend_from_slice(&command.param("default").map_or(Cow::Borrowed(NO_VALUE), Value::plain));
        }
        match command.param("encoding").map(Value::plain).as_deref() {
            Some(b"none") => self.encoding = Encoding::None,
            Some(b"url") => self.encoding = Encoding::Url,
            Some(b"entity") => self.encoding = Encoding::Entity,
            Some(other) => {
                let other = buf::text::encode(other).into_owned();
                r.log_error(format_args!("unknown encoding \"{other}\" in the \"echo\" command"));
            }
            None => {}
        }
        let mut text = Vec::new();
        match self.encoding {
            Encoding::None => text = value,
            Encoding::Url => escape(Escape::Html, &value, &mut text),
            Encoding::Entity => escape_html(&value, &mut text),
        }
        self.text(Bytes::from(text));
        Ok(())
    }

    fn set(&mut self, r: &mut Request, command: &Command) -> Result<(), Failed> {
        let name = command.param("var").map(Value::plain).unwrap_or_default();
        let value = self.evaluate(r, command.param("value"))?;
        self.shared.set(&lower_case(&name), Bytes::from(value))?;
        Ok(())
    }

    /// The value of a parameter, its variables looked up.
    fn evaluate(&self, r: &mut Request, value: Option<&Value>) -> Result<Vec<u8>, Failed> {
        let Some(value) = value else { return Ok(Vec::new()) };
        Ok(self.shared.render(r, &value.parts()?)?)
    }

    fn begin_condition(&mut self, r: &mut Request, command: &Command) -> Result<(), Failed> {
        let outer = self.is_seen();
        let deepest = self.conditions.len() == MAX_CONDITIONS;
        let result = match outer {
            true if deepest => Err(misplaced(command.kind)),
            true => self.test(r, command),
            false => Ok(false),
        };
        let (seen, broken) = (result.as_ref().map_or(true, |holds| *holds) && outer, result.is_err());
        self.push_condition(Condition { outer, seen, taken: seen || !outer, last: false, broken });
        result.map(drop)
    }

    /// Begins a condition; one that is too deep is counted, so that its end is known.
    fn push_condition(&mut self, condition: Condition) {
        match self.conditions.len() < MAX_CONDITIONS {
            true => self.conditions.push(condition),
            false => self.too_deep += 1,
        }
    }

    /// Ends the innermost condition; `None` if there is none, or if it was too deep.
    fn pop_condition(&mut self) -> Option<Condition> {
        if self.too_deep > 0 {
            self.too_deep -= 1;
            return None;
        }
        self.conditions.pop()
    }

    fn branch(&mut self, r: &mut Request, command: &Command) -> Result<(), Failed> {
        let Some(condition) = self.conditions.last_mut() else { return Err(misplaced(command.kind)) };
        if !condition.outer {
            return Ok(());
        }
        if condition.broken {
            return Err(misplaced(command.kind));
        }
        if condition.last {
            // The message is seen, what follows it isn't.
            condition.seen = true;
            self.fail(r, &Misplaced(command.kind));
            self.hide();
            return Ok(());
        }
        condition.last = command.kind == Kind::Else;
        let open = !condition.taken;
        let result = if open && command.kind == Kind::Elif { self.test(r, command) } else { Ok(open) };
        if let Some(condition) = self.conditions.last_mut() {
            // An error is seen: it is the branch's.
            condition.seen = result.as_ref().map_or(true, |holds| *holds);
            condition.taken |= condition.seen;
        }
        result.map(drop)
    }

    /// Whether the condition of a command holds.
    fn test(&self, r: &mut Request, command: &Command) -> Result<bool, Failed> {
        let Some(value) = command.param("expr") else { return Ok(false) };
        let condition = value.condition()?;
        let left = self.shared.render(r, &condition.left)?;
        let right = self.shared.render(r, &condition.right)?;
        Ok(match condition.operator {
            Operator::IsSet => !left.is_empty(),
            Operator::Equal => left == right,
            Operator::Unequal => left != right,
            Operator::Match => self.shared.matches(&right, left)?,
            Operator::Mismatch => !self.shared.matches(&right, left)?,
        })
    }

    fn include(&mut self, r: &mut Request, command: &Command) -> Result<(), Failed> {
        let (uri, file) = (command.param("virtual"), command.param("file"));
        let target = match (uri, file) {
            (Some(uri), Some(file)) => {
                let (uri, file) = (shown(&uri.plain()), shown(&file.plain()));
                return Err(failed(format_args!("inclusion may be either virtual=\"{uri}\" or file=\"{file}\"")));
            }
            (None, None) => return Err(failed(format_args!("no parameter in \"include\" SSI command"))),
            (Some(target), None) | (None, Some(target)) => self.evaluate(r, Some(target))?,
        };
        let (set, stub) = (command.param("set"), command.param("stub"));
        if set.is_some() && stub.is_some() {
            return Err(failed(format_args!(
                "\"set\" and \"stub\" cannot be used together in \"include\" SSI command"
            )));
        }
        let wait = match command.param("wait").map(Value::plain).as_deref() {
            None => set.is_some(),
            Some(b"yes") => true,
            Some(b"no") => false,
            Some(other) => {
                return Err(failed(format_args!("invalid value \"{}\" in the \"wait\" parameter", shown(other))));
            }
        };
        let sink = match (set, stub) {
            (Some(name), _) => Sink::Variable(name.plain().to_ascii_lowercase()),
            (None, Some(name)) => Sink::PageOr(self.shared.block(&name.plain()).ok_or_else(|| {
                failed(format_args!("\"stub\"=\"{}\" for \"include\" not found", shown(&name.plain())))
            })?),
            (None, None) => Sink::Page,
        };
        let place = self.shared.includes.begin().map_err(|too_many| match too_many {
            TooMany::First => {
                let target = shown(&target);
                failed(format_args!(
                    "a request has more than {MAX_TOTAL} includes: \"{target}\" is left out, as are all after it"
                ))
            }
            TooMany::Further => Failed(None),
        })?;
        let response = self.request(r, &target, &sink)?;
        self.queue.push_back(Item::Include(Box::new(Include::new(response, sink, place))));
        self.includes += 1;
        self.waits |= wait;
        Ok(())
    }

    /// Begins the subrequest for a target, which may be relative to the URI of the page.
    fn request(&self, r: &mut Request, target: &[u8], sink: &Sink) -> Result<SubResponse, Failed> {
        let mut full = Vec::new();
        if target.first() != Some(&b'/') {
            let folder = memchr::memrchr(b'/', &r.uri).map_or(0, |at| at + 1);
            full.extend_from_slice(&r.uri[..folder]);
        }
        let unescaped = full.len();
        let (path, args) = match memchr::memchr(b'?', target) {
            Some(at) => (&target[..at], &target[at + 1..]),
            None => (target, &b""[..]),
        };
        unescape(path, &mut full);
        if is_unsafe(&full) {
            full.truncate(unescaped);
            full.extend_from_slice(target);
            return Err(failed(format_args!("unsafe URI \"{}\" was detected", shown(&full))));
        }
        let ask = SubRequest { uri: &full, args, with_body: true, ..SubRequest::default() };
        let has_block = matches!(sink, Sink::PageOr(_));
        let response = r.sub_request_with(&ask, |child| {
            self.shared.give(child);
            // The block stands for the page of an error, whatever `error_page` says.
            child.error_page = has_block;
        });
        // The log has told it.
        response.map_err(|_| Failed(None))
    }
}

/// A command where it can't be.
struct Misplaced(Kind);

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid context of SSI command: \"{}\"", self.0.name())
    }
}

fn misplaced(kind: Kind) -> Failed {
    failed(format_args!("{}", Misplaced(kind)))
}

fn shown(text: &[u8]) -> String {
    buf::text::encode(text).into_owned()
}

impl BodyFilter for Page {
    fn apply(&mut self, mut input: Chain, end: bool, _: bool, _: &mut Chain) -> Result<(), Broken> {
        self.unread.append(&mut input);
        self.ended = end;
        Ok(())
    }

    fn reads_ahead(&self) -> bool {
        self.unread.is_empty() && self.may_read()
    }

    /// An include that fails as a whole leaves no response: the head waits for the first text.
    fn holds_back(&self) -> bool {
        !self.has_begun
    }

    fn poll_waiting(&mut self, r: &mut Request, cx: &mut Context<'_>, out: &mut Chain) -> Poll<Result<(), Broken>> {
        let polled = self.poll(r, cx, out);
        self.has_begun |= !out.is_empty();
        polled
    }
}
