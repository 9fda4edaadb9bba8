//! A run: the server, its clients and backends in one loop, and what must hold all the time and at the end.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use engine::Cycle;
use engine::embedded::Embedded;
use rt::sim::Faults;
use tempfile::TempDir;

use crate::backend::Backend;
use crate::config;
use crate::content::{FILES, Key};
use crate::plan::{Client, Leaving, Plan, Speaks};
use crate::world::{World, addr};
use crate::{http1, http2, server};

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What was wrong.
    pub findings: Vec<String>,
    /// The statuses that clients saw, by request.
    pub statuses: BTreeMap<u64, u16>,
    /// A number that differs if any step of the network or any event differed.
    pub digest: u64,
    /// The last events of clients and backends, then the last steps of the network.
    pub trace: Vec<String>,
    /// The configuration.
    pub configuration: String,
    /// The error log.
    pub error_log: String,
}

/// The files of a process's runs.
pub struct Ground {
    folder: TempDir,
}

impl Ground {
    /// Makes them in a new folder, which goes with them.
    pub fn new() -> std::io::Result<Ground> {
        let made = TempDir::with_prefix("simulate-")?;
        let folder = made.path();
        std::fs::create_dir(folder.join("files"))?;
        for (n, length) in FILES.iter().enumerate() {
            let path = folder.join(format!("files/{n}"));
            std::fs::write(&path, Key::File(n).bytes(0, *length))?;
            let changed = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000 - 86_400);
            std::fs::File::options().write(true).open(&path)?.set_modified(changed)?;
        }
        // Signatures of this kind always have the same length: they don't make two runs differ.
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(std::io::Error::other)?;
        let params = rcgen::CertificateParams::new(vec!["sim.test".to_owned()]).map_err(std::io::Error::other)?;
        let cert = params.self_signed(&key).map_err(std::io::Error::other)?;
        std::fs::write(folder.join("cert.pem"), cert.pem())?;
        std::fs::write(folder.join("key.pem"), key.serialize_pem())?;
        Ok(Ground { folder: made })
    }

    /// Runs a seed.
    pub fn run(&self, seed: u64) -> Report {
        self.run_plan(seed, Plan::of)
    }

    /// Runs a plan in a thread of its own, so that nothing of earlier runs is left; the network's faults follow from the
    /// seed. A process has one run at a time: the files that it has open are counted.
    pub fn run_plan(&self, seed: u64, plan: impl FnOnce(u64) -> Plan + Send + 'static) -> Report {
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.folder.path().to_path_buf();
        let (files, mappings) = (open_files(), shared_mappings());
        let thread = std::thread::Builder::new().spawn(move || run(seed, plan(seed), &folder));
        let thread = thread.expect("a thread can be started");
        let mut report =
            thread.join().unwrap_or_else(|_| Report { findings: vec!["the run panicked".into()], ..Report::default() });
        report.seed = seed;
        let left = open_files();
        if report.findings.is_empty() && files != left {
            let new: Vec<_> = left.iter().filter(|file| !files.contains(file)).collect();
            report.findings.push(format!("files are left open: {new:?}"));
        }
        let left = shared_mappings();
        if report.findings.is_empty() && left != mappings {
            report.findings.push(format!("{mappings} mappings were shared before, {left} are now"));
        }
        report
    }
}

