//! A worker: one event loop that accepts and serves.

pub mod helpers;
pub mod inbox;
pub mod panics;
pub mod sandbox;

use std::cell::Cell;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::{Rc, Weak};

use os::socket;

use self::inbox::{Inbox, Told, first_of};
use crate::channel::Channel;
use crate::cycle::core_conf::{CoreConf, Env};
use crate::cycle::watch;
use crate::cycle::{Cycle, Program, Purpose};
use crate::handover::Handover;
use crate::handover::peers::Peers;
use crate::log::report::Reporter;
use crate::log::{self, Errno, Level};
use crate::master::answers::Answers;
use crate::master::process_table::{Kind, title};
use crate::master::systemd;
use crate::module::{App, WorkerContext};
use crate::personality::personality;
use crate::signals::{self, Action};

/// What the master gives a worker at its birth.
pub struct Birth {
    /// What it is to be.
    pub kind: Kind,
    /// The number of a worker, from 0.
    pub number: usize,
    /// The cycle it serves.
    pub cycle: Rc<Cycle>,
    /// Which cycle of the master this is, counted from 0.
    pub generation: u64,
    /// Whether WINCH counts: in the foreground a terminal sends it whenever its window changes.
    pub daemon: bool,
    /// Its end of the channel to the master; none if it is the only process.
    pub channel: Option<Channel>,
    /// The other workers.
    pub peers: Peers,
}

/// How a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it was told to.
    Done,
    /// At its start, for a reason that won't go away: the master doesn't start it again.
    Fatal,
}

impl End {
    /// The process's exit code.
    pub fn code(self) -> i32 {
        match self {
            End::Done => 0,
            End::Fatal => FATAL,
        }
    }
}

/// Runs a worker process, or another one of its kind, until it is told to end.
pub fn run(birth: Birth) -> End {
    os::title::set(&title(birth.kind));
    birth.cycle.zones.close_files();
    if let Err(message) = become_worker(&birth) {
        crate::log!(log::current(), Emerg, "{message}");
        return End::Fatal;
    }
    serve(birth, Role::Worker)
}

/// Which process the loop runs in.
#[derive(Clone, Copy)]
pub enum Role<'a> {
    /// A worker below a master.
    Worker,
    /// The only process (`master_process off`), which reads its configuration again itself.
    Single(&'a Program),
}

/// Runs the event loop until the process is told to end.
pub fn serve(birth: Birth, role: Role<'_>) -> End {
    warn("setenv", set_environment(birth.cycle.core()));
    let runtime = match new_runtime(&birth.cycle) {
        Ok(runtime) => runtime,
        Err(message) => {
            crate::log!(log::current(), Emerg, "{message}");
            return End::Fatal;
        }
    };
    crate::clock::set_source(|| {
        let wall = rt::wall();
        (wall.secs, wall.msec)
    });
    RUNNING.set(true);
    let life = async {
        match birth.kind {
            Kind::Worker(_) => main_task(birth, role).await,
            _ => helpers::main_task(birth).await,
        }
    };
    let end = runtime.block_on(life).unwrap_or_else(|message| {
        crate::log!(log::current(), Emerg, "{message}");
        End::Fatal
    });
    RUNNING.set(false);
    crate::clock::set_source(crate::clock::system);
    if end == End::Done {
        crate::log!(log::current(), Notice, "exit");
    }
    end
}

