//! `smtp_…`: clients of SMTP, until they have said who they are, or to whom they write.

use buf::Secret;
use conf::values::{bitmask, msec, size};
use conf::{Args, Directive, Loader};
use engine::log::Level;
use upstream::resolver::ResolveError;
use wire::mail::smtp::{Command, Fault, parse};

use crate::config::capabilities;
use crate::proto::EVERYWHERE;
use crate::sasl::{Dialect, Login, Method, exchange, method, offered};
use crate::session::{Client, Gone};
use crate::starttls;

conf::table! {
    /// SMTP.
    pub struct SmtpConf, raw SmtpRaw, module "ngx_mail_smtp_module", level MAIL Server;

    /// Sets how clients of SMTP may log in.
    ///
    /// Form: `smtp_auth method ...`
    ///
    /// - `plain`: AUTH PLAIN, by name and password.
    /// - `login`: AUTH LOGIN, by the same.
    /// - `cram-md5`: AUTH CRAM-MD5, by a digest of the password; the server of `auth_http` has to know the password.
    /// - `external`: AUTH EXTERNAL, by the name alone: the client's certificate says who it is, and `auth_http` has to check
    ///   that.
    /// - `none`: clients needn't log in; `auth_http` is asked with the sender and the first recipient.
    ///
    /// Effect: these are offered. Name and password are accepted whether or not they are offered.
    ///
    /// Danger: with `none`, and without an `auth_http` that looks at recipients, everybody can send mail to everybody through
    /// the servers behind this one. With `external` whoever answers for `auth_http` must look at the client's certificate.
    ///
    /// ```nginx
    /// smtp_auth plain login cram-md5;
    /// ```
    "smtp_auth" in EVERYWHERE, Args::at_least(1), default "plain login",
        set(|raw: &mut SmtpRaw, l: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.smtp_auth, METHODS, l, d)) smtp_auth: u32 = method::PLAIN | method::LOGIN;
    /// Sets the extensions that clients of SMTP are told of.
    ///
    /// Form: `smtp_capabilities extension ...`
    ///
    /// - `extension`: an extension of the servers that have the mail; one with parameters in quotes.
    ///
    /// Effect: they are the answer to EHLO, followed by the methods of `smtp_auth` and, if it can begin now, STARTTLS.
    ///
    /// ```nginx
    /// smtp_capabilities "SIZE 10485760" ENHANCEDSTATUSCODES 8BITMIME PIPELINING;
    /// ```
    "smtp_capabilities" in EVERYWHERE, Args::at_least(1), default none,
        set(|raw: &mut SmtpRaw, l: &mut Loader<'_>, d: &Directive| capabilities(&mut raw.smtp_capabilities, l, d))
            smtp_capabilities: Vec<String> = Vec::new();
    /// Limits the size of a command of SMTP.
    ///
    /// Form: `smtp_client_buffer size`
    ///
    /// - `size`: in bytes, or with `k` or `m`.
    ///
    /// Effect: a client that sends a longer command before it is connected to a server is told so, and its connection is
    /// closed.
    ///
    /// ```nginx
    /// smtp_client_buffer 8k;
    /// ```
    "smtp_client_buffer" in EVERYWHERE, Args::exactly(1), default "4k",
        scalar(size) smtp_client_buffer: usize = 4096;
    /// Lets clients wait for the greeting, and refuses those that don't.
    ///
    /// Form: `smtp_greeting_delay time`
    ///
    /// - `time`: how long they wait; 0 is not at all.
    ///
    /// Effect: a client that sends something before it is greeted gets an error, and its connection is closed: programs that
    /// send unwanted mail often don't wait.
    ///
    /// Cost: a connection for each client during this time.
    ///
    /// ```nginx
    /// smtp_greeting_delay 5s;
    /// ```
    "smtp_greeting_delay" in EVERYWHERE, Args::exactly(1), default "0",
        scalar(msec) smtp_greeting_delay: u64 = 0;
}

const METHODS: &[(&str, u32)] = &[
    ("plain", method::PLAIN),
    ("login", method::LOGIN),
    ("cram-md5", method::CRAM_MD5),
    ("external", method::EXTERNAL),
    ("none", method::NONE),
];

/// What a client has said of itself and its mail.
#[derive(Debug, Default)]
pub struct Envelope {
    /// The name that it has given itself; empty if it hasn't.
    pub helo: Vec<u8>,
    /// Whether it has done that by EHLO.
    pub esmtp: bool,
    /// The whole command with the sender.
    pub from: Vec<u8>,
    /// The whole command with the first recipient.
    pub to: Vec<u8>,
}

/// Looks up the client's name, and greets it after a while.
pub async fn greet(client: &mut Client) -> Result<(), Gone> {
    let host = client.watched(host(client)).await?;
    client.host = Some(host.into());
    let delay_ms = client.session.server.smtp.smtp_greeting_delay;
    if delay_ms > 0 {
        // This wait has an end of its own.
        client.session.stream.set_recv_timeout(None);
        wait_silently(client, delay_ms).await?;
    }
    client.renew_timeout();
    let name = client.session.server.name.clone();
    client.say(&[b"220 ", name.as_bytes(), b" ESMTP ready"]);
    Ok(())
}

