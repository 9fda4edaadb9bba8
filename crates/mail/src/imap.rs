//! `imap_…`: clients of IMAP, until they have said who they are.

use conf::values::{bitmask, size};
use conf::{Args, Directive, Loader};
use wire::mail::imap::{Command, Event, Parser, Verb};
use wire::mail::sasl::{login, password};

use crate::config::capabilities;
use crate::proto::EVERYWHERE;
use crate::sasl::{Dialect, Login, Method, exchange, method, offered};
use crate::session::{Client, Gone};
use crate::starttls;

conf::table! {
    /// IMAP.
    pub struct ImapConf, raw ImapRaw, module "ngx_mail_imap_module", level MAIL Server;

    /// Sets how clients of IMAP may log in.
    ///
    /// Form: `imap_auth method ...`
    ///
    /// - `plain`: LOGIN and AUTHENTICATE PLAIN, by name and password.
    /// - `login`: AUTHENTICATE LOGIN, by the same.
    /// - `cram-md5`: AUTHENTICATE CRAM-MD5, by a digest of the password; the server of `auth_http` has to know the password.
    /// - `external`: AUTHENTICATE EXTERNAL, by the name alone: the client's certificate says who it is, and `auth_http` has to
    ///   check that.
    ///
    /// Effect: these are offered. Name and password are accepted whether or not they are offered.
    ///
    /// Danger: with `external` whoever answers for `auth_http` must look at the client's certificate: without that any name
    /// logs in.
    ///
    /// ```nginx
    /// imap_auth plain cram-md5;
    /// ```
    "imap_auth" in EVERYWHERE, Args::at_least(1), default "plain",
        set(|raw: &mut ImapRaw, l: &mut Loader<'_>, d: &Directive| bitmask(&mut raw.imap_auth, METHODS, l, d)) imap_auth: u32 = method::PLAIN;
    /// Sets the capabilities that clients of IMAP are told of.
    ///
    /// Form: `imap_capabilities capability ...`
    ///
    /// - `capability`: a capability of the servers that have the mail.
    ///
    /// Effect: they are the answer to CAPABILITY, followed by the methods of `imap_auth` and, if it can begin now, STARTTLS.
    ///
    /// ```nginx
    /// imap_capabilities IMAP4rev1 UIDPLUS IDLE LITERAL+ QUOTA;
    /// ```
    "imap_capabilities" in EVERYWHERE, Args::at_least(1), default "IMAP4 IMAP4rev1 UIDPLUS",
        set(|raw: &mut ImapRaw, l: &mut Loader<'_>, d: &Directive| capabilities(&mut raw.imap_capabilities, l, d))
            imap_capabilities: Vec<String> = ["IMAP4", "IMAP4rev1", "UIDPLUS"].map(str::to_owned).to_vec();
    /// Limits the size of a command of IMAP.
    ///
    /// Form: `imap_client_buffer size`
    ///
    /// - `size`: in bytes, or with `k` or `m`; literals count.
    ///
    /// Effect: a client that sends a longer command before it has logged in is told so, and its connection is closed. A literal
    /// that wouldn't fit isn't asked for.
    ///
    /// ```nginx
    /// imap_client_buffer 8k;
    /// ```
    "imap_client_buffer" in EVERYWHERE, Args::exactly(1), default "4k",
        scalar(size) imap_client_buffer: usize = 4096;
}

const METHODS: &[(&str, u32)] = &[
    ("plain", method::PLAIN),
    ("login", method::LOGIN),
    ("cram-md5", method::CRAM_MD5),
    ("external", method::EXTERNAL),
];

/// The first line that a client gets.
pub fn greet(client: &mut Client) {
    client.say(&[b"* OK IMAP4 ready"]);
}

/// Reads and answers commands until the client has said who it is.
pub async fn log_in(client: &mut Client) -> Result<Login, Gone> {
    let mut parser = Parser::default();
    loop {
        let Some(Command { tag, verb }) = command(client, &mut parser).await? else {
            client.invalid().await?;
            continue;
        };
        client.tag.clone_from(&tag);
        let login = match verb {
            Verb::Noop => {
                client.say(&[&tag, DONE]);
                continue;
            }
            Verb::Capability => {
                let capabilities = capability(client);
                client.say(&[capabilities.as_bytes()]);
                client.say(&[&tag, DONE]);
                continue;
            }
            Verb::Logout => {
                client.say(&[b"* BYE"]);
                client.say(&[&tag, DONE]);
                return Err(client.dismiss().await);
            }
            Verb::StartTls if client.session.offers_tls() => {
                Box::pin(starttls::begin(client, &[&tag, DONE])).await?;
                continue;
            }
            Verb::Login(user, secret) if !client.session.needs_tls() => {
                let clean = !user.is_empty() && login(&user).is_ok() && password(&secret).is_ok();
                clean.then(|| Login::new(client, Method::Plain, &user, secret))
            }
            Verb::Authenticate(mechanism, initial) if !client.session.needs_tls() => {
                let conf = client.session.server.imap.clone();
                let dialect = Dialect { prompt: "+ ", methods: conf.imap_auth, limit: conf.imap_client_buffer };
                Box::pin(exchange(client, dialect, &mechanism, initial.as_deref())).await?
            }
            Verb::StartTls | Verb::Login(..) | Verb::Authenticate(..) => None,
        };
        match login {
            Some(login) => return Ok(login),
            None => client.reject().await?,
        }
    }
}

/// How a command ends that was done.
const DONE: &[u8] = b" OK completed";

/// The next command; `None` if it isn't one, whose tag is in the client then.
async fn command(client: &mut Client, parser: &mut Parser) -> Result<Option<Command>, Gone> {
    let limit = client.session.server.imap.imap_client_buffer;
    client.keep_up().await?;
    loop {
        let (used, event) = parser.step(&client.input, limit);
        client.consume(used);
        match event {
            Event::Command(command) => return Ok(Some(command)),
            Event::Invalid(tag) => {
                client.tag = tag;
                return Ok(None);
            }
            Event::TooLong(tag) => {
                client.tag = tag;
                return Err(client.too_long().await);
            }
            Event::Skipped => {}
            Event::More => client.receive(limit.saturating_sub(client.input.len())).await?,
            Event::Continue => client.say(&[b"+ OK"]),
        }
    }
}

/// The answer to CAPABILITY.
fn capability(client: &Client) -> String {
    let conf = &client.session.server.imap;
    let mut words = vec!["* CAPABILITY".to_owned()];
    words.extend(conf.imap_capabilities.iter().cloned());
    if !client.session.needs_tls() {
        words.push(offered(conf.imap_auth, "AUTH="));
    }
    if client.session.offers_tls() {
        words.push("STARTTLS".to_owned());
    }
    if client.session.needs_tls() {
        words.push("LOGINDISABLED".to_owned());
    }
    words.join(" ")
}
