//! `listen` and `server_name` as they are read; and the blocks of protocols whose servers have no locations.

use conf::{Directive, Error, Frame, Level, Loader, Registry, Result, Set, Sets, Span};

use super::listen::{self, Claims, Parameters};
use super::{Front, ListenSpec, ServerName, names};

/// What a protocol gathers while its block is read.
pub trait Gather<P: Front>: Default + 'static {
    /// The server that is being read, and what servers have said of addresses.
    fn server(&mut self) -> Open<'_, P::Listen>;
}

/// A server that is being read.
pub struct Open<'a, X> {
    /// Its addresses.
    pub listens: &'a mut Vec<ListenSpec<X>>,
    /// Its names.
    pub names: &'a mut Vec<ServerName>,
    /// What servers have said of addresses.
    pub claims: &'a mut Claims,
}

/// `listen …`.
pub fn listen<P: Front, G: Gather<P>>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    for spec in listen::parse::<P>(loader, d)? {
        loader.places.note(engine::cycle::listening::ADDRESS, &spec.addr, d.span());
        // Out of the store meanwhile: messages need the loader.
        let mut gathered = std::mem::take(loader.store.entry::<G>());
        let Open { listens, claims, .. } = gathered.server();
        let added = claims.add(&spec, listens, loader, d).map(|()| listens.push(spec));
        loader.store.put(gathered);
        added?;
    }
    Ok(())
}

/// `server_name …`.
pub fn server_name<P: Front, G: Gather<P>>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    for word in &d.args {
        let name = names::parse::<P>(loader, word)?;
        loader.store.entry::<G>().server().names.push(name);
    }
    Ok(())
}

/// Everything of a protocol's block, before inheritance.
pub struct Builder<P: Front> {
    /// The levels of the block, if there is one.
    frame: Option<Frame>,
    /// The servers in the order of the file.
    pub servers: Vec<ServerNode<P::Listen>>,
    claims: Claims,
}

// Not derived: that would ask for it of the protocol.
impl<P: Front> Default for Builder<P> {
    fn default() -> Builder<P> {
        Builder { frame: None, servers: Vec::new(), claims: Claims::default() }
    }
}

/// A server, before inheritance.
pub struct ServerNode<X> {
    /// Its levels.
    frame: Frame,
    /// Its addresses.
    pub listens: Vec<ListenSpec<X>>,
    /// Its names.
    pub names: Vec<ServerName>,
    /// Where it stands.
    pub place: Span,
}

impl<X> ServerNode<X> {
    /// `$server_name`
    pub fn name(&self) -> Box<[u8]> {
        ServerName::shown(&self.names)
    }
}

impl<P: Front> Gather<P> for Builder<P> {
    fn server(&mut self) -> Open<'_, P::Listen> {
        let node = self.servers.last_mut().expect("the directive stands in a server");
        Open { listens: &mut node.listens, names: &mut node.names, claims: &mut self.claims }
    }
}

/// The protocol's block. `begin` runs before what is in it is read.
pub fn block<P: Front>(loader: &mut Loader<'_>, d: &Directive, begin: impl FnOnce(&mut Loader<'_>)) -> Result<()> {
    let frame = Frame::default();
    let builder = loader.store.entry::<Builder<P>>();
    if builder.frame.replace(frame.clone()).is_some() {
        return Err(Error::on(d, format!("\"{}\" directive is duplicate", d.name.lossy())));
    }
    begin(loader);
    loader.block(d.block.as_deref().unwrap_or_default(), P::PLACES.block, frame);
    Ok(())
}

/// `server { … }`.
pub fn server<P: Front>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let frame = loader.frame().nested(Level::Server);
    let node = ServerNode { frame: frame.clone(), listens: Vec::new(), names: Vec::new(), place: d.name.span };
    loader.store.entry::<Builder<P>>().servers.push(node);
    loader.block(d.block.as_deref().unwrap_or_default(), P::PLACES.server, frame);
    Ok(())
}

/// What comes of inheritance.
pub struct Resolved {
    /// What the block itself says of servers.
    pub outer: Set,
    /// What each server has.
    pub servers: Vec<Set>,
}

impl<P: Front> Builder<P> {
    /// The block that was read, if there is one.
    pub fn take(loader: &mut Loader<'_>) -> Option<Builder<P>> {
        loader.store.take::<Builder<P>>().filter(|builder| builder.frame.is_some())
    }

    /// Inheritance over all servers.
    pub fn resolve(&self, loader: &mut Loader<'_>) -> Result<Resolved> {
        let resolve = |frame: &Frame, level: Level, outer: Option<&Set>, loader: &mut Loader<'_>| {
            let raw = &mut frame.levels[level as usize].borrow_mut();
            Sets::resolve(P::PLACES.block, level, raw, outer, loader)
        };
        let frame = self.frame.clone().unwrap_or_default();
        resolve(&frame, Level::Main, None, loader)?;
        let outer = resolve(&frame, Level::Server, None, loader)?;
        let mut servers = Vec::with_capacity(self.servers.len());
        for node in &self.servers {
            servers.push(resolve(&node.frame, Level::Server, Some(&outer), loader)?);
        }
        Ok(Resolved { outer, servers })
    }

    /// Where the directive of that name stands that a server has, of its own or from the block around it.
    pub fn server_place(&self, node: &ServerNode<P::Listen>, registry: &Registry, name: &str) -> Option<Span> {
        let place = |frame: &Frame| frame.levels[Level::Server as usize].borrow().places(registry, name).last();
        place(&node.frame).or_else(|| self.frame.as_ref().and_then(place))
    }
}

/// A protocol's `listen` without parameters of its own.
#[derive(Clone, Debug, Default)]
pub struct NoParameters;

impl Parameters for NoParameters {
    fn parameter(&mut self, _: &mut Loader<'_>, _: &Directive, _: &conf::Word) -> Result<bool> {
        Ok(false)
    }

    fn join(&mut self, _: &NoParameters) {}
}
