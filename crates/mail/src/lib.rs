//! IMAP, POP3 and SMTP: a client logs in here, a server over HTTP says whether it may and where its mail is, and then it
//! is connected to the server that has it. docs/mail.md tells the life of a session.
//!
//! The commands are read by [`wire::mail`]; here is one file for each of nginx's modules, with its directives: [`imap`],
//! [`pop3`], [`smtp`], [`auth_http`], [`proxy`], [`starttls`].
#![forbid(unsafe_code)]

mod app;
pub mod auth_http;
pub mod config;
pub mod handover;
pub mod imap;
pub mod pop3;
pub mod proto;
pub mod proxy;
pub mod sasl;
pub mod server;
pub mod session;
pub mod smtp;
pub mod starttls;

pub use app::Module;
