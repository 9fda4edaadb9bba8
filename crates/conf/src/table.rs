//! Directive tables: what a module's directives are, and what becomes of them.

use std::any::Any;
use std::borrow::Cow;
use std::ops::{BitOr, RangeInclusive};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Directive, Loader, Result};

mod describe;

/// A set of places in which a directive may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context(pub u32);

macro_rules! contexts {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl Context {
            $($(#[$doc])* pub const $name: Context = Context(1 << $bit);)*
            /// Every context with its name as manuals write it.
            pub const NAMES: &'static [(Context, &'static str)] = &[$((Context::$name, $text)),*];
        }
    };
}

contexts! {
    /// Outside all blocks.
    MAIN = 0, "main";
    /// `events {}`.
    EVENTS = 1, "events";
    /// `http {}`.
    HTTP = 2, "http";
    /// `server {}` in http.
    SERVER = 3, "server";
    /// `location {}`.
    LOCATION = 4, "location";
    /// `upstream {}` in http.
    UPSTREAM = 5, "upstream";
    /// `if {}` in a server.
    SERVER_IF = 6, "if in server";
    /// `if {}` in a location.
    LOCATION_IF = 7, "if in location";
    /// `limit_except {}`.
    LIMIT_EXCEPT = 8, "limit_except";
    /// `stream {}`.
    STREAM = 9, "stream";
    /// `server {}` in stream.
    STREAM_SERVER = 10, "stream server";
    /// `upstream {}` in stream.
    STREAM_UPSTREAM = 11, "stream upstream";
    /// `mail {}`.
    MAIL = 12, "mail";
    /// `server {}` in mail.
    MAIL_SERVER = 13, "mail server";
}

impl Context {
    /// Every context.
    pub const ANY: Context = Context(u32::MAX);

    /// Whether the two have a context in common.
    pub(crate) const fn meets(self, other: Context) -> bool {
        self.0 & other.0 != 0
    }

    /// The names of these contexts, as manuals list them.
    pub fn describe(self) -> String {
        if self == Context::ANY {
            return "any context".to_owned();
        }
        let names = Context::NAMES.iter().filter(|(context, _)| self.meets(*context));
        names.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    }

    /// Both together; `|` in constants.
    pub const fn or(self, other: Context) -> Context {
        Context(self.0 | other.0)
    }
}

impl BitOr for Context {
    type Output = Context;

    fn bitor(self, other: Context) -> Context {
        self.or(other)
    }
}

/// How many arguments a directive takes, and whether it has a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// Fewest and most arguments.
    pub count: RangeInclusive<usize>,
    /// Whether it opens a block.
    pub block: bool,
    /// A flag takes exactly one argument, `on` or `off`.
    pub flag: bool,
}

impl Args {
    /// `on` or `off`.
    pub const FLAG: Args = Args { count: 1..=1, block: false, flag: true };

    /// Exactly `n`.
    pub const fn exactly(n: usize) -> Args {
        Args { count: n..=n, block: false, flag: false }
    }

    /// From `low` to `high`.
    pub const fn between(low: usize, high: usize) -> Args {
        Args { count: low..=high, block: false, flag: false }
    }

    /// `n` or more.
    pub const fn at_least(n: usize) -> Args {
        Args { count: n..=usize::MAX, block: false, flag: false }
    }

    /// How a directive of that name is written: `gzip on | off;`, `root arg;`, `server { ... }`.
    pub fn form(&self, name: &str) -> String {
        let (low, high) = (*self.count.start(), *self.count.end());
        let mut form = name.to_owned();
        if self.flag {
            form.push_str(" on | off");
        } else {
            // More than four optional arguments are as good as any number.
            let most = if high > low.saturating_add(4) { low } else { high };
            form.push_str(&" arg".repeat(low));
            form.push_str(&" [arg]".repeat(most - low));
            form.push_str(if most < high { " ..." } else { "" });
        }
        form.push_str(if self.block { " { ... }" } else { ";" });
        form
    }

    /// The same, followed by a block.
    pub const fn block(self) -> Args {
        let (low, high) = (*self.count.start(), *self.count.end());
        Args { count: low..=high, block: true, flag: self.flag }
    }
}

/// Which of the configurations that are open in a context a directive writes to.
///
/// In `http {}` all three are open, in `server {}` there is a new server and location level, in `location {}` a new
/// location level. A directive of the location level that stands in `http {}` is inherited by all locations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// One for the whole block (or, outside of protocols' blocks, for the whole file).
    Main = 0,
    /// One for each server.
    Server = 1,
    /// One for each location.
    Location = 2,
}

