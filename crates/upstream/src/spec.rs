//! An upstream as the configuration describes it.

use std::rc::Rc;

use buf::parse;
use conf::{Directive, Error, Result, Word};
use engine::cycle::zones::SharedZone;
use os::SockAddr;

use crate::keepalive::Keepalive;
use crate::queue::QueueSpec;
use crate::resolver::Resolver;
use crate::sticky::Sticky;
use crate::url::{Url, UrlError};

/// One `server` of an upstream.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// As written.
    pub name: Rc<str>,
    /// Its addresses, as far as they are known from the start.
    pub addrs: Vec<SockAddr>,
    /// The name whose addresses are looked up while the server runs.
    pub lookup: Option<Lookup>,
    /// `weight=`; by default 1, or what a service record says.
    pub weight: Option<u32>,
    /// `max_fails=`
    pub max_fails: u32,
    /// `fail_timeout=`, in seconds.
    pub fail_timeout: u64,
    /// `max_conns=`
    pub max_conns: u32,
    /// `backup`
    pub backup: bool,
    /// `down`
    pub down: bool,
    /// `drain`
    pub drain: bool,
    /// `route=`
    pub route: Option<Rc<str>>,
    /// `slow_start=`, in milliseconds.
    pub slow_start_ms: u64,
}

/// A name that is looked up while the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The name of the host, or of the service with the host's behind it.
    pub name: Rc<[u8]>,
    /// Whether service records (SRV) are asked for, which say ports and weights.
    pub is_service: bool,
    /// The port of addresses without a service.
    pub port: u16,
    /// The configuration doesn't ask for it, but the name had no address at the start.
    pub late: bool,
}

/// The longest `route=`.
const LONGEST_ROUTE: usize = 32;

impl ServerSpec {
    /// A server with default parameters.
    pub fn new(name: &str, addrs: Vec<SockAddr>) -> ServerSpec {
        ServerSpec {
            name: name.into(),
            addrs,
            lookup: None,
            weight: None,
            max_fails: 1,
            fail_timeout: 10,
            max_conns: 0,
            backup: false,
            down: false,
            drain: false,
            route: None,
            slow_start_ms: 0,
        }
    }

    /// The same for a name that has no address yet.
    pub fn late(name: &str, url: &Url, port: u16) -> ServerSpec {
        let lookup = Lookup { name: url.host.as_slice().into(), is_service: false, port, late: true };
        ServerSpec { lookup: Some(lookup), ..ServerSpec::new(name, Vec::new()) }
    }

    /// Reads `server address [parameter …]`; without a default, the address has to have a port.
    pub fn parse(d: &Directive, default_port: Option<u16>) -> Result<ServerSpec> {
        let word = d.arg(0);
        let mut server = ServerSpec::new(&word.lossy(), Vec::new());
        let (mut resolve, mut service) = (false, None);
        for parameter in d.args.get(1..).unwrap_or_default() {
            match parameter.text.as_slice() {
                b"resolve" => resolve = true,
                text => match text.strip_prefix(b"service=") {
                    Some(b"") => return Err(Error::at(parameter, "service is empty")),
                    Some(name) => service = Some(name),
                    None => server.set(parameter)?,
                },
            }
        }
        server.locate(word, default_port, resolve, service)?;
        Ok(server)
    }

    /// Reads a parameter.
    fn set(&mut self, parameter: &Word) -> Result<()> {
        let invalid = || Error::at(parameter, format!("invalid parameter \"{}\"", parameter.lossy()));
        let (name, value) = match parameter.text.iter().position(|b| *b == b'=') {
            Some(at) => parameter.text.split_at(at + 1),
            None => (&parameter.text[..], &b""[..]),
        };
        let number = || parse::parse_number(value).and_then(|n| u32::try_from(n).ok()).ok_or_else(invalid);
        match name {
            b"weight=" => self.weight = Some(Some(number()?).filter(|n| *n > 0).ok_or_else(invalid)?),
            b"max_conns=" => self.max_conns = number()?,
            b"max_fails=" => self.max_fails = number()?,
            b"fail_timeout=" => self.fail_timeout = parse::parse_sec(value).ok_or_else(invalid)?,
            b"slow_start=" => self.slow_start_ms = parse::parse_msec(value).ok_or_else(invalid)?,
            b"route=" if value.is_empty() => return Err(Error::at(parameter, "route is empty")),
            b"route=" if value.len() > LONGEST_ROUTE => {
                return Err(Error::at(parameter, format!("route is longer than {LONGEST_ROUTE}")));
            }
            b"route=" => self.route = Some(String::from_utf8_lossy(value).into()),
            b"backup" => self.backup = true,
            b"down" => self.down = true,
            b"drain" => self.drain = true,
            _ => return Err(invalid()),
        }
        Ok(())
    }

