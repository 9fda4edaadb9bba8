//! Walks the tree of a configuration and lets the rows of the tables act.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use crate::set::RowId;
use crate::{Conf, Context, Directive, Error, Level, RawSet, Result, Row, Sources, Span, Table, hints, table};

/// Every table of the program, found by a directive's name.
#[derive(Default)]
pub struct Registry {
    tables: Vec<Table>,
    /// The tables of each block and level: in these lists a table's place is its slot.
    levels: Vec<(Context, Level, Vec<usize>)>,
    by_name: HashMap<String, Vec<RowId>>,
}

impl Registry {
    /// A registry without tables.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Adds the table of `C`.
    pub fn add<C: Conf>(&mut self) {
        self.push(C::table());
    }

    pub(crate) fn push(&mut self, table: Table) {
        let index = self.tables.len();
        let (block, level) = (table.block, table.level);
        let at = self.levels.iter().position(|known| (known.0, known.1) == (block, level)).unwrap_or_else(|| {
            self.levels.push((block, level, Vec::new()));
            self.levels.len() - 1
        });
        let slots = &mut self.levels[at].2;
        (table.set_slot)(slots.len());
        slots.push(index);
        for (row, entry) in table.rows.iter().enumerate() {
            self.by_name.entry(entry.name.to_string()).or_default().push((index, row));
        }
        self.tables.push(table);
    }

    /// The indices of the tables of a block and level, by slot.
    pub(crate) fn of_level(&self, block: Context, level: Level) -> &[usize] {
        let found = self.levels.iter().find(|known| (known.0, known.1) == (block, level));
        found.map_or(&[], |known| &known.2)
    }

    /// The tables in the order in which they were added.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The rows of that name, each with the index of its table.
    pub fn rows<'a>(&'a self, name: &str) -> impl Iterator<Item = (usize, &'a Row)> + 'a {
        self.ids(name).iter().map(|&(table, row)| (table, &self.tables[table].rows[row]))
    }

    /// The rows of that name.
    pub(crate) fn ids(&self, name: &str) -> &[RowId] {
        self.by_name.get(name).map_or(&[][..], Vec::as_slice)
    }
}

/// What the command line and the build say, for paths and messages.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// The prefix (`-p`), with a slash at its end.
    pub prefix: PathBuf,
    /// The folder of the main configuration file, with a slash at its end: relative names of configuration-like files
    /// (includes, certificates, password files) start here.
    pub conf_prefix: PathBuf,
    /// Whether the configuration is only tested (`-t`).
    pub test: bool,
}

/// The raw configurations that are open at a place, one for each level.
#[derive(Clone, Default)]
pub struct Frame {
    /// Indexed by [`Level`].
    pub levels: [Rc<RefCell<RawSet>>; 3],
}

impl Frame {
    /// A frame with new levels from `first` on and this frame's before it.
    #[must_use]
    pub fn nested(&self, first: Level) -> Frame {
        let mut levels = self.levels.clone();
        for level in &mut levels[first as usize..] {
            *level = Rc::default();
        }
        Frame { levels }
    }
}

/// Values of any type, one of each: where modules gather what belongs to the whole configuration.
#[derive(Default)]
pub struct Store(HashMap<TypeId, Box<dyn Any>>);

impl Store {
    /// The value of type `T`, made by its default if there is none.
    pub fn entry<T: Any + Default>(&mut self) -> &mut T {
        let value = self.0.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(T::default()));
        value.downcast_mut().expect("a value is stored under its own type")
    }

    /// The value of type `T`, if there is one.
    pub fn get<T: Any>(&self) -> Option<&T> {
        let value = self.0.get(&TypeId::of::<T>())?;
        Some(value.downcast_ref().expect("a value is stored under its own type"))
    }

    /// Takes the value of type `T` out.
    pub fn take<T: Any>(&mut self) -> Option<T> {
        let value = self.0.remove(&TypeId::of::<T>())?;
        Some(*value.downcast().expect("a value is stored under its own type"))
    }

    /// Puts a value in, in place of one of its type.
    pub fn put<T: Any>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }
}

