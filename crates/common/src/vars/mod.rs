//! Variables: how they are defined, referred to and read. The registry and the templates are `expr`'s; here is what a
//! session makes of them.

mod facts;
mod regex;
mod setup;
pub mod text;

use std::cell::RefCell;
use std::rc::Rc;

use buf::Bytes;
use engine::log::Level;
use expr::vars::{Entry, Flags, Template, VarId, Variables as Frozen};

pub use facts::define as define_facts;
pub use regex::{LastCaptures, MatchFailed, Regex};
pub use setup::{
    Late, Setup, add, define, finish, named_variable, one_variable, regex, size_template, storable, template,
    template_at, template_of, variable_in,
};

use crate::slots::Slots;
use crate::{Proto, Session};

/// How a variable gets its value.
pub enum Getter<P: Proto> {
    /// Appends the value; false if there is none.
    Plain(fn(&mut P::Session, &mut Vec<u8>) -> bool),
    /// The same by a template of the configuration, which may refer to the variable itself.
    Rendered(fn(&mut P::Session, &mut Vec<u8>) -> bool),
    /// As [`Getter::Plain`] for a family (`$arg_…`), with the name after the prefix.
    Family(fn(&mut P::Session, &str, &mut Vec<u8>) -> bool),
    /// A value with data of its own, such as a map.
    Object(Rc<dyn Variable<P>>),
    /// Only what is stored: by `set`, then it is weak ([`Flags::WEAK`]), or by a named capture or the like.
    Stored,
}

// Not derived: that would ask for it of the protocol.
impl<P: Proto> Clone for Getter<P> {
    fn clone(&self) -> Getter<P> {
        match self {
            Getter::Plain(get) => Getter::Plain(*get),
            Getter::Rendered(get) => Getter::Rendered(*get),
            Getter::Family(get) => Getter::Family(*get),
            Getter::Object(object) => Getter::Object(object.clone()),
            Getter::Stored => Getter::Stored,
        }
    }
}

/// What setting a variable does to a session.
pub type Setter<P> = fn(&mut <P as Proto>::Session, &[u8]);

/// A variable with data of its own.
pub trait Variable<P: Proto> {
    /// Appends the value; false if there is none.
    fn value(&self, session: &mut P::Session, out: &mut Vec<u8>) -> bool;
}

/// A definition: the getter, and what `set` does if not just store the value.
pub struct Definition<P: Proto> {
    /// How it is read.
    pub getter: Getter<P>,
    /// How it is set, where that acts on the session.
    pub setter: Option<Setter<P>>,
    /// The module that defines it.
    pub module: &'static str,
    /// What the manual says of it: what it holds, and when it is empty.
    pub text: &'static str,
}

impl<P: Proto> Clone for Definition<P> {
    fn clone(&self) -> Definition<P> {
        Definition { getter: self.getter.clone(), setter: self.setter, module: self.module, text: self.text }
    }
}

/// The variables of a configuration that is complete.
pub struct Variables<P: Proto> {
    all: Frozen<Definition<P>>,
    /// Whether any template reads captures by number.
    captures: bool,
}

impl<P: Proto> Variables<P> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them, in order of their ids.
    pub fn entries(&self) -> &[Entry<Definition<P>>] {
        self.all.entries()
    }

    /// The id of a name.
    pub fn id(&self, name: &str) -> Option<VarId> {
        self.all.id(name)
    }

    /// No values yet, for a new session.
    pub fn store(&self) -> Store {
        Store {
            captures: LastCaptures::default(),
            slots: Slots::default(),
            values: vec![Value::Unset; self.len()],
            stored: vec![0; self.len().div_ceil(BITS)],
            copied: false,
            depth: MAX_DEPTH,
        }
    }
}

/// A session's own value of a variable.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Nothing was stored: the getter knows.
    #[default]
    Unset,
    /// Stored: there is none.
    Missing,
    /// Stored.
    Set(Bytes),
}

/// What a session keeps: its own values of variables, and state of modules.
pub struct Store {
    /// Captures of the last regex that matched.
    pub captures: LastCaptures,
    /// State of modules that lasts as long as the session.
    pub slots: Slots,
    /// What was stored, by id.
    values: Vec<Value>,
    /// A bit for each id that this session itself has stored.
    stored: Vec<usize>,
    /// Whether it began with the values of another session: then places without a bit hold values too.
    copied: bool,
    /// How deep variables may refer to each other yet, and one more; 0 when one has gone too deep.
    depth: u8,
}

