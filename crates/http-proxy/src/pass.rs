//! Where requests go: `…_pass` of all protocols, and the groups that it names.

use std::collections::HashMap;
use std::rc::Rc;

use ::upstream::names;
use ::upstream::{Group, GroupSpec, Keepalive, Resolver, ServerSpec, Url, UrlError};
use common::backend::groups::without_address;
use conf::{Directive, Error, Loader, Result, Span};
use expr::vars::Template;
use http::HttpProto;
use http::app::build::OuterLocation;
use http::config::blocks::{self, CurrentKind};
use http::config::core::CoreLocation;
use http::exchange::Target;
use http::fault::Fault;
use http::module::LocationContext;
use http::request::Request;
use http::request::variables::template_of;

use crate::protocol::Scheme;
use crate::upstream::Specs;

/// What a `…_pass` directive says.
pub struct Pass {
    /// The directive.
    pub directive: Directive,
    /// The address.
    pub target: PassTarget,
    /// The prefix that the address's URI replaces; empty where the location isn't found by its path.
    pub prefix: Box<[u8]>,
    schemes: &'static [Scheme],
    with_uri: bool,
}

/// The address in a `…_pass` directive.
pub enum PassTarget {
    /// One without variables.
    Fixed {
        /// The address.
        url: Url,
        /// As it is written, with its scheme.
        text: Vec<u8>,
        /// How it is reached.
        scheme: &'static Scheme,
    },
    /// Each request has its own.
    Variable(Rc<Template>),
}

impl Pass {
    /// Reads a directive whose address begins with one of `schemes`. A URI may follow the address if `with_uri`.
    pub fn parse(
        loader: &mut Loader<'_>,
        d: &Directive,
        schemes: &'static [Scheme],
        with_uri: bool,
    ) -> Result<Rc<Pass>> {
        let word = d.arg(0);
        let (name, kind) = blocks::current_location(loader);
        let replaces = kind == CurrentKind::Path;
        let target = if word.text.contains(&b'$') {
            PassTarget::Variable(template_of(loader, d, &word.text)?)
        } else {
            let (scheme, rest) = Scheme::split(schemes, &word.text).ok_or_else(|| no_scheme(word, schemes))?;
            let url = Url::parse(rest, with_uri).map_err(|error| {
                Error::at(word, format!("{error} in upstream \"{}\"", String::from_utf8_lossy(rest)))
            })?;
            if !replaces && !url.uri.is_empty() {
                return Err(Error::at(word, uri_part(&d.name.lossy())));
            }
            PassTarget::Fixed { url, text: word.text.clone(), scheme }
        };
        let prefix = if replaces { name } else { Box::default() };
        Ok(Rc::new(Pass { directive: d.clone(), target, prefix, schemes, with_uri }))
    }

    /// A directive without its address, which stands for one with variables.
    pub(crate) fn by_variables(
        loader: &mut Loader<'_>,
        d: &Directive,
        address: &[u8],
        schemes: &'static [Scheme],
    ) -> Result<Rc<Pass>> {
        let target = PassTarget::Variable(template_of(loader, d, address)?);
        Ok(Rc::new(Pass { directive: d.clone(), target, prefix: Box::default(), schemes, with_uri: false }))
    }

    /// Where the requests go, once all groups are known.
    pub fn destination(&self, loader: &mut Loader<'_>) -> Result<Destination> {
        Ok(match &self.target {
            PassTarget::Variable(template) => {
                let (template, groups) = (template.clone(), groups(loader));
                Destination::Variable { template, groups, schemes: self.schemes, with_uri: self.with_uri }
            }
            PassTarget::Fixed { url, scheme, .. } => {
                let group = group_of(loader, &self.directive, url, scheme.default_port)?;
                Destination::Fixed(Rc::new(group.target(url, scheme)))
            }
        })
    }

