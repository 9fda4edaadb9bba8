//! The login with the server that has a client's mail, by the name and password that `auth_http` has approved.

use std::fmt;
use std::io;
use std::net::IpAddr;

use buf::{Buf, Bytes, Chain, Secret};
use common::Facts as _;
use engine::log::{Errno, Level, TIMED_OUT};
use os::SockAddr;
use rt::{ConnectOptions, Stream};
use wire::mail::reply::{self, Unexpected};
use wire::mail::{sasl, smtp};
use wire::proxy_protocol::Transport;

use super::Tunnel;
use crate::auth_http::Allowed;
use crate::proto::Protocol;
use crate::sasl::{Login, Method};
use crate::session::{Client, Gone, MailSession};
use crate::smtp::Envelope;

/// Connects the client to the server, and logs it in there.
pub async fn log_in(
    mut client: Box<Client>,
    login: Login,
    envelope: Envelope,
    allowed: Allowed,
) -> Result<Box<Tunnel>, Gone> {
    client.session.upstream = Some(allowed.server.to_string().into());
    if let Some(user) = allowed.user {
        client.session.login = user;
    }
    let password = match allowed.password {
        None if login.method == Method::Plain => Some(login.password),
        other => other,
    };
    let mut backend = match Backend::connect(&mut client.session, &allowed.server).await {
        Ok(backend) => backend,
        Err(trouble) => return Err(refuse(&mut client, None, &trouble).await),
    };
    let dialogue = Dialogue { client: &client, method: login.method, password: password.as_ref(), envelope: &envelope };
    let mut first = match dialogue.run(&mut backend).await {
        Ok(first) => first,
        Err(trouble) => return Err(refuse(&mut client, Some(backend), &trouble).await),
    };
    client.session.log_at(Level::Info, format_args!("client logged in"));
    first.extend_from_slice(&backend.input);
    let up = std::mem::replace(&mut client.input, Buf::empty());
    Ok(Box::new(Tunnel::new(client.session, backend.stream, Bytes::from(first), up.freeze())))
}

/// What is wrong with the server or its answers.
enum Trouble {
    /// A system call failed: its name, and what was being done.
    Io(&'static str, io::Error, &'static str),
    Closed,
    Unexpected,
    TooLong,
    NoPassword,
}

/// Tells the client that it can't be connected, or what the server has said.
async fn refuse(client: &mut Client, backend: Option<Backend>, trouble: &Trouble) -> Gone {
    let passes = client.session.server.proxy.proxy_pass_error_message;
    let said = backend.as_ref().map(Backend::said).unwrap_or_default();
    let line = said.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = buf::text::encode(line.get(..line.len().min(256)).unwrap_or_default());
    let log = |level: Level, message: fmt::Arguments<'_>| client.session.log_at(level, message);
    let reading = "while reading response from upstream";
    match trouble {
        Trouble::Io(_, error, doing) if error.kind() == io::ErrorKind::TimedOut => {
            log(Level::Info, format_args!("upstream timed out{TIMED_OUT} while {doing}"));
        }
        Trouble::Io(call, error, doing) => {
            log(Level::Error, format_args!("{call}() failed{} while {doing}", Errno(error)));
        }
        Trouble::Closed => log(Level::Error, format_args!("upstream prematurely closed connection {reading}")),
        Trouble::TooLong => {
            log(Level::Error, format_args!("upstream sent too long response line: \"{line}\" {reading}"))
        }
        Trouble::NoPassword => log(Level::Error, format_args!("no password available while sending AUTH to upstream")),
        Trouble::Unexpected => {
            let level = if passes { Level::Info } else { Level::Error };
            log(level, format_args!("upstream sent invalid response: \"{line}\" {reading}"));
            if passes {
                client.say(&[said]);
                return client.dismiss().await;
            }
        }
    }
    client.fail().await
}

/// A connection to a server that has mail, and what it has said.
struct Backend {
    stream: Stream,
    input: Buf,
    /// The longest answer.
    limit: usize,
}