fn run(seed: u64, plan: Plan, folder: &Path) -> Report {
    let configuration = config::text(&plan.settings, folder);
    let mut report = Report { configuration, ..Report::default() };
    let log_file = folder.join("access.log");
    let _ = std::fs::remove_file(&log_file);
    let cycle = match server::load(folder, report.configuration.clone(), None) {
        Ok(cycle) => cycle,
        Err(what) => {
            report.findings.push(what);
            return report;
        }
    };
    let runtime = server::runtime(&cycle, seed).expect("a simulated loop can't be refused");
    let world = Rc::new(World::new(plan.calm, client_tls(&[]), client_tls(&["h2"])));
    let retries = plan.settings.next_upstream.0.contains("non_idempotent");
    let once: Vec<u64> = plan
        .clients
        .iter()
        .flat_map(|client| &client.asks)
        .filter(|a| !retries && !a.is_idempotent())
        .map(|ask| ask.id)
        .collect();
    let mut turns = Turns::default();
    let life = live(plan, cycle.clone(), world.clone());
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on_and_look(life, || turns.look(&world))));
    let (digest, steps) = rt::sim::trace();
    report.digest = digest ^ world.digest();
    report.trace = [world.events(), steps].concat();
    let cycles = match ended {
        Ok(later) => [vec![cycle], later].concat(),
        Err(panic) => {
            world.found(format!("the run panicked: {}", words(&*panic)));
            report.findings = world.findings();
            report.error_log = server::error_log(&cycle);
            // What it held may be in any state.
            std::mem::forget((runtime, cycle));
            return report;
        }
    };
    for id in once {
        let attempts = world.attempts.borrow().get(&id).copied().unwrap_or(0);
        if attempts > 1 {
            world.found(format!("request {id} isn't to be repeated, but reached backends {attempts} times"));
        }
    }
    report.error_log = cycles.iter().map(|cycle| server::error_log(cycle)).collect();
    check_logs(&world, &report.error_log, &std::fs::read_to_string(&log_file).unwrap_or_default());
    let apps: Vec<_> = cycles.iter().flat_map(|cycle| &cycle.apps).map(Rc::downgrade).collect();
    report.findings = world.findings();
    report.statuses = world.seen.take();
    drop(world);
    drop(runtime);
    drop(cycles);
    engine::log::set_current(engine::log::Log::stderr(engine::log::Level::Notice));
    if buf::lent() != 0 {
        report.findings.push(format!("{} buffers are lent out", buf::lent()));
    }
    if apps.iter().any(|app| app.upgrade().is_some()) {
        report.findings.push("the application outlives its worker".into());
    }
    report
}

/// What a panic says.
fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

/// The files that the process has open.
fn open_files() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let mut files: Vec<String> =
        entries.flat_map(|entry| std::fs::read_link(entry.path())).map(|path| path.display().to_string()).collect();
    files.sort();
    files
}

/// How many pieces of memory the process could share with others.
fn shared_mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.ends_with('s'))).count()
}

/// What is looked at after each turn of the loop.
#[derive(Default)]
struct Turns {
    count: u64,
    /// When the last turn was, and how many there have been at that time.
    now: u64,
    at_once: u64,
    /// Since when tasks have been waiting for a peer without a deadline of their own.
    endless: BTreeMap<(u64, bool), u64>,
}

/// More turns than this without the clock's moving on: somebody turns in a circle.
const MOST_AT_ONCE: u64 = 20_000;
/// For so long a task may wait for a peer without a deadline: such as that of an HTTP/2 connection, while its streams'
/// tasks have deadlines.
const LONGEST_WAIT: u64 = 150_000;
/// A run has fewer turns than this.
const MOST_TURNS: u64 = 2_000_000;

impl Turns {
    fn look(&mut self, world: &World) {
        let now = rt::now_ms();
        self.count += 1;
        let later = now >= self.now + 500;
        self.at_once = if now == self.now { self.at_once + 1 } else { 0 };
        self.now = now;
        assert!(self.at_once < MOST_AT_ONCE, "the loop turns without end at {now}");
        assert!(self.count < MOST_TURNS, "the run has no end");
        if later || self.count.is_multiple_of(64) {
            self.look_at_waits(now, world);
        }
    }

    fn look_at_waits(&mut self, now: u64, world: &World) {
        let waits = rt::inspect::endless_waits();
        self.endless.retain(|(connection, receives), _| {
            waits.iter().any(|wait| (wait.connection, wait.receives) == (*connection, *receives))
        });
        for wait in waits {
            let since = self.endless.entry((wait.connection, wait.receives)).or_insert(now);
            if now.saturating_sub(*since) > LONGEST_WAIT {
                world.found(wait.to_string());
                // Said once.
                *since = u64::MAX / 2;
            }
        }
    }
}

