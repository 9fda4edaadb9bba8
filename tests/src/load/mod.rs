//! The load driver that sees every loss, and the scenarios it watches: reloads, upgrades, kills, listeners that change.
//!
//! A [`Load`] keeps connections of several kinds busy and checks every byte of every answer against what the URI says it
//! must be. A [`Subject`] is the server it talks to, ours or nginx, looked at from outside only: signals, `/proc`, the pid
//! file. A scenario puts both together and ends in a [`Report`].

mod content;
mod counts;
mod driver;
mod exchange;
mod origin;
mod procfs;
mod report;
pub mod scenarios;
mod secure;
mod subject;
mod upgrades;
mod websocket;

#[cfg(test)]
mod tests;

pub use content::{body, uri};
pub use counts::{Counts, Kind, Loss, Totals};
pub use driver::{Load, Mix, Target};
pub use exchange::{Link, Request};
pub use origin::origin;
pub use procfs::{alive, children, cpu_ms, descriptors, forget_peak, held, peak, resident};
pub use report::{Report, markdown};
pub use subject::{Program, Settings, Subject};
pub use websocket::Tunnel;
