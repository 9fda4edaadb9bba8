//! Where requests go: `…_pass`, and the groups that it names.

use std::collections::HashMap;
use std::rc::Rc;

use ::upstream::{Group, GroupSpec, Keepalive, ServerSpec, Url};
use conf::{Directive, Error, Loader, Result};
use expr::vars::Template;
use http::config::core::CoreLocation;
use http::exchange::Target;

use crate::upstream::Specs;

/// The default port of protocols over TLS.
const HTTPS_PORT: u16 = 443;

/// The groups of a configuration: `upstream` blocks, and hosts that directives name.
#[derive(Default)]
pub struct Groups {
    blocks: HashMap<Vec<u8>, Found>,
    hosts: HashMap<(Vec<u8>, u16), Found>,
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
#[derive(Default)]
pub struct SharedGroups(Option<Rc<std::cell::RefCell<Groups>>>);

/// The groups of the configuration that is being built.
pub fn groups(loader: &mut Loader<'_>) -> Rc<std::cell::RefCell<Groups>> {
    if let Some(groups) = &loader.store.entry::<SharedGroups>().0 {
        return groups.clone();
    }
    let mut groups = Groups::default();
    for (name, group, key) in loader.store.entry::<Specs>().build() {
        groups.blocks.insert(name, Found { group, key });
    }
    let groups = Rc::new(std::cell::RefCell::new(groups));
    loader.store.entry::<SharedGroups>().0 = Some(groups.clone());
    groups
}

/// The group of a URL of the configuration: an upstream block of that name, or the host itself.
pub fn group_of(loader: &mut Loader<'_>, d: &Directive, url: &Url, default_port: u16) -> Result<Found> {
    let groups = groups(loader);
    if let Some(group) = groups.borrow().find(url, default_port) {
        if url.port.is_some() && groups.borrow().blocks.contains_key(&url.host.to_ascii_lowercase()) {
            let shown = String::from_utf8_lossy(&url.host).into_owned();
            return Err(Error::on(d, format!("upstream \"{shown}\" may not have port {}", url.port.unwrap_or(0))));
        }
        return Ok(group);
    }
    let addrs = url.resolve(default_port).map_err(|error| {
        // As nginx tells it, without the port.
        let host = buf::text::encode(&url.host);
        Error::at(d.arg(0), format!("{error} in upstream \"{host}\""))
    })?;
    let found = Found { group: implicit(url, addrs), key: None };
    let host = (url.host.to_ascii_lowercase(), url.port.unwrap_or(default_port));
    groups.borrow_mut().hosts.insert(host, found.clone());
    Ok(found)
}

/// A host without an upstream block. No idle connections to it are kept: it may serve one connection at a time.
fn implicit(url: &Url, addrs: Vec<os::SockAddr>) -> Rc<Group> {
    let keepalive = Keepalive { connections: 0, ..Keepalive::default() };
    let server = ServerSpec::new(&String::from_utf8_lossy(&url.authority), addrs);
    Group::new(&GroupSpec { name: url.host.clone(), servers: vec![server], keepalive, ..GroupSpec::default() })
}

impl Groups {
    /// The group of this name.
    pub fn named(&self, name: &str) -> Option<Rc<Group>> {
        let mut all = self.blocks.values().chain(self.hosts.values());
        all.find(|found| *found.group.name == *name).map(|found| found.group.clone())
    }

    /// The group that the configuration has for a URL.
    pub fn find(&self, url: &Url, default_port: u16) -> Option<Found> {
        let host = url.host.to_ascii_lowercase();
        if let Some(group) = self.blocks.get(&host) {
            return Some(group.clone());
        }
        self.hosts.get(&(host, url.port.unwrap_or(default_port))).cloned()
    }

    /// The group of a URL that a variable gave: one of the configuration, or the address itself; `None` for a name
    /// that has to be looked up.
    pub fn at_run_time(&self, url: &Url, default_port: u16) -> Option<Found> {
        if let Some(group) = self.find(url, default_port) {
            return Some(group);
        }
        let mut addr = url.literal()?;
        addr.set_port(url.port.unwrap_or(default_port));
        Some(Found::for_one_request(url, vec![addr]))
    }
}

impl Found {
    /// The target of a URL whose group this is.
    pub fn target(self, url: &Url, scheme: &'static str, default_port: u16) -> Target {
        Target::new(url, scheme, default_port, self.group, self.key)
    }

    /// The addresses of a URL that a variable gave.
    fn for_one_request(url: &Url, addrs: Vec<os::SockAddr>) -> Found {
        Found { group: implicit(url, addrs), key: None }
    }
}

/// Where a request goes, as far as it is known without waiting.
pub enum Aim {
    /// There.
    At(Rc<Target>),
    /// To a host whose addresses have to be looked up.
    Name(Box<Named>),
}

/// A host that a variable gave by its name.
pub struct Named {
    /// The URL.
    pub url: Url,
    /// `http://` and the like, for log lines.
    pub scheme: &'static str,
    /// The port, if the URL has none.
    pub default_port: u16,
}

impl Named {
    /// What `resolver` says of the host; the error is a log line.
    pub async fn look_up(self, core: Rc<CoreLocation>) -> std::result::Result<Rc<Target>, String> {
        let Named { url, scheme, default_port } = self;
        let host = buf::text::encode(&url.host).into_owned();
        let Some(resolver) = &core.resolver else { return Err(format!("no resolver defined to resolve {host}")) };
        let found = resolver.resolve(&url.host, core.resolver_timeout).await;
        let found = found.map_err(|error| format!("{host} could not be resolved ({error})"))?;
        let port = url.port.unwrap_or(default_port);
        let addrs = found.into_iter().map(|ip| std::net::SocketAddr::new(ip, port).into()).collect();
        let group = Found::for_one_request(&url, addrs);
        Ok(Rc::new(group.target(&url, scheme, default_port).over_ssl(default_port == HTTPS_PORT)))
    }
}