impl Backend {
    async fn connect(session: &mut MailSession, addr: &SockAddr) -> Result<Backend, Trouble> {
        let timeout_ms = session.server.core.timeout;
        let connected = Stream::connect(addr, &ConnectOptions::default(), timeout_ms).await;
        let stream = connected.map_err(|error| Trouble::Io("connect", error.into(), CONNECTING))?;
        // The time for the whole login, however the server speaks.
        stream.set_recv_timeout(Some(timeout_ms));
        stream.set_send_timeout(Some(timeout_ms));
        let _ = stream.set_nodelay(true);
        let mut backend = Backend { stream, input: Buf::empty(), limit: session.server.proxy.proxy_buffer };
        let kind = session.server.proxy.proxy_protocol;
        let peer = session.base.peer.clone();
        let header = kind.write(&peer, session.local(), Transport::Stream, &[]).unwrap_or_default();
        if !header.is_empty() {
            backend.send(&[&header]).await?;
        }
        Ok(backend)
    }

    async fn send(&mut self, line: &[&[u8]]) -> Result<(), Trouble> {
        // It may be a password.
        let mut bytes = Secret::default();
        line.iter().for_each(|part| bytes.extend_from_slice(part));
        let sent = self.stream.send_all(Chain::from(Bytes::from(bytes))).await;
        sent.map_err(|error| Trouble::Io("send", error, CONNECTING))
    }

    /// Waits for an answer that `read` takes; and what that says.
    async fn expect<T>(&mut self, read: impl Fn(&[u8]) -> Result<Option<T>, Unexpected>) -> Result<T, Trouble> {
        loop {
            match read(&self.input) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) if self.input.len() >= self.limit => return Err(Trouble::TooLong),
                Ok(None) => {}
                Err(Unexpected) => return Err(Trouble::Unexpected),
            }
            // Until the first answer it may be the connection that isn't there yet.
            let doing = if self.stream.received() == 0 { CONNECTING } else { "reading response from upstream" };
            let received = self.stream.recv(self.limit - self.input.len()).await;
            let more = received.map_err(|error| Trouble::Io("recv", error, doing))?;
            if more.is_empty() {
                return Err(Trouble::Closed);
            }
            self.input.extend_from_slice(&more);
        }
    }

    /// Waits for a line that begins so.
    async fn line(&mut self, start: &[u8]) -> Result<(), Trouble> {
        let length = self.expect(|input| reply::line(input, start)).await?;
        self.input.consume(length);
        Ok(())
    }

    /// Waits for an answer of SMTP with one of these codes.
    async fn code(&mut self, codes: &[u16]) -> Result<(), Trouble> {
        let has_code = |input: &[u8]| match reply::smtp(input)? {
            Some((found, length)) if codes.contains(&found) => Ok(Some(length)),
            Some(_) => Err(Unexpected),
            None => Ok(None),
        };
        let length = self.expect(has_code).await?;
        self.input.consume(length);
        Ok(())
    }

    /// What it has said last, without the end of the last line.
    fn said(&self) -> &[u8] {
        let end = self.input.iter().rposition(|byte| *byte == b'\n').unwrap_or(self.input.len());
        let said = self.input.get(..end).unwrap_or_default();
        said.strip_suffix(b"\r").unwrap_or(said)
    }
}

const CONNECTING: &str = "connecting to upstream";

/// What is said to the server.
struct Dialogue<'a> {
    client: &'a Client,
    method: Method,
    password: Option<&'a Secret>,
    envelope: &'a Envelope,
}

