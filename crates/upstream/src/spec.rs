//! An upstream as the configuration describes it.

use std::rc::Rc;

use buf::parse;
use conf::{Directive, Error, Result};
use engine::cycle::zones::SharedZone;
use os::SockAddr;

use crate::keepalive::Keepalive;
use crate::url::Url;

/// One `server` of an upstream.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// As written.
    pub name: Rc<str>,
    /// Its addresses.
    pub addrs: Vec<SockAddr>,
    /// `weight=`
    pub weight: u32,
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
}

impl ServerSpec {
    /// A server with default parameters.
    pub fn new(name: &str, addrs: Vec<SockAddr>) -> ServerSpec {
        ServerSpec {
            name: name.into(),
            addrs,
            weight: 1,
            max_fails: 1,
            fail_timeout: 10,
            max_conns: 0,
            backup: false,
            down: false,
        }
    }

    /// Reads `server address [parameter …]`; without a default, the address has to have a port.
    pub fn parse(d: &Directive, default_port: Option<u16>) -> Result<ServerSpec> {
        let word = d.arg(0);
        let named = |what: &dyn std::fmt::Display| Error::at(word, format!("{what} in upstream \"{}\"", word.lossy()));
        let mut server = ServerSpec::new(&word.lossy(), Vec::new());
        for parameter in d.args.get(1..).unwrap_or_default() {
            let invalid = || Error::at(parameter, format!("invalid parameter \"{}\"", parameter.lossy()));
            let (name, value) = match parameter.text.iter().position(|b| *b == b'=') {
                Some(at) => parameter.text.split_at(at + 1),
                None => (&parameter.text[..], &b""[..]),
            };
            let number = || parse::parse_number(value).and_then(|n| u32::try_from(n).ok()).ok_or_else(invalid);
            match name {
                b"weight=" => server.weight = Some(number()?).filter(|n| *n > 0).ok_or_else(invalid)?,
                b"max_conns=" => server.max_conns = number()?,
                b"max_fails=" => server.max_fails = number()?,
                b"fail_timeout=" => server.fail_timeout = parse::parse_sec(value).ok_or_else(invalid)?,
                b"backup" => server.backup = true,
                b"down" => server.down = true,
                _ => return Err(invalid()),
            }
        }
        let url = Url::parse(&word.text, false).map_err(|error| named(&error))?;
        if url.port.or(default_port).is_none() && !url.is_unix() {
            return Err(named(&"no port"));
        }
        server.addrs = url.resolve(default_port.unwrap_or(0)).map_err(|error| named(&error))?;
        Ok(server)
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
}

/// How a peer is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConn,
    /// By the client's address.
    IpHash,
    /// By a key; `consistent` keeps most keys where they are when servers change.
    Hash {
        /// Ketama points rather than a remainder.
        consistent: bool,
    },
    /// By chance; of two, the one with fewer connections.
    Random {
        /// Whether two are compared.
        two: bool,
    },
}

impl GroupSpec {
    /// Whether backups make sense under its balancer.
    pub fn allows_backup(&self) -> bool {
        !matches!(self.method, Method::IpHash | Method::Hash { .. } | Method::Random { .. })
    }
}
