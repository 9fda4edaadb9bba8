//! `pop3_…`: clients of POP3, until they have said who they are.

use conf::values::bitmask;
use conf::{Args, Directive, Loader};
use wire::mail::pop3::{Command, parse};
use wire::mail::sasl::Mechanism;

use crate::config::capabilities;
use crate::proto::EVERYWHERE;
use crate::sasl::{Dialect, Login, Method, exchange, method, offered};
use crate::session::{Client, Gone};
use crate::starttls;

conf::table! {
    /// POP3.
    pub struct Pop3Conf, raw Pop3Raw, module "ngx_mail_pop3_module", level MAIL Server;

    /// Sets how clients of POP3 may log in.
    ///
    /// Form: `pop3_auth method ...`
    ///
    /// - `plain`: USER and PASS, AUTH PLAIN and AUTH LOGIN, by name and password.
    /// - `apop`: APOP, by a digest of the password and the greeting's salt; the server of `auth_http` has to know the password.
    /// - `cram-md5`: AUTH CRAM-MD5, by a digest of the password; the same holds.
    /// - `external`: AUTH EXTERNAL, by the name alone: the client's certificate says who it is, and `auth_http` has to check
    ///   that.
    ///
    /// Effect: these are offered. Name and password are accepted whether or not they are offered.
    ///
    /// Danger: with `external` whoever answers for `auth_http` must look at the client's certificate: without that any name
    /// logs in.
    ///
    /// ```nginx
    /// pop3_auth plain apop cram-md5;
    /// ```
    "pop3_auth" in EVERYWHERE, Args::at_least(1), default "plain",
        set(|raw: &mut Pop3Raw, l: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.pop3_auth, METHODS, l, d)) pop3_auth: u32 = PLAIN;
    /// Sets the capabilities that clients of POP3 are told of.
    ///
    /// Form: `pop3_capabilities capability ...`
    ///
    /// - `capability`: a capability of the servers that have the mail; one with parameters in quotes.
    ///
    /// Effect: they are the answer to CAPA, followed by the methods of `pop3_auth` and, if it can begin now, STLS. USER is left
    /// out as long as a client has to begin TLS first.
    ///
    /// ```nginx
    /// pop3_capabilities TOP USER UIDL "EXPIRE NEVER";
    /// ```
    "pop3_capabilities" in EVERYWHERE, Args::at_least(1), default "TOP USER UIDL",
        set(|raw: &mut Pop3Raw, l: &mut Loader<'_>, d: &Directive| capabilities(&mut raw.pop3_capabilities, l, d))
            pop3_capabilities: Vec<String> = ["TOP", "USER", "UIDL"].map(str::to_owned).to_vec();
}

/// What the name `plain` stands for.
const PLAIN: u32 = method::PLAIN | method::LOGIN;

const METHODS: &[(&str, u32)] =
    &[("plain", PLAIN), ("apop", method::APOP), ("cram-md5", method::CRAM_MD5), ("external", method::EXTERNAL)];

/// The longest line. nginx takes 128 bytes, in which longer passwords don't fit.
const LIMIT: usize = 1024;

/// The first line that a client gets.
pub fn greet(client: &mut Client) {
    if client.session.server.pop3.pop3_auth & (method::APOP | method::CRAM_MD5) != 0 {
        let salt = client.salt().to_owned();
        client.say(&[b"+OK POP3 ready ", salt.as_bytes()]);
    } else {
        client.say(&[b"+OK POP3 ready"]);
    }
}

/// Reads and answers commands until the client has said who it is.
pub async fn log_in(client: &mut Client) -> Result<Login, Gone> {
    // What USER has named, until PASS or an invalid command.
    let mut user: Option<Vec<u8>> = None;
    loop {
        let line = client.line(LIMIT).await?;
        let may_log_in = !client.session.needs_tls();
        let login = match (parse(&line), &user) {
            (Some(Command::Noop), _) => {
                client.say(&[OK]);
                continue;
            }
            (Some(Command::Capa), _) => {
                capa(client);
                continue;
            }
            (Some(Command::Quit), _) => {
                client.say(&[OK]);
                return Err(client.dismiss().await);
            }
            (Some(Command::Stls), None) if client.session.offers_tls() => {
                Box::pin(starttls::begin(client, &[OK])).await?;
                continue;
            }
            (Some(Command::Mechanisms), None) if may_log_in => {
                mechanisms(client);
                continue;
            }
            (Some(Command::User(name)), None) if may_log_in => {
                user = Some(name.to_vec());
                client.say(&[OK]);
                continue;
            }
            (Some(Command::Pass(password)), Some(user)) => {
                Some(Login::new(client, Method::Plain, user, password.into()))
            }
            (Some(Command::Apop(user, digest)), None)
                if may_log_in && client.session.server.pop3.pop3_auth & method::APOP != 0 =>
            {
                Some(Login::new(client, Method::Apop, user, digest.into()))
            }
            (Some(Command::Auth(mechanism, initial)), None) if may_log_in => {
                let methods = client.session.server.pop3.pop3_auth;
                Box::pin(exchange(client, Dialect { prompt: "+ ", methods, limit: LIMIT }, mechanism, initial)).await?
            }
            (Some(_), _) => None,
            (None, _) => {
                user = None;
                client.invalid().await?;
                continue;
            }
        };
        match login {
            Some(login) => return Ok(login),
            None => {
                user = None;
                client.reject().await?;
            }
        }
    }
}

const OK: &[u8] = b"+OK";

/// The answer to CAPA.
fn capa(client: &mut Client) {
    let (conf, needs_tls) = (client.session.server.pop3.clone(), client.session.needs_tls());
    client.say(&[b"+OK Capability list follows"]);
    for capability in conf.pop3_capabilities.iter().filter(|name| !needs_tls || !name.eq_ignore_ascii_case("USER")) {
        client.say(&[capability.as_bytes()]);
    }
    if !needs_tls {
        let offered = offered(conf.pop3_auth, "");
        let space = if offered.is_empty() { "" } else { " " };
        client.say(&[b"SASL", space.as_bytes(), offered.as_bytes()]);
    }
    if client.session.offers_tls() {
        client.say(&[b"STLS"]);
    }
    client.say(&[b"."]);
}

/// The answer to AUTH without a mechanism.
fn mechanisms(client: &mut Client) {
    let methods = offered(client.session.server.pop3.pop3_auth, "");
    client.say(&[b"+OK methods supported:"]);
    methods
        .split(' ')
        .filter(|name| Mechanism::of(name.as_bytes()).is_some())
        .for_each(|name| client.say(&[name.as_bytes()]));
    client.say(&[b"."]);
}
