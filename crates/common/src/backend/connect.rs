//! How connections to backends are made: directives that all protocols with backends have, under their prefixes.

use std::fmt::Display;
use std::rc::Rc;

use conf::values::{clamped, flag, msec, size};
use conf::{Args, Directive, Error, Loader, Result};
use engine::log::Level;
use expr::vars::Template;
use os::SockAddr;

use crate::vars::{self, template_of};
use crate::{Proto, Session};

const ONE: Args = Args::exactly(1);

/// `…_bind`.
#[derive(Clone, Debug)]
pub struct Bind {
    /// The address.
    pub address: Own,
    /// Whether it may be one that this machine doesn't have.
    pub transparent: bool,
}

/// The local address of connections.
#[derive(Clone, Debug)]
pub enum Own {
    /// The kernel chooses the address.
    Off,
    /// This one.
    Address(SockAddr),
    /// The value of a template, if it is an address.
    Variable(Rc<Template>),
}

conf::table! {
    /// How connections to backends are made. All have `connection` and `retries`, memcached nothing else.
    pub groups ConnectConf of P: Proto, raw ConnectRaw;

    group connection {
        /// Sets the local address of connections to backends.
        ///
        /// Form: `{}bind address [transparent] | off`
        ///
        /// - `address`: an IP address with or without a port, or a text with variables; if its value isn't an address,
        ///   the kernel chooses one.
        /// - `transparent`: the address may be one that this machine doesn't have, such as the client's
        ///   (`$remote_addr`).
        /// - `off`: the kernel chooses the address, whatever an outer level sets.
        ///
        /// Effect: connections that are opened after a reload come from this address. A backend and the firewalls
        /// before it see it as the client's.
        ///
        /// Cost: a system call for each new connection. A fixed port leaves one connection at a time to each backend's
        /// address; leave the port out.
        ///
        /// Danger: `transparent` needs the capability CAP_NET_RAW in workers, which then can send packets with any
        /// source address, and routes that bring the backend's packets back to this machine.
        ///
        /// ```nginx
        /// {}bind 127.0.0.1;
        /// ```
        "bind" in P::PLACES.everywhere, Args::between(1, 2), default none,
            scalar(bind::<P>) bind: Bind = Bind { address: Own::Off, transparent: false };
        /// Accepted for compatibility: the value of `{}bind` is found for each attempt in any case.
        "bind_dynamic" in P::PLACES.everywhere, Args::FLAG, default "off",
            scalar(flag) bind_dynamic: bool = false;
        /// Has the kernel check idle connections to backends (SO_KEEPALIVE) if it is `on`.
        ///
        /// Effect: a connection whose backend is gone without notice is found to be dead after the kernel's times
        /// (`tcp_keepalive_time`). `off` leaves the socket as the system makes it.
        ///
        /// Cost: a system call for each new connection.
        ///
        /// ```nginx
        /// {}socket_keepalive on;
        /// ```
        "socket_keepalive" in P::PLACES.everywhere, Args::FLAG, default "off",
            scalar(flag) socket_keepalive: bool = false;
        /// Limits how long opening a connection to a backend may take.
        ///
        /// Form: `{}connect_timeout time`
        ///
        /// - `time`: the time for each attempt.
        ///
        /// Effect: an attempt that takes longer is a failure of kind `timeout`: the request is passed to the next
        /// server, as `{}next_upstream` says, or is answered with 504.
        ///
        /// Danger: with a long time, clients wait as long as that for each server that is down. Linux itself gives up
        /// after about two minutes.
        ///
        /// ```nginx
        /// {}connect_timeout 5s;
        /// ```
        "connect_timeout" in P::PLACES.everywhere, ONE, default "60s",
            scalar(msec) connect_timeout: u64 = 60_000;
    }
    group retries {
        /// Limits the number of servers that are tried for a request.
        ///
        /// Form: `{}next_upstream_tries number`
        ///
        /// - `number`: the first server is counted; 0 is no limit.
        ///
        /// Effect: when so many servers have failed, the client gets the last failure's status.
        ///
        /// ```nginx
        /// {}next_upstream_tries 2;
        /// ```
        "next_upstream_tries" in P::PLACES.everywhere, ONE, default "0",
            scalar(clamped) next_upstream_tries: u32 = 0;
        /// Limits the time in which a request may be passed to the next server.
        ///
        /// Form: `{}next_upstream_timeout time`
        ///
        /// - `time`: counted from the first attempt; 0 is no limit.
        ///
        /// Effect: after that time a failure isn't followed by another attempt. An attempt under way isn't cut.
        ///
        /// ```nginx
        /// {}next_upstream_timeout 10s;
        /// ```
        "next_upstream_timeout" in P::PLACES.everywhere, ONE, default "0",
            scalar(msec) next_upstream_timeout: u64 = 0;
    }
    group sockets {
        /// Sets the kernel's receive buffer of connections to backends (SO_RCVBUF).
        ///
        /// Form: `{}socket_rcvbuf size`
        ///
        /// - `size`: the size in bytes; 0 leaves it to the system, which fits it to the connection.
        ///
        /// Effect: it bounds how much of a response the kernel accepts before the worker reads it.
        ///
        /// Cost: a system call for each new connection, and kernel memory.
        ///
        /// Danger: a fixed size turns off the kernel's own tuning: a small one makes distant backends slow.
        ///
        /// ```nginx
        /// {}socket_rcvbuf 256k;
        /// ```
        "socket_rcvbuf" in P::PLACES.everywhere, ONE, default "0",
            scalar(size) socket_rcvbuf: usize = 0;
        /// Sets the kernel's send buffer of connections to backends (SO_SNDBUF).
        ///
        /// Form: `{}socket_sndbuf size`
        ///
        /// - `size`: the size in bytes; 0 leaves it to the system, which fits it to the connection.
        ///
        /// Effect: it bounds how much of a request the kernel holds before the backend has accepted it.
        ///
        /// Cost: a system call for each new connection, and kernel memory.
        ///
        /// Danger: a fixed size turns off the kernel's own tuning: a small one makes uploads to distant backends slow.
        ///
        /// ```nginx
        /// {}socket_sndbuf 256k;
        /// ```
        "socket_sndbuf" in P::PLACES.everywhere, ONE, default "0",
            scalar(size) socket_sndbuf: usize = 0;
    }
}