/// Where things are named that are opened after the configuration has been read: log files, zones, folders, addresses.
#[derive(Clone, Debug, Default)]
pub struct Places(HashMap<(&'static str, String), Span>);

impl Places {
    /// Notes where a thing of some kind is named; the first place counts.
    pub fn note(&mut self, kind: &'static str, name: impl ToString, place: Span) {
        self.0.entry((kind, name.to_string())).or_insert(place);
    }

    /// Where it is named first.
    pub fn get(&self, kind: &'static str, name: impl ToString) -> Option<Span> {
        self.0.get(&(kind, name.to_string())).copied()
    }
}

/// How many errors get a hint for an unknown name: finding it means looking at every name there is.
const MAX_HINTS: usize = 100;

/// A configuration being read.
pub struct Loader<'r> {
    registry: &'r Registry,
    /// Paths and the like.
    pub env: Env,
    /// The files, for messages.
    pub sources: Sources,
    /// The errors found so far. A row's error is put here by the loader, which then goes on with the next directive.
    pub errors: Vec<Error>,
    /// Warnings found so far (nginx's `[warn]`).
    pub warnings: Vec<Error>,
    /// What modules gather.
    pub store: Store,
    /// Where things are named that are opened later.
    pub places: Places,
    frame: Frame,
    context: Context,
}

impl<'r> Loader<'r> {
    /// A loader at the outermost level.
    pub fn new(registry: &'r Registry, env: Env, sources: Sources) -> Loader<'r> {
        Loader {
            registry,
            env,
            sources,
            errors: Vec::new(),
            warnings: Vec::new(),
            store: Store::default(),
            places: Places::default(),
            frame: Frame::default(),
            context: Context::MAIN,
        }
    }

    /// The tables.
    pub fn registry(&self) -> &'r Registry {
        self.registry
    }

    /// The context of the directive that is being read.
    pub fn context(&self) -> Context {
        self.context
    }

    /// The raw configurations that are open here.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Reads the directives of a block in the given context, with the given levels; errors are gathered.
    pub fn block(&mut self, directives: &[Directive], context: Context, frame: Frame) {
        let outer = (std::mem::replace(&mut self.frame, frame), std::mem::replace(&mut self.context, context));
        for directive in directives {
            if let Err(mut error) = self.directive(directive) {
                // nginx reads a directive to its end before it looks at it, and reports the line on which it ends.
                if let Some(span) = &mut error.span {
                    span.reach(directive.end);
                    if span.file == directive.end.file {
                        error.met = error.met.or(Some(span.start.max(directive.end.start)));
                    }
                }
                self.errors.push(hints::explain(error, directive));
            }
        }
        (self.frame, self.context) = outer;
    }

    /// Gathers a warning, at the line on which the directive ends.
    pub fn warn(&mut self, directive: &Directive, mut warning: Error) {
        if let Some(span) = &mut warning.span {
            span.reach(directive.end);
        }
        self.warnings.push(warning);
    }

    /// Gathers the warning that what a directive asks for doesn't happen, and why: once for each directive's name.
    pub fn no_effect(&mut self, directive: &Directive, why: &str) {
        let name = directive.name.lossy();
        let message = format!("\"{name}\" has no effect: {why}");
        if !self.warnings.iter().any(|warning| warning.message == message) {
            self.warn(directive, Error::on(directive, message));
        }
    }

    /// Puts errors and warnings in the order in which nginx would meet them, each once, without the warnings that it
    /// wouldn't come to; the parser's errors belong in [`errors`](Loader::errors) before.
    pub fn sort(&mut self) {
        self.sources.sort(&mut self.errors);
        self.sources.sort(&mut self.warnings);
        self.sources.cut_warnings(&mut self.warnings, &self.errors);
    }

    fn directive(&mut self, directive: &Directive) -> Result<()> {
        let registry = self.registry;
        let name = directive.name.lossy();
        let ids = registry.ids(&name);
        if ids.is_empty() {
            return Err(self.unknown(directive));
        }
        let row_of = |&(table, row): &RowId| &registry.tables[table].rows[row];
        let Some(id) = ids.iter().find(|id| row_of(id).contexts.meets(self.context)) else {
            let error = Error::on(directive, format!("\"{name}\" directive is not allowed here"));
            return Err(error.hint(hints::misplaced(ids.iter().map(row_of))));
        };
        let row = row_of(id);
        check_args(directive, row)?;
        let table = &registry.tables[id.0];
        let level = self.frame.levels[table.level as usize].clone();
        if row.kind == "block" {
            // The block's own directives may write to this level too, so it isn't borrowed meanwhile.
            let mut nothing = (table.new_raw)();
            return (row.set)(&mut *nothing, self, directive);
        }
        let mut level = level.borrow_mut();
        let raw = level.of(id.0, table.new_raw);
        let raw = match row.part {
            Some(part) => (part.raw)(raw),
            None => raw,
        };
        let result = (row.set)(raw, self, directive);
        if result.is_ok() {
            level.note(*id, directive.span());
        }
        result.map_err(|error| match level.first_place(*id) {
            Some(first) if error.is_duplicate() => error.hint(self.stands_first(first)),
            _ => error,
        })
    }

    /// For hints: where the first of two stands.
    pub fn stands_first(&self, first: Span) -> String {
        format!("the first one stands{}", self.sources.place(first))
    }

    fn unknown(&self, directive: &Directive) -> Error {
        // The parser leaves only those includes in the tree that are not well formed.
        if directive.name == "include" {
            return match directive.block {
                Some(_) => not_terminated(directive),
                None => wrong_count(directive).hint("its form is \"include file | mask;\""),
            };
        }
        let error = Error::on(directive, format!("unknown directive \"{}\"", directive.name.lossy()));
        if self.errors.len() >= MAX_HINTS {
            return error;
        }
        let error = match hints::unknown(self.registry, self.context, &directive.name) {
            Some(hint) => error.hint(hint),
            None => error,
        };
        // The block may hold another language.
        if directive.block.is_some() && hints::is_foreign(&directive.name) { error.derailing() } else { error }
    }
}

/// Whether the directive has what its row says. A flag's value is checked by its parser, after the check for
/// duplicates, as nginx does.
pub(crate) fn check_args(directive: &Directive, row: &Row) -> Result<()> {
    let args = &row.args;
    if args.block && directive.block.is_none() {
        let error = Error::on(directive, format!("directive \"{}\" has no opening \"{{\"", directive.name.lossy()));
        return Err(error.hint(hints::form(row)));
    }
    if !args.block && directive.block.is_some() {
        return Err(not_terminated(directive));
    }
    if !args.count.contains(&directive.args.len()) {
        let error = wrong_count(directive);
        let word = hints::line_break(directive).filter(|_| directive.args.len() > *args.count.end());
        return Err(match word {
            Some(word) => error.missing_semicolon(word),
            None => error.hint(hints::form(row)),
        });
    }
    Ok(())
}

fn not_terminated(directive: &Directive) -> Error {
    let error = Error::on(directive, format!("directive \"{}\" is not terminated by \";\"", directive.name.lossy()));
    match hints::line_break(directive) {
        Some(word) => error.missing_semicolon(word),
        None => error,
    }
}

fn wrong_count(directive: &Directive) -> Error {
    Error::on(directive, format!("invalid number of arguments in \"{}\" directive", directive.name.lossy()))
}

/// For rows that keep one value and are written by hand: the error if it is already there.
pub fn once<T>(value: &Option<T>, directive: &Directive) -> Result<()> {
    if value.is_some() { Err(table::duplicate(directive)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
