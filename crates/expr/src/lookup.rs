//! Lookup tables, built from the configuration and then only read: [`Names`] for host names and strings, [`Networks`] and
//! [`Ranges`] for addresses, [`Split`] for shares of clients.

mod hash;
mod names;
mod networks;
mod ranges;
mod split;

pub use names::{Names, NamesError};
pub use networks::{Network, Networks, parse_ipv4};
pub use ranges::{Address, Ranges};
pub use split::{PercentError, Split};
