//! `resolver`: the directive. The lookups are [`upstream::resolver`]'s.
//!
//! Not in nginx: `resolver system` asks the system's name servers, and without the directive they are asked for names of
//! servers that had no address at the start.

use std::net::SocketAddr;
use std::rc::Rc;

use conf::{Directive, Error, Loader, Result, Word};
use upstream::resolver::ResolverSpec;
use upstream::{Resolver, Url};

/// The port of name servers.
const PORT: u16 = 53;

/// `resolver system`, `resolver off`, or what [`servers`] reads.
pub fn resolver(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<Resolver>>> {
    match d.args.as_slice() {
        [word] if *word == "system" => Ok(Some(Resolver::system())),
        [word] if *word == "off" => Ok(None),
        _ => servers(loader, d).map(Some),
    }
}

/// `resolver address … [valid=time] [ipv4=on|off] [ipv6=on|off] [status_zone=zone]`.
pub fn servers(loader: &mut Loader<'_>, d: &Directive) -> Result<Rc<Resolver>> {
    let mut spec = ResolverSpec::default();
    for word in &d.args {
        let invalid = || Error::at(word, format!("invalid parameter: {}", word.lossy()));
        match word.text.iter().position(|byte| *byte == b'=').map(|at| word.text.split_at(at + 1)) {
            Some((b"valid=", value)) => {
                let seconds = buf::parse::parse_sec(value).ok_or_else(invalid)?;
                spec.valid_s = (seconds > 0).then_some(seconds);
            }
            Some((b"ipv4=", value)) => spec.ipv4 = switch(value).ok_or_else(invalid)?,
            Some((b"ipv6=", value)) => spec.ipv6 = switch(value).ok_or_else(invalid)?,
            Some((b"status_zone=", value)) if !value.is_empty() => {
                loader.warn(
                    d,
                    Error::at(word, "\"status_zone\" has no effect: there are no figures of name servers yet"),
                );
            }
            Some((b"status_zone=", _)) => return Err(invalid()),
            _ => spec.servers.extend(addresses(word)?),
        }
    }
    if !spec.ipv4 && !spec.ipv6 {
        return Err(Error::on(d, "\"ipv4\" and \"ipv6\" cannot both be \"off\""));
    }
    if spec.servers.is_empty() {
        return Err(Error::on(d, "no name servers defined"));
    }
    Ok(Resolver::new(spec))
}

fn switch(value: &[u8]) -> Option<bool> {
    match value {
        b"on" => Some(true),
        b"off" => Some(false),
        _ => None,
    }
}

/// The addresses of a name server, which may itself have a name.
fn addresses(word: &Word) -> Result<Vec<SocketAddr>> {
    let failed = |why: &dyn std::fmt::Display| Error::at(word, format!("{why} in resolver \"{}\"", word.lossy()));
    let url = Url::parse(&word.text, false).map_err(|error| failed(&error))?;
    let addrs = url.resolve(PORT).map_err(|error| failed(&error))?;
    let found = addrs.iter().filter_map(|addr| Some(SocketAddr::new(addr.ip()?, addr.port())));
    Ok(found.collect())
}