async fn main_task(birth: Birth, role: Role<'_>) -> Result<End, String> {
    let Birth { number, cycle, generation, daemon, channel, peers, .. } = birth;
    let inbox = Inbox::new(channel, peers).map_err(|error| format!("signalfd() failed{}", Errno(&error)))?;
    crate::notices::set_peers(inbox.peers());
    let takes = cycle.core().hands_over() && matches!(role, Role::Worker);
    let handover = Handover::new(inbox.peers().clone(), (generation, number), cycle.apps.clone(), takes);
    let answers = if let Role::Single(_) = role { Answers::new().ok() } else { None };
    let accepting = Rc::default();
    let mut serving = Serving { number, role, cycle, daemon, inbox, handover, accepting, answers };
    serving.begin()?;
    serving.inbox.say_ready();
    while let Ok(told) = serving.inbox.next().await {
        let action = serving.action(told);
        if let (Role::Single(_), Action::Terminate | Action::Quit) = (role, action) {
            systemd::stopping();
        }
        match action {
            Action::Terminate => {
                crate::log!(log::current(), Notice, "exiting");
                break;
            }
            Action::Quit => {
                crate::log!(log::current(), Notice, "gracefully shutting down");
                serving.quit().await;
                break;
            }
            Action::Reopen => serving.reopen(),
            Action::Reconfigure => serving.reconfigure()?,
            _ => {}
        }
    }
    serving.cycle.log_files.flush_all();
    if let Role::Single(program) = role {
        serving.cycle.remove_files(&|file| program.inherited.keeps(file), false);
    }
    Ok(End::Done)
}

/// A cycle being served.
struct Serving<'a> {
    number: usize,
    role: Role<'a>,
    cycle: Rc<Cycle>,
    daemon: bool,
    inbox: Inbox,
    handover: Rc<Handover>,
    /// What accepts for it.
    accepting: Rc<Accepting>,
    /// Who asked a single process for a reload waits here for its outcome.
    answers: Option<Answers>,
}

impl Serving<'_> {
    /// What to do about what was said. Signals are noted in the log, commands aren't, as in nginx.
    fn action(&self, told: Told) -> Action {
        match told {
            Told::Signal(signal) => {
                let action = match self.role {
                    Role::Worker => signals::of_worker(signal.number, self.daemon),
                    Role::Single(_) => signals::of_single(signal.number, self.daemon),
                };
                signals::note(signal, action);
                action
            }
            Told::Command(action) => action,
            Told::HandOver { kind, payload, fds } => {
                self.handover.received(kind, &payload, fds);
                Action::Ignore
            }
            Told::Notice { kind, payload } => {
                self.cycle.apps.iter().for_each(|app| app.notice(kind, &payload));
                Action::Ignore
            }
        }
    }

    /// Starts the applications, then the accepting.
    fn begin(&self) -> Result<(), String> {
        self.cycle.zones.claim_counters();
        start_apps(&self.cycle, self.number);
        if let Role::Single(_) = self.role {
            rt::spawn(watch::keep_looking(Rc::downgrade(&self.cycle)));
        }
        listen(&self.cycle, self.number, self.role, &self.accepting, &self.handover)
    }

    fn reopen(&self) {
        crate::log!(log::current(), Notice, "reopening logs");
        self.cycle.apps.iter().for_each(|app| app.reopen());
        let owner = match self.role {
            Role::Single(_) => self.cycle.owner().map(|owner| owner.user.uid),
            Role::Worker => None,
        };
        self.cycle.reopen_logs(owner);
    }

    /// A single process changes to a new configuration; connections of the old one are finished beside it.
    fn reconfigure(&mut self) -> Result<(), String> {
        let Role::Single(program) = self.role else { return Ok(()) };
        crate::log!(log::current(), Notice, "reconfiguring");
        let reporter = Reporter::running(self.cycle.log.clone());
        self.answers.iter().for_each(Answers::collect);
        systemd::reloading();
        let Some(cycle) = Cycle::load(program, Purpose::Run, Some(&self.cycle), &reporter) else {
            self.answers.iter().for_each(|answers| answers.answer(Err(&reporter.heard())));
            systemd::ready("the last reload failed, the configuration before it is running");
            return Ok(());
        };
        let old = std::mem::replace(&mut self.cycle, cycle);
        old.replaced_by(&self.cycle, &|file| program.inherited.keeps(file));
        self.cycle.redirect_stderr();
        let accepting = std::mem::take(&mut self.accepting);
        leave(&old, &accepting);
        self.begin()?;
        self.cycle.give_up_retired();
        self.answers.iter().for_each(|answers| answers.answer(Ok(())));
        systemd::ready("running");
        Ok(())
    }

    /// Finishes what runs: returns when all connections are done, the time is over, or a signal says to stop at once.
    async fn quit(&self) {
        let cycle = &self.cycle;
        os::title::set(&format!("{}: worker process is shutting down", personality().name));
        self.accepting.stop.notify();
        cycle.close_listening();
        let timeout = cycle.core().worker_shutdown_timeout_ms;
        let deadline = (timeout > 0).then(|| rt::now_ms() + timeout);
        let late = || deadline.is_some_and(|deadline| rt::now_ms() >= deadline);
        let told = async {
            while let Ok(told) = self.inbox.next().await {
                match self.action(told) {
                    Action::Terminate => break,
                    Action::Reopen => self.reopen(),
                    _ => {}
                }
            }
        };
        let hands_over = cycle.core().hands_over() && matches!(self.role, Role::Worker);
        first_of(empty(cycle, &self.handover, &self.accepting, hands_over, &late), told).await;
        end_connections(cycle).await;
        if self.handover.given() > 0 {
            crate::log!(log::current(), Notice, "{} connections handed over", self.handover.given());
        }
        crate::log!(log::current(), Notice, "exiting");
    }
}

