//! A server under test: its configuration, its process, its end.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Connection, Folder, Response};

/// How long a server may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(15);

/// The program under test: `TIDEGATE_BINARY`, else the newest build.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEGATE_BINARY") {
        return PathBuf::from(path);
    }
    let builds = ["release", "quick", "debug"].map(|profile| target().join(profile).join("tidegate"));
    let newest = builds.into_iter().filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path))).max();
    newest.map(|(_, path)| path).expect("the program is built: cargo build --release")
}

/// Where cargo builds, `target` or elsewhere: this test is in `debug/deps` there, a program of the tests in `debug`.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("a program knows its path");
    let profile = program.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    profile.and_then(Path::parent).expect("cargo built this program").to_path_buf()
}

/// A port of 127.0.0.1 that nobody else takes while the returned socket lives: tests in other processes reserve the
/// UDP port of the same number first. All lie below the range the kernel gives to outgoing connections.
pub fn free_port() -> (u16, UdpSocket) {
    find_port(UdpSocket::bind, |addr| TcpListener::bind(addr).is_ok())
}

/// The same for a program that wants the port for connections and for datagrams; it can begin once both sockets are
/// dropped.
pub fn free_for_both() -> (u16, (UdpSocket, TcpListener)) {
    find_port(|addr| Ok((UdpSocket::bind(addr)?, TcpListener::bind(addr)?)), |_| true)
}

/// A port that can be reserved so, and is free.
fn find_port<R>(reserve: impl Fn(SocketAddr) -> io::Result<R>, is_free: impl Fn(SocketAddr) -> bool) -> (u16, R) {
    let start = std::process::id().wrapping_mul(37) % 12000;
    for step in 0..12000 {
        let port = 18000 + ((start + step) % 12000) as u16;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        if let Some(reserved) = reserve(addr).ok().filter(|_| is_free(addr)) {
            return (port, reserved);
        }
    }
    panic!("no port is free");
}

/// A port of a placeholder, for datagrams if the name says so, and the socket that reserves it.
fn reserve(name: &str) -> (u16, OwnedFd) {
    if name.starts_with("UDP") {
        // What is reserved is the port of the same number for connections.
        let (port, reserved) = find_port(TcpListener::bind, |addr| UdpSocket::bind(addr).is_ok());
        return (port, reserved.into());
    }
    let (port, reserved) = free_port();
    (port, reserved.into())
}

/// The directive that chooses the event method `TIDEGATE_USE`; empty where the default is to be used.
pub fn use_directive() -> String {
    std::env::var("TIDEGATE_USE").map(|method| format!("use {method};")).unwrap_or_default()
}

/// What a server is started with. Placeholders in the configuration: `%%PORT%%`, `%%PORT_anything%%` (each name one free
/// port), `%%UDP%%` and `%%UDP_anything%%` (the same for datagrams), `%%DIR%%` (the server's folder) and `%%USE%%` ([`use_directive`]).
#[derive(Debug, Default)]
pub struct Setup {
    main: String,
    events: String,
    http: String,
    stream: Option<String>,
    whole: Option<String>,
    tiny_disk: Option<String>,
    wrapper: Vec<String>,
    program: Option<PathBuf>,
    folder: Folder,
}

impl Setup {
    /// The content of the `http` block; logs, temporary folders and events are provided.
    pub fn http(http: &str) -> Setup {
        Setup { http: http.to_string(), ..Setup::default() }
    }

    /// The content of the `stream` block; there is no `http` block, and the error log has all levels but `debug`.
    pub fn stream(stream: &str) -> Setup {
        Setup { stream: Some(stream.to_string()), ..Setup::default() }
    }

    /// A whole configuration file, taken as it is.
    pub fn whole(text: &str) -> Setup {
        Setup { whole: Some(text.to_string()), ..Setup::default() }
    }

    /// Adds directives of the main context.
    pub fn main(mut self, directives: &str) -> Setup {
        self.main.push_str(directives);
        self
    }

    /// Adds directives of the `events` block.
    pub fn events(mut self, directives: &str) -> Setup {
        self.events.push_str(directives);
        self
    }

