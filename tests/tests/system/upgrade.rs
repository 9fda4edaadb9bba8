//! Replacing the running program by another one, back again, and what can go wrong with it: between two of ours, and
//! between ours and Debian's nginx in both directions.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::{Backend, Connection, Folder, Setup, binary, free_port, tool, use_directive};
use e2e::{EC, certificate, secure};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon whose program file is `sbin/nginx` in a folder of its own.
pub(crate) struct Site {
    pub(crate) folder: Folder,
    pub(crate) port: u16,
    second: u16,
    /// For TLS, where it is configured.
    secure: u16,
    /// How many children a master has.
    pub(crate) children: usize,
    _reserved: [UdpSocket; 3],
}

impl Site {
    /// Writes the configuration; nothing runs yet.
    pub(crate) fn new() -> Site {
        let ((port, one), (second, two), (secure, three)) = (free_port(), free_port(), free_port());
        let reserved = [one, two, three];
        let site = Site { folder: Folder::new(), port, second, secure, children: 2, _reserved: reserved };
        fs::create_dir(site.path("sbin")).expect("the folder is ours");
        site.configure("worker_processes 2;", "");
        site
    }

    fn configure(&self, main: &str, more: &str) {
        let method = use_directive();
        let (folder, port, second) = (self.folder.path().display(), self.port, self.second);
        let text = format!(
            "{main} pid nginx.pid; error_log error.log notice; events {{ {method} }}
             http {{ access_log off; client_body_temp_path a; proxy_temp_path b; keepalive_timeout 5s;
             limit_req_zone $arg_a zone=one:64k rate=1r/s;
             server {{ listen 127.0.0.1:{port}; listen unix:{folder}/unix.sock; listen 127.0.0.1:{second} reuseport;
             {more} location / {{ return 200 ok; }} }} }}"
        );
        self.folder.write("nginx.conf", text);
    }

    /// Leaves the event method to the programs: Debian's nginx has been built with few.
    fn forget_method(&self) {
        let text = fs::read_to_string(self.path("nginx.conf")).expect("it is there");
        self.folder.write("nginx.conf", text.replace(&use_directive(), ""));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a program in the place of the one before.
    pub(crate) fn put(&self, program: &Path) {
        // Not by this process: a descriptor open for writing would go on into what another test's thread forks meanwhile,
        // and what is written to can't be executed.
        let copied = Command::new("cp").arg(program).arg(self.path("sbin/new")).status();
        assert!(copied.is_ok_and(|status| status.success()), "a program can be copied");
        fs::rename(self.path("sbin/new"), self.path("sbin/nginx")).expect("a program can be replaced");
    }

    /// Puts a script there.
    fn put_script(&self, text: &str) {
        let file = self.folder.write("script", text);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("the file is ours");
        self.put(&file);
    }

    pub(crate) fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(self.path("sbin/nginx"));
        command.arg("-p").arg(self.folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).env("TIDEGATE_SURVIVES", "the upgrade");
        command
    }

    fn run(&self, options: &[&str]) -> bool {
        self.command(options).status().expect("the program starts").success()
    }

    /// Starts this program as a daemon: its process id.
    pub(crate) fn start(&self, program: &Path) -> u32 {
        self.put(program);
        assert!(self.run(&[]), "the daemon starts:\n{}", self.log());
        self.wait("a pid file", || self.pid().is_some());
        self.pid().expect("a pid file")
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.path("nginx.pid")).ok()?.trim().parse().ok()
    }

    pub(crate) fn old_pid(&self) -> Option<u32> {
        fs::read_to_string(self.path("nginx.pid.oldbin")).ok()?.trim().parse().ok()
    }

    /// USR2 to this master, with another program in place: the new master's process id.
    pub(crate) fn upgrade(&self, old: u32, program: &Path) -> u32 {
        self.put(program);
        signal(old, Signal::USR2);
        self.wait("another master", || self.old_pid() == Some(old) && self.pid().is_some_and(|pid| pid != old));
        let new = self.pid().expect("a pid file");
        self.wait("its workers", || children(new).len() == self.children);
        new
    }

    /// Sends a master's workers away.
    pub(crate) fn send_away(&self, master: u32) {
        let others: Vec<_> = children(master).into_iter().filter(|pid| Some(*pid) != self.pid()).collect();
        signal(master, Signal::WINCH);
        self.wait("the workers' end", || others.iter().all(|pid| !lives(*pid)));
    }

    /// Sends a signal that ends a process, and waits for its end.
    pub(crate) fn end(&self, pid: u32, by: Signal) {
        signal(pid, by);
        self.wait("a process's end", || !lives(pid));
    }

    /// What the server calls itself, on each of its sockets.
    fn names(&self) -> [String; 3] {
        let tcp = |port| server_name(TcpStream::connect(("127.0.0.1", port)).expect("it listens"));
        let unix = || server_name(UnixStream::connect(self.path("unix.sock")).expect("it listens"));
        [tcp(self.port), tcp(self.second), unix()]
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("error.log")).unwrap_or_default()
    }

    pub(crate) fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the daemon in an orderly way; nothing is left behind.
    pub(crate) fn stop(&self) {
        let pid = self.pid().expect("it runs");
        assert!(self.run(&["-s", "quit"]));
        self.wait("the end", || !lives(pid));
        for name in ["nginx.pid", "nginx.pid.oldbin", "unix.sock"] {
            assert!(!self.path(name).exists(), "{name} is left");
        }
    }
}

