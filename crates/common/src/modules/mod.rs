//! Modules that protocols share: one file each. A protocol takes one by handing it to what runs its own modules.

pub mod access;
pub mod geo;
pub mod geoip;
pub mod geoip2;
pub mod limit;
pub mod limit_conn;
pub mod log;
pub mod map;
pub mod realip;
pub mod split_clients;

use std::rc::Rc;

use conf::{Directive, Loader, Registry, Result, Set, Word};
use expr::vars::Flags;

use crate::Proto;
use crate::vars::{self, Definition, Getter, Setup, Variable};

/// A module that protocols share: what it gives to each of them. Everything but the tables has a default.
pub trait Module<P: Proto> {
    /// Registers its directive tables.
    fn tables(&self, registry: &mut Registry);

    /// Defines its variables; called when the protocol's block begins.
    fn variables(&self, _setup: &mut Setup<P>) {}

    /// Adds what the configuration `set` of an innermost level needs to the phases of the sessions there.
    fn phases(&self, _set: &Set, _loader: &mut Loader<'_>, _out: &mut impl Phases<P>) -> Result<()> {
        Ok(())
    }
}

/// The phases of a protocol's sessions, as modules add to them.
pub trait Phases<P: Proto> {
    /// Before anything else; in HTTP once the head has been read.
    fn post_read(&mut self, check: impl Check<P>);

    /// Before access is decided.
    fn preaccess(&mut self, check: impl Check<P>);

    /// Where access is decided.
    fn access(&mut self, check: impl Check<P>);

    /// When a session is over.
    fn log(&mut self, log: impl Log<P>);
}

/// A check of a session.
pub trait Check<P: Proto>: 'static {
    /// What it says of a session.
    fn check(&self, session: &mut P::Session) -> Verdict;

    /// Counts a session that comes from another worker, where the check let it pass: it is neither judged nor changed again.
    fn again(&self, _session: &mut P::Session) {}
}

/// What a check says of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the next one is asked.
    Next,
    /// It is allowed.
    Allow,
    /// It is refused, with this status.
    Refuse(u16),
}

/// What runs when a session is over.
pub trait Log<P: Proto>: 'static {
    /// Takes note of the session.
    fn log(&self, session: &mut P::Session);
}

/// Reads the lines of a block that holds words rather than directives. Of several errors all but the first are put into the
/// loader.
fn each_line(
    loader: &mut Loader<'_>,
    d: &Directive,
    mut read: impl FnMut(&mut Loader<'_>, &Directive) -> Result<()>,
) -> Result<()> {
    let mut first = None;
    for line in d.entries() {
        let read = line.and_then(|line| {
            read(loader, line).map_err(|mut error| {
                if let Some(span) = &mut error.span {
                    span.reach(line.end);
                }
                error
            })
        });
        if let Err(error) = read {
            match first {
                None => first = Some(error),
                Some(_) => loader.errors.push(error),
            }
        }
    }
    first.map_or(Ok(()), Err)
}

/// Defines a variable whose value is looked up; a volatile one at each use, others once for a session.
fn define_looked_up<P: Proto>(
    loader: &mut Loader<'_>,
    name: &Word,
    module: &'static str,
    text: &'static str,
    volatile: bool,
    table: Rc<dyn Variable<P>>,
) -> Result<()> {
    let flags = if volatile { Flags::CHANGEABLE | Flags::NOCACHEABLE } else { Flags::CHANGEABLE };
    let definition = Definition { getter: Getter::Object(table), setter: None, module, text };
    vars::define::<P>(loader, name, flags, definition)
}
