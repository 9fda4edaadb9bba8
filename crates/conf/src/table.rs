//! Directive tables: what a module's directives are, and what becomes of them.

use std::any::Any;
use std::borrow::Cow;
use std::ops::{BitOr, RangeInclusive};
use std::rc::Rc;

use crate::{Directive, Loader, Result, Span};

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
    pub const fn meets(self, other: Context) -> bool {
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
    pub doc: &'static str,
    /// Where it may stand.
    pub contexts: Context,
    /// What it takes.
    pub args: Args,
    /// Its default as the manual writes it; empty for none.
    pub default: &'static str,
    /// The kind of its value, for the manual: `scalar`, `list`, `set` or `block`.
    pub kind: &'static str,
    /// Writes it into the raw configuration.
    pub set: Setter,
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

/// The raw configurations of one level, by slot; made when a directive first needs them.
#[derive(Default)]
pub struct RawSet {
    slots: Vec<Option<Box<dyn Any>>>,
    /// Where the directives stand that were set here, in their order: what a check finds after inheritance is told with
    /// its place.
    places: Vec<(RowId, Span)>,
}

/// A row of a registry's tables: the table's slot and the row's index in it.
pub(crate) type RowId = (usize, usize);

impl RawSet {
    /// The raw configuration in `slot`, made by `new` if there is none.
    pub fn slot(&mut self, slot: usize, new: fn() -> Box<dyn Any>) -> &mut dyn Any {
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        &mut **self.slots[slot].get_or_insert_with(new)
    }

    /// Whether nothing was set.
    fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    pub(crate) fn note(&mut self, row: RowId, place: Span) {
        self.places.push((row, place));
    }

    /// Where a directive of this level stands first.
    pub(crate) fn first_place(&self, row: RowId) -> Option<Span> {
        self.places.iter().find(|(known, _)| *known == row).map(|(_, place)| *place)
    }

    /// Where the directives of that name stand at this level, in their order.
    pub fn places<'a>(&'a self, registry: &'a crate::Registry, name: &'a str) -> impl Iterator<Item = Span> + 'a {
        let rows = registry.ids(name);
        self.places.iter().filter(|(row, _)| rows.contains(row)).map(|(_, place)| *place)
    }

    /// The raw configuration of table `C`, of type `R`.
    ///
    /// # Panics
    /// If `R` isn't the raw type of `C`.
    pub fn raw<C: Conf, R: Any>(&mut self) -> &mut R {
        self.slot(C::slot(), C::table().new_raw).downcast_mut().expect("R is the raw type of C")
    }
}

/// The resolved configurations of one level, by slot.
#[derive(Clone)]
pub struct Set(Rc<[Option<Rc<dyn Any>>]>);

impl Set {
    /// The configuration of type `C`.
    ///
    /// # Panics
    /// If `C` isn't of this level.
    pub fn get<C: Conf>(&self) -> &C {
        let slot = self.0.get(C::slot()).and_then(Option::as_deref);
        slot.and_then(|any| any.downcast_ref()).expect("a level's set holds every configuration of that level")
    }

    /// The same, shared.
    ///
    /// # Panics
    /// If `C` isn't of this level.
    pub fn share<C: Conf>(&self) -> Rc<C> {
        let slot = self.0.get(C::slot()).and_then(Clone::clone);
        slot.and_then(|any| any.downcast().ok()).expect("a level's set holds every configuration of that level")
    }
}

impl Default for Set {
    fn default() -> Set {
        Set(Rc::new([]))
    }
}

/// Inheritance over whole levels.
pub struct Sets;

impl Sets {
    /// Resolves what was set at one level, with what its parent's level resolved to.
    ///
    /// A level that sets nothing shares its parent's values; one where nothing at all was set shares the whole set.
    pub fn resolve(
        block: Context,
        level: Level,
        raw: &mut RawSet,
        parent: Option<&Set>,
        loader: &mut Loader<'_>,
    ) -> Result<Set> {
        if let (true, Some(parent)) = (raw.is_empty(), parent) {
            return Ok(parent.clone());
        }
        let registry = loader.registry();
        let mut slots = vec![None; registry.tables().len()];
        for (slot, table) in registry.tables().iter().enumerate() {
            if table.level != level || table.block != block {
                continue;
            }
            let above = parent.and_then(|set| set.0.get(slot)).and_then(Option::as_ref);
            let own = raw.slots.get_mut(slot).and_then(Option::as_deref_mut);
            slots[slot] = Some(match (own, above) {
                (None, Some(above)) => above.clone(),
                (own, above) => (table.resolve)(own, above.map(|rc| &**rc), loader)?,
            });
        }
        Ok(Set(slots.into()))
    }
}