/// Lets a cycle end beside the next one: it gets no new connections, and those that are idle are closed.
pub(crate) fn leave(cycle: &Cycle, accepting: &Accepting) {
    accepting.stop.notify();
    accepting.stop_datagrams.notify();
    cycle.apps.iter().for_each(|app| app.quit());
    cycle.log_files.flush_all();
    rt::close_idle();
}

/// Starts the applications in the current event loop.
pub(crate) fn start_apps(cycle: &Rc<Cycle>, number: usize) {
    let context = WorkerContext { number, log: cycle.log.clone(), cycle: cycle.clone() };
    for app in &cycle.apps {
        app.clone().start_worker(&context);
    }
}

/// Returns when nothing is left to serve, or it is late. What can go to successors goes.
pub(crate) async fn empty(
    cycle: &Cycle,
    handover: &Rc<Handover>,
    accepting: &Accepting,
    hands_over: bool,
    late: &dyn Fn() -> bool,
) {
    let apps = &cycle.apps;
    let mut open = hands_over && handover.begin().await;
    // Not sooner: from now on nobody receives until successors have got the sessions.
    accepting.stop_datagrams.notify();
    if open {
        apps.iter().for_each(|app| app.hand_over(handover));
    }
    apps.iter().for_each(|app| app.quit());
    if open {
        rt::wake_connections();
    }
    loop {
        rt::close_idle();
        rt::yield_now().await;
        if hands_over {
            handover.go_on();
        }
        if handover.is_open() && !std::mem::replace(&mut open, true) {
            // They came late.
            apps.iter().for_each(|app| app.hand_over(handover));
            rt::wake_connections();
        }
        let holds =
            accepting.datagrams.get() > 0 || handover.waiting() > 0 || apps.iter().any(|app| app.holds_datagrams());
        if handover.holds_datagrams() && !holds {
            handover.leave_datagrams();
        }
        let busy = || accepting.running.get() + accepting.datagrams.get() > 0 || apps.iter().any(|app| app.busy() > 0);
        if !busy() && handover.waiting() == 0 {
            handover.settle().await;
            if !busy() {
                return;
            }
        }
        if late() {
            return;
        }
        let soon = handover.waiting() > 0 || handover.holds_datagrams();
        rt::sleep(if soon { FULL_POLL_MS } else { QUIT_POLL_MS }).await;
    }
}

/// What still runs is over now; it gets the time to log that.
pub(crate) async fn end_connections(cycle: &Cycle) {
    let busy = || cycle.apps.iter().map(|app| app.busy()).sum::<usize>();
    if busy() == 0 {
        return;
    }
    crate::log!(log::current(), Notice, "worker_shutdown_timeout: closing {} connections", busy());
    let end = rt::now_ms() + LAST_WORDS_MS;
    rt::close_accepted();
    while busy() > 0 && rt::now_ms() < end {
        rt::sleep(1).await;
    }
}