    /// Adds a file, named from the server's folder.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Setup {
        self.folder.write(name, content);
        self
    }

    /// Adds a folder into which workers may write.
    pub fn public(self, name: &str) -> Setup {
        self.folder.public(name);
        self
    }

    /// Puts a file system of 256 KiB, which only the server sees, on a folder. Needs root.
    pub fn tiny_disk(mut self, name: &str) -> Setup {
        self.folder.public(name);
        self.tiny_disk = Some(name.to_string());
        self
    }

    /// Starts the server through another program, which is to become it by exec. Its words may have placeholders that
    /// the configuration has.
    pub fn wrapper(mut self, words: &[&str]) -> Setup {
        self.wrapper = words.iter().map(|word| word.to_string()).collect();
        self
    }

    /// Runs another program than [`binary`].
    pub fn program(mut self, path: PathBuf) -> Setup {
        self.program = Some(path);
        self
    }

    /// The server's folder, for what `file` can't say.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Writes the configuration, without starting anything.
    pub fn prepare(self) -> Server {
        let mut server = Server {
            ports: BTreeMap::new(),
            folder: self.folder,
            tiny_disk: self.tiny_disk,
            wrapper: self.wrapper,
            program: self.program.unwrap_or_else(binary),
            child: None,
            quiet: false,
        };
        let protocol = match self.stream {
            Some(stream) => format!("error_log error.log info;\nstream {{\n{stream}\n}}\n"),
            None => format!(
                "http {{\n    access_log access.log;\n{temporary}{http}\n}}\n",
                temporary = if self.http.contains("_temp_path ") {
                    ""
                } else {
                    "    client_body_temp_path client_body_temp;\n    proxy_temp_path proxy_temp;\n"
                },
                http = self.http
            ),
        };
        let text = self.whole.unwrap_or_else(|| {
            format!(
                "daemon off;\npid nginx.pid;\n{workers}\n{main}\n\
                 events {{ worker_connections 1024; %%USE%% {events} }}\n{protocol}",
                workers = if self.main.contains("worker_processes ") { "" } else { "worker_processes 1;" },
                main = self.main,
                events = self.events,
            )
        });
        server.configure(&text);
        server
    }

    /// Starts the server and waits until it listens.
    pub fn start(self) -> Server {
        let mut server = self.prepare();
        server.launch();
        server
    }
}

/// A running server (or one that is ready to run). When dropped it is asked to quit; it must then end with status 0 and
/// its error log must hold no `[alert]` and no `[emerg]`.
#[derive(Debug)]
pub struct Server {
    ports: BTreeMap<String, (u16, OwnedFd)>,
    folder: Folder,
    tiny_disk: Option<String>,
    wrapper: Vec<String>,
    program: PathBuf,
    child: Option<Child>,
    quiet: bool,
}

impl Server {
    /// Replaces the configuration file; ports keep their numbers.
    pub fn configure(&mut self, text: &str) {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("%%") {
            let (name, tail) = after.split_once("%%").expect("a placeholder ends with %%");
            out.push_str(before);
            match name {
                "DIR" => out.push_str(&self.folder.path().display().to_string()),
                "USE" => out.push_str(&use_directive()),
                _ => out.push_str(&self.ports.entry(name.to_string()).or_insert_with(|| reserve(name)).0.to_string()),
            }
            rest = tail;
        }
        out.push_str(rest);
        self.folder.write("nginx.conf", out);
    }

    /// The port after a placeholder.
    pub fn port_of(&self, name: &str) -> u16 {
        self.ports.get(name).unwrap_or_else(|| panic!("no %%{name}%% in the configuration")).0
    }

    /// The port after `%%PORT%%`.
    pub fn port(&self) -> u16 {
        self.port_of("PORT")
    }

    /// The server's folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// An absolute URL on `%%PORT%%`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    /// The process id of the master.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// The process ids of the master's children.
    pub fn children(&self) -> Vec<u32> {
        let pid = self.pid();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        list.split_whitespace().filter_map(|p| p.parse().ok()).collect()
    }

