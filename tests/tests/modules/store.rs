//! `proxy_store` and `fastcgi_store`: files that are whole or not there, whoever leaves.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, UNIX_EPOCH};

use e2e::{Backend, Server, Setup, fcgi};
use rustix::process::Signal;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn server(port: u16, inside: &str) -> Server {
    let text = format!(
        "proxy_temp_path %%DIR%%/temp; fastcgi_temp_path %%DIR%%/temp;
        server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%/site; {inside} }}"
    );
    Setup::http(&text.replace(":B", &format!(":{port}"))).public("site").start()
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// No temporary file is left: not yet, perhaps, but soon.
fn nothing_left(server: &mut Server) {
    server.wait(|server| files(&server.folder().path().join("temp")) == 0, "temporary files to go");
}

#[test]
fn responses_become_files() {
    let backend = Backend::start(|r| match r.line().split(' ').nth(1).unwrap_or_default() {
        "/none" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone".to_vec(),
        "/chunks" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec(),
        "/close" => b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end".to_vec(),
        "/large" => Backend::ok(&"x".repeat(3_000_000)),
        "/empty" => Backend::ok(""),
        target if r.line().starts_with("HEAD") => {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", target.len()).into_bytes()
        }
        target => {
            format!("HTTP/1.1 200 OK\r\nLast-Modified: {DATE}\r\nContent-Length: {}\r\n\r\n{target}", target.len())
                .into_bytes()
        }
    });
    let mut server = server(
        backend.port,
        "proxy_store_access group:rw all:r;
         location / { proxy_pass http://127.0.0.1:B; proxy_store on; }
         location /to/ { proxy_pass http://127.0.0.1:B; proxy_store %%DIR%%/site/other$uri; proxy_store_access group:r; }
         location /off/ { proxy_pass http://127.0.0.1:B; }
         location /var { proxy_pass http://127.0.0.1:B; proxy_store $arg_path; }",
    );
    let site = server.folder().path().join("site");
    let stored = |name: &str| fs::read(site.join(name)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    for (target, name, body) in [
        ("/a/b/c", "a/b/c", Some("/a/b/c".to_owned())),
        ("/chunks", "chunks", Some("abcde".to_owned())),
        ("/close", "close", Some("to the end".to_owned())),
        ("/large", "large", Some("x".repeat(3_000_000))),
        ("/empty", "empty", Some(String::new())),
        ("/to/x", "other/to/x", Some("/to/x".to_owned())),
        ("/off/x", "off/x", None),
        ("/none", "none", None),
        ("/var", "var", None),
    ] {
        let response = server.get(target);
        let expect = body.clone().unwrap_or_else(|| response.text());
        assert_eq!(response.text(), expect, "{target}");
        if body.is_some() {
            server.wait(|_| site.join(name).exists(), "the file");
        }
        nothing_left(&mut server);
        assert_eq!(stored(name), body, "{target}");
    }
    let found = fs::metadata(site.join("a/b/c")).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o664);
    assert_eq!(found.modified().unwrap(), UNIX_EPOCH + Duration::from_secs(784_111_777));
    assert_eq!(fs::metadata(site.join("other/to/x")).unwrap().permissions().mode() & 0o777, 0o640);
    let head = server.connect().send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
    assert_eq!((head.status, stored("head")), (200, None));
    // A later response replaces the file.
    fs::write(site.join("again"), "old").unwrap();
    assert_eq!(server.get("/again").text(), "/again");
    server.wait(|_| stored("again").as_deref() == Some("/again"), "the new file");
}

/// A backend that sends a head and half a body, then as many bytes as it is told; 0 is the end.
fn halting(length: usize) -> (Backend, Sender<usize>) {
    let (go, wait): (Sender<usize>, Receiver<usize>) = channel();
    let wait = Mutex::new(wait);
    let backend = Backend::sockets(move |mut stream: TcpStream, _| {
        let mut memory = [0; 4096];
        let _ = std::io::Read::read(&mut stream, &mut memory);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let half = vec![b'h'; length / 2];
        let _ = stream.write_all(&[head.as_bytes(), &half].concat());
        let wait = wait.lock().unwrap();
        while let Ok(more @ 1..) = wait.recv_timeout(Duration::from_secs(20)) {
            let _ = stream.write_all(&vec![b'r'; more]);
        }
    });
    (backend, go)
}

/// Asks for a file and leaves in the middle of it.
fn ask_and_leave(server: &Server, go: &Sender<usize>) {
    let mut connection = server.connect();
    connection.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.take(500);
    drop(connection);
    // It is seen when something is sent.
    for _ in 0..2 {
        go.send(1000).unwrap();
    }
}

const STORES: &str = "access_log %%DIR%%/access.log; location / { proxy_pass http://127.0.0.1:B; proxy_store on; }";

#[test]
fn a_client_that_leaves_does_not_end_it() {
    let (backend, go) = halting(2_000_000);
    let mut server = server(backend.port, STORES);
    let file = server.folder().path().join("site/f");
    ask_and_leave(&server, &go);
    assert!(!file.exists());
    go.send(998_000).unwrap();
    server.wait(|_| file.exists(), "the file");
    let bytes = fs::read(&file).unwrap();
    assert_eq!((bytes.len(), bytes[0], bytes[1_999_999]), (2_000_000, b'h', b'r'));
    nothing_left(&mut server);
    server.quiet();
}

#[test]
fn a_client_that_leaves_before_the_head_does_not_end_it() {
    let (go, wait): (Sender<()>, Receiver<()>) = channel();
    let wait = Mutex::new(wait);
    let backend = Backend::start(move |_| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(20));
        Backend::ok("late")
    });
    let mut server = server(backend.port, "location / { proxy_pass http://127.0.0.1:B; proxy_store on; }");
    let mut connection = server.connect();
    connection.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait(|_| backend.requests().len() == 1, "the request");
    drop(connection);
    go.send(()).unwrap();
    let file = server.folder().path().join("site/f");
    server.wait(|_| file.exists(), "the file");
    assert_eq!(fs::read(&file).unwrap(), b"late");
    server.quiet();
}

#[test]
fn a_backend_that_breaks_off_leaves_no_file() {
    let (backend, go) = halting(2_000_000);
    let mut server = server(backend.port, "location / { proxy_pass http://127.0.0.1:B; proxy_store on; }");
    let mut connection = server.connect();
    connection.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.take(500);
    go.send(0).unwrap();
    let rest = connection.rest();
    assert!(rest.len() < 1_100_000 && rest.ends_with(b"hhh"), "what came goes to the client");
    server.read_until("error.log", "upstream prematurely closed connection while reading upstream");
    nothing_left(&mut server);
    assert!(!server.folder().path().join("site/f").exists());
    server.quiet();
}

/// Differs from nginx: the request of a client that has left is over, though its response is stored on
#[test]
fn a_worker_that_leaves_ends_it_first() {
    let (backend, go) = halting(2_000_000);
    let mut server = server(backend.port, STORES);
    ask_and_leave(&server, &go);
    // No client keeps the worker.
    server.read_until("access.log", "GET /f");
    server.signal(Signal::HUP);
    server.wait(|server| server.children().len() == 2, "the new worker beside the old one");
    go.send(998_000).unwrap();
    let file = server.folder().path().join("site/f");
    server.wait(|_| file.exists(), "the file");
    assert_eq!(fs::metadata(&file).unwrap().len(), 2_000_000);
    server.wait(|server| server.children().len() == 1, "the old worker's end");
    server.quiet();
}

#[test]
fn files_that_cannot_be_stored() {
    let backend = Backend::start(|_| Backend::ok("body"));
    let mut server =
        server(backend.port, "location / { proxy_pass http://127.0.0.1:B; proxy_store %%DIR%%/site/file/below$uri; }");
    fs::write(server.folder().path().join("site/file"), "a file").unwrap();
    assert_eq!(server.get("/x").text(), "body");
    server.read_until("error.log", "/site/file/below/x\" failed");
    nothing_left(&mut server);
    server.quiet();
}

#[test]
fn responses_of_fastcgi_become_files() {
    let backend = fcgi::answers(|asked| match asked.param("U") {
        Some("/cut") => fcgi::record(fcgi::STDOUT, "Content-Length: 100\r\n\r\nhello"),
        _ => fcgi::whole("\r\nhello"),
    });
    let mut server = server(
        backend.port,
        "location / { fastcgi_pass 127.0.0.1:B; fastcgi_param U $uri; fastcgi_store on; fastcgi_store_access user:rw all:r; }",
    );
    let site = server.folder().path().join("site");
    assert_eq!(server.get("/f").text(), "hello");
    server.wait(|_| site.join("f").exists(), "the file");
    assert_eq!(fs::read(site.join("f")).unwrap(), b"hello");
    assert_eq!(fs::metadata(site.join("f")).unwrap().permissions().mode() & 0o777, 0o604);
    server.connect().send("GET /cut HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").rest();
    nothing_left(&mut server);
    assert!(!site.join("cut").exists());
    server.quiet();
}

#[test]
fn what_is_refused() {
    for (directives, message) in [
        ("proxy_store '';", "empty path"),
        ("proxy_store on; proxy_store off;", "\"proxy_store\" directive is duplicate"),
        ("proxy_store_access user:rw foo:r;", "invalid value \"foo:r\""),
        ("fastcgi_store_access user:x;", "invalid value \"user:x\""),
    ] {
        let text = format!("server {{ listen 127.0.0.1:%%PORT%%; location / {{ {directives} }} }}");
        let output = Setup::http(&text).prepare().command(&["-t"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(message), "{directives}: {said}");
    }
}