/// Waits; a client that doesn't is sent away.
async fn wait_silently(client: &mut Client, delay_ms: u64) -> Result<(), Gone> {
    let limit = client.session.server.smtp.smtp_client_buffer;
    if client.input.is_empty() {
        match rt::timeout(delay_ms, client.receive(limit)).await {
            None => return Ok(()),
            Some(received) => received?,
        }
    }
    let shown = buf::text::encode(client.input.get(..client.input.len().min(64)).unwrap_or_default());
    let message = format_args!("client was rejected before greeting: \"{shown}\" while in delay pipelining state");
    client.session.log_at(Level::Info, message);
    client.say(&[b"503 5.5.0 Improper use of SMTP command pipelining"]);
    Err(client.dismiss().await)
}

/// The name of the client's host, if that has the client's address; else why not, in brackets.
async fn host(client: &Client) -> String {
    const UNAVAILABLE: &str = "[UNAVAILABLE]";
    let session = &client.session;
    let core = &session.server.core.shared;
    let (Some(resolver), Some(address)) = (&core.resolver, session.base.peer.ip()) else {
        return UNAVAILABLE.to_owned();
    };
    let unresolved = |what: &str, error: ResolveError| {
        let message = format_args!("{what} could not be resolved ({error}) while in resolving client address");
        session.log_at(Level::Error, message);
        if error == ResolveError::NOT_FOUND { UNAVAILABLE.to_owned() } else { "[TEMPUNAVAIL]".to_owned() }
    };
    let timeout_ms = core.resolver_timeout;
    let name = match resolver.name_of(address, timeout_ms).await {
        Ok(name) => name,
        Err(error) => return unresolved(&address.to_string(), error),
    };
    match resolver.resolve(name.as_bytes(), timeout_ms).await {
        Ok(found) if found.contains(&address) => name,
        Ok(_) => UNAVAILABLE.to_owned(),
        Err(error) => unresolved(&name, error),
    }
}

/// Reads and answers commands until the client has said who it is, or to whom it writes.
pub async fn log_in(client: &mut Client, envelope: &mut Envelope) -> Result<Login, Gone> {
    let conf = client.session.server.smtp.clone();
    loop {
        let line = client.line(conf.smtp_client_buffer).await?;
        let command = match parse(&line) {
            Ok(command) => command,
            Err(Fault::Argument) => {
                client.say(&[b"501 5.5.4 Invalid argument"]);
                continue;
            }
            Err(Fault::Command) => {
                client.invalid().await?;
                continue;
            }
        };
        match command {
            Command::Helo(name) => {
                *envelope = Envelope { helo: name.to_vec(), ..Envelope::default() };
                let name = client.session.server.name.clone();
                client.say(&[b"250 ", name.as_bytes()]);
            }
            Command::Ehlo(name) => {
                *envelope = Envelope { helo: name.to_vec(), esmtp: true, ..Envelope::default() };
                extensions(client);
            }
            Command::Auth(mechanism, initial) if !client.session.needs_tls() => {
                let dialect = Dialect { prompt: "334 ", methods: conf.smtp_auth, limit: conf.smtp_client_buffer };
                match Box::pin(exchange(client, dialect, mechanism, initial)).await? {
                    Some(login) => return Ok(login),
                    None => client.reject().await?,
                }
            }
            Command::Mail(line) => mail(client, envelope, line),
            Command::Rcpt(_) if envelope.from.is_empty() => client.say(&[BAD_SEQUENCE]),
            Command::Rcpt(line) => {
                envelope.to = line.to_vec();
                return Ok(Login::new(client, Method::None, b"", Secret::default()));
            }
            Command::Rset => {
                (envelope.from, envelope.to) = (Vec::new(), Vec::new());
                client.say(&[DONE]);
            }
            Command::Noop => client.say(&[DONE]),
            Command::Quit => {
                client.say(&[b"221 2.0.0 Bye"]);
                return Err(client.dismiss().await);
            }
            Command::StartTls if client.session.offers_tls() => {
                *envelope = Envelope::default();
                Box::pin(starttls::begin(client, &[b"220 2.0.0 Start TLS"])).await?;
            }
            Command::Auth(..) | Command::StartTls => client.reject().await?,
        }
    }
}

const DONE: &[u8] = b"250 2.0.0 OK";
const BAD_SEQUENCE: &[u8] = b"503 5.5.1 Bad sequence of commands";

/// Takes note of the sender of a client that needn't log in.
fn mail(client: &mut Client, envelope: &mut Envelope, line: &[u8]) {
    if client.session.server.smtp.smtp_auth & method::NONE == 0 {
        let shown = buf::text::encode(line);
        client.session.log_at(Level::Info, format_args!("client was rejected: \"{shown}\" while in auth state"));
        client.say(&[b"530 5.7.1 Authentication required"]);
    } else if client.session.needs_tls() {
        client.say(&[b"530 5.7.0 Must issue a STARTTLS command first"]);
    } else if envelope.from.is_empty() {
        envelope.from = line.to_vec();
        client.say(&[DONE]);
    } else {
        client.say(&[BAD_SEQUENCE]);
    }
}

/// The answer to EHLO.
fn extensions(client: &mut Client) {
    let server = client.session.server.clone();
    let mut lines = vec![server.name.to_string()];
    lines.extend(server.smtp.smtp_capabilities.iter().cloned());
    let methods = offered(server.smtp.smtp_auth, "");
    if !client.session.needs_tls() && !methods.is_empty() {
        lines.push(format!("AUTH {methods}"));
    }
    if client.session.offers_tls() {
        lines.push("STARTTLS".to_owned());
    }
    let last = lines.len() - 1;
    for (at, line) in lines.iter().enumerate() {
        client.say(&[b"250", if at < last { b"-" } else { b" " }, line.as_bytes()]);
    }
}
