//! Where requests go: `…_pass` of all protocols, and the groups that it names.

use std::collections::HashMap;
use std::rc::Rc;

use ::upstream::Url;
use common::backend::targets::{Found, Groups, group_of, groups, needs_port};
use conf::{Directive, Error, Loader, Result, Span};
use expr::vars::Template;
use http::HttpProto;
use http::config::blocks::{self, CurrentKind};
use http::exchange::Target;
use http::fault::Fault;
use http::module::LocationContext;
use http::request::Request;
use http::request::variables::template_of;

use crate::protocol::Scheme;

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
                let (template, groups) = (template.clone(), groups::<HttpProto>(loader));
                Destination::Variable { template, groups, schemes: self.schemes, with_uri: self.with_uri }
            }
            PassTarget::Fixed { url, scheme, .. } => {
                let group = group_of::<HttpProto>(loader, &self.directive, url, scheme.default_port)?;
                Destination::Fixed(target(group, url, scheme))
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
            return Ok(Aim::At(target(group, &url, scheme)));
        }
        if needs_port(&url, scheme.default_port) {
            return Err(invalid(r, &"no port"));
        }
        Ok(Aim::Name(Box::new(Named { url, scheme })))
    }
}

/// The target of a URL that is served by this group.
pub(crate) fn target(found: Found, url: &Url, scheme: &Scheme) -> Rc<Target> {
    let port = scheme.default_port.unwrap_or(0);
    Rc::new(Target::new(url, scheme.label, port, found.group, found.key).over_ssl(scheme.ssl))
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
        let (core, host) = (&r.location.core.shared, buf::text::encode(&url.host));
        let Some(resolver) = &core.resolver else { return Err(Fault::NoResolver.log_with(r, &host)) };
        let found = Found::look_up(&url, scheme.default_port, resolver, core.resolver_timeout).await;
        let found = found
            .map_err(|error| Fault::UnknownHost.log_with(r, &format_args!("{host} could not be resolved ({error})")))?;
        Ok(target(found, &url, scheme))
    }
}
