//! The server under load: ours or nginx, in a folder of its own, seen and steered only from outside.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::driver::{FILE_LENGTHS, FILE_SEEDS};
use super::{Load, Mix, Target, alive, body, children, origin};
use crate::{Backend, Folder, binary, free_port};
use crate::{EC, certificate};

/// How long a server may take for a step: a start, a reload, an upgrade.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program to put under load.
#[derive(Debug, Clone)]
pub struct Program {
    /// What it calls itself, with its version.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

impl Program {
    /// The program at a path.
    pub fn at(path: &Path) -> Program {
        let said = Command::new(path).arg("-v").stdin(Stdio::null()).output();
        let said = said.map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_default();
        let name = said.lines().next().and_then(|l| l.split_once("version: ")).map_or("unknown", |(_, name)| name);
        Program { name: name.trim().to_string(), path: path.to_path_buf() }
    }

    /// Tidegate: what all tests test.
    pub fn ours() -> Program {
        Program::at(&binary())
    }

    /// The system's nginx, if it is installed.
    pub fn nginx() -> Option<Program> {
        let path = Path::new("/usr/sbin/nginx");
        path.is_file().then(|| Program::at(path))
    }
}

/// What a subject is configured with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `worker_processes`.
    pub workers: usize,
    /// As a daemon; else in the foreground, as a child of this process.
    pub daemon: bool,
    /// `worker_connections`.
    pub connections: usize,
    /// Also listen on a unix socket.
    pub unix: bool,
    /// What comes after `listen `, with `PORT` and `EXTRA` for the numbers of two free ports.
    pub listen: Vec<String>,
    /// Whether TLS is spoken on the port `EXTRA`.
    pub secure: bool,
    /// Further directives of the main context.
    pub main: String,
    /// The name of the program's file in the subject's folder; none leaves it as it is. Tidegate under the name `nginx`
    /// behaves as nginx in name and paths.
    pub file_name: Option<&'static str>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            workers: 2,
            daemon: false,
            connections: 1024,
            unix: true,
            listen: vec!["127.0.0.1:PORT".into()],
            secure: false,
            main: String::new(),
            file_name: None,
        }
    }
}

/// A running server. Whatever it started is gone when it is dropped.
#[derive(Debug)]
pub struct Subject {
    /// What the program calls itself.
    pub name: String,
    /// The configuration in force, or to be in force after the next reload.
    pub settings: Settings,
    /// The process id of the master that rules.
    pub master: u32,
    folder: Folder,
    program: PathBuf,
    ports: [(u16, UdpSocket); 2],
    origin: Backend,
    child: Option<Child>,
}

impl Subject {
    /// Starts a program with its files, its backend and its configuration, and waits until it answers.
    pub fn start(program: &Program, settings: Settings) -> Result<Subject, String> {
        let folder = Folder::new();
        folder.public("sbin");
        let own = program.path.file_name().and_then(|n| n.to_str()).unwrap_or("server");
        let path = folder.path().join("sbin").join(settings.file_name.unwrap_or(own));
        for seed in 0..FILE_SEEDS {
            for length in FILE_LENGTHS {
                folder.write(&format!("html/f/{seed}-{length}"), body(seed, length));
            }
        }
        if settings.secure {
            certificate(&folder, "own", EC);
        }
        let mut subject = Subject {
            name: program.name.clone(),
            settings,
            master: 0,
            folder,
            program: path,
            ports: [free_port(), free_port()],
            origin: origin(),
            child: None,
        };
        subject.put(program)?;
        subject.write_configuration();
        subject.launch()?;
        Ok(subject)
    }

    /// Puts a program where the subject's is, as a package does: a rename, so that the old file lives on while it runs.
    pub fn put(&self, program: &Program) -> Result<(), String> {
        let aside = self.program.with_extension("new");
        let _ = fs::remove_file(&aside);
        fs::hard_link(&program.path, &aside)
            .or_else(|_| fs::copy(&program.path, &aside).map(|_| ()))
            .and_then(|()| fs::rename(&aside, &self.program))
            .map_err(|e| format!("{}: {e}", program.path.display()))
    }

    /// Whether the master that rules runs this program.
    pub fn runs(&self, program: &Program) -> bool {
        let size = |path: &Path| fs::metadata(path).map(|m| m.len()).ok();
        size(Path::new(&format!("/proc/{}/exe", self.master))) == size(&program.path)
    }