/// Describes a module's directives of one level, and makes the types that hold them.
///
/// ```ignore
/// conf::table! {
///     /// Headers that are added to responses.
///     pub struct HeadersConf, raw HeadersRaw, module "ngx_http_headers_module", level HTTP Location;
///
///     /// Sets `Expires` and `Cache-Control`.
///     "expires" in Context::HTTP | Context::SERVER | Context::LOCATION, Args::between(1, 2), default "off",
///         scalar(parse_expires) expires: Expires = Expires::Off;
///     /// Adds a field to the response.
///     "add_header" in Context::HTTP | Context::SERVER | Context::LOCATION, Args::between(2, 3), default "",
///         list(parse_add_header) add_header: AddHeader;
///     derived { has_expires: bool = false; }
///     finish(finish_headers)
/// }
/// ```
///
/// Kinds of rows:
/// * `scalar(parse) field: T = default` – `parse(&mut Loader, &Directive) -> Result<T>`; once a level; own, else the
///   parent's, else the default. `T: Clone`.
/// * `list(parse) field: T` – `parse` gives one element; the field is `Rc<[T]>`; a level without any inherits the
///   parent's.
/// * `set(f) field: T = default` – `f(&mut Raw, &mut Loader, &Directive) -> Result<()>` does as it likes with the raw
///   configuration, whose fields are `Option`s; inherited as a scalar.
/// * `also(f)` – a further directive without a field: `f(&mut Raw, &mut Loader, &Directive) -> Result<()>`.
/// * `block(f)` – no field: `f(&mut Loader, &Directive) -> Result<()>`.
///
/// Fields under `derived` have no directive: `finish(f)`, with `f(&mut Conf, Option<&Conf> /* parent */, &mut Loader)
/// -> Result<()>`, computes them after inheritance; without a parent they have their default, else the parent's.
#[macro_export]
macro_rules! table {
    (
        $(#[$meta:meta])*
        $vis:vis struct $conf:ident, raw $raw:ident, module $module:literal, level $block:ident $level:ident;
        $(
            $(#[doc = $doc:literal])*
            $name:literal in $contexts:expr, $args:expr, default $default:literal,
                $kind:ident($f:expr) $($field:ident : $ty:ty $(= $init:expr)?)?;
        )*
        $(derived { $($(#[$dmeta:meta])* $dfield:ident : $dty:ty = $dinit:expr;)* })?
        $(finish($finish:expr))?
    ) => {
        $(#[$meta])*
        #[derive(Clone)]
        $vis struct $conf {
            $($(
                #[doc = concat!("The directive `", $name, "`.")]
                pub $field: $crate::table!(@type $kind $ty),
            )?)*
            $($($(#[$dmeta])* pub $dfield: $dty,)*)?
        }

        #[doc = concat!("What was set of [`", stringify!($conf), "`] at one level.")]
        #[derive(Default)]
        $vis struct $raw {
            $($(
                #[doc = concat!("The directive `", $name, "`, if set.")]
                pub $field: Option<$crate::table!(@raw $kind $ty)>,
            )?)*
        }

        impl $crate::Conf for $conf {
            fn slot() -> usize {
                Self::slot_cell().load(::std::sync::atomic::Ordering::Relaxed)
            }

            fn table() -> $crate::Table {
                $crate::Table {
                    module: $module,
                    level: $crate::Level::$level,
                    block: $crate::Context::$block,
                    rows: vec![$(
                        $crate::Row {
                            name: ::std::borrow::Cow::Borrowed($name),
                            doc: concat!($($doc, "\n"),*),
                            contexts: $contexts,
                            args: $args,
                            default: $default,
                            kind: stringify!($kind),
                            set: |raw, loader, directive| {
                                let raw: &mut $raw = raw.downcast_mut().expect("a slot holds its own type");
                                $crate::table!(@set $kind raw, loader, directive, $f $(, $field)?)
                            },
                        },
                    )*],
                    new_raw: || Box::new($raw::default()),
                    resolve: |raw, parent, loader| {
                        let raw: Option<&mut $raw> =
                            raw.map(|raw| raw.downcast_mut().expect("a slot holds its own type"));
                        let parent: Option<&$conf> =
                            parent.map(|parent| parent.downcast_ref().expect("a slot holds its own type"));
                        let conf = $conf::inherit(raw, parent);
                        $(
                            let mut conf = conf;
                            ($finish)(&mut conf, parent, loader)?;
                        )?
                        let _ = &loader;
                        Ok(::std::rc::Rc::new(conf))
                    },
                    set_slot: |slot| $conf::slot_cell().store(slot, ::std::sync::atomic::Ordering::Relaxed),
                }
            }
        }

        impl $conf {
            fn slot_cell() -> &'static ::std::sync::atomic::AtomicUsize {
                static SLOT: ::std::sync::atomic::AtomicUsize = ::std::sync::atomic::AtomicUsize::new(usize::MAX);
                &SLOT
            }

            /// What a level with these own settings and this parent has.
            #[allow(unused_variables, unused_mut)]
            fn inherit(raw: Option<&mut $raw>, parent: Option<&$conf>) -> $conf {
                let mut none = $raw::default();
                let raw = raw.unwrap_or(&mut none);
                $conf {
                    $($(
                        $field: match (raw.$field.take(), parent) {
                            (Some(own), _) => $crate::table!(@own $kind own),
                            (None, Some(parent)) => parent.$field.clone(),
                            (None, None) => $crate::table!(@default $kind $($init)?),
                        },
                    )?)*
                    $($($dfield: parent.map_or_else(|| $dinit, |parent| parent.$dfield.clone()),)*)?
                }
            }
        }
    };

    (@type list $ty:ty) => { ::std::rc::Rc<[$ty]> };
    (@type $kind:ident $ty:ty) => { $ty };
    (@raw list $ty:ty) => { Vec<$ty> };
    (@raw $kind:ident $ty:ty) => { $ty };
    (@own list $own:ident) => { $own.into() };
    (@own $kind:ident $own:ident) => { $own };
    (@default list) => { ::std::rc::Rc::new([]) };
    (@default $kind:ident $init:expr) => { $init };
    (@set scalar $raw:ident, $loader:ident, $directive:ident, $f:expr, $field:ident) => {{
        if $raw.$field.is_some() {
            return Err($crate::table::duplicate($directive));
        }
        $raw.$field = Some(($f)($loader, $directive)?);
        Ok(())
    }};
    (@set list $raw:ident, $loader:ident, $directive:ident, $f:expr, $field:ident) => {{
        let element = ($f)($loader, $directive)?;
        $raw.$field.get_or_insert_with(Vec::new).push(element);
        Ok(())
    }};
    (@set set $raw:ident, $loader:ident, $directive:ident, $f:expr, $field:ident) => {
        ($f)($raw, $loader, $directive)
    };
    (@set also $raw:ident, $loader:ident, $directive:ident, $f:expr) => {
        ($f)($raw, $loader, $directive)
    };
    (@set block $raw:ident, $loader:ident, $directive:ident, $f:expr) => {{
        let _ = $raw;
        ($f)($loader, $directive)
    }};
}

/// `"x" directive is duplicate`.
pub fn duplicate(directive: &Directive) -> crate::Error {
    crate::Error::on(directive, format!("\"{}\" directive is duplicate", directive.name.lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: Context = Context::HTTP.or(Context::SERVER);

    crate::table! {
        /// A configuration for this test.
        pub struct TestConf, raw TestRaw, module "test", level HTTP Location;

        /// A number.
        "number" in PLACES, Args::exactly(1), default "7",
            scalar(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.len())) number: usize = 7;
        /// Names.
        "name" in PLACES, Args::exactly(1), default "",
            list(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.clone())) name: Vec<u8>;
        /// Both.
        "both" in PLACES, Args::exactly(0), default "",
            also(|raw: &mut TestRaw, _: &mut Loader<'_>, _: &Directive| { raw.number = Some(1); Ok(()) });
        derived { twice: usize = 0; }
        finish(|conf: &mut TestConf, _: Option<&TestConf>, _: &mut Loader<'_>| { conf.twice = conf.number * 2; Ok(()) })
    }

    #[test]
    fn inherits() {
        let mut raw = TestRaw { number: None, name: Some(vec![b"a".to_vec()]) };
        let parent = TestConf::inherit(Some(&mut raw), None);
        assert_eq!((parent.number, parent.name.len()), (7, 1));
        let mut raw = TestRaw { number: Some(3), name: None };
        let child = TestConf::inherit(Some(&mut raw), Some(&parent));
        assert_eq!((child.number, child.name.len()), (3, 1));
    }
}