impl Drop for Site {
    /// Whatever still runs the program of this folder is ended.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let program = fs::read_link(process.path().join("exe")).unwrap_or_default();
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
            if let (true, Some(pid)) = (program.starts_with(self.folder.path()), pid) {
                signal(pid, Signal::KILL);
            }
        }
    }
}

/// Clients that ask again and again until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    fn on(site: &Site) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |port: u16| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let (mut good, mut bad) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match ask(port) {
                        Ok(()) => good += 1,
                        Err(error) => bad.push(error),
                    }
                }
                (good, bad)
            })
        };
        let clients = vec![client(site.port), client(site.port), client(site.second)];
        Load { stop, clients }
    }

    /// Every request has been answered.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let done: Vec<_> = self.clients.into_iter().map(|client| client.join().expect("no client panics")).collect();
        let good: usize = done.iter().map(|(good, _)| good).sum();
        let bad: Vec<_> = done.into_iter().flat_map(|(_, bad)| bad).collect();
        assert!(bad.is_empty() && good > 0, "{good} were answered, {} weren't: {bad:?}", bad.len());
    }
}

fn ask(port: u16) -> Result<(), String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(|error| format!("write: {error}"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|error| format!("read: {error}"))?;
    let whole = answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"\r\n\r\nok");
    whole.then_some(()).ok_or_else(|| format!("answer: {:?}", String::from_utf8_lossy(&answer)))
}

fn server_name(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let field = answer.lines().find_map(|line| line.strip_prefix("Server: "));
    field.unwrap_or_else(|| panic!("no Server field: {answer}")).to_string()
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

pub(crate) fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| lives(*pid)).collect()
}

/// Whether a process runs: one that only waits to be reaped doesn't.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn title(pid: u32) -> String {
    let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&title).trim_end_matches('\0').to_string()
}

/// Debian's nginx, if the program under test isn't itself nginx.
fn nginx() -> Option<PathBuf> {
    tool(&["nginx"]).filter(|path| fs::canonicalize(path).ok() != fs::canonicalize(binary()).ok())
}

/// There, every step seen by clients, and back again.
fn there_and_back(first: &Path, second: &Path, tell_apart: bool) {
    let site = Site::new();
    if tell_apart {
        site.forget_method();
    }
    let master = site.start(first);
    let before = site.names();
    let load = Load::on(&site);
    let new = site.upgrade(master, second);
    assert!(title(new).contains("nginx: master process "), "{}", title(new));
    assert!(title(new).contains(&site.path("sbin/nginx").display().to_string()), "{}", title(new));
    site.send_away(master);
    let after = site.names();
    assert!(
        after.iter().all(|name| *name == after[0]) && (after[0] != before[0]) == tell_apart,
        "{before:?} {after:?}"
    );
    site.end(master, Signal::QUIT);
    assert!(site.old_pid().is_none() && site.pid() == Some(new));
    assert_eq!(site.names(), after, "unix sockets too");
    let back = site.upgrade(new, first);
    site.send_away(new);
    assert_eq!(site.names(), before);
    site.end(new, Signal::QUIT);
    assert!(site.run(&["-s", "reload"]), "the pid file is the right one");
    site.wait("the reload", || site.log().matches("reconfiguring").count() > 0 && children(back).len() == 2);
    load.end();
    site.stop();
}

