//! The variables of a configuration that is being read: definitions, references, regexes.

use std::any::Any;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;

use conf::{Directive, Error, Loader, Result, Span, Word};
use expr::regex::Regex as Pattern;
use expr::vars::{Flags, Registry, Template, VarId};

use super::{Definition, Getter, Regex, Setter, Variables};
use crate::Proto;
use crate::slots::Slots;

/// The variables of a configuration that is being read.
pub struct Setup<P: Proto> {
    registry: Registry<Definition<P>>,
    /// Where the references stand, by the number given to the registry.
    places: Vec<Span>,
    /// Whether any template reads captures of a regex by number: if none does, none are taken.
    captures: bool,
    /// The regexes so far, by pattern and whether they ignore case.
    regexes: HashMap<(Box<[u8]>, bool), Regex>,
    parts: Slots,
}

// Not derived: that would ask for it of the protocol.
impl<P: Proto> Default for Setup<P> {
    fn default() -> Setup<P> {
        Setup {
            registry: Registry::new(),
            places: Vec::new(),
            captures: false,
            regexes: HashMap::new(),
            parts: Slots::default(),
        }
    }
}

impl<P: Proto> Setup<P> {
    /// All definitions for the manual; families end with `*`.
    pub fn descriptions(&self) -> Vec<engine::Variable> {
        let all = self.registry.definitions();
        all.map(|(name, flags, definition)| {
            let star = if flags.has(Flags::PREFIX) { "*" } else { "" };
            let text = definition.text.split_whitespace().collect::<Vec<_>>().join(" ");
            engine::Variable { module: definition.module, name: format!("{name}{star}"), text }
        })
        .collect()
    }

    /// What a module's variables and its directives have in common.
    pub fn part<T: Any + Default>(&mut self) -> &mut T {
        self.parts.entry()
    }

    /// Where the references that follow stand.
    fn set_place(&mut self, place: Span) {
        self.registry.set_place(self.places.len() as u32);
        self.places.push(place);
    }

    /// Makes sure that `name` is a variable that can be stored to. One that `set` alone stores to is weak: a family that has
    /// the name keeps it.
    fn define_stored(&mut self, name: &str, strength: Flags) {
        let known = self.registry.definition(name);
        if known.is_none_or(|(_, known)| known.has(Flags::WEAK) && !strength.has(Flags::WEAK)) {
            let module = P::tables().rewrite.module();
            let text = "What `set` or a named capture of a regex stores. Empty if nothing was stored.";
            let definition = Definition { getter: Getter::Stored, setter: None, module, text };
            // It isn't defined, or can be changed, so it isn't a duplicate.
            let _ = self.registry.add(name, Flags::CHANGEABLE | strength, definition);
        }
    }

    /// Variables that are the server's own can't be stored to.
    fn may_change(&self, word: &Word, name: &str) -> Result<()> {
        match self.registry.definition(name) {
            Some((_, flags)) if !flags.has(Flags::CHANGEABLE) => {
                Err(Error::at(word, format!("the duplicate \"{name}\" variable")))
            }
            _ => Ok(()),
        }
    }
}

