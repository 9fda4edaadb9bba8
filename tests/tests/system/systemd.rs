//! systemd: what it is told, and the sockets that it passes.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use e2e::{Connection, Server, Setup};
use rustix::process::Signal;

/// Opens sockets as systemd does, and becomes the server.
const LAUNCHER: &str = r#"
import os, socket, sys
first = 100
def passed(family, address):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(address)
    s.listen(16)
    return s
names, n = sys.argv[1].split(","), 0
sockets = [passed(socket.AF_UNIX, a) if a.startswith("/") else passed(socket.AF_INET, ("127.0.0.1", int(a))) for a in names]
numbers = [os.dup2(s.fileno(), first + i, inheritable=False) for i, s in enumerate(sockets)]
for i, number in enumerate(numbers):
    os.dup2(number, 3 + i, inheritable=True)
os.environ.update(LISTEN_FDS=str(len(numbers)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="a")
os.execv(sys.argv[2], sys.argv[2:])
"#;

fn site(listen: &str) -> String {
    format!("server {{ listen {listen}; location / {{ return 200 one; }} }}")
}

/// The next message, as its lines.
fn told(socket: &UnixDatagram) -> Vec<String> {
    socket.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout can be set");
    let mut text = [0; 4096];
    let n = socket.recv(&mut text).expect("a message");
    String::from_utf8_lossy(&text[..n]).lines().map(str::to_string).collect()
}

fn has(lines: &[String], start: &str) -> bool {
    lines.iter().any(|line| line.starts_with(start))
}

fn check_notify(setup: Setup, socket: &UnixDatagram, name: &str, main: &str) {
    let variable = format!("NOTIFY_SOCKET={name}");
    let mut server = setup.main(main).wrapper(&["env", &variable]).start();
    server.quiet();
    let main_pid = format!("MAINPID={}", server.pid());
    let lines = told(socket);
    assert!(has(&lines, "READY=1") && lines.contains(&main_pid) && has(&lines, "STATUS="), "{lines:?}");
    server.signal(Signal::HUP);
    let lines = told(socket);
    let since = lines.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(has(&lines, "RELOADING=1") && since.is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n > 0)), "{lines:?}");
    assert!(has(&told(socket), "READY=1"));
    server.folder().write("nginx.conf", "nonsense;");
    server.signal(Signal::HUP);
    assert!(has(&told(socket), "RELOADING=1"));
    let lines = told(socket);
    assert!(has(&lines, "READY=1") && has(&lines, "STATUS=the last reload failed"), "{lines:?}");
    server.signal(Signal::QUIT);
    assert_eq!(told(socket), ["STOPPING=1"]);
    server.wait_end();
}

/// Not in nginx: `NOTIFY_SOCKET` is told of
#[test]
fn states_are_told() {
    for main in ["", "master_process off;"] {
        let setup = Setup::http(&site("127.0.0.1:%%PORT%%"));
        let path = setup.folder().path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        check_notify(setup, &socket, &path.display().to_string(), main);
    }
}

/// Not in nginx: `NOTIFY_SOCKET` is told of
#[test]
fn an_abstract_socket_is_told_too() {
    let name = format!("tidegate-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("an address");
    let socket = UnixDatagram::bind_addr(&address).expect("a socket");
    check_notify(Setup::http(&site("127.0.0.1:%%PORT%%")), &socket, &format!("@{name}"), "");
}

/// A server that is passed its port, another one that it doesn't want, and a unix socket; then that socket's path.
fn launch(main: &str) -> (Server, u16, PathBuf) {
    let http = site("127.0.0.1:%%PORT%%") + &site("unix:%%DIR%%/given");
    let setup = Setup::http(&http).main(&format!("{main} # %%PORT_other%%\n"));
    let given = setup.folder().path().join("given");
    let launcher = setup.folder().path().join("launcher.py");
    let addresses = "%%PORT%%,%%PORT_other%%,%%DIR%%/given";
    let words = ["python3", launcher.to_str().expect("a path"), addresses];
    let setup = setup.file("launcher.py", LAUNCHER).wrapper(&words);
    let mut server = setup.prepare();
    let other = server.port_of("PORT_other");
    server.launch();
    (server, other, given)
}

/// Not in nginx: sockets are taken from `LISTEN_FDS`
#[test]
fn sockets_are_passed() {
    let (mut server, other, given) = launch("");
    assert_eq!(server.get("/").text(), "one");
    let log = server.read("stderr") + &server.read("error.log");
    assert!(log.contains(&format!("[warn] the passed socket 127.0.0.1:{other} has no \"listen\"")), "{log}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", other)).is_err(), "it is closed");
    assert!(UnixStream::connect(&given).is_ok());
    // They are inherited by reloads like others.
    server.reload();
    assert_eq!(server.get("/").text(), "one");
    assert!(UnixStream::connect(&given).is_ok());
    server.signal(Signal::QUIT);
    server.wait_end();
    assert!(given.exists(), "the file belongs to systemd");
}

/// Not in nginx: sockets are taken from `LISTEN_FDS`
#[test]
fn a_single_process_takes_them_too() {
    let (server, _, _) = launch("master_process off;");
    assert_eq!(Connection::open(server.port()).get("/", "").text(), "one");
}