/// Between two programs twelve times: neither holds more at the end than at the beginning.
fn nothing_gathers(first: &Path, second: &Path) {
    let site = Site::new();
    site.forget_method();
    let mut master = site.start(first);
    site.wait("its workers", || children(master).len() == 2);
    let mut held: Vec<Vec<usize>> = Vec::new();
    for round in 0..12 {
        let program = if round % 2 == 0 { second } else { first };
        let new = site.upgrade(master, program);
        site.send_away(master);
        site.end(master, Signal::QUIT);
        site.wait("the old pid file's end", || site.old_pid().is_none());
        master = new;
        // The master's, and the workers': those once the connections are over that were made for the names.
        let holds = || [master].into_iter().chain(children(master)).map(descriptors).collect::<Vec<_>>();
        match held.iter().rev().nth(1) {
            Some(earlier) => {
                let what = format!("as many descriptors as two rounds ago, {earlier:?}; now {:?}", holds());
                site.wait(&what, || holds() == *earlier);
            }
            None => site.wait("workers that are complete", || {
                // All later rounds are compared with this: what a busy machine closes late mustn't be counted.
                let now = holds();
                std::thread::sleep(Duration::from_millis(500));
                holds() == now
            }),
        }
        held.push(holds());
        site.names();
    }
    site.stop();
}

#[test]
fn nothing_gathers_between_two_of_ours() {
    nothing_gathers(&binary(), &binary());
}

#[test]
fn nothing_gathers_between_ours_and_nginx() {
    let Some(nginx) = nginx() else { return };
    nothing_gathers(&binary(), &nginx);
}

/// Beside the standard streams it gets what `NGINX` names, whatever it is.
#[test]
fn the_new_program_inherits_listening_sockets_only() {
    let site = Site::new();
    let master = site.start(&binary());
    let seen = site.path("seen");
    let list = format!("for fd in /proc/$$/fd/*; do echo ${{fd##*/}}=$(readlink $fd); done > {0}.new", seen.display());
    site.put_script(&format!("#!/bin/sh\n{list}\nenv >> {0}.new\nmv {0}.new {0}\n", seen.display()));
    signal(master, Signal::USR2);
    site.wait("the list", || seen.exists());
    let seen = fs::read_to_string(seen).expect("it is there");
    let value = seen.lines().find_map(|line| line.strip_prefix("NGINX=")).expect("a variable");
    let named: Vec<&str> = value.split(';').filter(|number| !number.is_empty()).collect();
    assert_eq!(named.len(), 3 + 1, "three addresses, one of them with a socket for each worker: {seen}");
    let sockets = seen.lines().filter_map(|line| line.split_once("=socket:["));
    let others: Vec<_> = sockets.map(|(number, _)| number).filter(|number| !named.contains(number)).collect();
    assert!(others.is_empty(), "{others:?} in {seen}");
    assert!(!seen.contains("TIDEGATE_LINK") && !seen.contains("memfd"), "{seen}");
    site.wait("the pid file's old name", || site.pid() == Some(master) && site.old_pid().is_none());
    // The program's file is the script by now.
    site.end(master, Signal::QUIT);
}

#[test]
fn there_and_back_again() {
    there_and_back(&binary(), &binary(), false);
}

#[test]
fn nginx_is_replaced_and_comes_back() {
    let Some(nginx) = nginx() else { return };
    there_and_back(&nginx, &binary(), true);
}

#[test]
fn replaced_by_nginx_and_back() {
    let Some(nginx) = nginx() else { return };
    there_and_back(&binary(), &nginx, true);
}

/// What a person does when the new program is no good: HUP to the old master, QUIT to the new one; or only TERM.
/// Differs from nginx: starts all its workers again
#[test]
fn rollback() {
    let site = Site::new();
    let old = site.start(&binary());
    let load = Load::on(&site);
    let new = site.upgrade(old, &binary());
    site.send_away(old);
    signal(old, Signal::HUP);
    site.wait("the old workers again", || children(old).len() == 3);
    signal(old, Signal::HUP);
    site.end(new, Signal::QUIT);
    site.wait("the pid file's old name", || site.pid() == Some(old) && site.old_pid().is_none());
    assert_eq!(children(old).len(), 2, "those that run aren't started twice");
    assert!(site.path("unix.sock").exists());
    let new = site.upgrade(old, &binary());
    site.send_away(old);
    // Without load: who is being served at that moment is cut off, as TERM means.
    load.end();
    site.end(new, Signal::TERM);
    site.wait("the old workers again", || children(old).len() == 2 && site.pid() == Some(old));
    assert_eq!(site.names().len(), 3);
    assert!(
        !site.log().contains("reconfiguring\n") || !site.log().contains(": reconfiguring"),
        "nothing is read again"
    );
    site.stop();
}

