//! Cycles, listeners, master, workers, logs.
//!
//! The program gives its modules ([`Module`]) to a [`cycle::Program`] and calls [`start::run`]. A configuration is read
//! into a [`Cycle`]; the master ([`master`]) forks workers ([`worker`]), each of which runs one event loop and hands new
//! connections to the cycle's applications ([`App`]).
//!
//! What isn't here: protocols. The engine knows listening sockets and connections, nothing of what travels over them.
#![forbid(unsafe_code)]

pub mod channel;
pub mod clock;
pub mod cycle;
pub mod embedded;
pub mod handover;
pub mod log;
pub mod master;
mod module;
pub mod notices;
pub mod personality;
pub mod signals;
pub mod start;
pub mod worker;

pub use cycle::Cycle;
pub use module::{App, BuildContext, Listen, Module, Variable, WorkerContext};
pub use personality::{NGINX_VERSION, ServerNames, VERSION, personality, server_names};