    /// Runs the program with the server's folder and file and some more options, to its end.
    pub fn command(&self, options: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.arg("-p").arg(self.folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]).args(options);
        command.stdin(Stdio::null()).output().expect("the program starts")
    }

    /// Starts the process and waits for its pid file and its ports.
    pub fn launch(&mut self) {
        let stderr = fs::File::create(self.folder.path().join("stderr")).expect("the folder is ours");
        let mut command = self.launcher();
        let wrapper: Vec<_> = self.wrapper.iter().map(|word| self.fill(word)).collect();
        command.args(wrapper).arg(&self.program);
        command.arg("-p").arg(self.folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        self.child = Some(command.stdin(Stdio::null()).stderr(stderr).spawn().expect("the program starts"));
        let pid_file = self.folder.path().join("nginx.pid");
        let pid = self.pid().to_string();
        self.wait(|_| fs::read_to_string(&pid_file).is_ok_and(|s| s.trim() == pid), "the pid file");
        if let Some((port, _)) = self.ports.get("PORT") {
            let port = *port;
            self.wait(|_| TcpStream::connect(("127.0.0.1", port)).is_ok(), "its port");
        }
        if !self.read("nginx.conf").contains("master_process off") {
            // Some tests are of workers that can't start.
            self.wait(|s| !s.children().is_empty() || s.read("error.log").contains("[emerg]"), "a worker");
        }
    }

    /// Puts what is known by now into placeholders.
    fn fill(&self, text: &str) -> String {
        let text = text.replace("%%DIR%%", &self.folder.path().display().to_string());
        self.ports.iter().fold(text, |text, (name, (port, _))| text.replace(&format!("%%{name}%%"), &port.to_string()))
    }

    /// What becomes the server: it sees to it that a test that is killed leaves no server behind.
    fn launcher(&self) -> Command {
        let last = ["setpriv", "--pdeathsig", "TERM"];
        let Some(name) = &self.tiny_disk else {
            let mut command = Command::new(last[0]);
            command.args(&last[1..]);
            return command;
        };
        let script = "mount -t tmpfs -o size=256k,mode=777 none \"$0\" && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(self.folder.path().join(name)).args(last);
        command
    }

    /// Waits until the condition holds; fails after a while, or when the server dies.
    pub fn wait(&mut self, condition: impl Fn(&Server) -> bool, what: &str) {
        let start = Instant::now();
        while !condition(self) {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                self.child = None;
                panic!("the server ended ({status}) before {what}:\n{}", self.words());
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}:\n{}", self.words());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) {
        signal_process(self.pid(), signal);
    }

    /// Asks for a reload and waits until workers of the new configuration have replaced the old ones.
    pub fn reload(&mut self) {
        let before = self.children();
        self.signal(Signal::HUP);
        self.wait(|s| s.children().iter().any(|p| !before.contains(p)), "a new worker");
        self.wait(|s| s.children().iter().all(|p| !before.contains(p)), "the old workers' end");
    }

    /// Quits gracefully and returns how the process ended; checks the error log.
    pub fn stop(mut self) -> ExitStatus {
        self.quit().expect("the server runs")
    }

    /// Waits until the process has ended by itself, or by a signal already sent.
    pub fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        let status = wait_for(&mut child, PATIENCE);
        if status.is_none() {
            end(&mut child);
        }
        status.unwrap_or_else(|| panic!("the server didn't end:\n{}", self.words()))
    }

    /// Leaves the error log unchecked: the test provokes its alerts.
    pub fn quiet(&mut self) {
        self.quiet = true;
    }

    /// A new connection to `%%PORT%%`.
    pub fn connect(&self) -> Connection {
        Connection::open(self.port())
    }

    /// GET on a connection of its own.
    pub fn get(&self, target: &str) -> Response {
        self.get_with(target, "")
    }

    /// GET with further header lines, each with its line end.
    pub fn get_with(&self, target: &str, more: &str) -> Response {
        self.connect().get(target, &format!("{more}Connection: close\r\n"))
    }

    /// Sends these bytes on a connection of its own and reads one response.
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> Response {
        self.connect().send(bytes).response()
    }

    /// The content of a file in the server's folder; empty if there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read(self.folder.path().join(name)).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Waits until a file of the server's folder contains a text, and returns the file.
    pub fn read_until(&mut self, name: &str, text: &str) -> String {
        self.wait(|s| s.read(name).contains(text), &format!("{text:?} in {name}"));
        self.read(name)
    }

    fn quit(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        signal_process(child.id(), Signal::QUIT);
        let status = wait_for(&mut child, PATIENCE);
        if status.is_none() {
            end(&mut child);
        }
        let status = status.unwrap_or_else(|| panic!("the server didn't quit:\n{}", self.words()));
        assert!(status.success(), "the server ended with {status}:\n{}", self.words());
        let loud: Vec<_> = self.read("error.log").lines().filter(|l| is_loud(l)).map(str::to_string).collect();
        assert!(self.quiet || loud.is_empty(), "the error log:\n{}", loud.join("\n"));
        Some(status)
    }

    fn words(&self) -> String {
        let log = self.read("error.log");
        let tail: Vec<_> = log.lines().rev().take(30).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        format!("{}\n--- error.log\n{}", self.read("stderr"), tail.join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.quit();
        } else if let Some(mut child) = self.child.take() {
            eprintln!("{}", self.words());
            end(&mut child);
        }
    }
}

fn is_loud(line: &str) -> bool {
    line.contains("[alert]") || line.contains("[emerg]") || line.contains("panicked")
}

/// Sends a signal to a process by its id.
fn signal_process(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn wait_for(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Ends a server whose test has failed: by TERM, then by KILL for it and for the children it has now.
fn end(child: &mut Child) {
    let pid = child.id();
    signal_process(pid, Signal::TERM);
    if wait_for(child, Duration::from_secs(3)).is_some() {
        return;
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let _ = child.kill();
    let _ = child.wait();
    children.split_whitespace().filter_map(|p| p.parse().ok()).for_each(|p| signal_process(p, Signal::KILL));
}
