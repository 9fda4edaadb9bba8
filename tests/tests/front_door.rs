//! What only Tidegate has: a welcome page without a configuration, a folder served by name, `--explain`, the personality.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use e2e::{Connection, Folder, binary};
use rustix::process::{Pid, Signal, kill_process};

struct Foreground {
    child: Child,
    port: u16,
}

impl Foreground {
    /// Starts the program and waits for the address it says.
    fn start(arguments: &[&str], folder: &Folder) -> Foreground {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(binary()).args(arguments).current_dir(folder.path());
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        let copy = writer.try_clone().expect("a pipe can be doubled");
        let child = command.stdin(Stdio::null()).stdout(writer).stderr(copy).spawn().expect("the program starts");
        drop(command);
        let (said, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let mut told = String::new();
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                told += &(line + "\n");
                if let Some(port) = port_in(&told) {
                    let _ = said.send(port);
                }
            }
        });
        let port = heard.recv_timeout(Duration::from_secs(10)).expect("the program says http://ADDRESS:PORT");
        let foreground = Foreground { child, port };
        for _ in 0..500 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        foreground
    }

    fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "{status}");
    }
}

fn port_in(text: &str) -> Option<u16> {
    text.match_indices("http://").find_map(|(at, _)| {
        let address = text[at + 7..].split(|c: char| c == '/' || c.is_whitespace()).next()?;
        address.rsplit_once(':')?.1.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
    })
}

/// Not in nginx: without one it serves a welcome page
#[test]
fn welcome_and_folder() {
    let folder = Folder::new();
    let welcome = Foreground::start(&[], &folder);
    let page = Connection::open(welcome.port).get("/", "Connection: close\r\n");
    assert_eq!((page.status, page.field("Content-Type")), (200, Some("text/html")));
    assert!(page.text().contains("Tidegate"), "{}", page.text());
    welcome.stop();
    assert_eq!(fs::read_dir(folder.path()).expect("it is ours").count(), 0, "nothing is left where it was started");

    folder.write("site/index.html", "my site");
    folder.write("site/style.css", "p {}");
    let site = Foreground::start(&["site"], &folder);
    assert_eq!(Connection::open(site.port).get("/", "Connection: close\r\n").text(), "my site");
    let style = Connection::open(site.port).get("/style.css", "Connection: close\r\n");
    assert_eq!(style.field("Content-Type"), Some("text/css"));
    site.stop();
}

/// Not in nginx: --explain NAME
#[test]
fn explanations() {
    let run = |arguments: &[&str]| {
        let out = Command::new(binary()).args(arguments).output().expect("the program starts");
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    let (good, text) = run(&["--explain", "proxy_pass"]);
    assert!(good && text.contains("proxy_pass") && text.contains("location"), "{text}");
    let (good, text) = run(&["--explain", "proxy_pas"]);
    assert!(!good && text.contains("proxy_pass"), "a hint: {text}");
    let (good, text) = run(&["--dump-directives"]);
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    assert!(good && rows.len() > 100, "{} rows", rows.len());
    for row in &rows {
        assert_eq!(row.len(), 7, "{row:?}");
        assert!(!row[6].is_empty(), "undocumented: {row:?}");
    }
}

/// Differs from nginx: reports all, each with the source line
#[test]
fn every_fault_at_once_with_its_place() {
    let folder = Folder::new();
    let text =
        "events { }\nhttp {\n    server {\n        lisen 80;\n        sendfile maybe;\n        root;\n    }\n}\n";
    let file = folder.write("nginx.conf", text);
    let out = Command::new(binary()).args(["-t", "-c"]).arg(&file).output().expect("the program starts");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success());
    for part in [
        "unknown directive \"lisen\" in ",
        "nginx.conf:4",
        "listen",
        "invalid value \"maybe\"",
        "nginx.conf:5",
        "nginx.conf:6",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

/// Differs from nginx: called `nginx` it is nginx in name and paths
#[test]
fn personality() {
    let folder = Folder::new();
    let name = folder.path().join("nginx");
    fs::copy(binary(), &name).expect("a program can be copied");
    let said = |program: &std::path::Path, option: &str| {
        let out = Command::new(program).arg(option).output().expect("the program starts");
        assert!(out.status.success(), "{out:?}");
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    assert!(said(&name, "-v").starts_with("nginx version: nginx/1."), "{}", said(&name, "-v"));
    let long = said(&name, "-V");
    assert!(long.contains("(tidegate/") && long.contains("configure arguments:"), "{long}");
    assert!(said(&binary(), "-v").contains("tidegate/"), "{}", said(&binary(), "-v"));
}
