//! A cycle: one configuration with all that belongs to it, from its reading until the next one replaces it.

pub mod core_conf;
pub mod event_conf;
mod files;
mod holder;
pub mod listening;
pub mod pid_file;
pub mod thread_pool;
pub(crate) mod watch;
pub mod zones;

use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use conf::{Context, Error, Frame, Level as ConfLevel, Loader, Places, Registry, Set, Sets, Sources, Store};

use self::core_conf::{CoreConf, ErrlogConf, Owner, ThreadPoolConf, find_owner};
use self::event_conf::{DEFAULT_METHOD, EpollConf, EventConf, Events, METHODS};
use self::files::SystemFiles;
use self::listening::{Listening, Opening};
use self::zones::{Memory, Zones};
use crate::log::report::{Reporter, tell};
use crate::log::{Errno, ErrorLog, Level, Log, LogFiles, Target};
use crate::master::upgrade::{self, Inherited, Invocation};
use crate::module::{App, BuildContext, Module};
use crate::personality::personality;
use crate::worker::sandbox::{self, Needs};

/// What is the same for every cycle of a process: modules and the command line's words.
pub struct Program {
    /// The modules, in their order.
    pub modules: Vec<Box<dyn Module>>,
    /// Their tables.
    pub registry: Registry,
    /// The prefix, with a slash at its end.
    pub prefix: PathBuf,
    /// Where the configuration is.
    pub conf: ConfSource,
    /// `-g`.
    pub global: Option<String>,
    /// `-e`, or the personality's: the error log of the time before the configuration is read, and the default.
    pub error_log: PathBuf,
    /// How the process was started.
    pub invocation: Invocation,
    /// What came from the master whose place this one takes.
    pub inherited: Inherited,
    /// Listening sockets that were open when the program started, for the first cycle to inherit.
    pub given: RefCell<Vec<Listening>>,
}

/// Where the configuration is.
#[derive(Clone, Debug)]
pub enum ConfSource {
    /// In a file.
    File(PathBuf),
    /// In the program: a name for messages, and the text.
    BuiltIn(&'static str, String),
}

impl Program {
    /// A program with these modules (and the engine's own before them).
    pub fn new(modules: Vec<Box<dyn Module>>, prefix: PathBuf, conf: ConfSource) -> Program {
        let mut registry = Registry::new();
        crate::cycle::core_conf::tables(&mut registry);
        crate::cycle::event_conf::tables(&mut registry);
        modules.iter().for_each(|module| module.tables(&mut registry));
        let error_log = personality().error_log.clone();
        let (invocation, inherited) = (Invocation::new(std::env::args_os().collect()), Inherited::default());
        Program {
            modules,
            registry,
            prefix,
            conf,
            global: None,
            error_log,
            invocation,
            inherited,
            given: RefCell::default(),
        }
    }

    /// Adds listening sockets for the first cycle to inherit.
    pub fn give(&self, sockets: Vec<OwnedFd>) {
        self.given.borrow_mut().extend(listening::adopt(sockets).0);
    }

    /// The sockets that were open when the program started, whoever made them.
    fn passed_sockets(&self) -> Vec<Listening> {
        [self.inherited.sockets(), self.given.borrow().clone()].concat()
    }

    /// The path of the configuration, for messages.
    pub fn conf_path(&self) -> &Path {
        match &self.conf {
            ConfSource::File(path) => path,
            ConfSource::BuiltIn(name, _) => Path::new(name),
        }
    }

    /// The log of the time before the configuration is read.
    pub(crate) fn first_log(&self) -> Log {
        if self.error_log == Path::new("stderr") {
            return Log::stderr(Level::Notice);
        }
        let mut files = LogFiles::default();
        let file = files.get(&self.prefix.join(&self.error_log));
        if let Err(Error { message, .. }) = files.open_all(&Places::default()) {
            tell(&format!("{}: [alert] could not open error log file: {message}\n", personality().name));
            return Log::stderr(Level::Notice);
        }
        Log::new(&[ErrorLog { target: Target::File(file), level: Level::Notice }])
    }

    fn env(&self, test: bool) -> conf::Env {
        let folder = self.conf_path().parent().unwrap_or(Path::new("")).join("");
        conf::Env { prefix: self.prefix.clone(), conf_prefix: folder, test }
    }
}

/// Why a cycle is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run.
    Run,
    /// To run in an event loop of the caller's, which has no sockets of the system.
    Embed,
    /// `-t`.
    Test {
        /// `-q`.
        quiet: bool,
    },
    /// `-s`: only the pid file's name and the log are of interest.
    Signal,
}

