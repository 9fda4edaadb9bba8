//! Servers of an upstream, balancers, keep-alive pools, the decision to retry.
//!
//! Life of a choice: a request takes a [`Choice`] of a [`Group`], asks it for a peer, tells it how the peer did, and asks
//! again while the decision of [`retry`] allows. Balancers see bytes and addresses, never requests. The state of peers
//! belongs to one worker, or is shared by all in a [`zone`]. Peers come and go with what name servers say of their
//! [`names`], and with what checks say of their [`health`].
#![forbid(unsafe_code)]

pub mod balance;
mod group;
pub mod health;
mod keepalive;
pub mod names;
mod peer;
mod ports;
mod queue;
pub mod resolver;
pub mod retry;
mod roster;
mod spec;
pub mod sticky;
mod system;
mod url;
pub mod zone;

pub use balance::{Balancer, Hints};
pub use group::{Choice, Group, Outcome};
pub use keepalive::{Idle, Keepalive, Pool};
pub use peer::{Peer, Peers};
pub use queue::QueueSpec;
pub use resolver::Resolver;
pub use spec::{GroupSpec, Lookup, Measure, Method, Moment, NamesSpec, ServerSpec, Time};
pub use sticky::Sticky;
pub use url::{Url, UrlError};