#[test]
fn a_new_program_that_dies_costs_nothing() {
    let site = Site::new();
    let old = site.start(&binary());
    let load = Load::on(&site);
    // It doesn't run at all, or not for long.
    for program in ["", "#!/bin/sh\nexit 3\n", "#!/nowhere/sh\n"] {
        let count = || site.log().matches("new binary process").count();
        let before = count();
        site.put_script(program);
        signal(old, Signal::USR2);
        site.wait("its end", || {
            count() > before
                && site.log().trim_end().lines().any(|l| l.contains("new binary process") && l.contains("exited"))
        });
        site.wait("the pid file", || site.pid() == Some(old) && site.old_pid().is_none());
    }
    // It is killed when it is alone.
    let new = site.upgrade(old, &binary());
    let orphans = children(new);
    signal(new, Signal::KILL);
    site.wait("the pid file", || site.pid() == Some(old) && site.old_pid().is_none());
    assert!(orphans.iter().all(|pid| lives(*pid)), "workers go on without their master");
    orphans.iter().for_each(|pid| signal(*pid, Signal::QUIT));
    site.wait("their end", || orphans.iter().all(|pid| !lives(*pid)));
    load.end();
    let new = site.upgrade(old, &binary());
    site.send_away(old);
    let orphans = children(new);
    signal(new, Signal::KILL);
    site.wait("the old workers again", || children(old).len() == 2 && site.pid() == Some(old));
    orphans.iter().for_each(|pid| signal(*pid, Signal::KILL));
    site.stop();
}

#[test]
fn one_upgrade_at_a_time() {
    let site = Site::new();
    let old = site.start(&binary());
    let new = site.upgrade(old, &binary());
    let refusal = "the changing binary signal is ignored: \
                   you should shutdown or terminate before either old or new binary's process";
    for (count, master) in [old, new].into_iter().enumerate() {
        signal(master, Signal::USR2);
        site.wait("a refusal", || site.log().matches(refusal).count() == count + 1);
    }
    assert_eq!((site.pid(), site.old_pid()), (Some(new), Some(old)));
    site.end(old, Signal::QUIT);
    let newest = site.upgrade(new, &binary());
    site.end(new, Signal::TERM);
    assert_eq!(site.pid(), Some(newest));
    site.stop();
}

/// The new program reads the configuration as it is by now.
#[test]
fn addresses_come_and_go() {
    let site = Site::new();
    let old = site.start(&binary());
    let third = free_port();
    site.configure("worker_processes 2;", &format!("listen 127.0.0.1:{};", third.0));
    let text = fs::read_to_string(site.path("nginx.conf")).expect("it is there");
    site.folder.write("nginx.conf", text.replace(&format!("listen 127.0.0.1:{} reuseport;", site.second), ""));
    let new = site.upgrade(old, &binary());
    ask(third.0).expect("the new address");
    ask(site.second).expect("the old program's address");
    site.end(old, Signal::QUIT);
    assert!(ask(site.second).is_err(), "nobody holds it any more");
    ask(site.port).expect("the address of both");
    ask(third.0).expect("the new address");
    assert_eq!(site.pid(), Some(new));
    site.stop();
}

/// Differs from nginx: it gets all that the first start had
#[test]
fn arguments_and_environment_are_handed_on() {
    let site = Site::new();
    let old = site.start(&binary());
    let script = "#!/bin/sh\necho \"$@\" > said.new; env >> said.new; mv said.new said; exit 1\n";
    site.put_script(&script.replace("said", &site.path("said").display().to_string()));
    signal(old, Signal::USR2);
    site.wait("the words", || site.path("said").exists());
    let said = fs::read_to_string(site.path("said")).expect("it is there");
    let arguments = format!("-p {} -c nginx.conf -e error.log", site.folder.path().display());
    assert_eq!(said.lines().next(), Some(arguments.as_str()));
    assert!(said.lines().any(|line| line == "TIDEGATE_SURVIVES=the upgrade"), "{said}");
    let sockets = said.lines().find_map(|line| line.strip_prefix("NGINX=")).expect("the sockets");
    assert!(sockets.ends_with(';') && sockets.matches(';').count() == 4, "{sockets}");
    site.wait("the pid file", || site.pid() == Some(old) && site.old_pid().is_none());
    site.put(&binary());
    site.stop();
}