/// Starts a task for each listening socket; all end, and close their sockets, when the accepting stops. Datagram sockets
/// go to their applications, which receive until then.
fn listen(
    cycle: &Rc<Cycle>,
    worker: usize,
    role: Role<'_>,
    accepting: &Rc<Accepting>,
    handover: &Rc<Handover>,
) -> Result<(), String> {
    let event = cycle.event();
    let workers = cycle.core().worker_processes;
    let mutex = event.accept_mutex && cycle.core().master_process && workers > 1;
    if mutex {
        rt::set_accept_mutex(Rc::new(AcceptMutex(cycle.shared.accept.clone())), event.accept_mutex_delay_ms);
    }
    let mut held = Vec::new();
    for listening in &cycle.listening {
        let exclusive = workers > 1 && !listening.listen.options.reuseport;
        let options = rt::AcceptOptions {
            exclusive,
            multi_accept: event.multi_accept,
            mutex: mutex && !listening.listen.options.reuseport,
            deferred: listening.listen.options.deferred,
            delay_ms: event.accept_mutex_delay_ms,
        };
        let group = listening.steered();
        let sockets = match role {
            Role::Worker => listening.take(worker, workers),
            // The next cycle is going to inherit them.
            Role::Single(_) => listening.sockets.borrow().clone(),
        };
        let Some(app) = cycle.apps.get(listening.app) else { continue };
        for fd in sockets {
            let fd = Rc::try_unwrap(fd)
                .or_else(|fd| fd.as_fd().try_clone_to_owned())
                .map_err(|error| format!("dup() failed{}", Errno(&error)))?;
            let failed = |error| format!("listening on {} failed{}", listening.listen.addr, Errno(&error));
            match listening.listen.options.kind {
                socket::Kind::Stream => {
                    let number = fd.as_raw_fd();
                    let listener = rt::Listener::new(fd, options).map_err(failed)?;
                    rt::spawn(accepting.clone().run(listener, Some(number), app.clone(), listening.index));
                }
                socket::Kind::Datagram => {
                    let socket = rt::UdpSocket::new(fd, rt::UdpOptions { exclusive }).map_err(failed)?;
                    let socket = Rc::new(socket);
                    if let (Role::Worker, true) = (role, listening.kept.get()) {
                        socket.hold();
                    }
                    held.push(Rc::downgrade(&socket));
                    rt::spawn(accepting.clone().stop_later(Rc::downgrade(&socket)));
                    app.clone().datagrams(listening.index, socket, group);
                }
            }
        }
    }
    if !held.is_empty() {
        rt::spawn(receive_when_cleared(handover.clone(), held));
    }
    if let Role::Worker = role {
        // What was for older workers, and left for them to empty, isn't to be held open here.
        cycle.close_listening();
    }
    Ok(())
}

/// Lets sockets be received from once no older worker does that any more.
async fn receive_when_cleared(handover: Rc<Handover>, sockets: Vec<Weak<rt::UdpSocket>>) {
    if handover.cleared().await {
        sockets.iter().filter_map(Weak::upgrade).for_each(|socket| socket.release());
    }
}

/// The tasks that accept.
#[derive(Default)]
pub(crate) struct Accepting {
    /// Happens once.
    pub(crate) stop: rt::Event,
    /// The same for datagrams.
    pub(crate) stop_datagrams: rt::Event,
    running: Cell<usize>,
    /// How many sockets are still received from.
    datagrams: Cell<usize>,
}

impl Accepting {
    /// Accepts on a socket, the descriptor of this number, until told to stop; from one that has been retired what was
    /// on its way into its queue too.
    pub(crate) async fn run(
        self: Rc<Self>,
        listener: rt::Listener,
        number: Option<RawFd>,
        app: Rc<dyn App>,
        index: usize,
    ) {
        self.running.set(self.running.get() + 1);
        let accept = async {
            while let Ok((stream, peer)) = listener.accept().await {
                app.clone().accept(index, stream, peer);
            }
        };
        let stopped = async {
            stopped(&self.stop).await;
            if number.is_some_and(os::socket::is_retired) {
                rt::sleep(LAST_ARRIVALS_MS).await;
            }
        };
        first_of(accept, stopped).await;
        self.running.set(self.running.get() - 1);
    }

