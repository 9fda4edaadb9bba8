//! Mail as a protocol of the modules that it shares with others, and the protocols that it speaks itself.

use std::fmt;

use common::vars;
use common::{Base, Based, Places, Proto, Tables};
use conf::{Context, Level};
use engine::log::Level as LogLevel;
use os::SockAddr;

use crate::session::MailSession;

/// Mail, as what is shared knows it.
pub struct MailProto;

/// The variables of a configuration: there are none, but names of certificates could hold some.
pub type Variables = vars::Variables<MailProto>;

/// Where most directives may stand.
pub const EVERYWHERE: Context = Context::MAIL.or(Context::MAIL_SERVER);

impl Proto for MailProto {
    type Session = MailSession;

    const PORT: Option<u16> = None;
    const PLACES: Places = Places {
        block: Context::MAIL,
        server: Context::MAIL_SERVER,
        servers: EVERYWHERE,
        everywhere: EVERYWHERE,
        access: EVERYWHERE,
        log: EVERYWHERE,
        // There is none.
        upstream: Context(0),
        innermost: Level::Server,
    };

    fn tables() -> &'static Tables {
        common::tables!("mail")
    }
}

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// IMAP.
    Imap,
    /// POP3.
    Pop3,
    /// SMTP.
    Smtp,
}

impl Protocol {
    /// All of them, by the names that the configuration has for them.
    pub const NAMES: &[(&str, Protocol)] =
        &[("imap", Protocol::Imap), ("pop3", Protocol::Pop3), ("smtp", Protocol::Smtp)];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Imap => "imap",
            Protocol::Pop3 => "pop3",
            Protocol::Smtp => "smtp",
        }
    }

    /// The one whose servers listen on this port.
    pub fn of_port(port: u16) -> Option<Protocol> {
        match port {
            143 | 993 => Some(Protocol::Imap),
            110 | 995 => Some(Protocol::Pop3),
            25 | 465 | 587 => Some(Protocol::Smtp),
            _ => None,
        }
    }

    /// What a client is told when something is wrong here, and the connection is closed.
    pub fn internal_error(self) -> &'static str {
        match self {
            Protocol::Imap => "* BAD internal server error",
            Protocol::Pop3 => "-ERR internal server error",
            Protocol::Smtp => "451 4.3.2 Internal server error",
        }
    }

    /// What stands before the reason for which a client isn't served at all.
    pub fn goodbye(self) -> &'static str {
        match self {
            Protocol::Imap => "* BYE ",
            Protocol::Pop3 => "-ERR ",
            Protocol::Smtp => "421 4.7.1 ",
        }
    }
}

impl Based for MailSession {
    type Proto = MailProto;

    fn base(&self) -> &Base<MailProto> {
        &self.base
    }

    fn base_mut(&mut self) -> &mut Base<MailProto> {
        &mut self.base
    }

    fn find_local(&self) -> SockAddr {
        self.stream.local_addr().unwrap_or_else(|_| self.address.addr.clone())
    }

    fn log_details(&self, level: LogLevel, message: fmt::Arguments<'_>) {
        self.log_at(level, message);
    }
}

common::render_templates!(MailSession);