impl Store {
    /// As it was at first; memory is kept.
    pub fn clear(&mut self) {
        // All of them: one that is added and forgotten here doesn't compile.
        let Store { captures, slots, values, stored, copied, depth } = self;
        captures.clear();
        slots.clear();
        if std::mem::take(copied) {
            values.fill(Value::Unset);
        }
        for (at, bits) in stored.iter_mut().enumerate() {
            for index in indices(at, std::mem::take(bits)) {
                values[index] = Value::Unset;
            }
        }
        *depth = MAX_DEPTH;
    }

    /// The value of a variable, if it was stored.
    pub fn get(&self, id: VarId) -> Option<&Bytes> {
        match self.values.get(id.index()) {
            Some(Value::Set(value)) => Some(value),
            _ => None,
        }
    }

    /// Stores a value.
    pub fn set(&mut self, id: VarId, value: Value) {
        if let Some(place) = self.values.get_mut(id.index()) {
            *place = value;
            self.stored[id.index() / BITS] |= 1 << (id.index() % BITS);
        }
    }

    /// Begins with what is stored in another session of the same configuration.
    pub fn copy_values(&mut self, from: &Store) {
        self.values.clone_from(&from.values);
        self.stored.fill(0);
        self.copied = true;
    }

    /// Takes over what a session that began with this one's values has stored since, and nothing else of it: others may
    /// have stored meanwhile.
    pub fn take_over(&mut self, from: &Store) {
        for (at, &bits) in from.stored.iter().enumerate() {
            for index in indices(at, bits) {
                self.values[index].clone_from(&from.values[index]);
            }
            self.stored[at] |= bits;
        }
    }

    /// What was stored, in order of the ids.
    pub fn values(&self) -> &[Value] {
        &self.values
    }
}

/// The indices of the bits that are set in the word `at` of [`Store::stored`].
fn indices(at: usize, mut bits: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(at * BITS + lowest)
    })
}

/// The room for a value that is rendered: most need no more, so their memory doesn't grow.
const ROOM: usize = 64;
/// How many ids there are in a word of [`Store::stored`].
const BITS: usize = usize::BITS as usize;
/// How deep variables may refer to each other, and one more.
const MAX_DEPTH: u8 = 101;

/// Appends the value of a variable; false if there is none. It is [`expr::vars::Session::variable`] of every protocol.
#[inline]
pub fn value<S: Session>(session: &mut S, id: VarId, out: &mut Vec<u8>) -> bool {
    match &session.store().values[id.index()] {
        Value::Set(bytes) => {
            out.extend_from_slice(bytes);
            return true;
        }
        Value::Missing => return false,
        Value::Unset => {}
    }
    if let Getter::Plain(get) = session.variables().all.entry(id).payload.getter {
        return get(session, out);
    }
    let variables = session.hold();
    let entry = variables.all.entry(id);
    match &entry.payload.getter {
        Getter::Plain(get) => get(session, out),
        Getter::Rendered(get) => deeper(session, entry, |session| get(session, out)),
        Getter::Family(get) => get(session, entry.suffix(), out),
        Getter::Stored if !entry.flags.has(Flags::WEAK) => false,
        Getter::Stored => {
            // It is empty from now on, and told of once.
            if session.warns_uninitialized() {
                session.log_at(Level::Warn, format_args!("using uninitialized \"{}\" variable", entry.name));
            }
            session.store_mut().set(id, Value::Set(Bytes::default()));
            true
        }
        Getter::Object(object) => value_of_object(session, &**object, id, entry, out),
    }
}

fn value_of_object<S: Session>(
    session: &mut S,
    object: &dyn Variable<S::Proto>,
    id: VarId,
    entry: &Entry<Definition<S::Proto>>,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    let found = deeper(session, entry, |session| object.value(session, out));
    // One that fails because another one refers to itself is evaluated again when that is over.
    if !entry.flags.has(Flags::NOCACHEABLE) && (found || session.store().depth > 0) {
        let value = if found { Value::Set(Bytes::copy_from(&out[start..])) } else { Value::Missing };
        session.store_mut().set(id, value);
    }
    found
}

