//! Applications behind the server that others have written: php-fpm, uWSGI, memcached. Each listens on a unix socket in a
//! folder of the test, and ends with the test.

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process_group};

use crate::{Connection, Server, tool};

/// How long an application may take to start, and answers to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A protocol in which uWSGI is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wsgi {
    /// Its own.
    Uwsgi,
    /// Its own over TLS, on this port of 127.0.0.1, with `site.crt` and `site.key` of the folder.
    Suwsgi(u16),
    /// SCGI.
    Scgi,
}

/// An application, with all its processes.
pub struct Application {
    program: PathBuf,
    options: Vec<String>,
    socket: PathBuf,
    port: Option<u16>,
    child: Child,
}

impl Application {
    /// php-fpm with two processes at `name.sock` in a folder that everybody may write to; none if it isn't installed.
    pub fn php(folder: &Path, name: &str) -> Option<Application> {
        let program = tool(&["php-fpm8.4", "php-fpm8.3", "php-fpm8.2", "php-fpm"])?;
        let socket = folder.join(format!("{name}.sock"));
        let conf = folder.join(format!("{name}.conf"));
        let text = format!(
            "[global]\nerror_log = {0}/{name}.log\ndaemonize = no\n[{name}]\nlisten = {1}\nlisten.mode = 0666\n\
             user = nobody\ngroup = nogroup\npm = static\npm.max_children = 2\nenv[NAME] = {name}\n\
             php_value[session.save_path] = {0}\nphp_value[upload_tmp_dir] = {0}\n",
            folder.display(),
            socket.display()
        );
        std::fs::write(&conf, text).expect("the folder is ours");
        let options = vec!["-n".to_owned(), "-y".to_owned(), conf.display().to_string()];
        Some(Application::start(program, options, socket, None))
    }

    /// uWSGI with two processes at `name.sock` in a folder, which run `site/wsgi.py`; none if it or its plugin for Python
    /// isn't installed.
    pub fn python(folder: &Path, name: &str, protocol: Wsgi) -> Option<Application> {
        let program = tool(&["uwsgi"])?;
        let plugin = Path::new("/usr/lib/uwsgi/plugins/python3_plugin.so");
        if !plugin.exists() {
            assert!(std::env::var_os("TIDEGATE_SKIP_MISSING").is_some(), "uwsgi-plugin-python3 isn't installed");
            return None;
        }
        let socket = folder.join(format!("{name}.sock"));
        let at = socket.display().to_string();
        let (option, address, port) = match protocol {
            Wsgi::Uwsgi => ("--socket", at, None),
            Wsgi::Scgi => ("--scgi-socket", at, None),
            Wsgi::Suwsgi(port) => {
                let file = |name: &str| folder.join(name).display().to_string();
                ("--suwsgi-socket", format!("127.0.0.1:{port},{},{}", file("site.crt"), file("site.key")), Some(port))
            }
        };
        let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("site/wsgi.py");
        let app = std::fs::copy(&app, folder.join("wsgi.py")).map(|_| folder.join("wsgi.py").display().to_string());
        let app = app.expect("the folder is ours");
        let mut options: Vec<String> =
            [option, &address, "--chmod-socket=666", "--plugin", "python3", "--wsgi-file", &app]
                .iter()
                .chain(&["--processes", "2", "--master", "--disable-logging", "--set", &format!("name={name}")])
                .map(|word| word.to_string())
                .collect();
        if geteuid().is_root() {
            options.extend(["--uid", "nobody", "--gid", "nogroup"].map(String::from));
        }
        Some(Application::start(program, options, socket, port))
    }

    /// memcached at `name.sock` in a folder that everybody may write to; none if it isn't installed.
    pub fn memcached(folder: &Path, name: &str) -> Option<Application> {
        let program = tool(&["memcached"])?;
        let socket = folder.join(format!("{name}.sock"));
        let options = ["-s", &socket.display().to_string(), "-a", "0777", "-t", "1", "-u", "nobody"];
        Some(Application::start(program, options.map(String::from).into(), socket, None))
    }

    fn start(program: PathBuf, options: Vec<String>, socket: PathBuf, port: Option<u16>) -> Application {
        let child = spawn(&program, &options);
        let application = Application { program, options, socket, port, child };
        application.wait();
        application
    }

    /// The path of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends all its processes at once, whatever they do.
    pub fn kill(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    /// Starts it once more.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.program, &self.options);
        self.wait();
    }

    fn wait(&self) {
        let begun = Instant::now();
        let listens = || match self.port {
            Some(port) => std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(),
            None => UnixStream::connect(&self.socket).is_ok(),
        };
        while !listens() {
            assert!(begun.elapsed() < PATIENCE, "{} doesn't start", self.program.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In a group of its own, so that its children end with it.
fn spawn(program: &Path, options: &[String]) -> Child {
    let mut command = Command::new(program);
    command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().expect("it is installed")
}

/// What clients got while something happened to a server's applications.
#[derive(Debug, Default)]
pub struct Answers {
    /// The answers as they came, in no order.
    pub all: Vec<String>,
}

impl Answers {
    /// How many answers have this status and body, and nothing after it.
    pub fn count(&self, status: u16, body: &str) -> usize {
        let (start, end) = (format!("HTTP/1.1 {status} "), format!("\r\n\r\n{body}"));
        self.all.iter().filter(|answer| answer.starts_with(&start) && answer.ends_with(&end)).count()
    }

    /// Those that have none of these bodies with status 200.
    pub fn others(&self, bodies: &[&str]) -> Vec<&String> {
        let good = |answer: &&String| {
            !bodies
                .iter()
                .any(|body| answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!("\r\n\r\n{body}")))
        };
        self.all.iter().filter(good).collect()
    }
}

/// Asks a server for `target` with four clients, each of them again and again, until `during` has run. Its parameter waits
/// for so many further answers.
pub fn under_load(server: &Server, target: &str, during: impl FnOnce(&dyn Fn(usize))) -> Answers {
    let (over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let client = || {
        let mut answers = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let mut connection = Connection::open(server.port());
            connection.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
            answers.push(String::from_utf8_lossy(&connection.rest()).into_owned());
            count.fetch_add(1, Ordering::Relaxed);
        }
        answers
    };
    let wait = |more: usize| {
        let (begun, goal) = (Instant::now(), count.load(Ordering::Relaxed) + more);
        while count.load(Ordering::Relaxed) < goal {
            assert!(begun.elapsed() < PATIENCE, "no more answers");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        during(&wait);
        over.store(true, Ordering::Relaxed);
        let all = clients.into_iter().flat_map(|client| client.join().expect("a client doesn't panic")).collect();
        Answers { all }
    })
}
