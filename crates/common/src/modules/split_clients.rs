//! `split_clients`: variables whose values divide sessions into shares, by a hash of a text.
//!
//! The hash is nginx's (MurmurHash2), so a client is in the same share with both.

use std::rc::Rc;

use conf::{Args, Directive, Error, Level, Loader, Registry, Result};
use expr::lookup::Split;
use expr::vars::Template;

use super::{Module, define_looked_up, each_line};
use crate::Proto;
use crate::vars::text::put;
use crate::vars::{self, Variable};

/// The module.
pub struct SplitClients;

conf::table! {
    /// No values: each block defines a variable.
    pub struct SplitClientsConf of P: Proto, raw SplitClientsRaw,
        at P::tables().split_clients, block P::PLACES.block, level Level::Main;

    /// Defines a variable that divides requests into shares, as tests of variants (A/B) need it.
    ///
    /// Form: `split_clients text $name`
    ///
    /// - `text`: a text with variables. Its hash decides, so equal texts are in the same share.
    /// - `$name`: the variable that is defined.
    /// - `number% value`: a line of the block: a share with up to two decimals, and the value for it.
    /// - `* value`: the value for what the shares leave; without it that is empty.
    ///
    /// Effect: a share stays the same over reloads and on all servers, as long as it and the lines before it do.
    ///
    /// ```nginx
    /// split_clients "${remote_addr}shop" $variant {
    ///     0.5%  .one;
    ///     2.0%  .two;
    ///     *     "";
    /// }
    /// ```
    "split_clients" in P::PLACES.block, Args::exactly(2).block(), default none,
        block(split_clients::<P>);
}

impl<P: Proto> Module<P> for SplitClients {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<SplitClientsConf<P>>();
    }
}

fn split_clients<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let source = vars::template_of::<P>(loader, d, &d.arg(0).text)?;
    let mut split = Split::new();
    each_line(loader, d, |_, line| {
        if line.args.len() != 1 {
            return Err(Error::on(line, "invalid number of the split_clients parameters"));
        }
        let value = Box::from(&*line.arg(0).text);
        split.add(&line.name.lossy(), value).map_err(|error| Error::at(&line.name, error.to_string()))
    })?;
    let text = "The value of the share that `split_clients` counts the request in. Empty if there is none.";
    let module = P::tables().split_clients.module();
    define_looked_up::<P>(loader, d.arg(1), module, text, false, Rc::new(Table { source, split }))
}

struct Table {
    source: Rc<Template>,
    split: Split<Box<[u8]>>,
}

impl<P: Proto> Variable<P> for Table {
    fn value(&self, session: &mut P::Session, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        self.source.render(session, out);
        let found = self.split.lookup(&out[start..]);
        out.truncate(start);
        found.is_some_and(|value| put(out, value))
    }
}
