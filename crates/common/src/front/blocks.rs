//! A protocol's block, its servers, and `listen` and `server_name` as they are read.

use std::rc::Rc;

use conf::{Directive, Error, Frame, Level, Loader, Registry, Result, Set, Sets, Span};

use super::addresses::{self, Listener};
use super::listen::{self, Claims, Parameters};
use super::ssl::{self, ServerTls};
use super::{Front, ListenSpec, ServerName, Socket, names};
use crate::ocsp::Names;

/// `listen …`.
pub fn listen<P: Front>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    for spec in listen::parse::<P>(loader, d)? {
        loader.places.note(engine::cycle::listening::ADDRESS, &spec.addr, d.span());
        // Out of the store meanwhile: messages need the loader.
        let mut builder = std::mem::take(loader.store.entry::<Builder<P>>());
        let added = builder.listen(spec, loader, d);
        loader.store.put(builder);
        added?;
    }
    Ok(())
}

/// `server_name …`.
pub fn server_name<P: Front>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    for word in &d.args {
        let name = names::parse::<P>(loader, word)?;
        let builder = loader.store.entry::<Builder<P>>();
        builder.servers.last_mut().expect(IN_SERVER).names.push(name);
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
    server_of::<P>(loader, d, |_, _| {})
}

/// The same; `begin` gets the server's levels before what is in it is read.
pub fn server_of<P: Front>(
    loader: &mut Loader<'_>,
    d: &Directive,
    begin: impl FnOnce(&mut Loader<'_>, &Frame),
) -> Result<()> {
    let frame = loader.frame().nested(Level::Server);
    let node = ServerNode { frame: frame.clone(), listens: Vec::new(), names: Vec::new(), place: d.name.span };
    loader.store.entry::<Builder<P>>().servers.push(node);
    begin(loader, &frame);
    loader.block(d.block.as_deref().unwrap_or_default(), P::PLACES.server, frame);
    Ok(())
}

/// What comes of inheritance.
pub struct Resolved {
    /// What the block says of the protocol as a whole.
    pub main: Set,
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
        let main = self.resolve_outer(Level::Main, loader)?;
        let outer = self.resolve_outer(Level::Server, loader)?;
        let mut servers = Vec::with_capacity(self.servers.len());
        for node in &self.servers {
            servers.push(resolve::<P>(&node.frame, Level::Server, Some(&outer), loader)?);
        }
        Ok(Resolved { main, outer, servers })
    }

    /// What the block itself says on a level.
    pub fn resolve_outer(&self, level: Level, loader: &mut Loader<'_>) -> Result<Set> {
        resolve::<P>(&self.frame.clone().unwrap_or_default(), level, None, loader)
    }

    /// The sockets that the servers listen on, each with its servers. `servers` are made of the nodes, in their order.
    pub fn sockets(&self, servers: &[Rc<P::Server>], loader: &mut Loader<'_>) -> Result<Vec<Socket<P>>> {
        let listeners = self.servers.iter().zip(servers).map(|(node, server)| Listener {
            server,
            listens: &node.listens,
            names: &node.names,
            place: node.place,
        });
        addresses::sockets::<P>(listeners, loader)
    }

    /// What accepts a server's TLS connections, if it has a certificate: see [`ssl::Servers::of`].
    pub fn tls(
        &self,
        node: &ServerNode<P::Listen>,
        (set, names): (&Set, &Names),
        alpn: &[&[u8]],
        made: &mut ssl::Servers,
        loader: &mut Loader<'_>,
    ) -> Result<Option<Rc<ServerTls>>> {
        let registry = loader.registry();
        let at = |name: &str| self.server_place(node, registry, name);
        let tls = made.of::<P>(set, names, alpn, &at, loader);
        tls.map_err(|error| error.or_at(Some(node.place)))
    }

    /// Where the directive of that name stands that a server has, of its own or from the block around it.
    pub fn server_place(&self, node: &ServerNode<P::Listen>, registry: &Registry, name: &str) -> Option<Span> {
        place(&node.frame, Level::Server, registry, name).or_else(|| self.outer_place(Level::Server, registry, name))
    }

    /// Where the directive of that name stands last in the block itself.
    pub fn outer_place(&self, level: Level, registry: &Registry, name: &str) -> Option<Span> {
        self.frame.as_ref().and_then(|frame| place(frame, level, registry, name))
    }

    fn listen(&mut self, spec: ListenSpec<P::Listen>, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
        let node = self.servers.last_mut().expect(IN_SERVER);
        self.claims.add(&spec, &node.listens, loader, d)?;
        node.listens.push(spec);
        Ok(())
    }
}

fn resolve<P: Front>(frame: &Frame, level: Level, outer: Option<&Set>, loader: &mut Loader<'_>) -> Result<Set> {
    Sets::resolve(P::PLACES.block, level, &mut frame.levels[level as usize].borrow_mut(), outer, loader)
}

fn place(frame: &Frame, level: Level, registry: &Registry, name: &str) -> Option<Span> {
    frame.levels[level as usize].borrow().places(registry, name).last()
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

/// Why there is a server.
const IN_SERVER: &str = "the directive stands in a server";