/// One configuration with all that belongs to it.
pub struct Cycle {
    /// The resolved configurations of the outermost level.
    pub main: Set,
    /// Those of `events {}`.
    pub events: Set,
    /// The outermost error log.
    pub log: Log,
    /// All log files.
    pub log_files: LogFiles,
    /// What serves connections.
    pub apps: Vec<Rc<dyn App>>,
    /// The listening sockets.
    pub listening: Vec<Listening>,
    /// Sockets of older cycles that are to be given up when the workers of this one have started, and until then may
    /// be wanted back.
    pub retired: RefCell<Vec<Listening>>,
    /// The configuration's files.
    pub sources: Sources,
    /// What workers need of the system.
    pub needs: Needs,
    /// The prefix.
    pub prefix: PathBuf,
    /// The zones of shared memory.
    pub zones: Zones,
    /// What all workers share, over reloads.
    pub shared: Rc<Shared>,
    /// What modules have kept for the next cycle.
    pub inheritable: Inheritable,
}

/// What modules keep for the next cycle, by types: they put it here while they build, and find that of the cycle before in
/// [`BuildContext::old`].
#[derive(Default)]
pub struct Inheritable(pub Store);

/// Memory that all workers of all cycles share.
pub struct Shared {
    /// The lock of `accept_mutex`.
    pub accept: shm::TryLock,
    /// Numbers connections.
    pub serial: shm::Counter,
}

impl Shared {
    fn new() -> std::io::Result<Shared> {
        let serial = shm::Counters::new(shm::Names { totals: &["connections"], gauges: &[] })?.get("connections");
        Ok(Shared { accept: shm::TryLock::new()?, serial })
    }
}

impl Cycle {
    /// The outermost directives.
    pub fn core(&self) -> &CoreConf {
        self.main.get()
    }

    /// `events {}`.
    pub fn event(&self) -> &EventConf {
        self.events.get()
    }

    /// How workers wait for events: the method and its name.
    pub fn method(&self) -> (rt::Driver, &'static str) {
        let driver = self.event().method.unwrap_or_else(default_method);
        let name = METHODS.iter().find(|(_, method)| *method == driver).map_or("", |(name, _)| name);
        (driver, name)
    }

    /// Settings of epoll.
    pub fn epoll(&self) -> &EpollConf {
        self.events.get()
    }

    /// Thread pools.
    pub(crate) fn thread_pools(&self) -> &ThreadPoolConf {
        self.main.get()
    }

    /// The user and group of workers: none if the process can't change to others.
    pub fn owner(&self) -> Option<Owner> {
        owner(self.core())
    }

    /// What changes outside of the process when the next cycle has taken over: the log of the process, the old pid file
    /// if the new one has another name, files of unix sockets that are no longer listened on.
    ///
    /// Files of sockets that `kept` says yes to belong to another master too, and stay.
    pub(crate) fn replaced_by(&self, next: &Cycle, kept: &dyn Fn(&Path) -> bool) {
        crate::log::set_current(next.log.clone());
        if self.core().pid != next.core().pid {
            let _ = pid_file::remove(&self.core().pid);
        }
        listening::remove_files(&self.listening, &next.listening, kept);
        let older = self.retired.take();
        next.retired.replace(listening::unwanted(&[&self.listening[..], &older].concat(), &next.listening));
    }

    /// No worker of this cycle could start, and the one before goes on: what the opening of this one has changed outside of
    /// the process is as it was. What waits in a socket that only this one had is lost with it.
    pub(crate) fn withdrawn(&self, before: &Cycle, kept: &dyn Fn(&Path) -> bool, reporter: &Reporter) {
        if self.core().pid != before.core().pid {
            let _ = pid_file::remove(&self.core().pid);
        }
        listening::remove_files(&self.listening, &before.listening, kept);
        listening::retire(&listening::unwanted(&self.listening, &before.listening));
        before.listening.iter().for_each(|listening| listening::settle(listening, &self.listening, reporter));
    }

    /// All sockets that the next cycle may inherit. A unix socket that isn't wanted has lost its file for good.
    fn open_sockets(&self) -> Vec<Listening> {
        let retired = self.retired.borrow();
        self.listening.iter().chain(retired.iter().filter(|one| !one.listen.addr.is_unix())).cloned().collect()
    }

