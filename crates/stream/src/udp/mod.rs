//! Clients over UDP. A worker receives from a socket for all of them (`port`); what belongs together by the addresses of
//! client and server is a session (`client`), which ends when nothing more is expected (`tally`) or after a time. On a
//! reload and in an upgrade sessions move to the next worker, with the sockets to their backends (`handover`).

mod client;
pub(crate) mod handover;
mod listen;
mod port;
mod queue;
mod state;
mod tally;
mod told;

pub use client::Client;
pub(crate) use client::{Backend, TOO_LONG};
pub use listen::ListenParameters;
pub use port::{End, Port};
pub(crate) use tally::{Expected, Tally};