    /// Ends an application's receiving when told to stop; the application gets what waits in the socket first.
    pub(crate) async fn stop_later(self: Rc<Self>, socket: Weak<rt::UdpSocket>) {
        self.datagrams.set(self.datagrams.get() + 1);
        stopped(&self.stop_datagrams).await;
        if let Some(socket) = socket.upgrade() {
            socket.stop(LAST_ARRIVALS_MS).await;
        }
        self.datagrams.set(self.datagrams.get() - 1);
    }
}

/// Returns when told to stop, also if that was before.
async fn stopped(stop: &rt::Event) {
    std::future::poll_fn(|cx| stop.poll_since(cx, 0)).await;
}

/// The lock of `accept_mutex`, as the event loop takes it.
struct AcceptMutex(shm::TryLock);

impl rt::AcceptLock for AcceptMutex {
    fn try_lock(&self) -> bool {
        self.0.try_lock(os::process::pid())
    }

    fn unlock(&self) {
        self.0.unlock(os::process::pid());
    }
}

/// The runtime of the configured method. Where `use` names none and the kernel refuses the default, epoll does.
fn new_runtime(cycle: &Cycle) -> Result<rt::Runtime, String> {
    let (driver, name) = cycle.method();
    match runtime_of(cycle, driver) {
        Ok(runtime) => Ok(runtime),
        Err(_) if cycle.event().method.is_none() && driver != rt::Driver::Epoll => {
            runtime_of(cycle, rt::Driver::Epoll).map_err(|error| format!("epoll_create1() failed{}", Errno(&error)))
        }
        Err(error) => Err(format!("the \"{name}\" event method failed{}", Errno(&error))),
    }
}

pub(crate) fn runtime_of(cycle: &Cycle, driver: rt::Driver) -> std::io::Result<rt::Runtime> {
    rt::Runtime::new(rt::Options {
        driver,
        connections: cycle.event().worker_connections,
        timer_resolution_ms: u32::try_from(cycle.core().timer_resolution_ms).unwrap_or(u32::MAX),
        hook: Some(Rc::new(report)),
        serial: Some(Rc::new({
            let shared = cycle.shared.clone();
            move || shared.serial.next()
        })),
    })
}

/// What the loop reports goes to the log.
fn report(report: rt::Report<'_>) {
    let log = log::current();
    match report {
        // The panic hook has told of it, with the place.
        rt::Report::Panic(_) => crate::worker::panics::settle(),
        rt::Report::ReusingConnections(limit) => {
            crate::log!(log, Warn, "{limit} worker_connections are not enough, reusing connections");
        }
        rt::Report::NotEnoughConnections(limit) => {
            crate::log!(log, Alert, "{limit} worker_connections are not enough");
        }
        rt::Report::Accept { error, paused } => {
            let level = if paused { Level::Crit } else { Level::Alert };
            log.write(level, None, format_args!("accept4() failed{}", Errno(error)));
        }
        rt::Report::Driver(error) => crate::log!(log, Alert, "waiting for events failed{}", Errno(error)),
    }
}

/// Limits, user, processors, folder.
fn become_worker(birth: &Birth) -> Result<(), String> {
    let core = birth.cycle.core();
    if let Some(priority) = core.worker_priority {
        warn("setpriority", os::process::set_priority(priority));
    }
    set_limits(core, birth.cycle.event().worker_connections);
    if let Some(owner) = birth.cycle.owner() {
        sandbox::drop_privileges(&owner, &birth.cycle.needs)?;
    }
    if let Kind::Worker(number) = birth.kind
        && let Some(processors) = core.worker_cpu_affinity.of_worker(number)
    {
        warn("sched_setaffinity", os::process::set_affinity(processors));
    }
    warn("prctl(PR_SET_DUMPABLE)", os::process::set_dumpable());
    if let Some(folder) = &core.working_directory {
        std::env::set_current_dir(folder)
            .map_err(|error| format!("chdir(\"{}\") failed{}", buf::text::path(folder), Errno(&error)))?;
    }
    sandbox::enter(&birth.cycle)
}