    /// The directive with which a location passes its requests on, and how many blocks around the location it stands. None
    /// if it has none, or that of another module counts.
    pub fn of_location<'a, C: conf::Conf>(
        cx: &mut LocationContext<'a, '_>,
        pass: impl Fn(&'a C) -> &'a Option<Rc<Pass>>,
    ) -> Option<(Rc<Pass>, usize)> {
        let mut owners = cx.of_owners::<C>().enumerate();
        let (pass, depth) = owners.find_map(|(depth, conf)| Some((pass(conf).clone()?, depth)))?;
        pass.counts(cx, depth).then_some((pass, depth))
    }

    /// Whether this directive is the one that counts in a location: of two in one block the later, of an inner and an outer
    /// block's the inner one's. `depth` tells how many blocks around the location it stands.
    fn counts(&self, cx: &mut LocationContext<'_, '_>, depth: usize) -> bool {
        let id = cx.id.0;
        let claim = (std::cmp::Reverse(depth), self.directive.span());
        let claims = &mut cx.loader.store.entry::<Claims>().0;
        let counts = claims.get(&id).is_none_or(|(known, place)| (claim.0, claim.1.start) >= (*known, place.start));
        if counts {
            claims.insert(id, claim);
        }
        counts
    }
}

/// The `…_pass` that counts, by location.
#[derive(Default)]
struct Claims(HashMap<u32, (std::cmp::Reverse<usize>, Span)>);

fn no_scheme(word: &conf::Word, schemes: &[Scheme]) -> Error {
    let text = word.lossy();
    let error = Error::at(word, "invalid URL prefix");
    if text.contains("://") {
        let known: Vec<_> = schemes.iter().map(|scheme| format!("\"{}\"", scheme.prefix)).collect();
        return error.hint(format!("it may begin with {}", known.join(" or ")));
    }
    let prefix = schemes.first().map_or("", |scheme| scheme.prefix);
    error.hint(format!("\"{prefix}\" is missing, write \"{prefix}{}\"", text.trim_start_matches('/')))
}

fn uri_part(directive: &str) -> String {
    format!(
        "\"{directive}\" cannot have URI part in location given by regular expression, or inside named location, or \
         inside \"if\" statement, or inside \"limit_except\" block"
    )
}

/// Where a location's requests go.
pub enum Destination {
    /// All to the same target.
    Fixed(Rc<Target>),
    /// Each where a template says.
    Variable {
        /// The address.
        template: Rc<Template>,
        /// The groups of the configuration.
        groups: Rc<std::cell::RefCell<Groups>>,
        /// What an address may begin with.
        schemes: &'static [Scheme],
        /// Whether a URI may follow it.
        with_uri: bool,
    },
}

impl Destination {
    /// Whether connections may be over TLS.
    pub(crate) fn may_be_over_ssl(&self) -> bool {
        match self {
            Destination::Fixed(target) => target.ssl,
            Destination::Variable { schemes, .. } => schemes.iter().any(|scheme| scheme.ssl),
        }
    }

    /// Where this request goes.
    pub(crate) fn aim(&self, r: &mut Request) -> std::result::Result<Aim, Fault> {
        let (template, groups, schemes, with_uri) = match self {
            Destination::Fixed(target) => return Ok(Aim::At(target.clone())),
            Destination::Variable { template, groups, schemes, with_uri } => (template, groups, *schemes, *with_uri),
        };
        let text = r.render(template);
        let Some((scheme, rest)) = Scheme::split(schemes, &text) else {
            return Err(Fault::InvalidPrefix.log_with(r, &buf::text::encode(&text)));
        };
        let invalid = |r: &Request, why: &dyn std::fmt::Display| {
            Fault::InvalidUrl.log_with(r, &format_args!("{why} in upstream \"{}\"", buf::text::encode(rest)))
        };
        let url = Url::parse(rest, with_uri).map_err(|error| invalid(r, &error))?;
        if let Some(group) = groups.borrow().at_run_time(&url, scheme.default_port) {
            return Ok(Aim::At(Rc::new(group.target(&url, scheme))));
        }
        if needs_port(&url, scheme.default_port) {
            return Err(invalid(r, &"no port"));
        }
        Ok(Aim::Name(Box::new(Named { url, scheme })))
    }
}

fn needs_port(url: &Url, default_port: Option<u16>) -> bool {
    url.port.is_none() && default_port.is_none() && !url.is_unix()
}