#[test]
fn a_variable_that_makes_no_sense() {
    for (value, message) in [
        ("abc;", "invalid socket number \"abc;\" in NGINX environment variable, ignoring the rest of the variable"),
        ("77;", "getsockname() of the inherited socket #77 failed (9: Bad file descriptor)"),
        ("0;", "getsockname() of the inherited socket #0 failed (88: Socket operation on non-socket)"),
        ("7", "invalid socket number \"7\" in NGINX environment variable, ignoring"),
    ] {
        let site = Site::new();
        site.put(&binary());
        // It is in the background already, as far as it knows.
        let mut child = site.command(&[]).env("NGINX", value).stderr(Stdio::null()).spawn().expect("it starts");
        site.wait("the pid file", || site.pid() == Some(child.id()));
        site.wait("a message", || site.log().contains(message));
        site.wait("workers", || children(child.id()).len() == 2);
        ask(site.port).expect("it listens all the same");
        signal(child.id(), Signal::QUIT);
        assert!(child.wait().expect("it ends").success());
    }
}

/// A backend that answers every request by 101, and echoes what comes then.
fn echo() -> Backend {
    Backend::sockets(|mut stream, _| {
        let mut byte = [0];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            head.extend_from_slice(&byte);
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello";
        let mut buffer = [0; 4096];
        let mut sent = stream.write_all(answer);
        while let (Ok(()), Ok(n @ 1..)) = (&sent, stream.read(&mut buffer)) {
            sent = stream.write_all(&buffer[..n]);
        }
    })
}

/// Clients who wait for the server, not it for them: between two requests, or with a WebSocket.
struct Waiting {
    idle: Vec<Connection>,
    tunnels: Vec<Connection>,
    backend: Backend,
    rounds: usize,
}