/// How clients speak TLS.
fn client_tls(alpn: &[&str]) -> Rc<tls::Client> {
    let settings = tls::ClientSettings {
        protocols: tls::Protocols { tls12: true, tls13: true },
        ciphers: "DEFAULT".to_owned(),
        ciphersuites: None,
        curves: "auto".to_owned(),
        identity: None,
        server_name: true,
        reuse: true,
        alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
        trust: None,
        key_log: None,
    };
    Rc::new(tls::Client::new(&settings).expect("the settings are good"))
}

/// How a backend speaks TLS, with the server's own certificate.
fn backend_tls(folder: &Path) -> tls::Server {
    let path = |name: &str| folder.join(name).display().to_string();
    let identity = tls::identity(&path("cert.pem"), &path("key.pem"), &[]).expect("the files are good");
    let settings = tls::ServerSettings {
        identities: vec![identity],
        named: Vec::new(),
        protocols: tls::Protocols { tls12: true, tls13: true },
        ciphers: "DEFAULT".to_owned(),
        ciphersuites: None,
        curves: "auto".to_owned(),
        prefer_server: false,
        buffer_size: 16384,
        alpn: Vec::new(),
        cache: None,
        tickets: Some(tls::TicketKeys::random()),
        timeout_s: 300,
        early_data: false,
        compression: false,
        client_auth: None,
        key_log: None,
    };
    tls::Server::new(&settings).expect("the settings are good")
}

/// Polls both until one is done.
pub async fn either(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    std::future::poll_fn(|cx| match a.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => b.as_mut().poll(cx),
    })
    .await;
}

/// The whole life of the server; the cycles that it has read again.
async fn live(mut plan: Plan, cycle: Rc<Cycle>, world: Rc<World>) -> Vec<Rc<Cycle>> {
    let mut servers = vec![server::start(&cycle)];
    let mut cycles = vec![cycle.clone()];
    rt::sim::set_faults(plan.faults);
    rt::sim::silence(addr(config::SILENT));
    let mut backends = Vec::new();
    for at in config::BACKENDS {
        let tls = at.ends_with(":8443").then(|| backend_tls(&cycle.prefix));
        backends.push(Backend::start(&world, at, tls, plan.backend_dice.fork()));
    }
    // All that accepts has begun.
    rt::sleep(1).await;
    let quiet = (rt::inspect::tasks(), rt::connections().active);
    for client in std::mem::take(&mut plan.clients) {
        world.clients.set(world.clients.get() + 1);
        rt::spawn(visit(world.clone(), client));
    }
    for (which, at) in &plan.deaths {
        let (backend, at) = (backends[*which].clone(), *at);
        rt::spawn(async move {
            rt::sleep(at).await;
            backend.die();
        });
    }
    let begun = rt::now_ms();
    for at in plan.reloads_at.iter().filter(|at| plan.quits_at.is_none_or(|end| **at < end)) {
        rt::sleep_until(begun + at).await;
        reload(&world, &config::text(&plan.settings, &cycle.prefix), &mut cycles, &mut servers);
    }
    let Some(server) = servers.last().cloned() else { return cycles };
    if let Some(at) = plan.quits_at {
        rt::sleep_until(begun + at).await;
        world.tell("the worker is told to quit");
        quit(&server, &world).await;
    }
    let end = rt::now_ms() + LONGEST_VISIT + 10_000;
    while world.clients.get() > 0 && rt::now_ms() < end {
        rt::sleep(50).await;
    }
    if world.clients.get() > 0 {
        world.found(format!("{} clients didn't come to an end", world.clients.get()));
    }
    rt::sim::set_faults(Faults { latency_ms: (0, 0), short_reads: 0, short_writes: 0, ..Faults::default() });
    come_to_rest(&world, &servers, quiet, plan.quits_at.is_some() || !plan.deaths.is_empty()).await;
    if plan.quits_at.is_none() {
        probe(&world).await;
        quit(&server, &world).await;
    }
    if cycles.iter().any(|cycle| server::counted(cycle, "counted") != Some(0)) {
        world.found("connections are still counted by limit_conn");
    }
    backends.iter().for_each(|backend| backend.die());
    rt::sleep(1000).await;
    let left = rt::connections().active;
    if left > 0 {
        world.found(format!("{left} connections are left"));
    }
    // One task watches the idle connections of each pool.
    let tasks = rt::inspect::tasks();
    if tasks > POOLS * servers.len() {
        world.found(format!("{tasks} tasks are left"));
    }
    cycles.split_off(1)
}

