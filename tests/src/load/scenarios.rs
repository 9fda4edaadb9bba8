//! The scenarios: what is done to a server under load. Each is bounded, and says in its report what it saw.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::content::Random;
use super::exchange::{Link, Request};
use super::procfs::{mappings, stopped, zombies};
use super::{
    Kind, Load, Loss, Mix, Program, Report, Settings, Subject, Target, Totals, Tunnel, alive, descriptors, resident,
};

/// How long a load runs before anything is done to its server, and after.
const QUIET: Duration = Duration::from_millis(300);

/// How long a reload may take to bring new workers before it counts as not done: nginx tries 2.5 s to bind.
const RELOAD: Duration = Duration::from_secs(5);

/// A scenario: its name, how often its step is done in full length, and what runs it so often.
pub type Scenario = (&'static str, usize, fn(&Program, usize) -> Report);

/// The scenarios that need one program.
pub const FULL: [Scenario; 12] = [
    ("reloads", 200, reloads),
    ("storm", 200, storm),
    ("upgrades", 50, upgrades),
    ("reopen", 50, reopen),
    ("kill-workers", 50, kill_workers),
    ("kill-master", 5, kill_master),
    ("worker-counts", 40, |p, n| worker_counts(p, n, false)),
    ("worker-counts-reuseport", 40, |p, n| worker_counts(p, n, true)),
    ("listeners-added-removed", 30, extra_listeners),
    ("listeners-wildcard", 10, wildcard),
    ("crowd", 5000, |p, n| crowd(p, n, n / 10)),
    ("memory", 1000, memory),
];

/// Runs a scenario, so often or in its full length; none if there is none of that name.
pub fn by_name(name: &str, program: &Program, times: Option<usize>) -> Option<Report> {
    let (_, full, scenario) = FULL.iter().find(|(n, ..)| *n == name)?;
    Some(scenario(program, times.unwrap_or(*full)))
}

/// Reloads under the usual load.
pub fn reloads(program: &Program, times: usize) -> Report {
    run(&format!("{times} reloads"), program, Settings::default(), |subject, report| {
        let load = subject.load(Mix::usual());
        let mut most = 0;
        for _ in 0..times {
            subject.reload()?;
            most = most.max(subject.workers(subject.master).len());
            std::thread::sleep(Duration::from_millis(120));
        }
        std::thread::sleep(QUIET);
        report.totals = load.finish();
        report.notes.push(format!("at most {most} workers at a time"));
        check_leavers(subject, report);
        subject.stop(false)
    })
}

/// Reloads that don't wait for one another.
pub fn storm(program: &Program, times: usize) -> Report {
    run(&format!("{times} reloads, one every 15 ms"), program, Settings::default(), |subject, report| {
        let load = subject.load(Mix::usual());
        for _ in 0..times {
            subject.signal(subject.master, Signal::HUP);
            std::thread::sleep(Duration::from_millis(15));
        }
        std::thread::sleep(QUIET);
        report.totals = load.finish();
        check_leavers(subject, report);
        subject.stop(false)
    })
}

/// Upgrades and rollbacks, as many of each, under the usual load.
pub fn upgrades(program: &Program, times: usize) -> Report {
    let settings = Settings { daemon: true, ..Settings::default() };
    run(&format!("{times} upgrades, {times} rollbacks"), program, settings, |subject, report| {
        let load = subject.load(Mix::usual());
        for _ in 0..times {
            subject.upgrade()?;
            subject.rollback()?;
        }
        std::thread::sleep(QUIET);
        report.totals = load.finish();
        subject.stop(false)
    })
}

/// One program is replaced by another and back again, at the path of the first.
pub fn migrate(from: &Program, to: &Program, times: usize) -> Report {
    let settings = Settings { daemon: true, file_name: Some("nginx"), ..Settings::default() };
    run(&format!("{times} times from {} to {} and back", from.name, to.name), from, settings, |subject, report| {
        let load = subject.load(Mix::usual());
        for _ in 0..times {
            for program in [to, from] {
                subject.put(program)?;
                subject.upgrade()?;
                if !subject.runs(program) {
                    return Err(format!("it isn't {} that runs", program.name));
                }
            }
            subject.put(to)?;
            subject.rollback()?;
            subject.put(from)?;
        }
        std::thread::sleep(QUIET);
        report.totals = load.finish();
        subject.stop(false)
    })
}

/// Logs are moved away and reopened; every answer must be in one of them.
pub fn reopen(program: &Program, times: usize) -> Report {
    run(&format!("{times} log reopenings"), program, Settings::default(), |subject, report| {
        let load = subject.load(Mix::usual());
        for number in 0..times {
            std::thread::sleep(Duration::from_millis(60));
            let (log, old) = (subject.path("access.log"), subject.path(&format!("access.log.{number}")));
            std::fs::rename(&log, old).map_err(|e| format!("access.log: {e}"))?;
            subject.signal(subject.master, Signal::USR1);
            subject.wait("a new log", |_| log.exists())?;
        }
        report.totals = load.finish();
        let stopped = subject.stop(false);
        let answers: u64 = Kind::ALL.iter().filter(|k| **k != Kind::WebSocket).map(|k| report.totals.of(*k).ok).sum();
        let names = (0..times).map(|n| format!("access.log.{n}")).chain(["access.log".to_string()]);
        let lines: usize = names.map(|n| subject.read(&n).lines().filter(|l| l.starts_with("200 ")).count()).sum();
        report.notes.push(format!("{lines} lines for {answers} answers"));
        if lines as u64 != answers {
            report.faults.push(format!("{lines} lines in the logs for {answers} answers"));
        }
        stopped
    })
}

/// Random workers are killed. Before, each is stopped and its connections are counted: that much may be lost.
pub fn kill_workers(program: &Program, times: usize) -> Report {
    run(&format!("KILL of {times} workers"), program, Settings::default(), |subject, report| {
        let load = subject.load(Mix::usual());
        let mut random = Random::new(7);
        for _ in 0..times {
            std::thread::sleep(QUIET);
            let workers = subject.workers(subject.master);
            let Some(pid) = workers.get(random.below(workers.len())).copied() else {
                return Err("no workers".into());
            };
            subject.signal(pid, Signal::STOP);
            subject.wait("a stop", |_| stopped(pid))?;
            report.allowed += subject.held(pid) as u64;
            subject.signal(pid, Signal::KILL);
            subject.wait("a new worker", |s| {
                let now = s.workers(s.master);
                now.len() >= s.settings.workers && !now.contains(&pid)
            })?;
        }
        std::thread::sleep(QUIET);
        report.totals = load.finish();
        subject.stop(true)
    })
}

/// The master is killed. Its workers go on serving; when they are told to leave, the program is started again, with the
/// old pid file and unix socket in its way.
pub fn kill_master(program: &Program, times: usize) -> Report {
    let settings = Settings { daemon: true, ..Settings::default() };
    run(&format!("KILL of the master and a start, {times} times"), program, settings, |subject, report| {
        let (mut orphaned, mut away) = (Totals::default(), Totals::default());
        let (mut longest, mut stuck) = (Duration::ZERO, 0);
        for _ in 0..times {
            let workers = subject.workers(subject.master);
            let load = subject.load(Mix::usual());
            std::thread::sleep(QUIET);
            let master = subject.master;
            subject.signal(master, Signal::KILL);
            subject.wait("the master's end", |_| !alive(master))?;
            std::thread::sleep(QUIET);
            orphaned.add(load.finish());
            let load = subject.load(Mix::only(&[Kind::New, Kind::Unix], 4));
            std::thread::sleep(QUIET);
            workers.iter().for_each(|p| subject.signal(*p, Signal::QUIT));
            subject.wait("the workers' end", |s| s.processes().is_empty())?;
            let gone = Instant::now();
            if subject.launch().is_err() {
                stuck += 1;
                let _ = std::fs::remove_file(subject.path("web.sock"));
                subject.launch()?;
            }
            longest = longest.max(gone.elapsed());
            std::thread::sleep(QUIET);
            away.add(load.finish());
        }
        report.notes.push(format!("lost while the workers were orphans: {}", orphaned.lost()));
        report.notes.push(format!("lost from their end to the new start: {}", away.lost()));
        report.notes.push(format!("at most {:.0} ms from the workers' end to a start", longest.as_secs_f64() * 1e3));
        report.notes.push(format!("a stale unix socket kept it from starting {stuck} times"));
        // Where nobody listens nothing is answered; but nothing is answered wrongly either.
        report.allowed = [Loss::Refused, Loss::Reset, Loss::Unanswered].iter().map(|l| away.all().of(*l)).sum();
        orphaned.add(away);
        report.totals = orphaned;
        subject.stop(true)
    })
}

/// The number of workers changes with each reload.
pub fn worker_counts(program: &Program, times: usize, reuseport: bool) -> Report {
    let listen = if reuseport { "127.0.0.1:PORT reuseport" } else { "127.0.0.1:PORT" };
    let settings = Settings { listen: vec![listen.into()], ..Settings::default() };
    let title = format!("{times} changes of the worker count{}", if reuseport { ", reuseport" } else { "" });
    run(&title, program, settings, |subject, report| {
        let mix = Mix::usual();
        // Many new connections: what waits in a removed queue is what can be lost.
        let clients = mix.clients.map(|(kind, n)| (kind, if kind == Kind::New { 24 } else { n }));
        let load = subject.load(Mix { clients, pause: Duration::from_millis(10) });
        for number in 0..times {
            subject.settings.workers = [4, 1, 3, 2].get(number % 4).copied().unwrap_or(2);
            subject.reload()?;
            std::thread::sleep(Duration::from_millis(150));
        }
        report.totals = load.finish();
        check_leavers(subject, report);
        subject.stop(false)
    })
}

/// A second port comes and goes.
pub fn extra_listeners(program: &Program, times: usize) -> Report {
    run(&format!("{times} times a listener added or removed"), program, Settings::default(), |subject, report| {
        let load = subject.load(Mix::usual());
        let (main, both) =
            (vec!["127.0.0.1:PORT".to_string()], vec!["127.0.0.1:PORT".into(), "127.0.0.1:EXTRA".into()]);
        let mut done = 0;
        for number in 0..times {
            let added = number % 2 == 0;
            subject.settings.listen = if added { both.clone() } else { main.clone() };
            subject.reload()?;
            let target = subject.extra();
            done += usize::from(subject.within(RELOAD, |_| answers(&target) == added));
        }
        report.totals = load.finish();
        report.notes.push(format!("done {done} of {times}"));
        if done != times {
            report.faults.push(format!("only {done} of {times} changes came into force"));
        }
        subject.stop(false)
    })
}

/// The listener changes between 127.0.0.1 and `*` on the same port.
pub fn wildcard(program: &Program, times: usize) -> Report {
    let title = format!("{times} changes between 127.0.0.1:port and *:port");
    run(&title, program, Settings::default(), |subject, report| {
        let load = subject.load(Mix::usual());
        let mut done = 0;
        for number in 0..times {
            let wide = number % 2 == 0;
            subject.settings.listen = vec![if wide { "*:PORT" } else { "127.0.0.1:PORT" }.to_string()];
            let target = subject.elsewhere();
            let changed = subject.try_reload(RELOAD) && subject.within(RELOAD, |_| answers(&target) == wide);
            done += usize::from(changed);
        }
        report.totals = load.finish();
        report.notes.push(format!("done {done} of {times}"));
        if done != times {
            report.faults.push(format!("only {done} of {times} changes came into force"));
        }
        subject.stop(true)
    })
}

/// One reload with many idle keep-alive connections and WebSockets open, each with a frame on its way; a tenth is over TLS.
pub fn crowd(program: &Program, idle: usize, tunnels: usize) -> Report {
    raise_limit();
    // One worker may hold all of them, with the proxy's own connections; with fewer than a sixteenth of its places free
    // it would close idle ones, as nginx does.
    let settings =
        Settings { connections: ((idle + 2 * tunnels) * 5 / 4).max(512), secure: true, ..Settings::default() };
    let title = format!("a reload with {idle} idle connections and {tunnels} WebSockets, a tenth of them over TLS");
    run(&title, program, settings, |subject, report| {
        let mut crowd = Crowd::open(&[subject.web(), subject.secure()], idle, tunnels)?;
        let old = subject.workers(subject.master);
        crowd.tunnels.iter_mut().try_for_each(Tunnel::send).map_err(|(_, story)| story)?;
        let begun = Instant::now();
        subject.reload()?;
        let left = subject.within(Duration::from_secs(10), |_| old.iter().all(|p| !alive(*p)));
        report.notes.push(match left {
            true => format!("old workers gone after {:.0} ms", begun.elapsed().as_secs_f64() * 1e3),
            false => "old workers still there after 10 s".to_string(),
        });
        std::thread::sleep(QUIET);
        let closed = (crowd.idle.iter().filter(|l| l.is_closed()).count(), crowd.closed_tunnels());
        report.notes.push(format!("closed: {} of {idle} idle, {} of {tunnels} WebSockets", closed.0, closed.1));
        crowd.use_all(&mut report.totals, begun);
        drop(crowd);
        subject.stop(false)
    })
}

/// Many reloads: the master's memory, descriptors, mappings and children after the tenth and after the last.
pub fn memory(program: &Program, times: usize) -> Report {
    run(&format!("the master after {times} reloads"), program, Settings::default(), |subject, report| {
        let load = subject.load(Mix { pause: Duration::from_millis(200), ..Mix::only(&[Kind::New, Kind::Proxied], 2) });
        let mut early = None;
        for number in 1..=times {
            subject.reload()?;
            if number == 10 {
                early = Some(Shape::of(subject)?);
            }
        }
        let late = Shape::of(subject)?;
        report.totals = load.finish();
        let early = early.unwrap_or(late);
        report.notes.push(format!("after 10: {early}; after {times}: {late}"));
        if (early.descriptors, early.children, early.zombies) != (late.descriptors, late.children, late.zombies) {
            report.faults.push("descriptors or children leak".into());
        }
        if late.resident > early.resident + early.resident / 20 + 256 || late.mappings > early.mappings + 8 {
            report.faults.push("memory leaks".into());
        }
        subject.stop(false)
    })
}

/// Starts a subject, lets a scenario act on it, and writes down what went wrong.
fn run(
    title: &str,
    program: &Program,
    settings: Settings,
    act: impl FnOnce(&mut Subject, &mut Report) -> Result<(), String>,
) -> Report {
    let mut report = Report { scenario: title.into(), program: program.name.clone(), ..Report::default() };
    let begun = Instant::now();
    let result = Subject::start(program, settings).and_then(|mut subject| act(&mut subject, &mut report));
    report.faults.extend(result.err());
    report.seconds = begun.elapsed().as_secs_f64();
    report
}

/// After the last reload and the load's end only the workers of the last generation are left.
fn check_leavers(subject: &Subject, report: &mut Report) {
    let begun = Instant::now();
    let left = subject.within(RELOAD, |s| s.processes().len() == s.settings.workers + 1);
    match left {
        true => {
            report.notes.push(format!("old workers gone {:.0} ms after the load", begun.elapsed().as_secs_f64() * 1e3))
        }
        false => report.faults.push(format!("{} processes are left", subject.processes().len())),
    }
}

/// Whether something answers there.
fn answers(target: &Target) -> bool {
    let request = Request { folder: "f", length: 1000, close: true, ..Request::default() };
    Link::open(target).and_then(|mut link| link.exchange(&request)).is_ok()
}

/// Connections that wait.
struct Crowd {
    idle: Vec<Link>,
    tunnels: Vec<Tunnel>,
}

impl Crowd {
    /// Opens them, each tenth at the second target; each idle one has had one answer, each tunnel one echo.
    fn open(targets: &[Target; 2], idle: usize, tunnels: usize) -> Result<Crowd, String> {
        let said = |(loss, story): (Loss, String)| format!("opening: {}: {story}", loss.name());
        let request = Request { folder: "f", length: 1, ..Request::default() };
        let mut crowd = Crowd { idle: Vec::new(), tunnels: Vec::new() };
        let target = |n: usize| &targets[usize::from(n % 10 == 9)];
        for n in 0..idle {
            let mut link = Link::open(target(n)).map_err(said)?;
            link.exchange(&request).map_err(said)?;
            crowd.idle.push(link);
        }
        for n in 0..tunnels {
            let mut tunnel = Tunnel::open(target(n)).map_err(said)?;
            tunnel.send().and_then(|()| tunnel.receive()).map_err(said)?;
            crowd.tunnels.push(tunnel);
        }
        Ok(crowd)
    }

    /// How many tunnels are broken: those where not the frame that is due comes.
    fn closed_tunnels(&mut self) -> usize {
        let before = self.tunnels.len();
        self.tunnels.retain_mut(|t| t.receive().is_ok());
        before - self.tunnels.len()
    }

    /// Uses all that aren't closed once more, and counts.
    fn use_all(&mut self, totals: &mut Totals, begun: Instant) {
        let request = Request { folder: "f", seed: 3, length: 1000, ..Request::default() };
        for link in &mut self.idle {
            if link.is_closed() {
                totals.closed_idle(Kind::KeepAlive);
                continue;
            }
            match link.exchange(&request) {
                Ok(_) => totals.ok(Kind::KeepAlive),
                Err((loss, story)) => totals.loss(Kind::KeepAlive, loss, begun.elapsed(), &story),
            }
        }
        for tunnel in &mut self.tunnels {
            match tunnel.send().and_then(|()| tunnel.receive()) {
                Ok(()) => totals.ok(Kind::WebSocket),
                Err((loss, story)) => totals.loss(Kind::WebSocket, loss, begun.elapsed(), &story),
            }
        }
    }
}

/// What can leak in a master.
#[derive(Debug, Clone, Copy)]
struct Shape {
    resident: u64,
    descriptors: usize,
    mappings: usize,
    children: usize,
    zombies: usize,
}

impl Shape {
    /// Looks when the old workers are gone.
    fn of(subject: &Subject) -> Result<Shape, String> {
        subject.wait("the old workers' end", |s| s.processes().len() == s.settings.workers + 1)?;
        std::thread::sleep(QUIET);
        let master = subject.master;
        Ok(Shape {
            resident: resident(master),
            descriptors: descriptors(master),
            mappings: mappings(master),
            children: subject.workers(master).len(),
            zombies: zombies(master),
        })
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape { resident, descriptors, mappings, children, zombies } = self;
        write!(f, "{resident} KiB, {descriptors} fds, {mappings} mappings, {children} children, {zombies} zombies")
    }
}

/// As many descriptors as this process may have.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// A load for a server that isn't a [`Subject`].
pub fn bare_load(target: &Target, mix: Mix, time: Duration) -> Totals {
    let load = Load::start(target, None, mix);
    std::thread::sleep(time);
    load.finish()
}