/// Of the environment stays `TZ` and what `env` names.
fn set_environment(core: &CoreConf) -> std::io::Result<()> {
    os::process::set_environment(&environment(&core.env, |name| std::env::var_os(name)))
}

fn environment(named: &[Env], inherited: impl Fn(&str) -> Option<OsString>) -> Vec<(OsString, OsString)> {
    let mut kept: Vec<(OsString, OsString)> = Vec::new();
    let time_zone = (!named.iter().any(|env| env.name == "TZ")).then_some(("TZ", None));
    let named = named.iter().map(|env| (&*env.name, env.value.as_deref()));
    for (name, value) in time_zone.into_iter().chain(named) {
        if let Some(value) = value.map(OsString::from).or_else(|| inherited(name)) {
            kept.push((name.into(), value));
        }
    }
    kept
}

fn set_limits(core: &CoreConf, connections: usize) {
    use os::process::{Limit, limit, set_limit};
    match core.worker_rlimit_nofile {
        Some(files) => warn("setrlimit(RLIMIT_NOFILE)", set_limit(Limit::Files, files)),
        None => {
            // nginx leaves the limit and warns; where the hard limit allows it, what the configuration needs is taken.
            if let Ok((soft, hard)) = limit(Limit::Files)
                && soft < connections as u64
                && hard > soft
            {
                let _ = set_limit(Limit::Files, hard.min((connections as u64).saturating_mul(2)));
            }
        }
    }
    if let Some(core_size) = core.worker_rlimit_core {
        warn("setrlimit(RLIMIT_CORE)", set_limit(Limit::Core, core_size));
    }
}

fn warn(call: &str, result: std::io::Result<()>) {
    if let Err(error) = result {
        crate::log!(log::current(), Alert, "{call} failed{}", Errno(&error));
    }
}

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Calls a function later, if an event loop runs; at once otherwise.
pub fn after(ms: u64, f: impl FnOnce() + 'static) {
    if !RUNNING.get() {
        f();
        return;
    }
    rt::spawn(async move {
        rt::sleep(ms).await;
        f();
    });
}

/// The exit code that says: don't start me again.
pub const FATAL: i32 = 2;
const QUIT_POLL_MS: u64 = 20;
/// How soon a channel that was full is tried again.
const FULL_POLL_MS: u64 = 1;
/// How long a worker that leaves goes on accepting from a socket that nobody else accepts from: connections whose
/// handshake had begun end up there. As long an application may receive its last datagrams.
const LAST_ARRIVALS_MS: u64 = 500;
/// How long connections may take to notice that they are over.
const LAST_WORDS_MS: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments() {
        let inherited = |name: &str| ["TZ", "A"].contains(&name).then(|| OsString::from("own"));
        let env = |name: &str, value: Option<&str>| Env { name: name.into(), value: value.map(Into::into) };
        type Variables = &'static [(&'static str, &'static str)];
        let cases: [(Vec<Env>, Variables); 4] = [
            (vec![], &[("TZ", "own")]),
            (vec![env("A", None), env("B", None)], &[("TZ", "own"), ("A", "own")]),
            (vec![env("A", Some("x=y"))], &[("TZ", "own"), ("A", "x=y")]),
            (vec![env("TZ", Some("UTC"))], &[("TZ", "UTC")]),
        ];
        for (env, expect) in cases {
            let expect: Vec<(OsString, OsString)> = expect.iter().map(|(n, v)| (n.into(), v.into())).collect();
            assert_eq!(environment(&env, inherited), expect);
        }
    }
}