/// Reads the configuration again, and serves on with it; connections of the cycle before are served to their end.
fn reload(world: &World, text: &str, cycles: &mut Vec<Rc<Cycle>>, servers: &mut Vec<Rc<Embedded>>) {
    world.tell("the configuration is read again");
    let (Some(cycle), Some(server)) = (cycles.last(), servers.last()) else { return };
    match server::load(&cycle.prefix, text.to_owned(), Some(cycle)) {
        Ok(next) => {
            world.reloaded.set(true);
            servers.push(server::replace(server, &next));
            cycles.push(next);
        }
        Err(what) => world.found(format!("the configuration can't be read again: {what}")),
    }
}

/// How many pools of idle connections to backends there may be: two groups, and four backends without one.
const POOLS: usize = 6;
/// How long a client stays at most.
const LONGEST_VISIT: u64 = 300_000;
/// How long the server may take to notice that all have gone.
const LONGEST_REST: u64 = 200_000;

async fn quit(server: &Rc<Embedded>, world: &World) {
    if rt::timeout(LONGEST_VISIT, server.quit()).await.is_none() {
        world.found("the worker doesn't end");
    }
    world.tell(&format!("the worker has ended, and {} connections with it", server.busy()));
}

/// Waits until as many tasks and connections are left as there were before the first client came.
async fn come_to_rest(world: &World, servers: &[Rc<Embedded>], quiet: (usize, usize), fewer: bool) {
    let end = rt::now_ms() + LONGEST_REST;
    let pools = POOLS * servers.len();
    let busy = || servers.iter().map(|server| server.busy()).sum::<usize>();
    loop {
        let (tasks, connections) = (rt::inspect::tasks(), rt::connections().active);
        let at_rest = match fewer {
            true => tasks <= quiet.0 + pools && connections <= quiet.1,
            false => tasks <= quiet.0 + pools && connections == quiet.1,
        };
        if at_rest && busy() == 0 {
            return;
        }
        if rt::now_ms() > end {
            let busy = busy();
            let what = format!("{tasks} tasks and {connections} connections are left, {busy} of them are being served");
            let which = rt::inspect::connections().join("; ");
            return world.found(format!("{what}; before the first client it was {quiet:?}: {which}"));
        }
        rt::sleep(500).await;
    }
}

/// Asks the server what it counts: nothing but this question is left.
async fn probe(world: &World) {
    let to = addr(&format!("10.0.0.1:{}", config::PLAIN));
    let Ok(stream) = rt::Stream::connect(&to, &rt::ConnectOptions::default(), 1000).await else {
        return world.found("the server doesn't accept any more");
    };
    stream.set_recv_timeout(Some(10_000));
    let ask = "GET /status HTTP/1.0\r\nHost: sim.test\r\n\r\n".as_bytes();
    let _ = stream.send_all(buf::Chain::from(buf::Bytes::copy_from(ask))).await;
    let mut page = Vec::new();
    while let Ok(bytes) = stream.recv(4096).await
        && !bytes.is_empty()
    {
        page.extend_from_slice(&bytes);
    }
    let page = String::from_utf8_lossy(&page);
    if !page.contains("Active connections: 1 ") || !page.contains("Reading: 0 Writing: 1 Waiting: 0 ") {
        world.found(format!("the server counts more than is there: {page:?}"));
    }
    let numbers: Vec<u64> = page.lines().rev().nth(1).unwrap_or("").split_whitespace().flat_map(str::parse).collect();
    if numbers.first() != numbers.get(1) {
        world.found(format!("accepted and handled differ: {numbers:?}"));
    }
}