impl Waiting {
    /// Configures a site for it, which may need more in its main block, before it starts.
    fn configure(site: &Site, main: &str) -> Backend {
        let backend = echo();
        let upgrade = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
             proxy_set_header Connection upgrade;";
        certificate(&site.folder, "one", EC);
        let more = format!(
            "listen 127.0.0.1:{} ssl; ssl_certificate {folder}/one.crt; ssl_certificate_key {folder}/one.key;
             keepalive_timeout 60s; location = /r {{ return 200 \"$connection_requests\"; }}",
            site.secure,
            folder = site.folder.path().display(),
        );
        let tunnel = format!("location /ws {{ proxy_pass http://127.0.0.1:{}; {upgrade} }}", backend.port);
        site.configure(&format!("{main} worker_processes 2;"), &format!("{more} {tunnel}"));
        backend
    }

    fn on(site: &Site, backend: Backend) -> Waiting {
        let open = |n: usize| match n % 5 {
            0 => secure::connect(site.secure, &["-tls1_2"]),
            1 => secure::connect(site.secure, &["-tls1_3"]),
            2 => Connection::open(site.port),
            _ => Connection::open(site.second),
        };
        let mut waiting =
            Waiting { idle: (0..30).map(open).collect(), tunnels: (0..20).map(open).collect(), backend, rounds: 0 };
        for tunnel in &mut waiting.tunnels {
            tunnel.send("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n");
            assert_eq!((tunnel.response().status, tunnel.take(5)), (101, b"hello".to_vec()));
        }
        waiting.are_served();
        waiting
    }

    /// Each is served on the connection that it had.
    fn are_served(&mut self) {
        self.rounds += 1;
        for idle in &mut self.idle {
            let response = idle.get("/r", "");
            assert_eq!((response.text(), response.field("Connection")), (self.rounds.to_string(), Some("keep-alive")));
        }
        for (n, tunnel) in self.tunnels.iter_mut().enumerate() {
            let text = format!("{n} in round {}", self.rounds);
            assert_eq!(tunnel.send(&text).take(text.len()), text.as_bytes());
        }
        assert_eq!(self.backend.connections(), self.tunnels.len());
    }
}

/// Who waits keeps the connection, from one program to the next, and back if that is taken back.
/// Differs from nginx: in an upgrade, too, old workers close idle connections
#[test]
fn who_waits_keeps_the_connection() {
    let site = Site::new();
    let backend = Waiting::configure(&site, "");
    let old = site.start(&binary());
    let mut waiting = Waiting::on(&site, backend);
    let open = descriptors(old);
    let new = site.upgrade(old, &binary());
    waiting.are_served();
    site.send_away(old);
    waiting.are_served();
    // Taken back: the old workers again, then the new program leaves.
    signal(old, Signal::HUP);
    site.wait("the old workers again", || children(old).len() == 3);
    waiting.are_served();
    site.end(new, Signal::QUIT);
    site.wait("the pid file's old name", || site.pid() == Some(old) && site.old_pid().is_none());
    waiting.are_served();
    site.wait("no more descriptors than before", || descriptors(old) == open);
    // Once more, and without WINCH: QUIT alone does it.
    let new = site.upgrade(old, &binary());
    site.end(old, Signal::QUIT);
    waiting.are_served();
    // Reloads of the one and the other; workers of both that come later know one another.
    let newest = site.upgrade(new, &binary());
    let before = children(newest);
    signal(newest, Signal::HUP);
    site.wait("a reload", || children(newest).len() == 2 && children(newest).iter().all(|pid| !before.contains(pid)));
    site.send_away(new);
    waiting.are_served();
    site.end(new, Signal::QUIT);
    waiting.are_served();
    assert!(!site.log().contains("[alert]"), "{}", site.log());
    drop(waiting);
    site.stop();
}

/// Where the switch is off, idle connections are closed, and tunnels stay where they are, as in nginx.
/// Not in nginx: reload_handover off
#[test]
fn the_switch_is_for_upgrades_too() {
    let site = Site::new();
    let backend = Waiting::configure(&site, "reload_handover off;");
    let old = site.start(&binary());
    let mut waiting = Waiting::on(&site, backend);
    let new = site.upgrade(old, &binary());
    signal(old, Signal::WINCH);
    assert!(waiting.idle.iter_mut().all(Connection::closed), "idle connections are closed");
    waiting.idle.clear();
    waiting.are_served();
    assert!(children(old).len() > 1, "workers stay with their tunnels");
    drop(waiting);
    site.wait("the old workers' end", || children(old) == [new]);
    site.end(old, Signal::QUIT);
    site.stop();
}

/// A program that dies takes its workers out of the others' sight; they go on alone, and leave when told.
/// Not in nginx: abstract unix socket
#[test]
fn the_dead_have_no_successors() {
    let site = Site::new();
    let backend = Waiting::configure(&site, "");
    let old = site.start(&binary());
    let new = site.upgrade(old, &binary());
    let orphans = children(new);
    signal(new, Signal::KILL);
    site.wait("the pid file", || site.pid() == Some(old) && site.old_pid().is_none());
    orphans.iter().for_each(|pid| signal(*pid, Signal::QUIT));
    site.wait("their end", || orphans.iter().all(|pid| !lives(*pid)));
    // What is left is as before: the next one takes over.
    let mut waiting = Waiting::on(&site, backend);
    let new = site.upgrade(old, &binary());
    site.end(old, Signal::QUIT);
    waiting.are_served();
    assert_eq!(site.pid(), Some(new));
    drop(waiting);
    site.stop();
}

/// nginx refuses in the foreground; but who runs a server under a supervisor wants to replace it too.
/// Differs from nginx: `USR2` in the foreground is ignored
#[test]
fn in_the_foreground() {
    let server = Setup::http("server { listen 127.0.0.1:%%PORT%%; location / { return 200 one; } }").start();
    let old = server.pid();
    signal(old, Signal::USR2);
    let folder = server.folder().path().to_path_buf();
    let pid = || fs::read_to_string(folder.join("nginx.pid")).ok()?.trim().parse::<u32>().ok();
    let start = Instant::now();
    while pid().is_none_or(|new| new == old || children(new).is_empty()) {
        assert!(start.elapsed() < PATIENCE, "no other master");
        std::thread::sleep(Duration::from_millis(10));
    }
    let new = pid().expect("a pid file");
    assert!(server.stop().success());
    // Its folder is gone, its port isn't.
    signal(new, Signal::TERM);
    while lives(new) {
        assert!(start.elapsed() < PATIENCE * 2, "the new master doesn't end");
        std::thread::sleep(Duration::from_millis(10));
    }
}
