//! The master: starts workers, waits for signals and ended children, and does what they ask for.
//!
//! `docs/processes.md` has the whole picture: the states of each process, and what is told to whom.

pub mod answers;
pub mod process_table;
mod reload;
pub mod systemd;
pub mod upgrade;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use os::poll::PollFd;
use os::process::{Exit, Fork};
use os::signal::{SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SignalFd};

use self::answers::Answers;
use self::process_table::{Child, Kind, MAX_PROCESSES, ProcessTable, State};
use self::reload::Change;
use crate::channel::{Channel, Message};
use crate::cycle::watch::Watch;
use crate::cycle::{Cycle, Program};
use crate::handover::link::Offer;
use crate::log::{self, Errno};
use crate::personality::personality;
use crate::signals::{self, Action};
use crate::worker::helpers;
use crate::worker::{Birth, FATAL};

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
    table: ProcessTable,
    /// Whether the process runs in the background.
    daemon: bool,
    /// Which generation of workers is that of the cycle.
    generation: u64,
    /// The number of the last generation that was started: none is used twice.
    newest: u64,
    stage: Stage,
    /// A generation of workers is about to take the place of another.
    change: Option<Change>,
    /// What was asked for meanwhile: it begins when that is done, so that generations can't pile up, and what another
    /// program gets is settled.
    later: Vec<Action>,
    /// After WINCH there are to be no workers.
    no_accepting: bool,
    /// What couldn't be forked or died at its start, and when each is tried again.
    respawns: Vec<(Instant, Kind)>,
    /// How many failed so since the last start of all, or since one died that had been ready.
    early_deaths: u32,
    /// Who asked for a reload waits here for its outcome.
    answers: Option<Answers>,
    /// Of whom something is still to be taken back, and when that is tried again.
    unreleased: Vec<(Instant, i32)>,
    /// The identities of workers of another master that has ended before them, and when to look whether they have too.
    orphans: Vec<(Instant, u32)>,
    /// A link for the new binary, until it asks for it.
    offer: Option<Offer>,
    /// Files that may change.
    watch: Watch,
}

/// Why [`Master::run`] came back.
pub enum Outcome {
    /// The program is to end.
    Exit,
    /// This process is a child just forked: the master is to be dropped, and the child to live.
    Born(Box<Birth>),
}

/// In a child just forked, what it is to be; in the master nothing.
type Born = Option<Box<Birth>>;

