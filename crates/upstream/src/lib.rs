//! Servers of an upstream, balancers, keep-alive pools, the decision to retry.
//!
//! Life of a choice: a request takes a [`Choice`] of a [`Group`], asks it for a peer, tells it how the peer did, and asks
//! again while the decision of [`retry`] allows. Balancers see bytes and addresses, never requests. The state of peers
//! belongs to one worker, or is shared by all in a [`zone`].
#![forbid(unsafe_code)]

pub mod balance;
mod group;
mod keepalive;
mod peer;
pub mod resolver;
pub mod retry;
mod spec;
mod url;
pub mod zone;

pub use balance::{Balancer, Hints};
pub use group::{Choice, Group, Outcome};
pub use keepalive::{Idle, Keepalive, Pool};
pub use peer::{Peer, Peers};
pub use resolver::Resolver;
pub use spec::{GroupSpec, Method, ServerSpec};
pub use url::{Url, UrlError};
