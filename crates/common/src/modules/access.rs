//! `allow` and `deny`: the first rule that speaks of a client's address counts.
//!
//! Rules are flattened into disjoint ranges, so that a long list costs one binary search. A client whose IPv4 address
//! is written as IPv6 (`::ffff:192.0.2.1`) is held to the rules for IPv4.

use std::rc::Rc;

use conf::values::invalid_parameter;
use conf::{Args, Directive, Error, Loader, Registry, Result, Set, Word};
use engine::log::Level as LogLevel;
use expr::lookup::{Network, Networks};
use os::SockAddr;

use super::{Check, Module, Phases, Verdict};
use crate::{Facts, Proto, Session};

/// The module.
pub struct Access;

conf::table! {
    /// Who may and who may not.
    pub struct AccessConf of P: Proto, raw AccessRaw,
        at P::tables().access, block P::PLACES.block, level P::PLACES.innermost;

    /// Allows access for an address or a network.
    ///
    /// Form: `allow address | network | unix: | all`
    ///
    /// - `address`, `network`: an IP address, or a network such as `192.0.2.0/24` or `2001:db8::/32`.
    /// - `unix:`: all clients over unix sockets.
    /// - `all`: all clients.
    ///
    /// Effect: rules of `allow` and `deny` are checked in their order; the first one that matches decides. If none
    /// matches, access is allowed. A level with any rule doesn't inherit those of the level around it. With `satisfy
    /// any` another check may suffice.
    ///
    /// Danger: behind a proxy rules look at the proxy's address, unless `set_real_ip_from` trusts it to name the client.
    /// End a list with `deny all`.
    ///
    /// ```nginx http
    /// location /admin/ {
    ///     allow 192.0.2.0/24;
    ///     allow 2001:db8::/32;
    ///     deny all;
    /// }
    /// ```
    ///
    /// ```nginx stream
    /// allow 192.0.2.0/24;
    /// allow 2001:db8::/32;
    /// deny all;
    /// ```
    "allow" in P::PLACES.access, Args::exactly(1), default none,
        list(parse) rules: Rule;
    /// Denies access to an address or a network.
    ///
    /// Form: `deny address | network | unix: | all`
    ///
    /// - `address`, `network`: an IP address, or a network such as `192.0.2.0/24` or `2001:db8::/32`.
    /// - `unix:`: all clients over unix sockets.
    /// - `all`: all clients.
    ///
    /// Effect: the client gets 403, and the error log says "access forbidden by rule". For the order of rules and
    /// inheritance see `allow`.
    ///
    /// ```nginx
    /// deny 192.0.2.1;
    /// allow 192.0.2.0/24;
    /// deny all;
    /// ```
    "deny" in P::PLACES.access, Args::exactly(1), default none,
        also(deny);
    derived {
        /// The rules, ready to be asked.
        compiled: Option<Rc<Rules>> = None;
    }
    finish(finish)
}

fn deny(raw: &mut AccessRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let rule = parse(loader, d)?;
    raw.rules.get_or_insert_with(Vec::new).push(rule);
    Ok(())
}

fn finish<P: Proto>(conf: &mut AccessConf<P>, parent: Option<&AccessConf<P>>, _: &mut Loader<'_>) -> Result<()> {
    let inherited = parent.is_some_and(|parent| Rc::ptr_eq(&parent.rules, &conf.rules));
    if !inherited && !conf.rules.is_empty() {
        conf.compiled = Some(Rc::new(Rules::new(&conf.rules)));
    }
    Ok(())
}

impl<P: Proto> Module<P> for Access {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<AccessConf<P>>();
    }

    fn phases(&self, set: &Set, _: &mut Loader<'_>, out: &mut impl Phases<P>) -> Result<()> {
        if let Some(rules) = &set.get::<AccessConf<P>>().compiled {
            out.access(ByAddress(rules.clone()));
        }
        Ok(())
    }
}

struct ByAddress(Rc<Rules>);

impl<P: Proto> Check<P> for ByAddress {
    fn check(&self, session: &mut P::Session) -> Verdict {
        match self.0.allows(session.peer()) {
            None => Verdict::Next,
            Some(true) => Verdict::Allow,
            Some(false) => {
                // Where another check may still allow it, the phase logs if none does.
                if session.is_refusal_final() {
                    session.log_at(LogLevel::Error, format_args!("access forbidden by rule"));
                }
                Verdict::Refuse(403)
            }
        }
    }
}

/// One `allow` or `deny`.
#[derive(Clone, Debug)]
pub struct Rule {
    allow: bool,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    All,
    Unix,
    Net(Network),
}

