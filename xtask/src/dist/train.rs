//! The load by which profiles are made: the requests of `cargo xtask instructions`, and of other parts of the program, on
//! loopback, a bounded number of each.

use std::path::Path;

use crate::instructions::{self, Server};
use crate::instructions_cases::{CASES, Case, OTHERS};
use crate::instructions_client::Client;
use crate::tools::{self, Outcome};

/// How often the requests of each case are sent that are counted there in a round.
const ROUNDS: usize = 5;

/// Runs a program until it has answered them all, with these variables (`NAME=value`), and lets it end by itself: then it
/// writes what it has counted. The backend is a program that isn't trained, or whose counts are thrown away.
pub(crate) fn run(program: &Path, backend: &Path, environment: &[String]) -> Outcome {
    let folder = tools::folder("training")?;
    let folder = folder.path();
    let cases: Vec<Case> = CASES.iter().chain(&OTHERS).copied().collect();
    let (backend_port, ports) = instructions::prepare(folder, &cases)?;
    let nowhere = ["env".to_string(), "LLVM_PROFILE_FILE=/dev/null".to_string()];
    let _backend = Server::start(folder, "backend", &nowhere, backend, backend_port)?;
    let first = *ports.first().ok_or("no ports")?;
    let before = [&["env".to_string()], environment].concat();
    let server = Server::start(folder, "measured", &before, program, first)?;
    for (case, port) in cases.into_iter().zip(ports) {
        let requests = case.requests * ROUNDS;
        Client::new(case, port).send(requests)?;
    }
    server.quit()
}
