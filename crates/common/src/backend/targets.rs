//! The groups of servers of a configuration: `upstream` blocks, and hosts that `…_pass` names.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::rc::Rc;

use conf::{Directive, Error, Loader, Result};
use expr::vars::Template;
use os::SockAddr;
use upstream::resolver::ResolveError;
use upstream::{Group, GroupSpec, Keepalive, Resolver, ServerSpec, Url, UrlError, names};

use super::groups::{Specs, without_address};
use crate::Proto;
use crate::ocsp::Names;

/// The groups of a configuration.
#[derive(Default)]
pub struct Groups {
    blocks: HashMap<Vec<u8>, Found>,
    hosts: HashMap<(Vec<u8>, u16), Found>,
    /// What the protocol's block says of the lookup of names.
    names: Option<Names>,
}

/// A group, with the key of its balancer.
#[derive(Clone)]
pub struct Found {
    /// The group.
    pub group: Rc<Group>,
    /// The key, if its balancer wants one.
    pub key: Option<Rc<Template>>,
}

/// The groups while the configuration is read; shared with handlers, which look hosts up by variable.
struct SharedGroups<P> {
    groups: Option<Rc<RefCell<Groups>>>,
    of: PhantomData<fn() -> P>,
}

// Not derived: that would ask for it of the protocol.
impl<P> Default for SharedGroups<P> {
    fn default() -> SharedGroups<P> {
        SharedGroups { groups: None, of: PhantomData }
    }
}

/// The groups of the configuration that is being built.
pub fn groups<P: Proto>(loader: &mut Loader<'_>) -> Rc<RefCell<Groups>> {
    if let Some(groups) = &loader.store.entry::<SharedGroups<P>>().groups {
        return groups.clone();
    }
    let mut groups = Groups::default();
    for (name, group, key) in loader.store.entry::<Specs<P>>().build() {
        groups.blocks.insert(name, Found { group, key });
    }
    let groups = Rc::new(RefCell::new(groups));
    loader.store.entry::<SharedGroups<P>>().groups = Some(groups.clone());
    groups
}

/// The group of a URL of the configuration: an upstream block of that name, or the host itself.
pub fn group_of<P: Proto>(
    loader: &mut Loader<'_>,
    d: &Directive,
    url: &Url,
    default_port: Option<u16>,
) -> Result<Found> {
    let groups = groups::<P>(loader);
    if let Some(group) = groups.borrow().find(url, default_port) {
        if url.port.is_some() && groups.borrow().blocks.contains_key(&url.host.to_ascii_lowercase()) {
            let shown = String::from_utf8_lossy(&url.host).into_owned();
            return Err(Error::on(d, format!("upstream \"{shown}\" may not have port {}", url.port.unwrap_or(0))));
        }
        return Ok(group);
    }
    if needs_port(url, default_port) {
        return Err(Error::at(d.arg(0), format!("no port in upstream \"{}\"", buf::text::encode(&url.authority))));
    }
    let port = url.port.or(default_port).unwrap_or(0);
    let authority = String::from_utf8_lossy(&url.authority);
    let server = match url.resolve(port) {
        Ok(addrs) => ServerSpec::new(&authority, addrs),
        Err(error) => {
            // As nginx tells it, without the port.
            let host = buf::text::encode(&url.host);
            let message = Error::at(d.arg(0), format!("{error} in upstream \"{host}\""));
            if error != UrlError::NotFound {
                return Err(message);
            }
            without_address::<P>(loader, d, message)?;
            ServerSpec::late(&authority, url, port)
        }
    };
    let found = Found { group: implicit(url, server), key: None };
    let host = (url.host.to_ascii_lowercase(), url.port.or(default_port).unwrap_or(0));
    groups.borrow_mut().hosts.insert(host, found.clone());
    Ok(found)
}

/// Whether a URL is lacking a port.
pub fn needs_port(url: &Url, default_port: Option<u16>) -> bool {
    url.port.is_none() && default_port.is_none() && !url.is_unix()
}

/// A host without an upstream block. No idle connections to it are kept: it may serve one connection at a time.
fn implicit(url: &Url, server: ServerSpec) -> Rc<Group> {
    let keepalive = Keepalive { connections: 0, ..Keepalive::default() };
    Group::new(&GroupSpec { name: url.host.clone(), servers: vec![server], keepalive, ..GroupSpec::default() })
}

impl Groups {
    /// Sets who is asked for names of servers.
    pub fn set_names(&mut self, names: Names) {
        self.names = Some(names);
    }

    /// Begins what a worker does for groups as long as it lives.
    pub fn start(&self) {
        let Some(Names { resolver, timeout_ms }) = &self.names else { return };
        let resolver = resolver.clone().unwrap_or_else(Resolver::system);
        for found in self.blocks.values().chain(self.hosts.values()) {
            names::start(&found.group, &resolver, *timeout_ms);
        }
    }

    /// Gives the work for groups to other workers: this one is about to end.
    pub fn resign(&self) {
        self.blocks.values().chain(self.hosts.values()).for_each(|found| found.group.resign());
    }

    /// The group of this name.
    pub fn named(&self, name: &str) -> Option<Rc<Group>> {
        let mut all = self.blocks.values().chain(self.hosts.values());
        all.find(|found| *found.group.name == *name).map(|found| found.group.clone())
    }

    /// The group that the configuration has for a URL.
    pub fn find(&self, url: &Url, default_port: Option<u16>) -> Option<Found> {
        let host = url.host.to_ascii_lowercase();
        if let Some(group) = self.blocks.get(&host) {
            return Some(group.clone());
        }
        self.hosts.get(&(host, url.port.or(default_port).unwrap_or(0))).cloned()
    }

    /// The group of a URL that a variable gave: one of the configuration, or the address itself; `None` for a name
    /// that has to be looked up.
    pub fn at_run_time(&self, url: &Url, default_port: Option<u16>) -> Option<Found> {
        if let Some(group) = self.find(url, default_port) {
            return Some(group);
        }
        if needs_port(url, default_port) {
            return None;
        }
        let mut addr = url.literal()?;
        addr.set_port(url.port.or(default_port).unwrap_or(0));
        Some(Found::for_one_session(url, vec![addr]))
    }

    /// The group of this name, for a session with `peer` at this address that another process has begun; one of its own if
    /// this configuration has none.
    pub fn resume(&self, name: &str, peer: &str, addr: Option<SockAddr>) -> Rc<Group> {
        self.named(name).unwrap_or_else(|| {
            let servers = addr.map(|addr| ServerSpec::new(peer, vec![addr])).into_iter().collect();
            Group::new(&GroupSpec { name: name.as_bytes().to_vec(), servers, ..GroupSpec::default() })
        })
    }
}

impl Found {
    /// The addresses of a URL that a variable gave.
    fn for_one_session(url: &Url, addrs: Vec<SockAddr>) -> Found {
        let server = ServerSpec::new(&String::from_utf8_lossy(&url.authority), addrs);
        Found { group: implicit(url, server), key: None }
    }

    /// The addresses of a host that a variable gave by its name.
    pub async fn look_up(
        url: &Url,
        default_port: Option<u16>,
        resolver: &Rc<Resolver>,
        timeout_ms: u64,
    ) -> std::result::Result<Found, ResolveError> {
        let found = resolver.resolve(&url.host, timeout_ms).await?;
        let port = url.port.or(default_port).unwrap_or(0);
        let addrs = found.into_iter().map(|ip| SocketAddr::new(ip, port).into()).collect();
        Ok(Found::for_one_session(url, addrs))
    }
}