    /// What goes to the standard error stream from now on goes to the log's file, unless the configuration logs to that
    /// stream in any place.
    pub(crate) fn redirect_stderr(&self) {
        if self.log_files.uses_stderr() {
            return;
        }
        let Some(file) = self.log.first_file() else { return };
        let result = file.with_descriptor(|fd| os::io::dup2(fd.as_raw_fd(), 2)).unwrap_or(Ok(()));
        if let Err(error) = result {
            crate::log!(self.log, Alert, "dup2(STDERR) failed{}", Errno(&error));
        }
    }

    /// Opens all log files again, as [`crate::log::LogFiles::reopen_all`] says.
    pub(crate) fn reopen_logs(&self, owner: Option<u32>) {
        self.log_files.reopen_all(owner);
        self.redirect_stderr();
    }

    /// The workers of this cycle have started: sockets that only older ones had get no further connections.
    pub(crate) fn give_up_retired(&self) {
        listening::retire(&self.retired.take());
    }

    /// The older workers are about to leave: what comes for their clients is for the workers of this cycle.
    pub(crate) fn steer_datagrams(&self) {
        self.listening.iter().for_each(Listening::steer_to_all);
    }

    /// Closes all listening sockets in this process.
    pub(crate) fn close_listening(&self) {
        self.listening.iter().for_each(|listening| drop(listening.sockets.take()));
        self.retired.take();
    }

    /// Removes what must not outlive the program: the pid file (which has its other name while a new binary runs), files
    /// of unix sockets unless `kept` says yes to them.
    pub(crate) fn remove_files(&self, kept: &dyn Fn(&Path) -> bool, upgrading: bool) {
        let pid = &self.core().pid;
        let pid = if upgrading { upgrade::old_pid_file(pid) } else { pid.clone() };
        if let Err(message) = pid_file::remove(&pid) {
            crate::log!(self.log, Alert, "{message}");
        }
        listening::remove_files(&self.listening, &[], kept);
    }

    /// Reads the configuration and opens all it asks for; nothing of the old cycle changes. `None`: it failed, and that
    /// was reported.
    pub fn load(program: &Program, purpose: Purpose, old: Option<&Cycle>, reporter: &Reporter) -> Option<Rc<Cycle>> {
        let read = read(program, purpose, old, reporter)?;
        if let Purpose::Test { quiet: false } = purpose {
            let path = buf::text::path(program.conf_path());
            tell(&format!("{}: the configuration file {path} syntax is ok\n", personality().name));
        }
        let cycle = open(read, program, purpose, old, reporter)?;
        if purpose == Purpose::Run {
            // The workers are forked next, and share what they don't write to.
            os::memory::trim();
        }
        Some(Rc::new(cycle))
    }
}

fn owner(core: &CoreConf) -> Option<Owner> {
    if os::users::effective_uid() != 0 {
        return None;
    }
    core.user.clone().or_else(default_owner)
}

/// The workers' user where the configuration names none and the master is the superuser's.
pub fn default_owner() -> Option<Owner> {
    let name = personality().user;
    find_owner(name, name).or_else(|_| find_owner(name, "nogroup")).ok()
}

/// What reading yields.
struct Read {
    main: Set,
    events: Option<Set>,
    log: Log,
    log_files: LogFiles,
    apps: Vec<Rc<dyn App>>,
    needs: Needs,
    zones: Zones,
    sources: Sources,
    places: Places,
    inheritable: Inheritable,
}

impl Read {
    /// The cycle, with nothing of it open, and where what it opens is named; `None`: there is no `events {}`.
    fn into_cycle(self, prefix: PathBuf, shared: Rc<Shared>) -> Option<(Cycle, Places)> {
        let cycle = Cycle {
            main: self.main,
            events: self.events?,
            log: self.log,
            log_files: self.log_files,
            apps: self.apps,
            listening: Vec::new(),
            retired: RefCell::default(),
            sources: self.sources,
            needs: self.needs,
            prefix,
            zones: self.zones,
            shared,
            inheritable: self.inheritable,
        };
        Some((cycle, self.places))
    }
}

