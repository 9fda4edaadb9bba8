//! The core module's directives: `mail`, `server`, `listen`, `protocol` and what else every server has; and values of
//! several modules' directives.

use common::front::blocks::{self, Builder};
use common::front::conf::CoreConf;
use common::front::listen;
use conf::values::{clamped, invalid, msec};
use conf::{Args, Context, Directive, Error, Loader, Result, Word};

use crate::proto::{EVERYWHERE, MailProto, Protocol};

const ONE: Args = Args::exactly(1);

conf::table! {
    /// The block.
    pub struct CoreMain, raw CoreMainRaw, module "ngx_mail_core_module", level MAIN Main;

    /// Sets the configuration of mail: servers for IMAP, POP3 and SMTP in front of those that have the mail.
    ///
    /// Effect: directives in the block hold for all servers in it. A client logs in with Tidegate, which asks a server over
    /// HTTP (`auth_http`) whether it may and where its mail is, logs in there, and then passes on everything. There is one
    /// such block in a configuration, beside `http`.
    ///
    /// ```nginx
    /// mail {
    ///     auth_http 127.0.0.1:9000/auth;
    ///     server {
    ///         listen 127.0.0.1:143;
    ///         protocol imap;
    ///     }
    /// }
    /// ```
    "mail" in Context::MAIN, Args::exactly(0).block(), default none,
        block(|loader: &mut Loader<'_>, d: &Directive| blocks::block::<MailProto>(loader, d, |_| {}));
}

conf::table! {
    /// Settings of a server.
    pub struct CoreServer, raw CoreServerRaw, module "ngx_mail_core_module", level MAIL Server;

    under "" {
        /// What other protocols have too.
        shared: CoreConf<MailProto> [resolving, logs];
    }
    /// Sets the configuration of a server: the addresses on which it accepts connections, and what it speaks there.
    ///
    /// Effect: `listen` chooses the server of a connection. A server needs a protocol and `auth_http`.
    ///
    /// ```nginx
    /// auth_http 127.0.0.1:9000/auth;
    /// server {
    ///     listen 127.0.0.1:587;
    ///     protocol smtp;
    /// }
    /// ```
    "server" in Context::MAIL, Args::exactly(0).block(), default none,
        block(blocks::server::<MailProto>);
    /// Sets an address and port, or a unix socket, on which the server accepts connections. It may be repeated; an address
    /// belongs to one server.
    ///
    /// Form: `listen address:port | port | unix:path [parameter ...]`
    ///
    /// - `address:port`: an IPv4 address, an IPv6 address in brackets, `*` for all IPv4 addresses, or a name that is looked
    ///   up at the start.
    /// - `port`: the same as `*:port`.
    /// - `unix:path`: a unix socket.
    /// - `ssl`: connections speak TLS from the beginning; the server needs `ssl_certificate`. For TLS within a session use
    ///   `starttls`.
    /// - `proxy_protocol`: connections begin with a header of the PROXY protocol, version 1 or 2. Its addresses are told to
    ///   `auth_http`; `set_real_ip_from` makes them the client's.
    /// - `backlog=number`: how many connections may wait to be accepted; the default is 511, and the system's limit
    ///   (`net.core.somaxconn`) holds as well.
    /// - `rcvbuf=size`: SO_RCVBUF; by default the system chooses.
    /// - `sndbuf=size`: SO_SNDBUF; by default the system chooses.
    /// - `bind`: a socket of its own for an address that a wildcard on the same port covers. All parameters of the socket
    ///   imply it.
    /// - `ipv6only=on|off`: whether a socket on `[::]` accepts IPv6 connections only; the default is `on`.
    /// - `reuseport`: a socket for each worker (SO_REUSEPORT), so that the kernel distributes connections.
    /// - `so_keepalive=on|off|[idle]:[interval]:[count]`: SO_KEEPALIVE with the given times in seconds and number of probes;
    ///   by default the system's setting holds.
    ///
    /// Effect: the port chooses the protocol where `protocol` is missing. The master opens the socket at the start and on a
    /// reload; sockets that stay are kept, so no connection is refused meanwhile.
    ///
    /// Danger: with `proxy_protocol` anybody who can connect directly chooses the address that the header shows: let only
    /// your proxies reach the port.
    ///
    /// ```nginx
    /// listen 127.0.0.1:143;
    /// listen [::1]:143;
    /// ```
    "listen" in Context::MAIL_SERVER, Args::at_least(1), default none,
        block(listen);
    /// Sets the protocol of the server.
    ///
    /// Form: `protocol imap | pop3 | smtp`
    ///
    /// - `imap`, `pop3`, `smtp`: without this directive the first `listen` with one of these ports decides: 143 and 993 are
    ///   IMAP, 110 and 995 POP3, 25, 465 and 587 SMTP; without one it is an error.
    ///
    /// Effect: holds for all addresses of the server.
    ///
    /// ```nginx
    /// listen 127.0.0.1:8143;
    /// protocol imap;
    /// ```
    "protocol" in Context::MAIL_SERVER, ONE, default none,
        last(protocol) protocol: Protocol;
    /// Sets the name that the server gives itself.
    ///
    /// Form: `server_name name`
    ///
    /// - `name`: a host name.
    ///
    /// Effect: it stands in the greeting of SMTP, in the salt of APOP and CRAM-MD5, and in HELO and EHLO to servers that have
    /// the mail.
    ///
    /// ```nginx
    /// server_name mail.example.com;
    /// ```
    "server_name" in EVERYWHERE, ONE, default computed("this machine's name"),
        scalar(|_: &mut Loader<'_>, d: &Directive| line_text(d, d.arg(0))) server_name: String = String::new();
    /// Limits the time in which a client must log in.
    ///
    /// Form: `timeout time`
    ///
    /// - `time`: counted from the greeting; it begins again after an attempt to log in that has failed, and after a TLS
    ///   handshake.
    ///
    /// Effect: when the time is over, the connection is closed. The login with the server that has the mail must be over
    /// within the same time again. `proxy_timeout` holds after that.
    ///
    /// Danger: with a long time, connections of clients that don't log in pile up.
    ///
    /// ```nginx
    /// timeout 30s;
    /// ```
    "timeout" in EVERYWHERE, ONE, default "60s",
        scalar(msec) timeout: u64 = 60_000;
    /// Limits the invalid commands of a client.
    ///
    /// Form: `max_errors number`
    ///
    /// - `number`: with so many invalid commands the connection is closed.
    ///
    /// Effect: a command counts that isn't known or understood. One that isn't allowed then doesn't count, nor does a wrong
    /// password: `timeout` limits those.
    ///
    /// ```nginx
    /// max_errors 3;
    /// ```
    "max_errors" in EVERYWHERE, ONE, default "5",
        scalar(clamped) max_errors: u32 = 5;
}

/// `listen …`. An address has one server here, so that it can speak first.
fn listen(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    for spec in listen::parse::<MailProto>(loader, d)? {
        loader.places.note(engine::cycle::listening::ADDRESS, &spec.addr, d.span());
        let servers = &mut loader.store.entry::<Builder<MailProto>>().servers;
        let first = servers.iter().flat_map(|server| &server.listens).find(|other| other.addr == spec.addr);
        if let Some(first) = first.map(|first| first.place) {
            let error = Error::on(d, format!("duplicate \"{}\" address and port pair", spec.addr));
            return Err(error.hint(loader.stands_first(first)));
        }
        servers.last_mut().expect("listen stands in a server").listens.push(spec);
    }
    Ok(())
}

fn protocol(_: &mut Loader<'_>, d: &Directive) -> Result<Protocol> {
    let word = d.arg(0);
    let found = Protocol::NAMES.iter().find(|(name, _)| *word == **name);
    found.map(|(_, protocol)| *protocol).ok_or_else(|| {
        Error::at(word, format!("unknown protocol \"{}\"", word.lossy())).hint("it may be: imap, pop3, smtp")
    })
}

/// A text that stands in lines of protocols: without anything that would end one.
pub fn line_text(d: &Directive, word: &Word) -> Result<String> {
    if word.text.iter().any(u8::is_ascii_control) {
        return Err(invalid(d, word));
    }
    conf::values::text(word).map(str::to_owned)
}

/// The words of a list of capabilities.
pub fn capabilities(all: &mut Option<Vec<String>>, _: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let all = all.get_or_insert_default();
    for word in &d.args {
        all.push(line_text(d, word)?);
    }
    Ok(())
}