/// Defines variables that are functions of a session: `variables! { setup, "module"; ... }`, with a row for each. Its text
/// says what the variable holds and when it is empty; `set` says what storing to it does.
///
/// ```ignore
/// common::variables! { setup, "ngx_http_core_module";
///     /// The port on which the connection was accepted. Empty on a unix socket.
///     "server_port", Flags::NONE, Getter::Plain(server_port);
/// }
/// ```
#[macro_export]
macro_rules! variables {
    ($setup:expr, $module:expr; $($(#[doc = $text:literal])+ $name:literal, $flags:expr, $getter:expr $(, set $set:expr)?;)+) => {
        $($crate::vars::add($setup, $name, $flags, $crate::vars::Definition {
            getter: $getter,
            setter: $crate::variables!(@setter $($set)?),
            module: $module,
            text: concat!($($text),+),
        });)+
    };
    (@setter) => { None };
    (@setter $set:expr) => { Some($set) };
}

/// Defines a variable that no other module has; for [`variables!`](crate::variables).
pub fn add<P: Proto>(setup: &mut Setup<P>, name: &str, flags: Flags, definition: Definition<P>) {
    let added = setup.registry.add(name, flags, definition);
    debug_assert!(added.is_ok(), "two modules define ${name}");
}

/// Compiles a regex of the configuration; its named groups define variables. One that stands in many places, as in
/// configurations that were generated, is compiled once.
pub fn regex<P: Proto>(loader: &mut Loader<'_>, word: &Word, pattern: &[u8], caseless: bool) -> Result<Regex> {
    let setup = loader.store.entry::<Setup<P>>();
    let key = (Box::from(pattern), caseless);
    if let Some(known) = setup.regexes.get(&key) {
        return Ok(known.clone());
    }
    let regex = Pattern::new(pattern, caseless).map_err(|error| Error::at(word, error.to_string()))?;
    let mut names = Vec::new();
    for (name, group) in regex.names() {
        setup.may_change(word, name)?;
        setup.define_stored(name, Flags::NONE);
        names.push((setup.registry.reference(name), *group));
    }
    let regex = Regex { regex: Rc::new(regex), names: names.into() };
    setup.regexes.insert(key, regex.clone());
    Ok(regex)
}

/// The id of a variable to be stored to; defined if it isn't yet, with [`Flags::WEAK`] for `set`.
pub fn storable<P: Proto>(loader: &mut Loader<'_>, word: &Word, strength: Flags) -> Result<(VarId, Option<Setter<P>>)> {
    let name = variable_name(word)?;
    let setup = loader.store.entry::<Setup<P>>();
    setup.may_change(word, &name)?;
    setup.define_stored(&name, strength);
    let setter = setup.registry.definition(&name).and_then(|(definition, _)| definition.setter);
    Ok((setup.registry.reference(&name), setter))
}

/// Defines a variable by a directive, such as `map`.
pub fn define<P: Proto>(loader: &mut Loader<'_>, word: &Word, flags: Flags, definition: Definition<P>) -> Result<()> {
    let name = variable_name(word)?;
    let setup = loader.store.entry::<Setup<P>>();
    let added = setup.registry.add(&name, flags, definition);
    added.map_err(|_| Error::at(word, format!("the duplicate \"{name}\" variable")))
}

fn variable_name(word: &Word) -> Result<String> {
    name_in(word, &word.text)
}

fn name_in(word: &Word, text: &[u8]) -> Result<String> {
    match expr::vars::variable_name(&String::from_utf8_lossy(text)) {
        Ok(name) => Ok(name.to_owned()),
        Err(error) => Err(Error::at(word, error.to_string())),
    }
}

/// A template of any text of a directive; its variables are looked up once the configuration is complete.
pub fn template_of<P: Proto>(loader: &mut Loader<'_>, d: &Directive, text: &[u8]) -> Result<Rc<Template>> {
    let has = |word: &&Word| memchr::memmem::find(&word.text, text).is_some();
    let word = d.args.iter().find(has).unwrap_or(&d.name);
    template_at::<P>(loader, Span { line: d.end.line, ..word.span }, text)
}

/// A text with variables that stands at a place.
pub fn template_at<P: Proto>(loader: &mut Loader<'_>, place: Span, text: &[u8]) -> Result<Rc<Template>> {
    let setup = loader.store.entry::<Setup<P>>();
    setup.set_place(place);
    let registry = &mut setup.registry;
    let template = Template::parse(text, &mut |name| registry.reference(name));
    let template = template.map_err(|error| Error::place(place, error.to_string()))?;
    setup.captures |= template.max_capture() > 0;
    Ok(Rc::new(template))
}

/// The first argument as a template.
pub fn template<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<Template>>> {
    template_of::<P>(loader, d, &d.arg(0).text).map(Some)
}

/// As [`template`], for a size: one without variables is checked now, and 0 is none.
pub fn size_template<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<Template>>> {
    let template = template::<P>(loader, d)?;
    let text = template.as_ref().and_then(|template| template.is_const());
    match text.map(buf::parse::parse_size) {
        Some(None) => Err(conf::values::invalid(d, d.arg(0))),
        Some(Some(0)) => Ok(None),
        _ => Ok(template),
    }
}

/// A word that is one variable and nothing else.
pub fn one_variable<P: Proto>(loader: &mut Loader<'_>, word: &Word) -> Result<Rc<Template>> {
    variable_in::<P>(loader, word, &word.text)
}

/// The same of a part of a word.
pub fn variable_in<P: Proto>(loader: &mut Loader<'_>, word: &Word, text: &[u8]) -> Result<Rc<Template>> {
    let name = name_in(word, text)?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !name.bytes().all(is_name) || name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::at(word, format!("unknown \"{name}\" variable")));
    }
    template_at::<P>(loader, word.span, text)
}