fn read(program: &Program, purpose: Purpose, old: Option<&Cycle>, reporter: &Reporter) -> Option<Read> {
    let env = program.env(matches!(purpose, Purpose::Test { .. }));
    let (sources, directives, errors) = parse(program, &env);
    let mut loader = Loader::new(&program.registry, env, sources);
    loader.errors = errors;
    program.modules.iter().for_each(|module| module.begin(&mut loader));
    let frame = Frame::default();
    loader.block(&directives, Context::MAIN, frame.clone());
    // What was read has been understood: its memory serves what is built from it.
    drop(directives);
    loader.sort();
    // Building ends at its first error; what it adds are those after that one.
    let known = loader.errors.len();
    let result = build(&mut loader, &frame, program, old);
    if let Err(error) = &result {
        let first = known.min(loader.errors.len());
        loader.errors.insert(first, error.clone());
    }
    // Who sends a signal isn't about to change the configuration, and has read its warnings before.
    if purpose != Purpose::Signal {
        reporter.configuration(Level::Warn, &loader.sources, &loader.warnings);
    }
    reporter.configuration(Level::Emerg, &loader.sources, &loader.errors);
    let Ok(Built { main, log, apps }) = result else { return None };
    if !loader.errors.is_empty() {
        return None;
    }
    let events = loader.store.entry::<Events>().0.take();
    let log_files = loader.store.take::<LogFiles>().unwrap_or_default();
    let needs = loader.store.take::<Needs>().unwrap_or_default();
    let zones = loader.store.take::<Zones>().unwrap_or_default();
    let inheritable = loader.store.take::<Inheritable>().unwrap_or_default();
    let Loader { sources, places, .. } = loader;
    Some(Read { main, events, log, log_files, apps, needs, zones, sources, places, inheritable })
}

fn parse(program: &Program, env: &conf::Env) -> (Sources, Vec<conf::Directive>, Vec<Error>) {
    let global = program.global.as_deref();
    match &program.conf {
        ConfSource::File(path) => conf::load(&SystemFiles, path, global, env),
        ConfSource::BuiltIn(name, text) => {
            let files = crate::cycle::files::WithBuiltIn { name, text };
            conf::load(&files, Path::new(name), global, env)
        }
    }
}

/// What comes of the outermost level.
struct Built {
    main: Set,
    log: Log,
    apps: Vec<Rc<dyn App>>,
}

/// Inheritance of the outermost level, then the modules build. With errors found so far nothing is built.
fn build(loader: &mut Loader<'_>, frame: &Frame, program: &Program, old: Option<&Cycle>) -> conf::Result<Built> {
    let main = {
        let mut raw = frame.levels[ConfLevel::Main as usize].borrow_mut();
        Sets::resolve(Context::MAIN, ConfLevel::Main, &mut raw, None, loader)?
    };
    let log = log_of(&main, loader, program);
    let mut apps = Vec::new();
    if loader.errors.is_empty() {
        thread_pool::check(loader, main.get())?;
        let core: &CoreConf = main.get();
        let worker_connections =
            loader.store.entry::<Events>().0.as_ref().map_or(0, |set| set.get::<EventConf>().worker_connections);
        let cx = BuildContext {
            old,
            log: log.clone(),
            workers: core.worker_processes,
            worker_connections,
            owner: owner(core).map(|owner| (owner.user.uid, owner.gid)),
        };
        for module in &program.modules {
            apps.extend(module.build(loader, &cx)?);
        }
    }
    Ok(Built { main, log, apps })
}

/// The outermost log: what `error_log` says. Unless that names a file or the standard error stream, the command line's or
/// the personality's too: what a syslog server never gets, or memory forgets, is to be found there.
fn log_of(main: &Set, loader: &mut Loader<'_>, program: &Program) -> Log {
    let configured = &main.get::<ErrlogConf>().error_log;
    if configured.iter().any(|log| matches!(log.target, Target::File(_) | Target::Stderr)) {
        return Log::new(configured);
    }
    let level = Level::Error;
    let files = loader.store.entry::<LogFiles>();
    let default = if program.error_log == Path::new("stderr") {
        files.note_stderr();
        let level = if matches!(program.conf, ConfSource::BuiltIn(..)) { Level::Warn } else { level };
        ErrorLog { target: Target::Stderr, level }
    } else {
        ErrorLog { target: Target::File(files.get(&program.prefix.join(&program.error_log))), level }
    };
    Log::new(&[&configured[..], &[default]].concat())
}

/// The memory that there is for zones.
fn memory<'a>(program: &Program, old: Option<&'a Cycle>, purpose: Purpose) -> Memory<'a> {
    Memory {
        old: old.map(|old| &old.zones),
        passed: if purpose == Purpose::Run { program.inherited.zones() } else { Vec::new() },
        shared: program.inherited.parent_lives(),
    }
}

