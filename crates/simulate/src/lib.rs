//! The whole server under simulation.
//!
//! A seed makes a [`plan::Plan`]: a configuration, clients with what they ask for and how they behave, backends, faults of
//! the network. [`Ground::run`] reads the configuration as the program does, starts the worker's applications in a loop
//! with rt's simulated network and clock, and lets everybody meet there. Bodies are made of bytes that tell whose they are
//! and where they stand ([`content`]), so that a single one at the wrong place is seen. What must hold is in [`run`]; a
//! run with the same seed takes the same steps, which [`Report::digest`] shows.
//!
//! Not here: processes, signals, real sockets; those are tested end to end.
#![forbid(unsafe_code)]

pub mod ask;
pub mod backend;
pub mod config;
pub mod content;
pub mod dice;
pub mod http1;
pub mod http2;
pub mod plan;
pub mod response;
pub mod run;
pub mod server;
pub mod world;

pub use run::{Ground, Report, either};

use std::fmt;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, if self.findings.is_empty() { "good" } else { "FAILED" })?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))
    }
}