/// A word that is a dollar and a name, whatever that consists of: as in nginx, `$a=b`, `${a}` and `$1` are names that hardly
/// anybody defines, but `$arg_a=b` is of a family.
pub fn named_variable<P: Proto>(loader: &mut Loader<'_>, word: &Word) -> Result<Rc<Template>> {
    let name = variable_name(word)?;
    let setup = loader.store.entry::<Setup<P>>();
    setup.set_place(word.span);
    Ok(Rc::new(Template::variable(setup.registry.reference(&name))))
}

/// A text with variables that is compiled after inheritance, where a server or location has it: as in nginx, what every
/// inner level replaces may name variables that don't exist.
#[derive(Clone, Debug)]
pub struct Late {
    text: Vec<u8>,
    /// Where it stands.
    pub place: Span,
    compiled: OnceCell<Rc<Template>>,
}

impl Late {
    /// One that a directive's argument says.
    pub fn of(d: &Directive, word: &Word) -> Late {
        Late::text(d, word, &word.text)
    }

    /// What is made of a directive's argument.
    pub fn text(d: &Directive, word: &Word, text: &[u8]) -> Late {
        let place = Span { line: d.end.line, ..word.span };
        Late { text: text.to_vec(), place, compiled: OnceCell::new() }
    }

    /// Compiles it, the first time: all levels that inherit it share what comes of it.
    pub fn compile<P: Proto>(&self, loader: &mut Loader<'_>) -> Result<Rc<Template>> {
        if let Some(template) = self.compiled.get() {
            return Ok(template.clone());
        }
        let template = template_at::<P>(loader, self.place, &self.text)?;
        Ok(self.compiled.get_or_init(|| template).clone())
    }
}

/// Joins references and definitions, once the configuration is complete.
pub fn finish<P: Proto>(loader: &mut Loader<'_>) -> Result<Variables<P>> {
    let setup = loader.store.take::<Setup<P>>().unwrap_or_default();
    let captures = setup.captures;
    let names = setup.registry.names();
    match setup.registry.finish() {
        Ok(all) => Ok(Variables { all, captures }),
        Err(unknown) => {
            let mut errors = unknown.into_iter().map(|unknown| {
                let span = unknown.place.and_then(|place| setup.places.get(place as usize)).copied();
                let error = Error { span, ..Error::new(format!("unknown \"{}\" variable", unknown.name)) };
                explain_unknown(error, &unknown.name, &names, &loader.sources)
            });
            let first = errors.next().unwrap_or_else(|| Error::new("unknown variable"));
            loader.errors.extend(errors);
            Err(first)
        }
    }
}

/// An unknown variable with its own place, and the name that may have been meant.
fn explain_unknown(error: Error, name: &str, names: &[String], sources: &conf::Sources) -> Error {
    let caret = error.span.and_then(|span| {
        let text = sources.file(span)?.text.get(span.start as usize..span.end as usize)?;
        let (at, len) = variable_at(text, name)?;
        let start = span.start + at as u32;
        Some(Span { start, end: start + len as u32, ..span })
    });
    let error = Error { caret: caret.or(error.caret), ..error };
    let near = conf::similar_name(name, names.iter().map(String::as_str));
    error.or_hint(|| near.map(|near| format!("did you mean \"${near}\"?")))
}

/// Where `$name` or `${name}` stands in a text, and how long it is.
fn variable_at(text: &[u8], name: &str) -> Option<(usize, usize)> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    memchr::memchr_iter(b'$', text).find_map(|at| {
        let rest = &text[at + 1..];
        let braces = usize::from(rest.first() == Some(&b'{'));
        let len = rest[braces..].iter().take_while(|byte| is_name(byte)).count();
        let found = rest[braces..braces + len].eq_ignore_ascii_case(name.as_bytes());
        found.then_some((at, 1 + len + 2 * braces))
    })
}