/// Opens files and sockets.
fn open(read: Read, program: &Program, purpose: Purpose, old: Option<&Cycle>, reporter: &Reporter) -> Option<Cycle> {
    let shared = match old.map_or_else(|| Shared::new().map(Rc::new), |old| Ok(old.shared.clone())) {
        Ok(shared) => shared,
        Err(error) => {
            reporter.say(Level::Alert, &format!("mmap(MAP_ANON|MAP_SHARED) failed{}", Errno(&error)));
            return None;
        }
    };
    let Some((mut cycle, places)) = read.into_cycle(program.prefix.clone(), shared) else {
        reporter.say(Level::Emerg, "no \"events\" section in configuration");
        return None;
    };
    let unprivileged = cycle.owner().is_some_and(|owner| owner.user.uid != 0);
    if !matches!(purpose, Purpose::Signal | Purpose::Embed)
        && let Err(message) = check_method(cycle.event(), unprivileged)
    {
        reporter.say(Level::Emerg, &message);
        return None;
    }
    if purpose == Purpose::Signal {
        // What it has to say goes to the configuration's log if that can be written.
        let _ = cycle.log_files.open_all(&places);
        return Some(cycle);
    }
    let test = matches!(purpose, Purpose::Test { .. });
    if test && let Err(message) = pid_file::check(&cycle.core().pid) {
        reporter.say(Level::Emerg, &message);
        return None;
    }
    if let Err(error) = cycle.log_files.open_all(&places) {
        reporter.configuration(Level::Emerg, &cycle.sources, &[error]);
        return None;
    }
    let reporter = reporter.with_log(cycle.log.clone());
    sandbox::check(&cycle, &reporter);
    let memory = memory(program, old, purpose);
    if let Err(error) = cycle.zones.open(memory, &places, &program.registry) {
        reporter.configuration(Level::Emerg, &cycle.sources, &[error]);
        return None;
    }
    if purpose == Purpose::Embed {
        return Some(cycle);
    }
    let wanted = wanted(&cycle.apps);
    if cycle.event().worker_connections <= wanted.len() {
        let (have, need) = (cycle.event().worker_connections, wanted.len());
        reporter.say(Level::Emerg, &format!("{have} worker_connections are not enough for {need} listening sockets"));
        return None;
    }
    let known = old.map_or_else(|| program.passed_sockets(), Cycle::open_sockets);
    let workers = cycle.core().worker_processes;
    let opening = Opening { old: &known, workers, test, reporter: &reporter, places: &places, sources: &cycle.sources };
    cycle.listening = listening::open_all(wanted, &opening)?;
    if let Some(old) = old
        && old.core().pid != cycle.core().pid
        && let Err(message) = pid_file::write(&cycle.core().pid)
    {
        reporter.say(Level::Emerg, &message);
        listening::remove_files(&cycle.listening, &known, &|_| false);
        return None;
    }
    Some(cycle)
}

/// The method where `use` says nothing: epoll, if the kernel doesn't offer a better one.
fn default_method() -> rt::Driver {
    if rt::supports(DEFAULT_METHOD).is_ok() { DEFAULT_METHOD } else { rt::Driver::Epoll }
}

/// Whether the method of `use` can work here; `unprivileged`: the workers run as another user than this process.
fn check_method(event: &EventConf, unprivileged: bool) -> Result<(), String> {
    let (wanted, most) = (event.worker_connections, rt::MAX_CONNECTIONS);
    if wanted > most {
        return Err(format!("{wanted} worker_connections are more than {most}"));
    }
    let Some(driver) = event.method else { return Ok(()) };
    if driver == rt::Driver::Select && event.worker_connections > SELECT_FILES {
        return Err(format!("the maximum number of files supported by select() is {SELECT_FILES}"));
    }
    let setting = |name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    // 1: for the superuser and one group only (admin-guide/sysctl/kernel).
    if driver == rt::Driver::Uring
        && unprivileged
        && setting("io_uring_disabled").trim() == "1"
        && setting("io_uring_group").trim() == "-1"
    {
        return Err("the \"io_uring\" event method isn't available to workers: kernel.io_uring_disabled is 1".into());
    }
    let name = METHODS.iter().find(|(_, method)| *method == driver).map_or("", |(name, _)| name);
    rt::supports(driver).map_err(|error| {
        format!("the \"{name}\" event method isn't available: io_uring_setup() failed{}", Errno(&error))
    })
}

/// FD_SETSIZE.
const SELECT_FILES: usize = os::poll::SELECT_LIMIT as usize;

fn wanted(apps: &[Rc<dyn App>]) -> Vec<(usize, usize, crate::module::Listen)> {
    let listens = |(app, one): (usize, &Rc<dyn App>)| {
        one.listens().into_iter().enumerate().map(move |(index, listen)| (app, index, listen)).collect::<Vec<_>>()
    };
    apps.iter().enumerate().flat_map(listens).collect()
}
