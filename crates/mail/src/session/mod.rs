//! A session: what is known of a client, and what it goes through.

mod client;
mod serve;

use std::fmt;
use std::fmt::Write as _;
use std::rc::Rc;

use common::Base;
use common::front::Visitor;
use common::front::ssl::{SslConf, VerifyClient};
use engine::log::{Level, Log};
use os::SockAddr;

pub use self::client::Client;
pub use self::serve::{secure, serve};
use crate::proto::MailProto;
use crate::server::{Address, Mail, Server};

/// The session is over: the connection is to be closed, and the log has been told why if it is to be.
#[derive(Debug)]
pub struct Gone;

/// What is known of a client.
pub struct MailSession {
    /// The configuration.
    pub mail: Rc<Mail>,
    /// The address that it came by.
    pub address: Rc<Address>,
    /// The server of that address.
    pub server: Rc<Server>,
    /// The connection.
    pub stream: rt::Stream,
    /// What is known of its client's connection.
    pub base: Base<MailProto>,
    /// Whether TLS began, or begins now, within the session.
    pub starttls: bool,
    /// The name under which it tries to log in, or has logged in.
    pub login: Vec<u8>,
    /// The server that has its mail, as the log calls it.
    pub upstream: Option<Box<str>>,
    /// Another worker took it back, or this one did: it stays here.
    pub stays: bool,
}

impl MailSession {
    /// One that begins.
    pub fn new(mail: &Rc<Mail>, address: Rc<Address>, stream: rt::Stream, peer: SockAddr) -> MailSession {
        MailSession {
            server: address.default.clone(),
            address,
            base: Base::new(&mail.variables, stream.number(), peer),
            stream,
            starttls: false,
            login: Vec::new(),
            upstream: None,
            stays: false,
            mail: mail.clone(),
        }
    }

    /// The log of its server.
    pub fn log(&self) -> &Log {
        self.server.core.shared.log.as_ref().unwrap_or(&self.mail.log)
    }

    /// Logs with the session's details.
    pub fn log_at(&self, level: Level, message: fmt::Arguments<'_>) {
        let log = self.log();
        if !log.enabled(level) {
            return;
        }
        let details = |line: &mut String| {
            let starttls = if self.starttls { " using starttls" } else { "" };
            _ = write!(line, ", client: {}{starttls}, server: {}", self.base.peer.text(), self.address.addr);
            if !self.login.is_empty() {
                _ = write!(line, ", login: \"{}\"", buf::text::encode(&self.login));
            }
            if let Some(upstream) = &self.upstream {
                _ = write!(line, ", upstream: {upstream}");
            }
        };
        log.write_with(level, Some(self.base.number), message, Some(&details));
    }

    /// The client, as the log names it while it can't speak yet.
    pub fn visitor(&self) -> Visitor<'_> {
        Visitor {
            log: self.log().clone(),
            number: self.base.number,
            peer: &self.base.peer,
            server: &self.address.addr,
            starttls: self.starttls,
        }
    }

    /// What its server demands of the client's certificate.
    pub fn verify_client(&self) -> VerifyClient {
        self.server.set.get::<SslConf<MailProto>>().ssl_verify_client
    }

    /// Whether the client has to begin TLS before it may log in.
    pub fn needs_tls(&self) -> bool {
        self.base.tls.is_none() && self.server.starttls.starttls == crate::starttls::Starttls::Only
    }

    /// Whether the client can begin TLS.
    pub fn offers_tls(&self) -> bool {
        self.base.tls.is_none() && self.server.starttls.starttls != crate::starttls::Starttls::Off
    }
}