    /// Starts the program and waits until its workers are there and its port answers.
    pub fn launch(&mut self) -> Result<(), String> {
        let stderr = fs::File::create(self.path("stderr")).map_err(|e| e.to_string())?;
        // In the foreground, a test that is killed leaves no server behind.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(&self.program);
        if self.settings.daemon {
            command = Command::new(&self.program);
        }
        command.arg("-p").arg(self.folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        let mut child = command.stdin(Stdio::null()).stderr(stderr).spawn().map_err(|e| e.to_string())?;
        if self.settings.daemon {
            let status = child.wait().map_err(|e| e.to_string())?;
            if !status.success() {
                return Err(format!("the start ended with {status}:\n{}", self.words()));
            }
        } else {
            self.child = Some(child);
        }
        self.wait_start()?;
        self.master = self.pid_in_file("nginx.pid").unwrap_or(0);
        self.wait("the workers", |s| s.workers(s.master).len() >= s.settings.workers)?;
        let Target::Tcp(address) = self.web() else { return Ok(()) };
        self.wait("the port", |_| std::net::TcpStream::connect(address).is_ok())
    }

    /// Waits for the pid file, or for the end of what should have written it.
    fn wait_start(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while !self.pid_in_file("nginx.pid").is_some_and(|p| self.is_own(p)) {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
            if let Some(status) = ended {
                self.child = None;
                return Err(format!("the start ended with {status}:\n{}", self.words()));
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("no pid file:\n{}", self.words()));
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        Ok(())
    }

    /// Where clients go.
    pub fn web(&self) -> Target {
        self.address(Ipv4Addr::LOCALHOST, 0)
    }

    /// The port `PORT` on another local address, which only a listener on `*` hears.
    pub fn elsewhere(&self) -> Target {
        self.address(Ipv4Addr::new(127, 0, 0, 2), 0)
    }

    /// The port `EXTRA`.
    pub fn extra(&self) -> Target {
        self.address(Ipv4Addr::LOCALHOST, 1)
    }

    /// The port `EXTRA`, over TLS.
    pub fn secure(&self) -> Target {
        Target::Secure((Ipv4Addr::LOCALHOST, self.ports[1].0).into())
    }

    /// The unix socket, if there is one.
    pub fn unix(&self) -> Option<Target> {
        self.settings.unix.then(|| Target::Unix(self.path("web.sock")))
    }

    /// A load on this subject.
    pub fn load(&self, mix: Mix) -> Load {
        Load::start(&self.web(), self.unix().as_ref(), mix)
    }

    /// A master's workers: its children that aren't a new master.
    pub fn workers(&self, master: u32) -> Vec<u32> {
        let masters = [self.pid_in_file("nginx.pid"), self.pid_in_file("nginx.pid.oldbin")];
        children(master).into_iter().filter(|p| !masters.contains(&Some(*p))).collect()
    }

    /// Every process of this subject that hasn't ended.
    pub fn processes(&self) -> BTreeSet<u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(|p| self.is_own(*p)).collect()
    }

    /// How many clients a process of this subject holds.
    pub fn held(&self, pid: u32) -> usize {
        super::held(pid, &self.ports.each_ref().map(|(port, _)| *port), &self.path("web.sock").display().to_string())
    }

    /// Sends a process a signal.
    pub fn signal(&self, pid: u32, signal: Signal) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Puts the settings into the configuration file.
    pub fn write_configuration(&self) {
        self.folder.write("nginx.conf", self.configuration());
    }

    /// Asks for a reload and waits until all workers of the new configuration are there.
    pub fn reload(&self) -> Result<(), String> {
        if self.try_reload(PATIENCE) { Ok(()) } else { Err(format!("no new workers:\n{}", self.words())) }
    }

    /// Asks for a reload; whether new workers came within this time.
    pub fn try_reload(&self, patience: Duration) -> bool {
        self.write_configuration();
        let before = self.workers(self.master);
        self.signal(self.master, Signal::HUP);
        let new = |s: &Subject| s.workers(s.master).iter().filter(|p| !before.contains(p)).count();
        self.within(patience, |s| new(s) >= s.settings.workers)
    }

    /// Quits gracefully, and waits until everything is gone; the error log must be free of alarms unless they are
    /// expected (`quiet`).
    pub fn stop(&mut self, quiet: bool) -> Result<(), String> {
        self.signal(self.master, Signal::QUIT);
        let child = self.child.take();
        self.wait("the end", |s| !alive(s.master))?;
        if let Some(mut child) = child {
            let status = child.wait().map_err(|e| e.to_string())?;
            if !status.success() {
                return Err(format!("it ended with {status}"));
            }
        }
        self.wait("the end of all processes", |s| s.processes().is_empty())?;
        let loud = self.alarms();
        if quiet || loud.is_empty() { Ok(()) } else { Err(format!("the error log:\n{}", loud.join("\n"))) }
    }

    /// Lines of the error log from `[alert]` upwards.
    pub fn alarms(&self) -> Vec<String> {
        let loud = |l: &&str| ["[alert]", "[emerg]", "panicked"].iter().any(|w| l.contains(w));
        self.read("error.log").lines().filter(loud).map(str::to_string).collect()
    }

    /// Waits until a condition holds.
    pub fn wait(&self, what: &str, condition: impl Fn(&Subject) -> bool) -> Result<(), String> {
        if self.within(PATIENCE, condition) {
            return Ok(());
        }
        Err(format!("waited in vain for {what}:\n{}", self.words()))
    }

    /// Whether a condition comes true within this time.
    pub fn within(&self, patience: Duration, condition: impl Fn(&Subject) -> bool) -> bool {
        let begun = Instant::now();
        while !condition(self) {
            if begun.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        true
    }

    /// The process id in a pid file.
    pub fn pid_in_file(&self, name: &str) -> Option<u32> {
        self.read(name).trim().parse().ok()
    }

    /// A file's path in the subject's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file's content; empty if there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read(self.path(name)).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// The last words of the server.
    pub fn words(&self) -> String {
        let log = self.read("error.log");
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default();
        format!("{}\n{}", self.read("stderr"), tail.join("\n"))
    }

    /// Whether a process runs this subject's program and hasn't ended.
    fn is_own(&self, pid: u32) -> bool {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|p| p.starts_with(self.folder.path())) && alive(pid)
    }

    fn address(&self, host: Ipv4Addr, port: usize) -> Target {
        Target::Tcp(SocketAddr::from((host, self.ports.get(port).map_or(0, |(port, _)| *port))))
    }

    fn configuration(&self) -> String {
        let settings = &self.settings;
        let number = |text: &str| {
            let [port, extra] = self.ports.each_ref().map(|(port, _)| port.to_string());
            text.replace("PORT", &port).replace("EXTRA", &extra)
        };
        let mut listen: String = settings.listen.iter().map(|l| format!("listen {};\n", number(l))).collect();
        if settings.unix {
            listen.push_str(&format!("listen unix:{};\n", self.path("web.sock").display()));
        }
        if settings.secure {
            listen.push_str(&number(
                "listen 127.0.0.1:EXTRA ssl;\nssl_certificate own.crt;\nssl_certificate_key own.key;\n",
            ));
        }
        let method = std::env::var("TIDEGATE_USE").ok().filter(|_| !self.name.starts_with("nginx"));
        format!(
            "daemon {daemon};\npid nginx.pid;\nworker_processes {workers};\nworker_rlimit_nofile 20000;\n{main}\n\
             events {{ worker_connections {connections}; {method} }}\n\
             http {{\nlog_format brief '$status $request_method $uri';\naccess_log access.log brief;\n\
             client_body_temp_path body; proxy_temp_path proxy;\nkeepalive_requests 1000000;\n\
             upstream origin {{ server 127.0.0.1:{origin}; keepalive 32; }}\n\
             map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
             server {{\n{listen}root html;\nlocation /b/ {{ proxy_pass http://origin; proxy_http_version 1.1;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;\n\
             proxy_read_timeout 120s; }} }} }}\n",
            daemon = if settings.daemon { "on" } else { "off" },
            workers = settings.workers,
            main = settings.main,
            connections = settings.connections,
            method = method.map(|m| format!("use {m};")).unwrap_or_default(),
            origin = self.origin.port,
        )
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let own = self.processes();
        own.iter().for_each(|p| self.signal(*p, Signal::TERM));
        if !self.within(Duration::from_secs(3), |s| s.processes().is_empty()) {
            self.processes().iter().for_each(|p| self.signal(*p, Signal::KILL));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}