/// A client's visit, from its start to its end.
async fn visit(world: Rc<World>, mut client: Client) {
    rt::sleep(client.starts_at).await;
    let port = match client.speaks {
        Speaks::Http1 => config::PLAIN,
        Speaks::Https1 | Speaks::Https2 => config::SECURE,
        Speaks::Http2 => config::PRIOR,
    };
    let to = addr(&format!("10.0.0.1:{port}"));
    match rt::Stream::connect(&to, &rt::ConnectOptions::default(), 10_000).await {
        Ok(stream) => {
            let stream = Rc::new(stream);
            stream.set_recv_timeout(Some(LONGEST_VISIT));
            stream.set_send_timeout(Some(LONGEST_VISIT));
            let leaves = client.leaves;
            let talk = talk(&world, &mut client, &stream);
            match leaves {
                None => {
                    if rt::timeout(LONGEST_VISIT, talk).await.is_none() {
                        world.failed("a client waited for very long");
                    }
                }
                Some((after, Leaving::Shut)) => {
                    let shut = async {
                        rt::sleep(after).await;
                        let _ = stream.shutdown_write();
                        rt::sleep(LONGEST_VISIT).await;
                    };
                    either(talk, shut).await;
                }
                Some((after, how)) => {
                    if rt::timeout(after, talk).await.is_none() {
                        leave(&world, &stream, how).await;
                    }
                }
            }
        }
        Err(error) => world.failed(format!("a client can't connect: {error}")),
    }
    world.clients.set(world.clients.get() - 1);
}

async fn leave(world: &World, stream: &rt::Stream, how: Leaving) {
    world.tell(&format!("a client leaves: {how:?}"));
    match how {
        Leaving::Close | Leaving::Shut => {}
        Leaving::Reset => stream.linger_reset(),
        Leaving::Cut => rt::sim::cut(stream),
        Leaving::Freeze => rt::sleep(LONGEST_VISIT / 2).await,
    }
}

async fn talk(world: &World, client: &mut Client, stream: &Rc<rt::Stream>) {
    if client.nonsense {
        let bytes: Vec<u8> = (0..client.dice.between(1, 300)).map(|_| client.dice.below(256) as u8).collect();
        let _ = stream.send_all(buf::Chain::from(buf::Bytes::from(bytes))).await;
        while let Ok(bytes) = stream.recv(4096).await
            && !bytes.is_empty()
        {}
        return;
    }
    let secure = match client.speaks {
        Speaks::Https1 => Some(&world.tls),
        Speaks::Https2 => Some(&world.tls_h2),
        _ => None,
    };
    if let Some(tls) = secure
        && let Err(error) = tls::connect(stream, tls, "sim.test", None, None).await
    {
        return world.failed(format!("the handshake failed: {error:?}"));
    }
    match client.speaks {
        Speaks::Http1 | Speaks::Https1 => http1::talk(world, client, stream).await,
        Speaks::Http2 | Speaks::Https2 => http2::talk(world, client, stream).await,
    }
    let _ = stream.shutdown_write();
}

/// Every request is logged once, with the status that its client saw; nothing alarming was logged.
fn check_logs(world: &World, errors: &str, access: &str) {
    let mut logged: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in access.lines() {
        let mut words = line.split(' ');
        let (id, status) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if id != "-" {
            logged.entry(id).or_default().push(status);
        }
    }
    for (id, statuses) in &logged {
        if statuses.len() > 1 {
            world.found(format!("request {id} is logged more than once: {statuses:?}"));
        }
    }
    for (id, status) in &*world.seen.borrow() {
        let found = logged.get(&*id.to_string()).and_then(|statuses| statuses.first().copied());
        if found != Some(&*status.to_string()) {
            world.found(format!("request {id} was answered with {status}, but the log has {found:?}"));
        }
    }
    for line in errors.lines().filter(|line| ["[alert]", "[emerg]", "[crit]"].iter().any(|level| line.contains(level)))
    {
        world.found(format!("the log has: {line}"));
    }
}