    /// Finds its addresses, or says what is to be looked up later.
    fn locate(&mut self, word: &Word, default_port: Option<u16>, resolve: bool, service: Option<&[u8]>) -> Result<()> {
        let named = |what: &dyn std::fmt::Display| Error::at(word, format!("{what} in upstream \"{}\"", word.lossy()));
        let of_service = |what: &str| Error::at(word, format!("service upstream \"{}\" {what}", word.lossy()));
        let url = Url::parse(&word.text, false).map_err(|error| named(&error))?;
        if let Some(service) = service {
            if !resolve {
                return Err(of_service("requires \"resolve\" parameter"));
            }
            if url.port.is_some() {
                return Err(of_service("may not have port"));
            }
            if url.literal().is_some() {
                return Err(of_service("requires domain name"));
            }
            let name = match service.contains(&b'.') {
                true => [service, &url.host].join(&b'.'),
                false => [b"_", service, b"._tcp.", &url.host].concat(),
            };
            self.lookup = Some(Lookup { name: name.into(), is_service: true, port: 0, late: false });
            return Ok(());
        }
        if url.port.or(default_port).is_none() && !url.is_unix() {
            return Err(named(&"no port"));
        }
        let port = url.port.or(default_port).unwrap_or(0);
        if resolve && url.literal().is_none() {
            let name = url.host.as_slice().into();
            self.lookup = Some(Lookup { name, is_service: false, port, late: false });
            return Ok(());
        }
        match url.resolve(default_port.unwrap_or(0)) {
            Ok(addrs) => self.addrs = addrs,
            Err(UrlError::NotFound) => self.lookup = ServerSpec::late("", &url, port).lookup,
            Err(error) => return Err(named(&error)),
        }
        Ok(())
    }

    /// Whether it is looked up only because it had no address at the start.
    pub fn is_late(&self) -> bool {
        self.lookup.as_ref().is_some_and(|lookup| lookup.late)
    }
}

/// An upstream, before it is built.
#[derive(Clone, Default)]
pub struct GroupSpec {
    /// Its name.
    pub name: Vec<u8>,
    /// Its servers in the order of the file.
    pub servers: Vec<ServerSpec>,
    /// The pool of idle connections.
    pub keepalive: Keepalive,
    /// Which balancer was chosen, for `load balancing method redefined`.
    pub method: Method,
    /// The zone in which workers share the servers' state.
    pub zone: Option<Rc<SharedZone>>,
    /// What binds sessions to peers.
    pub sticky: Option<Sticky>,
    /// Where requests wait if no peer can be chosen.
    pub queue: Option<QueueSpec>,
    /// Who is asked for the names of its servers.
    pub names: NamesSpec,
}

/// What a group says of the lookup of its servers' names.
#[derive(Clone, Default)]
pub struct NamesSpec {
    /// Its own resolver.
    pub resolver: Option<Rc<Resolver>>,
    /// For how long it may take, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// How a peer is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConn,
    /// The one that answers soonest.
    LeastTime(Time),
    /// By the client's address.
    IpHash,
    /// By a key; `consistent` keeps most keys where they are when servers change.
    Hash {
        /// Ketama points rather than a remainder.
        consistent: bool,
    },
    /// By chance.
    Random {
        /// By what two are compared.
        two: Option<Measure>,
    },
}

/// What makes one peer better than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Fewer connections for its weight.
    Connections,
    /// It answers sooner.
    Time(Time),
}

/// Which time is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Until when it runs.
    pub moment: Moment,
    /// Whether requests count that aren't over.
    pub inflight: bool,
}

/// A moment of an exchange with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The connection is made.
    Connected,
    /// The response has begun: in HTTP, its head is there.
    FirstByte,
    /// The response is complete.
    LastByte,
}

impl Method {
    /// The time that it has to know of each response.
    pub(crate) fn time(&self) -> Option<Time> {
        match self {
            Method::LeastTime(time) | Method::Random { two: Some(Measure::Time(time)) } => Some(*time),
            _ => None,
        }
    }
}

impl GroupSpec {
    /// Whether backups, and weights that grow back, make sense under its balancer.
    pub fn allows_backup(&self) -> bool {
        !matches!(self.method, Method::IpHash | Method::Hash { .. } | Method::Random { .. })
    }
}