impl Dialogue<'_> {
    /// Logs in; and what the client is told of that, before what else the server has said.
    async fn run(&self, backend: &mut Backend) -> Result<Vec<u8>, Trouble> {
        match self.client.session.server.protocol {
            Protocol::Imap => self.imap(backend).await?,
            Protocol::Pop3 => self.pop3(backend).await?,
            Protocol::Smtp => {
                self.smtp(backend).await?;
                if self.method != Method::None {
                    return Ok(b"235 2.0.0 OK\r\n".to_vec());
                }
            }
        }
        Ok(Vec::new())
    }

    fn password(&self) -> Result<&Secret, Trouble> {
        self.password.ok_or(Trouble::NoPassword)
    }

    /// By literals, which can hold anything that names and passwords can. The last answer stays.
    async fn imap(&self, backend: &mut Backend) -> Result<(), Trouble> {
        let (tag, user, password) = (&self.client.tag, &self.client.session.login, self.password()?);
        backend.line(b"* OK").await?;
        let (user_length, password_length) = (user.len().to_string(), password.len().to_string());
        backend.send(&[tag, b" LOGIN {", user_length.as_bytes(), b"}\r\n"]).await?;
        backend.line(b"+").await?;
        backend.send(&[user, b" {", password_length.as_bytes(), b"}\r\n"]).await?;
        backend.line(b"+").await?;
        backend.send(&[password, b"\r\n"]).await?;
        backend.expect(|input| reply::tagged(input, tag)).await.map(drop)
    }

    /// The last answer stays.
    async fn pop3(&self, backend: &mut Backend) -> Result<(), Trouble> {
        backend.line(b"+OK").await?;
        backend.send(&[b"USER ", &self.client.session.login, b"\r\n"]).await?;
        backend.line(b"+OK").await?;
        backend.send(&[b"PASS ", self.password()?, b"\r\n"]).await?;
        backend.expect(|input| reply::line(input, b"+OK")).await.map(drop)
    }

    /// Without a login, the answer to the recipient stays, whatever it is.
    async fn smtp(&self, backend: &mut Backend) -> Result<(), Trouble> {
        let server = &self.client.session.server;
        let (conf, name) = (&server.proxy, server.name.as_bytes());
        let hello = |esmtp: bool| -> &[u8] { if esmtp { b"EHLO " } else { b"HELO " } };
        backend.code(&[220]).await?;
        backend.send(&[hello(conf.xclient || self.envelope.esmtp), name, b"\r\n"]).await?;
        backend.code(&[250]).await?;
        if conf.xclient {
            backend.send(&[&self.xclient()]).await?;
            // A greeting again, but servers have answered as to other commands, too.
            backend.code(&[220, 250]).await?;
            if !self.envelope.helo.is_empty() {
                backend.send(&[hello(self.envelope.esmtp), &self.envelope.helo, b"\r\n"]).await?;
                backend.code(&[250]).await?;
            }
        }
        if self.method == Method::None {
            backend.send(&[&self.envelope.from, b"\r\n"]).await?;
            backend.code(&[250]).await?;
            backend.send(&[&self.envelope.to, b"\r\n"]).await?;
            return backend.expect(reply::smtp).await.map(drop);
        }
        if conf.proxy_smtp_auth {
            let parts: [&[u8]; 4] = [b"\0", &self.client.session.login, b"\0", self.password()?];
            let credentials = Secret::from(parts.concat());
            let mut response = Vec::new();
            sasl::encode(&credentials, &mut response);
            backend.send(&[b"AUTH PLAIN ", &Secret::from(response), b"\r\n"]).await?;
            backend.code(&[235]).await?;
        }
        Ok(())
    }

    /// Who the client is (Postfix's XCLIENT).
    fn xclient(&self) -> Vec<u8> {
        let session = &self.client.session;
        let mut out = b"XCLIENT ADDR=".to_vec();
        match session.base.peer.ip() {
            Some(IpAddr::V6(ip)) => out.extend_from_slice(format!("IPV6:{ip}").as_bytes()),
            Some(IpAddr::V4(ip)) => out.extend_from_slice(ip.to_string().as_bytes()),
            None => out.extend_from_slice(b"[UNAVAILABLE]"),
        }
        if !session.login.is_empty() && !session.server.proxy.proxy_smtp_auth {
            out.extend_from_slice(b" LOGIN=");
            smtp::xtext(&session.login, &mut out);
        }
        out.extend_from_slice(b" NAME=");
        out.extend_from_slice(self.client.host.as_deref().unwrap_or("[UNAVAILABLE]").as_bytes());
        out.extend_from_slice(b"\r\n");
        out
    }
}