impl<'a> Master<'a> {
    /// A master of a cycle; the signals are blocked from here on and wait to be read.
    pub fn new(program: &'a Program, cycle: Rc<Cycle>) -> io::Result<Master<'a>> {
        let signals = SignalFd::new(&signals::HANDLED)?;
        let daemon = cycle.core().daemon || program.inherited.is_upgrade();
        let mut table = ProcessTable::default();
        if let Some(link) = program.inherited.link() {
            // Its workers are there already: those that start now are born with them as peers.
            table.join(link);
            table.hear();
        }
        let watch = Watch::new(&cycle);
        Ok(Master {
            program,
            cycle,
            signals,
            table,
            daemon,
            generation: 0,
            newest: 0,
            stage: Stage::Running,
            change: None,
            later: Vec::new(),
            no_accepting: false,
            respawns: Vec::new(),
            early_deaths: 0,
            answers: answers(),
            offer: None,
            unreleased: Vec::new(),
            orphans: Vec::new(),
            watch,
        })
    }

    /// Starts workers and manages them until the program is to end.
    pub fn run(&mut self) -> Outcome {
        if let Some(birth) = self.start_workers() {
            return Outcome::Born(birth);
        }
        loop {
            self.wait();
            if let Some(birth) = self.turn() {
                return Outcome::Born(birth);
            }
            if self.stage != Stage::Running && self.table.iter().all(|child| child.kind == Kind::NewBinary) {
                self.exit();
                return Outcome::Exit;
            }
        }
    }

    /// Everything that is due.
    fn turn(&mut self) -> Born {
        self.give_link();
        self.table.hear();
        while let Ok(Some(signal)) = self.signals.read() {
            let action = self.judge(signal.number);
            signals::note(signal, action);
            if let Some(birth) = self.act(action, signal.number) {
                return Some(birth);
            }
        }
        if self.change.is_none() {
            self.answers.iter().for_each(Answers::collect);
        }
        self.listen();
        self.table.deliver();
        if let Some(birth) = self.hand_over() {
            return Some(birth);
        }
        if let Some(birth) = self.catch_up() {
            return Some(birth);
        }
        if self.stage == Stage::Running
            && let Some(birth) = self.look()
        {
            return Some(birth);
        }
        self.escalate();
        self.look_after_orphans();
        self.release();
        self.respawn()
    }

    /// What a signal asks for: one upgrade at a time.
    fn judge(&self, signal: i32) -> Action {
        match signals::of_master(signal, self.daemon) {
            Action::ChangeBinary if self.upgrading() || self.program.inherited.parent_lives() => Action::Refuse,
            action => action,
        }
    }

    /// Does what was put off while generations changed.
    fn catch_up(&mut self) -> Born {
        while self.change.is_none() && self.stage == Stage::Running && !self.later.is_empty() {
            let action = self.later.remove(0);
            if let Some(birth) = self.act(action, 0) {
                return Some(birth);
            }
        }
        None
    }

    fn put_off(&mut self, action: Action) {
        if !self.later.contains(&action) {
            self.later.push(action);
        }
    }

    fn act(&mut self, action: Action, signal: i32) -> Born {
        match action {
            Action::Terminate => self.terminate(),
            Action::Quit if self.stage == Stage::Running => {
                self.take_over(Err(TOLD_TO_END));
                self.stage = Stage::Quitting;
                self.note_stopping();
                // From now on connections are refused instead of waiting in vain.
                self.cycle.close_listening();
                self.send_away();
            }
            Action::Reconfigure if self.stage == Stage::Running && self.upgrading() => {
                self.answers.iter().for_each(Answers::collect);
                self.answer(Err("the worker processes were started again, the configuration was not read"));
                return self.roll_back();
            }
            Action::Reconfigure | Action::ChangeBinary if self.stage == Stage::Running && self.change.is_some() => {
                self.put_off(action);
            }
            Action::Reconfigure if self.stage == Stage::Running => return self.reconfigure(),
            Action::Reopen => self.reopen(),
            Action::NoAccept if self.stage == Stage::Running => {
                self.no_accepting = true;
                self.later.retain(|action| *action != Action::Reconfigure);
                self.take_over(Err(TOLD_TO_END));
                self.send_away();
            }
            Action::Reap => return self.reap(),
            Action::ChangeBinary if self.stage == Stage::Running => self.change_binary(),
            Action::Refuse => crate::log!(
                log::current(),
                Crit,
                "the changing binary signal is ignored: \
                 you should shutdown or terminate before either old or new binary's process"
            ),
            _ => crate::log!(log::current(), Debug, "signal {signal} asks for nothing"),
        }
        None
    }

    /// Sleeps until a signal, a word from a child, room for news, or the next deadline.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(self.signals.as_fd().as_raw_fd(), os::poll::IN)];
        // Who asks while a reload is under way asks for the next one.
        let answers = self.answers.iter().filter(|_| self.change.is_none());
        fds.extend(answers.map(|answers| PollFd::new(answers.descriptor(), os::poll::IN)));
        fds.extend(self.offer.iter().map(|offer| PollFd::new(offer.descriptor(), os::poll::IN)));
        fds.extend(self.table.iter().filter_map(Child::interest).map(|(fd, hear, tell)| {
            let events = if hear { os::poll::IN } else { 0 } | if tell { os::poll::OUT } else { 0 };
            PollFd::new(fd, events)
        }));
        fds.extend(
            self.table
                .link_interest()
                .map(|(fd, tell)| PollFd::new(fd, os::poll::IN | if tell { os::poll::OUT } else { 0 })),
        );
        let terminating = if let Stage::Terminating { next, .. } = self.stage { Some(next) } else { None };
        let respawn = self.respawns.iter().map(|(at, _)| *at).min();
        let look = self.watch.next().filter(|_| self.stage == Stage::Running);
        let unreleased = self.unreleased.iter().map(|(at, _)| *at);
        let release = unreleased.chain(self.orphans.iter().map(|(at, _)| *at)).min();
        let change = self.change.as_ref().map(|change| change.until);
        let deadline = [change, terminating, respawn, look, release].into_iter().flatten().min();
        let timeout = deadline.map_or(-1, |at| at.saturating_duration_since(Instant::now()).as_millis() as i32 + 1);
        if let Err(error) = os::poll::poll(&mut fds, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            crate::log!(log::current(), Alert, "poll() failed{}", Errno(&error));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts the workers that this generation lacks.
    fn start_workers(&mut self) -> Born {
        self.start_missing(|_| true)
    }

    /// Starts what this generation lacks of the kinds that are wanted.
    fn start_missing(&mut self, wanted: impl Fn(Kind) -> bool) -> Born {
        crate::log!(log::current(), Notice, "start worker processes");
        self.respawns.clear();
        // What others have died of these needn't.
        self.early_deaths = 0;
        let cycle = self.cycle.clone();
        let workers = (0..cycle.core().worker_processes).map(Kind::Worker);
        workers.chain(helpers::wanted(&cycle).iter().copied()).filter(|kind| wanted(*kind)).find_map(|kind| {
            let runs = |child: &Child| child.kind == kind && self.is_current(child);
            if self.table.iter().any(runs) { None } else { self.start_child(kind) }
        })
    }

    /// Whether a child serves the current cycle, and goes on to.
    fn is_current(&self, child: &Child) -> bool {
        child.generation == self.generation && !child.exiting()
    }

    fn start_child(&mut self, kind: Kind) -> Born {
        let number = if let Kind::Worker(number) = kind { number } else { 0 };
        let what = kind.name();
        if !self.table.has_room() {
            crate::log!(log::current(), Alert, "no more than {MAX_PROCESSES} processes can be spawned");
            self.try_later(kind);
            return None;
        }
        let (ours, theirs) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => {
                crate::log!(log::current(), Alert, "socketpair() failed while spawning \"{what}\"{}", Errno(&error));
                self.try_later(kind);
                return None;
            }
        };
        match os::process::fork() {
            Ok(Fork::Child) => {
                drop(ours);
                let peers = std::mem::take(&mut self.table).into_peers();
                let (cycle, generation, daemon) = (self.cycle.clone(), self.generation, self.daemon);
                Some(Box::new(Birth { kind, number, cycle, generation, daemon, channel: Some(theirs), peers }))
            }
            Ok(Fork::Parent(pid)) => {
                crate::log!(log::current(), Notice, "start {what} {pid}");
                self.table.insert(Child::new(pid, kind, self.generation, Some(ours)));
                None
            }
            Err(error) => {
                crate::log!(log::current(), Alert, "fork() failed while spawning \"{what}\"{}", Errno(&error));
                self.try_later(kind);
                None
            }
        }
    }

    /// Tells children something, over the channel or, where that fails, by the signal. Who was told to end isn't told to
    /// finish again; a new binary isn't told anything.
    fn tell(&mut self, whom: impl Fn(&Child) -> bool, message: &Message, signal: i32) {
        for child in self.table.iter_mut().filter(|child| child.kind != Kind::NewBinary && whom(child)) {
            if *message == Message::Quit && child.exiting() {
                continue;
            }
            if *message != Message::Reopen {
                child.state = State::Exiting;
            }
            if signal != SIGKILL && child.command(message).is_ok() {
                continue;
            }
            if let Err(error) = os::process::kill(child.pid, signal) {
                crate::log!(log::current(), Alert, "kill({}, {signal}) failed{}", child.pid, Errno(&error));
            }
        }
    }

    /// All workers are to finish. Who may take over from them, in an upgrade, they are to know by then.
    fn send_away(&mut self) {
        self.table.hear();
        self.tell(|_| true, &Message::Quit, SIGQUIT);
    }

    fn terminate(&mut self) {
        if matches!(self.stage, Stage::Terminating { .. }) {
            return;
        }
        let wait = FIRST_WAIT;
        self.take_over(Err(TOLD_TO_END));
        self.note_stopping();
        self.stage = Stage::Terminating { next: Instant::now() + wait, wait };
        self.tell(|_| true, &Message::Terminate, SIGTERM);
    }

    /// While children don't end: once more, twice as long after; in the end what can't be ignored.
    fn escalate(&mut self) {
        let Stage::Terminating { next, wait } = self.stage else { return };
        if Instant::now() < next {
            return;
        }
        let wait = wait * 2;
        self.stage = Stage::Terminating { next: Instant::now() + wait, wait };
        self.tell(|_| true, &Message::Terminate, if wait > LAST_WAIT { SIGKILL } else { SIGTERM });
    }

    /// The new binary isn't what was hoped for, or is gone: workers of the running configuration again.
    fn roll_back(&mut self) -> Born {
        self.no_accepting = false;
        self.start_workers()
    }

    fn change_binary(&mut self) {
        crate::log!(log::current(), Notice, "changing binary");
        if !self.table.has_room() {
            crate::log!(log::current(), Alert, "no more than {MAX_PROCESSES} processes can be spawned");
            return;
        }
        self.offer_link();
        match upgrade::start(&self.program.invocation, &self.cycle) {
            Some(pid) => self.table.insert(Child::new(pid, Kind::NewBinary, self.generation, None)),
            None => {
                self.offer = None;
                self.table.part();
            }
        }
    }

    /// Has a link ready for the new master, in which there is word of all workers already. Without one the upgrade goes
    /// as it does between other programs.
    fn offer_link(&mut self) {
        let made = Channel::pair().and_then(|(ours, theirs)| Ok((ours, Offer::new(theirs)?)));
        match made {
            Ok((ours, offer)) => {
                self.table.join(ours);
                self.offer = Some(offer);
            }
            Err(error) => {
                let errno = Errno(&error);
                crate::log!(
                    log::current(),
                    Warn,
                    "there is no link to the new binary process, idle connections are closed{errno}"
                );
            }
        }
    }

    /// Gives the link to the new master when that asks for it. If that has ended nobody will.
    fn give_link(&mut self) {
        let Some(offer) = &self.offer else { return };
        let new = self.table.iter().find(|child| child.kind == Kind::NewBinary).map(|child| child.pid);
        if new.is_none_or(|pid| offer.serve(pid, &self.cycle.zones)) {
            self.offer = None;
        }
    }

    /// Whether a master of another program file runs beside this one, started by it.
    fn upgrading(&self) -> bool {
        self.table.iter().any(|child| child.kind == Kind::NewBinary)
    }

    /// Whether the file of a unix socket is another master's too.
    fn keeps(&self, file: &Path) -> bool {
        self.upgrading() || self.program.inherited.keeps(file)
    }

    /// Hears which children work.
    fn listen(&mut self) {
        for child in self.table.iter_mut() {
            if let Err(error) = child.listen() {
                let (what, pid) = (child.kind.name(), child.pid);
                crate::log!(log::current(), Alert, "{what} {pid} said what isn't understood{}", Errno(&error));
            }
        }
    }

    /// Tells who asked for the reload what came of it.
    fn answer(&self, outcome: Result<(), &str>) {
        let message = outcome.map_err(|message| format!("{}: [alert] {message}\n", personality().name));
        let outcome = message.as_ref().map(|_| ()).map_err(String::as_str);
        systemd::ready(if outcome.is_ok() { "running" } else { "the last reload failed" });
        self.answers.iter().for_each(|answers| answers.answer(outcome));
    }

    /// The service ends, unless there is another master.
    fn note_stopping(&self) {
        if !self.upgrading() && !self.program.inherited.parent_lives() {
            systemd::stopping();
        }
    }

    fn reopen(&mut self) {
        crate::log!(log::current(), Notice, "reopening logs");
        for cycle in self.cycles() {
            cycle.reopen_logs(cycle.owner().map(|owner| owner.user.uid));
        }
        self.tell(|_| true, &Message::Reopen, SIGUSR1);
    }

    /// Collects ended children; those that weren't told to end are replaced.
    fn reap(&mut self) -> Born {
        self.listen();
        while let Ok(Some((pid, exit))) = os::process::wait_any() {
            let Some(child) = self.table.remove(pid) else {
                note_exit("unknown process", pid, exit);
                continue;
            };
            note_exit(child.kind.name(), pid, exit);
            let born = match child.kind {
                Kind::NewBinary => self.new_binary_ended(),
                _ => self.child_ended(&child, exit),
            };
            if born.is_some() {
                return born;
            }
        }
        None
    }

    fn child_ended(&mut self, child: &Child, exit: Exit) -> Born {
        let pid = child.pid;
        self.cycle.shared.accept.release_dead(pid);
        // After others who wait for a lock there is no use in trying.
        let (killed, later) = (exit != Exit::Code(0), !self.unreleased.is_empty());
        if !self.release_dead(pid, killed && !later) || (killed && later) {
            self.unreleased.push((Instant::now() + RELEASE_WAIT, pid));
        }
        if exit == Exit::Code(FATAL) {
            let what = child.kind.name();
            crate::log!(log::current(), Alert, "{what} {pid} exited with fatal code {FATAL} and cannot be respawned");
            return None;
        }
        let wanted = self.stage == Stage::Running && !self.no_accepting && self.is_current(child);
        if !wanted || !child.kind.respawns() {
            return None;
        }
        if child.ready {
            self.early_deaths = 0;
            return self.start_child(child.kind);
        }
        if let (Some(change), Kind::Worker(_)) = (&mut self.change, child.kind) {
            change.deaths += 1;
        }
        self.try_later(child.kind);
        None
    }

    /// What couldn't be started, or died before it was ready, is started later, and each time later still.
    fn try_later(&mut self, kind: Kind) {
        if !kind.respawns() {
            return;
        }
        let wait = EARLY_WAIT * 2u32.pow(self.early_deaths.min(MAX_DOUBLINGS));
        self.early_deaths += 1;
        self.respawns.push((Instant::now() + wait, kind));
    }

    /// The new master is gone, this one is the only one again.
    fn new_binary_ended(&mut self) -> Born {
        self.table.part();
        upgrade::restore_pid_file(&self.cycle);
        systemd::ready("running");
        if self.no_accepting && self.stage == Stage::Running { self.roll_back() } else { None }
    }

    /// Sees which workers of another master have ended, after that master.
    fn look_after_orphans(&mut self) {
        let now = Instant::now();
        let new = self.table.take_orphans().into_iter().map(|identity| (now, identity));
        let known = std::mem::take(&mut self.orphans);
        for (at, identity) in known.into_iter().chain(new) {
            if at > now {
                self.orphans.push((at, identity));
            } else if os::process::has_ended(identity) {
                self.unreleased.push((now, os::process::pid_of(identity)));
            } else {
                self.orphans.push((now + RELEASE_WAIT, identity));
            }
        }
    }

    /// Takes back what those held who died while a zone was kept locked by somebody else, or without their master.
    fn release(&mut self) {
        let now = Instant::now();
        while let Some(at) = self.unreleased.iter().position(|(at, _)| *at <= now) {
            let (_, pid) = self.unreleased.swap_remove(at);
            if !self.release_dead(pid, true) {
                self.unreleased.push((Instant::now() + RELEASE_WAIT, pid));
                return;
            }
        }
    }

    /// Takes back what a process that has ended held in zones: whether that is done. All are tried, even if one is locked.
    fn release_dead(&self, pid: i32, killed: bool) -> bool {
        self.cycles().filter(|cycle| !cycle.zones.release_dead(pid, killed)).count() == 0
    }

    /// The cycle, and the one before as long as that may come into force again; the newest last.
    fn cycles(&self) -> impl Iterator<Item = &Rc<Cycle>> {
        self.change.iter().filter_map(Change::before).chain([&self.cycle])
    }

    /// Starts what is due to be tried again.
    fn respawn(&mut self) -> Born {
        if self.stage != Stage::Running || self.no_accepting {
            self.respawns.clear();
        }
        let now = Instant::now();
        while let Some(at) = self.respawns.iter().position(|(at, _)| *at <= now) {
            let (_, kind) = self.respawns.swap_remove(at);
            if let Some(birth) = self.start_child(kind) {
                return Some(birth);
            }
        }
        None
    }

    fn exit(&self) {
        self.cycle.remove_files(&|file| self.keeps(file), self.upgrading());
        crate::log!(log::current(), Notice, "exit");
    }
}

/// Without them the server runs all the same.
fn answers() -> Option<Answers> {
    let answers = Answers::new();
    if let Err(error) = &answers {
        crate::log!(log::current(), Notice, "outcomes of reloads can't be asked for{}", Errno(error));
    }
    answers.ok()
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

/// What came of a reload if all workers were sent away meanwhile.
const TOLD_TO_END: &str = "the worker processes were told to end before all new ones had started";
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LAST_WAIT: Duration = Duration::from_millis(1000);
/// How soon a zone that somebody keeps locked is tried again, and orphans are looked at.
const RELEASE_WAIT: Duration = Duration::from_secs(5);
/// The wait before the first new start of a worker that died at its start; it doubles each time.
const EARLY_WAIT: Duration = Duration::from_millis(100);
const MAX_DOUBLINGS: u32 = 7;