fn bind<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<Bind> {
    let word = d.arg(0);
    if let Some(extra) = d.args.get(1)
        && *extra != "transparent"
    {
        return Err(Error::at(extra, format!("invalid parameter \"{}\"", extra.lossy())));
    }
    let transparent = d.args.len() > 1;
    if transparent {
        loader.store.entry::<engine::worker::sandbox::Needs>().transparent();
    }
    if *word == "off" && !transparent {
        return Ok(Bind { address: Own::Off, transparent });
    }
    if word.text.contains(&b'$') {
        return Ok(Bind { address: Own::Variable(template_of::<P>(loader, d, &word.text)?), transparent });
    }
    let address = local_address(&word.text).map(Own::Address);
    let address = address.ok_or_else(|| Error::at(word, format!("invalid address \"{}\"", word.lossy())))?;
    Ok(Bind { address, transparent })
}

/// Parses a local address to bind to, with or without a port.
pub fn local_address(text: &[u8]) -> Option<SockAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(addr) = text.parse::<std::net::SocketAddr>() {
        return Some(SockAddr::from(addr));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip: std::net::IpAddr = bare.parse().ok()?;
    Some(SockAddr::from(std::net::SocketAddr::new(ip, 0)))
}

impl<P: Proto> ConnectConf<P> {
    /// How a connection for this session is made.
    pub fn options(&self, session: &mut P::Session) -> rt::ConnectOptions {
        rt::ConnectOptions { bind: self.local_address(session), ..self.options_apart() }
    }

    /// How a connection is made that is for no session.
    pub fn options_apart(&self) -> rt::ConnectOptions {
        rt::ConnectOptions {
            bind: if let Own::Address(addr) = &self.bind.address { Some(addr.clone()) } else { None },
            transparent: self.bind.transparent,
            rcvbuf: Some(self.socket_rcvbuf as u32).filter(|size| *size > 0),
            sndbuf: Some(self.socket_sndbuf as u32).filter(|size| *size > 0),
            keepalive: self.socket_keepalive,
        }
    }

    fn local_address(&self, session: &mut P::Session) -> Option<SockAddr> {
        match &self.bind.address {
            Own::Off => None,
            Own::Address(addr) => Some(addr.clone()),
            Own::Variable(template) => {
                let text = vars::render(session, template);
                let addr = local_address(&text);
                if addr.is_none() && !text.is_empty() {
                    let text: &dyn Display = &buf::text::encode(&text);
                    let message = format_args!("invalid local address \"{text}\" while connecting to upstream");
                    session.log_at(Level::Error, message);
                }
                addr
            }
        }
    }

    /// Whether no time is left for another attempt after a first one that began then.
    pub fn is_late(&self, began_ms: u64) -> bool {
        let limit = self.next_upstream_timeout;
        limit > 0 && rt::now_ms().saturating_sub(began_ms) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses() {
        for (text, expect) in [
            ("127.0.0.1", Some("127.0.0.1:0")),
            ("127.0.0.1:5", Some("127.0.0.1:5")),
            ("::1", Some("[::1]:0")),
            ("[::1]", Some("[::1]:0")),
            ("[::1]:7", Some("[::1]:7")),
            ("x", None),
            ("", None),
        ] {
            let addr = local_address(text.as_bytes()).map(|addr| addr.to_string());
            assert_eq!(addr.as_deref(), expect, "{text}");
        }
    }
}