/// The groups of a configuration: `upstream` blocks, and hosts that directives name.
#[derive(Default)]
pub struct Groups {
    blocks: HashMap<Vec<u8>, Found>,
    hosts: HashMap<(Vec<u8>, u16), Found>,
    /// What `http {}` says of the lookup of names.
    names: Option<Rc<CoreLocation>>,
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
    let names = loader.store.entry::<OuterLocation>().0.clone();
    let mut groups = Groups { names, ..Groups::default() };
    for (name, group, key) in loader.store.entry::<Specs>().build() {
        groups.blocks.insert(name, Found { group, key });
    }
    let groups = Rc::new(std::cell::RefCell::new(groups));
    loader.store.entry::<SharedGroups>().0 = Some(groups.clone());
    groups
}

/// The group of a URL of the configuration: an upstream block of that name, or the host itself.
pub(crate) fn group_of(loader: &mut Loader<'_>, d: &Directive, url: &Url, default_port: Option<u16>) -> Result<Found> {
    let groups = groups(loader);
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
            without_address::<HttpProto>(loader, d, message)?;
            ServerSpec::late(&authority, url, port)
        }
    };
    let found = Found { group: implicit(url, server), key: None };
    let host = (url.host.to_ascii_lowercase(), url.port.or(default_port).unwrap_or(0));
    groups.borrow_mut().hosts.insert(host, found.clone());
    Ok(found)
}

/// A host without an upstream block. No idle connections to it are kept: it may serve one connection at a time.
fn implicit(url: &Url, server: ServerSpec) -> Rc<Group> {
    let keepalive = Keepalive { connections: 0, ..Keepalive::default() };
    Group::new(&GroupSpec { name: url.host.clone(), servers: vec![server], keepalive, ..GroupSpec::default() })
}

impl Groups {
    /// Begins what a worker does for groups as long as it lives.
    pub(crate) fn start(&self) {
        let Some(core) = &self.names else { return };
        let resolver = core.resolver.clone().unwrap_or_else(Resolver::system);
        for found in self.blocks.values().chain(self.hosts.values()) {
            names::start(&found.group, &resolver, core.resolver_timeout);
        }
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
    pub(crate) fn at_run_time(&self, url: &Url, default_port: Option<u16>) -> Option<Found> {
        if let Some(group) = self.find(url, default_port) {
            return Some(group);
        }
        if needs_port(url, default_port) {
            return None;
        }
        let mut addr = url.literal()?;
        addr.set_port(url.port.or(default_port).unwrap_or(0));
        Some(Found::for_one_request(url, vec![addr]))
    }
}

impl Found {
    /// The target of a URL whose group this is.
    pub fn target(self, url: &Url, scheme: &Scheme) -> Target {
        let port = scheme.default_port.unwrap_or(0);
        Target::new(url, scheme.label, port, self.group, self.key).over_ssl(scheme.ssl)
    }

    /// The addresses of a URL that a variable gave.
    fn for_one_request(url: &Url, addrs: Vec<os::SockAddr>) -> Found {
        let server = ServerSpec::new(&String::from_utf8_lossy(&url.authority), addrs);
        Found { group: implicit(url, server), key: None }
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
    /// How it is reached.
    pub scheme: &'static Scheme,
}

impl Named {
    /// What `resolver` says of the host.
    pub(crate) async fn look_up(self, r: &Request) -> std::result::Result<Rc<Target>, Fault> {
        let Named { url, scheme } = self;
        let (core, host) = (&r.location.core, buf::text::encode(&url.host));
        let Some(resolver) = &core.resolver else { return Err(Fault::NoResolver.log_with(r, &host)) };
        let found = resolver.resolve(&url.host, core.resolver_timeout).await;
        let found = found
            .map_err(|error| Fault::UnknownHost.log_with(r, &format_args!("{host} could not be resolved ({error})")))?;
        let port = url.port.or(scheme.default_port).unwrap_or(0);
        let addrs = found.into_iter().map(|ip| std::net::SocketAddr::new(ip, port).into()).collect();
        let group = Found::for_one_request(&url, addrs);
        Ok(Rc::new(group.target(&url, scheme)))
    }
}
