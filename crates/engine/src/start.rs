//! From the command line's wishes to a running server.

use std::rc::Rc;
use std::time::Duration;

use os::signal::{SIGHUP, SIGQUIT, SIGTERM, SIGUSR1};

use crate::cycle::listening;
use crate::cycle::pid_file;
use crate::cycle::{Cycle, Program, Purpose};
use crate::handover::peers::Peers;
use crate::log::report::{Reporter, tell};
use crate::log::{self, Errno, Level};
use crate::master::answers::Question;
use crate::master::process_table::Kind;
use crate::master::systemd;
use crate::master::upgrade::Inherited;
use crate::master::{Master, Outcome};
use crate::personality::personality;
use crate::signals;
use crate::worker::panics;
use crate::worker::{self, Birth, Role};

/// Tests the configuration (`-t`); the cycle is for `-T`. `None`: the test failed.
pub fn test(program: &Program, quiet: bool) -> Option<Rc<Cycle>> {
    let reporter = Reporter::start(program.first_log());
    let cycle = Cycle::load(program, Purpose::Test { quiet }, None, &reporter);
    let (name, path) = (personality().name, buf::text::path(program.conf_path()));
    match &cycle {
        Some(_) if quiet => {}
        Some(_) => tell(&format!("{name}: configuration file {path} test is successful\n")),
        None => tell(&format!("{name}: configuration file {path} test failed\n")),
    }
    cycle
}

/// Sends a signal to the running master (`-s`); whether that worked, and for `reload`: whether the master, if it is one
/// that says so, has taken the new configuration.
pub fn signal(program: &Program, word: &str) -> bool {
    let reporter = Reporter::start(program.first_log());
    let Some(cycle) = Cycle::load(program, Purpose::Signal, None, &reporter) else { return false };
    let reporter = reporter.with_log(cycle.log.clone());
    reporter.say(Level::Notice, "signal process started");
    let number = match word {
        "stop" => SIGTERM,
        "quit" => SIGQUIT,
        "reopen" => SIGUSR1,
        _ => SIGHUP,
    };
    let result = pid_file::read(&cycle.core().pid).map_err(|message| (Level::Error, message)).and_then(|pid| {
        let question = (number == SIGHUP).then(|| Question::ask(pid)).flatten();
        os::process::kill(pid, number)
            .map_err(|error| (Level::Alert, format!("kill({pid}, {number}) failed{}", Errno(&error))))?;
        Ok(question)
    });
    match result {
        Ok(question) => question.is_none_or(outcome),
        Err((level, message)) => {
            reporter.say(level, &message);
            false
        }
    }
}

/// Waits until the master says whether it has taken the new configuration, and passes on why not.
fn outcome(question: Question) -> bool {
    let name = personality().name;
    match question.wait(PATIENCE) {
        Some(Ok(())) => true,
        Some(Err(messages)) => {
            tell(&format!("{messages}{name}: [error] reload failed, the running configuration is unchanged\n"));
            false
        }
        None => {
            tell(&format!("{name}: [error] the master process hasn't said whether it reloaded, see its error log\n"));
            false
        }
    }
}

/// Runs the server until it is told to end: the exit code. `started` is called when it listens.
pub fn run(program: &mut Program, command_line: &str, started: impl FnOnce(&Cycle)) -> i32 {
    let reporter = Reporter::start(program.first_log());
    reporter.install();
    panics::install_hook();
    program.inherited = Inherited::take(&reporter);
    let program = &*program;
    systemd::init();
    program.given.borrow_mut().extend(systemd::given(&reporter));
    let Some(cycle) = Cycle::load(program, Purpose::Run, None, &reporter) else { return 1 };
    log::set_current(cycle.log.clone());
    close_unused(program, &cycle, &reporter);
    note_start(&cycle);
    signals::ignore();
    if let Err(error) = signals::hold() {
        crate::log!(log::current(), Emerg, "signalfd() failed{}", Errno(&error));
        return 1;
    }
    // What takes a running program's place is in the background already.
    let to_background = cycle.core().daemon && !program.inherited.is_upgrade();
    let launch = match to_background.then(os::process::daemonize).transpose() {
        Ok(launch) => launch,
        Err(error) => {
            crate::log!(log::current(), Emerg, "daemon() failed{}", Errno(&error));
            return 1;
        }
    };
    if let Err(message) = pid_file::write(&cycle.core().pid) {
        reporter.with_log(cycle.log.clone()).say(Level::Emerg, &message);
        return 1;
    }
    cycle.redirect_stderr();
    started(&cycle);
    if let Some(launch) = launch {
        launch.done();
    }
    systemd::ready("running");
    match cycle.core().master_process {
        true => run_master(program, cycle, command_line),
        false => run_single(program, cycle),
    }
}

fn run_master(program: &Program, cycle: Rc<Cycle>, command_line: &str) -> i32 {
    os::title::set(&format!("{}: master process {command_line}", personality().name));
    let mut master = match Master::new(program, cycle) {
        Ok(master) => master,
        Err(error) => {
            crate::log!(log::current(), Emerg, "signalfd() failed{}", Errno(&error));
            return 1;
        }
    };
    match master.run() {
        Outcome::Exit => 0,
        Outcome::Born(birth) => {
            // What the master knew isn't needed by a worker, least of all the configuration before, of which it has a copy.
            let has_copy = master.is_changing();
            drop(master);
            if has_copy {
                os::memory::trim();
            }
            worker::run(*birth).code()
        }
    }
}

fn run_single(program: &Program, cycle: Rc<Cycle>) -> i32 {
    // It has no workers that connections could be handed to.
    drop(program.inherited.link());
    let daemon = cycle.core().daemon || program.inherited.is_upgrade();
    let birth =
        Birth { kind: Kind::Worker(0), number: 0, cycle, generation: 0, daemon, channel: None, peers: Peers::new() };
    worker::serve(birth, Role::Single(program)).code()
}

/// Closes the sockets that were passed to the program and that the configuration doesn't listen on.
fn close_unused(program: &Program, cycle: &Cycle, reporter: &Reporter) {
    let reporter = reporter.with_log(cycle.log.clone());
    for unused in listening::unwanted(&program.given.take(), &cycle.listening) {
        let address = &unused.listen.addr;
        reporter.say(Level::Warn, &format!("the passed socket {address} has no \"listen\" directive, closed"));
    }
}

fn note_start(cycle: &Cycle) {
    let log = &cycle.log;
    let (_, name) = cycle.method();
    crate::log!(log, Notice, "using the \"{name}\" event method");
    crate::log!(log, Notice, "{}", personality().version());
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    crate::log!(log, Notice, "OS: Linux {}", release.trim_end());
    if let Ok((soft, hard)) = os::process::limit(os::process::Limit::Files) {
        crate::log!(log, Notice, "getrlimit(RLIMIT_NOFILE): {soft}:{hard}");
        let connections = cycle.event().worker_connections as u64;
        let limit = cycle.core().worker_rlimit_nofile.unwrap_or(hard);
        if connections > limit {
            crate::log!(log, Warn, "{connections} worker_connections exceed open file resource limit: {limit}");
        }
    }
}

/// How long `-s reload` waits for the outcome: names may have to be looked up, and workers started.
const PATIENCE: Duration = Duration::from_secs(60);