/// What happens when a directive is met: the raw configuration of its level, the loader, the directive.
pub type Setter = fn(&mut dyn Any, &mut Loader<'_>, &Directive) -> Result<()>;

/// Inheritance of one table: what was set at a level (if anything was), its parent's resolved configuration, the loader.
pub type Resolver = fn(Option<&mut dyn Any>, Option<&dyn Any>, &mut Loader<'_>) -> Result<Rc<dyn Any>>;

/// One directive.
#[derive(Clone)]
pub struct Row {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What the manual says of it.
    pub doc: Cow<'static, str>,
    /// Where it may stand.
    pub contexts: Context,
    /// What it takes.
    pub args: Args,
    /// What holds where it isn't set.
    pub default: DefaultValue,
    /// The kind of its value, for the manual: `scalar`, `list`, `set`, `here`, `last`, `also` or `block`.
    pub kind: &'static str,
    /// Where in the table's configurations those of its group are, if it belongs to one.
    pub part: Option<Part>,
    /// Writes it into the raw configuration.
    pub set: Setter,
}

/// What holds where a directive isn't set, as the manual says it.
#[derive(Clone)]
pub enum DefaultValue {
    /// Nothing.
    None,
    /// What it would do with these arguments; the function tells whether two configurations have the same value of it.
    Text(Cow<'static, str>, fn(&dyn Any, &dyn Any) -> bool),
    /// A value that no arguments stand for, in words.
    Computed(Cow<'static, str>),
}

impl DefaultValue {
    /// The same with every `{}` replaced.
    fn under(self, prefix: &str) -> DefaultValue {
        match self {
            DefaultValue::None => DefaultValue::None,
            DefaultValue::Text(text, same) => DefaultValue::Text(text.replace("{}", prefix).into(), same),
            DefaultValue::Computed(text) => DefaultValue::Computed(text.replace("{}", prefix).into()),
        }
    }
}

/// Where a table's configurations have those of groups that it takes.
#[derive(Clone, Copy)]
pub struct Part {
    /// From the table's raw configuration to that of the groups.
    pub raw: fn(&mut dyn Any) -> &mut dyn Any,
    /// From the table's resolved configuration to that of the groups.
    pub conf: fn(&dyn Any) -> &dyn Any,
}

/// Groups of rows that tables take, each under its own prefix; made by [`table!`](crate::table!).
pub trait Groups: Any + Clone {
    /// What was set of them at one level.
    type Raw: Any + Default;
    /// Inheritance: what was set at a level (if anything was), its parent's resolved configuration.
    fn resolve(
        raw: Option<&mut Self::Raw>,
        parent: Option<&Self>,
        prefix: &'static str,
        loader: &mut Loader<'_>,
    ) -> Result<Self>;
    /// Whether it has values that levels inside don't inherit.
    fn leaves(&self) -> bool;
}

/// Rows of groups under a prefix: it stands before their names, and for `{}` in their texts and defaults.
pub fn under<const N: usize>(prefix: &str, part: Part, groups: [Vec<Row>; N]) -> impl Iterator<Item = Row> {
    groups.into_iter().flatten().map(move |row| Row {
        name: format!("{prefix}{}", row.name).into(),
        doc: row.doc.replace("{}", prefix).into(),
        default: row.default.under(prefix),
        part: Some(part),
        ..row
    })
}

/// Inheritance of groups: a level that sets nothing of them shares its parent's.
pub fn inherit<G: Groups>(
    raw: Option<&mut G::Raw>,
    parent: Option<&Rc<G>>,
    prefix: &'static str,
    loader: &mut Loader<'_>,
) -> Result<Rc<G>> {
    match (raw, parent) {
        (None, Some(parent)) if !parent.leaves() => Ok(parent.clone()),
        (raw, parent) => G::resolve(raw, parent.map(|parent| &**parent), prefix, loader).map(Rc::new),
    }
}

/// A module's directives of one level.
#[derive(Clone)]
pub struct Table {
    /// The module, under nginx's name where nginx has it.
    pub module: &'static str,
    /// The level they write to.
    pub level: Level,
    /// The protocol block whose levels these are: [`Context::MAIN`], [`Context::HTTP`], …
    pub block: Context,
    /// The directives.
    pub rows: Vec<Row>,
    /// Makes an empty raw configuration.
    pub new_raw: fn() -> Box<dyn Any>,
    /// Inheritance: the raw configuration of a level (if anything was set there) and its parent's resolved one.
    pub resolve: Resolver,
    /// Whether a resolved configuration has values that levels inside don't inherit (rows of the kinds `here` and `last`).
    pub leaves: fn(&dyn Any) -> bool,
    /// Tells the configuration's type its slot.
    pub set_slot: fn(usize),
}

/// A resolved configuration, made by [`table!`](crate::table!).
pub trait Conf: Any + Sized {
    /// The index of this type's configuration in the sets of its level.
    fn slot() -> usize;
    /// The table that describes it.
    fn table() -> Table;
}

/// What a table's type knows of its place: the module's name, and its slot once it is registered. A type of several
/// protocols has one for each of them.
#[derive(Debug)]
pub struct Place {
    module: &'static str,
    slot: AtomicUsize,
}

impl Place {
    /// For a table of this module.
    pub const fn new(module: &'static str) -> Place {
        Place { module, slot: AtomicUsize::new(usize::MAX) }
    }

    /// The module, under nginx's name where nginx has it.
    pub const fn module(&self) -> &'static str {
        self.module
    }

    /// See [`Conf::slot`].
    pub fn slot(&self) -> usize {
        self.slot.load(Ordering::Relaxed)
    }

    /// Takes note of the slot.
    pub fn set_slot(&self, slot: usize) {
        self.slot.store(slot, Ordering::Relaxed);
    }
}

/// `"x" directive is duplicate`.
pub fn duplicate(directive: &Directive) -> crate::Error {
    crate::Error::on(directive, format!("\"{}\" directive is duplicate", directive.name.lossy()))
}

#[cfg(test)]
mod tests;