/// Evaluates a variable that may refer to others, and so to itself. Once this has gone too deep all such variables fail until
/// the first of them is done: one that refers to itself twice would be evaluated 2^100 times otherwise.
fn deeper<S: Session>(
    session: &mut S,
    entry: &Entry<Definition<S::Proto>>,
    evaluate: impl FnOnce(&mut S) -> bool,
) -> bool {
    let left = session.store().depth;
    if left <= 1 {
        if left == 1 {
            session.log_at(Level::Error, format_args!("cycle while evaluating variable \"{}\"", entry.name));
            session.store_mut().depth = 0;
        }
        return false;
    }
    session.store_mut().depth = left - 1;
    let found = evaluate(session);
    let store = session.store_mut();
    if store.depth > 0 || left == MAX_DEPTH {
        store.depth = left;
    }
    found
}

/// As [`value`], for a name met at run time (by SSI), in lower case. False for what no module and no directive defines.
pub fn value_by_name<S: Session>(session: &mut S, name: &str, out: &mut Vec<u8>) -> bool {
    let variables = session.hold();
    if let Some(id) = variables.all.id(name) {
        let is_found = !variables.all.entry(id).flags.has(Flags::NOHASH);
        return is_found && value(session, id, out);
    }
    let Some(found) = variables.all.by_name(name) else { return false };
    match &found.payload.getter {
        Getter::Plain(get) | Getter::Rendered(get) => get(session, out),
        Getter::Family(get) => get(session, found.suffix, out),
        // Nothing refers to it, so nothing has stored to it.
        Getter::Stored => false,
        Getter::Object(object) => object.value(session, out),
    }
}

/// A template's value.
pub fn render<S: Session>(session: &mut S, template: &Template) -> Vec<u8> {
    let mut out = Vec::with_capacity(ROOM);
    template.render(session, &mut out);
    out
}

/// Calls `f` with a template's value, which takes no memory of its own.
pub fn with_value<S: Session, R>(session: &mut S, template: &Template, f: impl FnOnce(&mut S, &[u8]) -> R) -> R {
    if let Some(text) = template.is_const() {
        return f(session, text);
    }
    let mut value = VALUE.take();
    value.clear();
    template.render(session, &mut value);
    let result = f(session, &value);
    VALUE.set(value);
    result
}

thread_local! {
    /// Memory for the value at hand. One that is rendered meanwhile has memory of its own.
    static VALUE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A template's value to keep: one stored variable alone is shared, not copied.
pub fn render_shared<S: Session>(session: &mut S, template: &Template) -> Bytes {
    if let Some(value) = template.is_variable().and_then(|id| session.store().get(id)) {
        return value.clone();
    }
    Bytes::from(render(session, template))
}

/// A condition: a template whose value is neither empty nor `0`.
pub fn test<S: Session>(session: &mut S, template: &Template) -> bool {
    with_value(session, template, |_, value| !value.is_empty() && value != b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        let values = vec![Value::Unset; BITS + 2];
        let (captures, slots) = (LastCaptures::default(), Slots::default());
        Store { captures, slots, values, stored: vec![0; 2], copied: false, depth: MAX_DEPTH }
    }

    fn set(store: &mut Store, at: usize) {
        store.values[at] = Value::Set(Bytes::from_static(b"old"));
        store.stored[at / BITS] |= 1 << (at % BITS);
    }

    fn filled(store: &Store) -> Vec<usize> {
        let filled = store.values.iter().enumerate().filter(|(_, value)| !matches!(value, Value::Unset));
        filled.map(|(at, _)| at).collect()
    }

    #[test]
    fn what_was_stored_or_copied_is_forgotten() {
        let (mut parent, mut child) = (store(), store());
        [0, 3, BITS - 1, BITS + 1].into_iter().for_each(|at| set(&mut parent, at));
        child.copy_values(&parent);
        set(&mut child, 5);
        assert_eq!(filled(&child), [0, 3, 5, BITS - 1, BITS + 1]);
        parent.take_over(&child);
        assert_eq!(filled(&parent), filled(&child));
        for mut used in [parent, child] {
            used.clear();
            assert_eq!((filled(&used), &used.stored[..], used.copied), (Vec::new(), &[0, 0][..], false));
        }
    }
}
