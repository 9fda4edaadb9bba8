//! The master: starts workers, waits for signals and ended children, and does what they ask for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use os::poll::PollFd;
use os::process::{Exit, Fork};
use os::signal::{SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SignalFd};

use crate::cycle::{Cycle, Program, Purpose};
use crate::log::{self, Errno};
use crate::report::Reporter;
use crate::signals::{self, Action};
use crate::worker::{self, Birth, FATAL};

/// A running child.
struct Child {
    pid: i32,
    number: usize,
    /// Counts cycles: those of an older one have been, or are to be, told to quit.
    generation: u64,
    /// Whether it was told to end.
    exiting: bool,
    /// Whether it told that it accepts.
    ready: bool,
    /// This side of the channel.
    channel: OwnedFd,
}

/// What the master is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// Told to finish what runs.
    Quitting,
    /// Told to stop: when the next, harder signal is due, and how long to wait after it.
    Terminating {
        next: Instant,
        wait: Duration,
    },
}

/// The master's state.
pub struct Master<'a> {
    program: &'a Program,
    cycle: Rc<Cycle>,
    signals: SignalFd,
    children: Vec<Child>,
    generation: u64,
    stage: Stage,
    /// After a reload: when the old workers are told to quit, ready successors or not.
    handover: Option<Instant>,
    /// After WINCH there are to be no workers.
    no_accepting: bool,
    /// Numbers of workers that died at their start, and when each is tried again.
    respawns: Vec<(Instant, usize)>,
    /// How many died so since the last one that became ready.
    early_deaths: u32,
}

/// Why [`Master::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program is to end.
    Exit,
    /// This process is a worker that has ended, with this exit code.
    Worker(i32),
}