/// The rules of one level, ready to be asked.
#[derive(Debug)]
struct Rules {
    networks: Networks<bool>,
    unix: Option<bool>,
}

/// Reads an `allow` or `deny`; bits of an address below its mask are warned of.
fn parse(loader: &mut Loader<'_>, d: &Directive) -> Result<Rule> {
    let word = d.arg(0);
    let what = match &word.text[..] {
        b"all" => What::All,
        b"unix:" => What::Unix,
        text => {
            let network = Network::parse(text).ok_or_else(|| invalid_parameter(word))?;
            What::Net(checked_network(loader, d, word, network))
        }
    };
    Ok(Rule { allow: d.name == "allow", what })
}

/// A network that an argument names; bits of its address that don't count are warned of.
pub(super) fn checked_network(loader: &mut Loader<'_>, d: &Directive, word: &Word, network: Network) -> Network {
    if !network.is_first() {
        let message = format!("low address bits of {} are meaningless", word.lossy());
        loader.warn(d, Error::at(word, message));
    }
    network
}

impl Rules {
    /// Compiles the rules of a level, in the order of the file.
    fn new(rules: &[Rule]) -> Rules {
        let networks = rules.iter().flat_map(|rule| {
            let networks: &[Network] = match &rule.what {
                What::All => &Network::ALL,
                What::Unix => &[],
                What::Net(network) => std::slice::from_ref(network),
            };
            networks.iter().map(|network| (*network, rule.allow))
        });
        let unix = rules.iter().find(|rule| matches!(rule.what, What::All | What::Unix));
        Rules { networks: Networks::earlier_wins(networks), unix: unix.map(|rule| rule.allow) }
    }

    /// Whether a client is allowed; `None` if no rule speaks of it.
    fn allows(&self, client: &SockAddr) -> Option<bool> {
        match client.ip() {
            None => self.unix,
            Some(ip) => self.networks.lookup(ip).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use conf::{Env, Registry, Sources, Word};

    use super::*;

    fn parse_all(lines: &[&str]) -> (Result<Rules>, usize) {
        let registry = Registry::new();
        let mut loader = Loader::new(&registry, Env::default(), Sources::default());
        let word = |text: &str| Word { text: text.into(), ..Word::default() };
        let rules: Result<Vec<Rule>> = lines
            .iter()
            .map(|line| {
                let (name, value) = line.split_once(' ').unwrap_or((line, ""));
                let d = Directive { name: word(name), args: vec![word(value)], ..Directive::default() };
                parse(&mut loader, &d)
            })
            .collect();
        (rules.map(|rules| Rules::new(&rules)), loader.warnings.len())
    }

    fn client(text: &str) -> SockAddr {
        match text.parse::<IpAddr>() {
            Ok(ip) => SockAddr::from(std::net::SocketAddr::new(ip, 1)),
            Err(_) => SockAddr::Unix(Box::default()),
        }
    }

    #[test]
    fn the_first_rule_counts() {
        let lines =
            ["deny 192.168.1.1", "allow 192.168.1.0/24", "allow 10.1.1.0/16", "allow 2001:db8::/32", "deny all"];
        for (lines, address, expect) in [
            (&lines[..], "192.168.1.1", Some(false)),
            (&lines, "192.168.1.2", Some(true)),
            (&lines, "10.1.200.1", Some(true)),
            (&lines, "10.2.0.0", Some(false)),
            (&lines, "2001:db8::1", Some(true)),
            (&lines, "2001:db9::1", Some(false)),
            (&lines, "::ffff:192.168.1.2", Some(true)),
            (&lines, "unix:", Some(false)),
            (&["allow unix:", "deny all"], "unix:", Some(true)),
            (&["deny 1.0.0.0/8"], "2.0.0.0", None),
            (&["deny 1.0.0.0/8"], "::1", None),
            (&["deny 1.0.0.0/8"], "unix:", None),
            (&["deny 0.0.0.0/0"], "255.255.255.255", Some(false)),
        ] {
            let rules = parse_all(lines).0.unwrap_or_else(|error| panic!("{error:?}"));
            assert_eq!(rules.allows(&client(address)), expect, "{lines:?} {address}");
        }
        assert_eq!(parse_all(&lines).1, 1);
    }

    #[test]
    fn errors() {
        for text in ["", "localhost", "1.2.3", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/+8", "::/129", "ALL"] {
            let error = parse_all(&[&format!("allow {text}")]).0.err().map(|error| error.message);
            assert_eq!(error, Some(format!("invalid parameter \"{text}\"")));
        }
    }
}
