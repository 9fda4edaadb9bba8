//! Servers, the addresses that they listen on, and the state of a worker.

use std::rc::Rc;

use common::front::listen::Parameters;
use common::front::ssl::{ServerTls, SslConf};
use common::front::{self, Front, Sessions};
use common::handover::Successors;
use common::modules::realip::FromProxy;
use conf::values::invalid_parameter;
use conf::{Directive, Loader, Result, Set, Word};
use engine::log::Log;

use crate::auth_http::AuthHttpConf;
use crate::config::CoreServer;
use crate::imap::ImapConf;
use crate::pop3::Pop3Conf;
use crate::proto::{MailProto, Protocol, Variables};
use crate::proxy::ProxyConf;
use crate::smtp::SmtpConf;
use crate::starttls::StarttlsConf;

/// The whole of `mail {}`, ready to serve.
pub struct Mail {
    /// All listening sockets.
    pub sockets: Vec<Socket>,
    /// The variables in use.
    pub variables: Rc<Variables>,
    /// The log of places without an `error_log`.
    pub log: Log,
    /// The worker's state.
    pub worker: Worker,
}

/// The state of a worker, besides its configuration.
#[derive(Default)]
pub struct Worker {
    /// Sessions that are being served.
    pub sessions: Sessions,
    /// The workers that take over its sessions once it leaves.
    pub successors: Successors,
}

/// A server.
pub struct Server {
    /// What it speaks.
    pub protocol: Protocol,
    /// The name that it gives itself.
    pub name: Box<str>,
    /// The core module's configuration.
    pub core: Rc<CoreServer>,
    /// How it asks who may log in.
    pub auth: Rc<AuthHttpConf>,
    /// How it speaks to servers that have the mail.
    pub proxy: Rc<ProxyConf>,
    /// IMAP.
    pub imap: Rc<ImapConf>,
    /// POP3.
    pub pop3: Rc<Pop3Conf>,
    /// SMTP.
    pub smtp: Rc<SmtpConf>,
    /// TLS within a session.
    pub starttls: Rc<StarttlsConf>,
    /// All modules' configuration.
    pub set: Set,
    /// What accepts TLS connections, if it has a certificate.
    pub tls: Option<Rc<ServerTls>>,
    /// Takes clients' addresses from headers of the PROXY protocol, if they are to be trusted.
    pub realip: Option<FromProxy<MailProto>>,
}

/// A listening socket, with all addresses whose connections it brings.
pub type Socket = front::Socket<MailProto>;
/// An address with the server that listens on it.
pub type Address = front::Address<MailProto>;

impl Front for MailProto {
    type Server = Server;
    type Listen = MailListen;
}

impl front::Server for Server {
    fn tls(&self) -> Option<&Rc<ServerTls>> {
        self.tls.as_ref()
    }

    fn has_certificate(&self) -> bool {
        !self.set.get::<SslConf<MailProto>>().ssl_certificate.is_empty()
    }
}

/// What differs in mail's `listen`: nothing can be added, and some of what others have makes no sense.
#[derive(Clone, Debug, Default)]
pub struct MailListen;

impl Parameters for MailListen {
    fn parameter(&mut self, _: &mut Loader<'_>, _: &Directive, word: &Word) -> Result<bool> {
        // An address has one server, and the server speaks first.
        let senseless = ["default_server", "default", "deferred"].iter().any(|name| *word == **name);
        if senseless || word.text.starts_with(b"setfib=") { Err(invalid_parameter(word)) } else { Ok(false) }
    }

    fn join(&mut self, _: &MailListen) {}
}