impl<'a> Master<'a> {
    /// A master of a cycle; the signals are blocked from here on and wait to be read.
    pub fn new(program: &'a Program, cycle: Rc<Cycle>) -> io::Result<Master<'a>> {
        let signals = SignalFd::new(&signals::HANDLED)?;
        Ok(Master {
            program,
            cycle,
            signals,
            children: Vec::new(),
            generation: 0,
            stage: Stage::Running,
            handover: None,
            no_accepting: false,
            respawns: Vec::new(),
            early_deaths: 0,
        })
    }

    /// Starts workers and manages them until the program is to end.
    pub fn run(&mut self) -> Outcome {
        crate::log!(log::current(), Notice, "start worker processes");
        if let Some(worker) = self.start_workers() {
            return worker;
        }
        loop {
            self.wait();
            while let Ok(Some(signal)) = self.signals.read() {
                let action = signals::of_master(signal.number, self.cycle.core().daemon);
                signals::note(signal, action);
                if let Some(worker) = self.act(action, signal.number) {
                    return worker;
                }
            }
            self.note_ready();
            self.hand_over();
            self.escalate();
            if let Some(worker) = self.respawn() {
                return worker;
            }
            if self.stage != Stage::Running && self.children.is_empty() {
                return self.exit();
            }
        }
    }

    fn act(&mut self, action: Action, signal: i32) -> Option<Outcome> {
        match action {
            Action::Terminate => self.terminate(signal),
            Action::Quit if self.stage == Stage::Running => {
                self.stage = Stage::Quitting;
                // From now on connections are refused instead of waiting in vain.
                self.cycle.listening.iter().for_each(|listening| drop(listening.sockets.take()));
                self.tell(|_| true, SIGQUIT);
            }
            Action::Reconfigure if self.stage == Stage::Running => return self.reconfigure(),
            Action::Reopen => self.reopen(),
            Action::NoAccept if self.stage == Stage::Running => {
                self.no_accepting = true;
                self.tell(|_| true, SIGQUIT);
            }
            Action::Reap => return self.reap(),
            Action::ChangeBinary => {
                crate::log!(log::current(), Warn, "replacing the running program isn't supported yet");
            }
            _ => {}
        }
        None
    }

    /// Sleeps until a signal, a word from a worker, or the next deadline.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(self.signals.as_fd().as_raw_fd(), os::poll::IN)];
        let waiting = self.children.iter().filter(|child| !child.ready);
        fds.extend(waiting.map(|child| PollFd::new(child.channel.as_raw_fd(), os::poll::IN)));
        let terminating = if let Stage::Terminating { next, .. } = self.stage { Some(next) } else { None };
        let respawn = self.respawns.iter().map(|(at, _)| *at).min();
        let deadline = [self.handover, terminating, respawn].into_iter().flatten().min();
        let timeout = deadline.map_or(-1, |at| at.saturating_duration_since(Instant::now()).as_millis() as i32 + 1);
        if let Err(error) = os::poll::poll(&mut fds, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            crate::log!(log::current(), Alert, "poll() failed{}", Errno(&error));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn start_workers(&mut self) -> Option<Outcome> {
        (0..self.cycle.core().worker_processes).find_map(|number| self.start_worker(number))
    }

    /// Forks one worker. Returns in the master; in the worker when that has ended.
    fn start_worker(&mut self, number: usize) -> Option<Outcome> {
        let (ours, theirs) = match os::channel::pair() {
            Ok(pair) => pair,
            Err(error) => {
                crate::log!(
                    log::current(),
                    Alert,
                    "socketpair() failed while spawning \"worker process\"{}",
                    Errno(&error)
                );
                return None;
            }
        };
        match os::process::fork() {
            Ok(Fork::Child) => {
                self.children.clear();
                drop(ours);
                let birth = Birth { number, cycle: self.cycle.clone(), channel: Some(theirs) };
                Some(Outcome::Worker(worker::run(birth).code()))
            }
            Ok(Fork::Parent(pid)) => {
                crate::log!(log::current(), Notice, "start worker process {pid}");
                let generation = self.generation;
                self.children.push(Child { pid, number, generation, exiting: false, ready: false, channel: ours });
                None
            }
            Err(error) => {
                crate::log!(log::current(), Alert, "fork() failed while spawning \"worker process\"{}", Errno(&error));
                None
            }
        }
    }

    /// Sends a signal to the children it is for, once each for signals that end them.
    fn tell(&mut self, whom: impl Fn(&Child) -> bool, signal: i32) {
        for child in self.children.iter_mut().filter(|child| whom(child)) {
            if signal == SIGQUIT && std::mem::replace(&mut child.exiting, true) {
                continue;
            }
            if let Err(error) = os::process::kill(child.pid, signal) {
                crate::log!(log::current(), Alert, "kill({}, {signal}) failed{}", child.pid, Errno(&error));
            }
        }
    }

    fn terminate(&mut self, signal: i32) {
        if matches!(self.stage, Stage::Terminating { .. }) {
            return;
        }
        self.children.iter_mut().for_each(|child| child.exiting = true);
        let wait = FIRST_WAIT;
        self.stage = Stage::Terminating { next: Instant::now() + wait, wait };
        self.tell(|_| true, if signal == SIGINT { SIGINT } else { SIGTERM });
    }

    /// While children don't end: the signal again, twice as long after; in the end one that can't be ignored.
    fn escalate(&mut self) {
        let Stage::Terminating { next, wait } = self.stage else { return };
        if Instant::now() < next {
            return;
        }
        let wait = wait * 2;
        self.stage = Stage::Terminating { next: Instant::now() + wait, wait };
        self.tell(|_| true, if wait > LAST_WAIT { SIGKILL } else { SIGTERM });
    }

    fn reconfigure(&mut self) -> Option<Outcome> {
        if self.no_accepting {
            // After WINCH: the same workers again, as nginx does when a binary upgrade is rolled back.
            self.no_accepting = false;
            return self.start_workers();
        }
        crate::log!(log::current(), Notice, "reconfiguring");
        let reporter = Reporter::running(self.cycle.log.clone());
        let cycle = Cycle::load(self.program, Purpose::Run, Some(&self.cycle), &reporter)?;
        let old = std::mem::replace(&mut self.cycle, cycle);
        old.replaced_by(&self.cycle);
        drop(old);
        self.generation += 1;
        self.respawns.clear();
        crate::log!(log::current(), Notice, "start worker processes");
        if let Some(worker) = self.start_workers() {
            return Some(worker);
        }
        self.handover = Some(Instant::now() + HANDOVER);
        None
    }

    /// Hears which workers are ready.
    fn note_ready(&mut self) {
        for child in self.children.iter_mut().filter(|child| !child.ready) {
            let mut byte = [0];
            child.ready = match os::channel::recv(child.channel.as_raw_fd(), &mut byte) {
                Ok(_) => true,
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            };
        }
    }

    /// After a reload: once all new workers accept (or have had time enough), the old ones are told to quit.
    fn hand_over(&mut self) {
        let Some(deadline) = self.handover else { return };
        let generation = self.generation;
        let started = self.children.iter().any(|child| child.generation == generation);
        if !started && self.cycle.core().worker_processes > 0 {
            self.handover = None;
            crate::log!(log::current(), Alert, "no new worker process has started, the old ones go on");
            return;
        }
        let ready = self.children.iter().all(|child| child.ready || child.generation != generation);
        if ready || Instant::now() >= deadline {
            self.handover = None;
            self.tell(|child| child.generation < generation, SIGQUIT);
        }
    }

    fn reopen(&mut self) {
        crate::log!(log::current(), Notice, "reopening logs");
        self.cycle.log_files.reopen_all(self.cycle.owner().map(|owner| owner.user.uid));
        self.tell(|_| true, SIGUSR1);
    }

    /// Collects ended children; those that weren't told to end are replaced.
    fn reap(&mut self) -> Option<Outcome> {
        self.note_ready();
        while let Ok(Some((pid, exit))) = os::process::wait_any() {
            let Some(at) = self.children.iter().position(|child| child.pid == pid) else {
                note_exit("unknown process", pid, exit);
                continue;
            };
            let child = self.children.swap_remove(at);
            self.cycle.shared.accept.release_dead(pid);
            self.cycle.zones.release_dead(pid, exit != Exit::Code(0));
            note_exit("worker process", pid, exit);
            if exit == Exit::Code(FATAL) {
                crate::log!(
                    log::current(),
                    Alert,
                    "worker process {pid} exited with fatal code {FATAL} and cannot be respawned"
                );
                continue;
            }
            if child.exiting || !self.wants(&child) {
                continue;
            }
            if child.ready {
                self.early_deaths = 0;
                if let Some(worker) = self.start_worker(child.number) {
                    return Some(worker);
                }
            } else {
                let wait = EARLY_WAIT * 2u32.pow(self.early_deaths.min(MAX_DOUBLINGS));
                self.early_deaths += 1;
                self.respawns.push((Instant::now() + wait, child.number));
            }
        }
        None
    }

    /// Whether a worker like this is to run.
    fn wants(&self, child: &Child) -> bool {
        self.stage == Stage::Running && !self.no_accepting && child.generation == self.generation
    }

    /// Starts again, later and later, what died before it was ready.
    fn respawn(&mut self) -> Option<Outcome> {
        if self.stage != Stage::Running || self.no_accepting {
            self.respawns.clear();
        }
        let now = Instant::now();
        while let Some(at) = self.respawns.iter().position(|(at, _)| *at <= now) {
            let (_, number) = self.respawns.swap_remove(at);
            if let Some(worker) = self.start_worker(number) {
                return Some(worker);
            }
        }
        None
    }

    fn exit(&mut self) -> Outcome {
        self.cycle.remove_files();
        crate::log!(log::current(), Notice, "exit");
        Outcome::Exit
    }
}

fn note_exit(what: &str, pid: i32, exit: Exit) {
    match exit {
        Exit::Code(code) => crate::log!(log::current(), Notice, "{what} {pid} exited with code {code}"),
        Exit::Signal(signal, core) => {
            let dumped = if core { " (core dumped)" } else { "" };
            crate::log!(log::current(), Alert, "{what} {pid} exited on signal {signal}{dumped}");
        }
    }
}

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LAST_WAIT: Duration = Duration::from_millis(1000);
/// The wait before the first new start of a worker that died at its start; it doubles each time.
const EARLY_WAIT: Duration = Duration::from_millis(100);
const MAX_DOUBLINGS: u32 = 7;
/// How long the old workers wait for their successors.
const HANDOVER: Duration = Duration::from_secs(5);
