//! TLS for clients that know none: openssl stands between them and the server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::Connection;

/// A connection over TLS to a port of 127.0.0.1; `options` are those of `openssl s_client`. What the server closes is
/// closed, and the other way round.
pub fn connect(port: u16, options: &[&str]) -> Connection {
    let child = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let connection = Connection::open(listener.local_addr().expect("it is bound").port());
    let (inner, _) = listener.accept().expect("it connects");
    pass(child, inner);
    connection
}

/// The common name of the certificate that the server shows to a client that connects now; `options` are those of
/// `openssl s_client`. Empty if the handshake fails.
pub fn shown(port: u16, options: &[&str]) -> String {
    let out = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", "x"])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let subject = text.lines().find_map(|line| line.strip_prefix("subject="));
    subject.unwrap_or_default().replace(' ', "").replace("CN=", "")
}

fn pass(mut child: Child, inner: TcpStream) {
    let (mut stdin, mut stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let (mut from, mut to) = (inner.try_clone().expect("a socket can be copied"), inner);
    let up = thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if stdin.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        // It doesn't end with its input.
        let _ = child.kill();
        let _ = child.wait();
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = stdout.read(&mut buffer) {
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = up.join();
    });
}
