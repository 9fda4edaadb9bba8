//! The second protocol on what is shared: the example `lines`, with each part in use.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The program while it runs, in a folder of its own.
struct Lines {
    folder: TempDir,
    ports: Vec<u16>,
    child: Child,
}

/// A folder with a configuration, in which `PORTn` stands for a free port.
fn folder(stream: &str) -> (TempDir, Vec<u16>) {
    let made = TempDir::with_prefix("tidegate-lines-").expect("a folder");
    let folder = made.path();
    let pair = rcgen::generate_simple_self_signed(vec!["a.test".to_owned(), "b.test".to_owned()]).expect("a key");
    fs::write(folder.join("cert.pem"), pair.cert.pem()).expect("writes");
    fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).expect("writes");
    let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("binds")).collect();
    let ports: Vec<u16> = listeners.iter().map(|known| known.local_addr().expect("an address").port()).collect();
    let mut text = format!(
        "daemon off; master_process off; pid pid; error_log error.log info; events {{}}\nstream {{\n{stream}\n}}\n"
    );
    for (at, port) in ports.iter().enumerate() {
        text = text.replace(&format!("PORT{at}"), &port.to_string());
    }
    fs::write(folder.join("lines.conf"), text).expect("writes");
    (made, ports)
}

fn program(folder: &Path) -> Command {
    // Examples stand next to the tests' folder.
    let own = std::env::current_exe().expect("a path");
    let mut command = Command::new(own.ancestors().nth(2).expect("folders").join("examples/lines"));
    command.arg(folder.join("lines.conf")).stdin(Stdio::null());
    command
}

/// What the program says of a configuration.
fn said(stream: &str) -> String {
    let (folder, _) = folder(stream);
    let Output { stderr, .. } = program(folder.path()).arg("test").output().expect("runs");
    String::from_utf8_lossy(&stderr).into_owned()
}

impl Lines {
    fn start(stream: &str) -> Lines {
        let (folder, ports) = folder(stream);
        let child = program(folder.path()).spawn().expect("starts");
        let lines = Lines { folder, ports, child };
        wait_for(|| lines.read("pid").contains('\n'));
        lines
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn connect(&self, at: usize) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.ports[at])).expect("connects");
        stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
        BufReader::new(stream)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.read("error.log"));
        }
    }
}

/// The answer to a text; empty if the connection ends instead.
fn ask(client: &mut BufReader<TcpStream>, text: &str) -> String {
    let _ = client.get_mut().write_all(text.as_bytes());
    let mut line = String::new();
    let _ = client.read_line(&mut line);
    line.trim_end().to_owned()
}

fn wait_for(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn variables_maps_and_logs() {
    let lines = Lines::start(
        r#"map $line $greeting { volatile; hello hi; ~^my\ name\ is\ (?<name>.+)$ "hi $1"; default "what?"; }
           log_format one "$remote_addr $server_port $line $status";
           server { listen 127.0.0.1:PORT0; reply "$greeting $name|$remote_addr"; access_log one.log one if=$name; }"#,
    );
    let mut client = lines.connect(0);
    assert_eq!(ask(&mut client, "hello\n"), "hi |127.0.0.1");
    assert_eq!(ask(&mut client, "my name is Ada\n"), "hi Ada Ada|127.0.0.1");
    drop(client);
    wait_for(|| lines.read("one.log").contains('\n'));
    assert_eq!(lines.read("one.log"), format!("127.0.0.1 {} my name is Ada 200\n", lines.ports[0]));
}

/// As in nginx the log is told of no capture whose regex hasn't matched.
#[test]
fn a_capture_without_value_is_empty() {
    let conf = "map $line $x { ~(?<part>b) b; } server { listen 127.0.0.1:PORT0; reply \"<$part>$x<$part>\"; }";
    let lines = Lines::start(conf);
    for (line, answer) in [("a\n", "<><>"), ("b\n", "<>b<b>"), ("a\n", "<><>")] {
        assert_eq!(ask(&mut lines.connect(0), line), answer, "{line}");
    }
    assert!(!lines.read("error.log").contains("[warn]"), "{}", lines.read("error.log"));
}

#[test]
fn access_and_limits() {
    let lines = Lines::start(
        "limit_conn_zone $binary_remote_addr zone=one:32k;
         log_format one $status/$limit_conn_status;
         access_log one.log one;
         server { listen 127.0.0.1:PORT0; limit_conn one 1; limit_conn_status 429; reply $limit_conn_status; }
         server { listen 127.0.0.1:PORT1; deny 127.0.0.0/8; allow all; reply never; }",
    );
    let mut first = lines.connect(0);
    assert_eq!(ask(&mut first, "x\n"), "PASSED");
    assert_eq!(ask(&mut lines.connect(0), "x\n"), "", "a second connection is refused");
    assert_eq!(ask(&mut lines.connect(1), "x\n"), "", "access is denied");
    drop(first);
    wait_for(|| lines.read("one.log").lines().count() == 3);
    assert_eq!(lines.read("one.log"), "429/REJECTED\n403/-\n200/PASSED\n");
    let log = lines.read("error.log");
    assert!(log.contains("limiting connections by zone \"one\", client: 127.0.0.1"), "{log}");
    assert!(log.contains("access forbidden by rule, client: 127.0.0.1"), "{log}");
}

#[test]
fn the_proxy_protocol_comes_first() {
    let conf = "server { listen 127.0.0.1:PORT0 proxy_protocol; reply $proxy_protocol_addr:$proxy_protocol_port; }";
    let lines = Lines::start(conf);
    assert_eq!(ask(&mut lines.connect(0), "PROXY TCP4 192.0.2.7 192.0.2.8 17 18\r\nx\n"), "192.0.2.7:17");
    assert_eq!(ask(&mut lines.connect(0), "x\n"), "");
    let log = lines.read("error.log");
    assert!(log.contains("broken header: \"x\\n\" while reading PROXY protocol, client: 127.0.0.1, server: "), "{log}");
}

#[test]
fn tls_on_both_sides() {
    let lines = Lines::start(
        "ssl_certificate cert.pem; ssl_certificate_key key.pem;
         proxy_ssl_trusted_certificate cert.pem; proxy_ssl_verify on; proxy_ssl_server_name on;
         upstream a { server 127.0.0.1:PORT0; }
         upstream b { hash $line consistent; server 127.0.0.1:PORT0; server 127.0.0.1:1 down; }
         server { listen 127.0.0.1:PORT0 ssl; server_name a.test; reply \"a $ssl_server_name $ssl_protocol\"; }
         server { listen 127.0.0.1:PORT0 ssl; server_name ~^b; reply \"b $ssl_server_name $ssl_session_reused\"; }
         server { listen 127.0.0.1:PORT1; pass a; proxy_ssl on; proxy_ssl_name a.test; }
         server { listen 127.0.0.1:PORT2; pass b; proxy_ssl on; proxy_ssl_name $line.test; }",
    );
    assert_eq!(ask(&mut lines.connect(1), "x\n"), "a a.test TLSv1.3");
    assert_eq!(ask(&mut lines.connect(2), "b\n"), "b b.test .");
    assert_eq!(ask(&mut lines.connect(2), "c\n"), "", "the certificate is for other names");
    let log = lines.read("error.log");
    let expect =
        "upstream SSL certificate does not match \"c.test\" while SSL handshaking to upstream, client: 127.0.0.1";
    assert!(log.contains(expect), "{log}");
    assert_eq!(ask(&mut lines.connect(0), "GET\n"), "", "what isn't TLS is closed");
}

#[test]
fn certificates_by_variable() {
    let lines = Lines::start(
        "ssl_certificate $ssl_server_name.pem; ssl_certificate_key key.pem;
         upstream a { server 127.0.0.1:PORT0; }
         server { listen 127.0.0.1:PORT0 ssl; reply \"$ssl_server_name\"; }
         server { listen 127.0.0.1:PORT1; pass a; proxy_ssl on; proxy_ssl_name $line; proxy_ssl_server_name on; }",
    );
    assert_eq!(ask(&mut lines.connect(1), "cert\n"), "cert");
    assert_eq!(ask(&mut lines.connect(1), "none\n"), "");
    assert!(lines.read("error.log").contains("cannot load certificate"), "{}", lines.read("error.log"));
}

#[test]
fn addresses_are_grouped() {
    let lines = Lines::start(
        "server { listen *:PORT0; reply any; }
         server { listen 127.0.0.1:PORT0; reply own; }
         server { listen 127.0.0.1:PORT1 default_server; reply first; }
         server { listen 127.0.0.1:PORT1; reply second; }",
    );
    assert_eq!(ask(&mut lines.connect(0), "x\n"), "own");
    assert_eq!(ask(&mut lines.connect(1), "x\n"), "first");
}

#[test]
fn faults_of_the_configuration() {
    let certificate = "ssl_certificate cert.pem; ssl_certificate_key key.pem;";
    for (name, stream, expect) in [
        ("port", "server { listen 127.0.0.1; }", "no port in \"127.0.0.1\" of the \"listen\" directive"),
        ("http2", "server { listen 127.0.0.1:PORT0 http2; }", "invalid parameter \"http2\""),
        (
            "options",
            "server { listen 127.0.0.1:PORT0 backlog=1; } server { listen 127.0.0.1:PORT0 backlog=2; }",
            "duplicate listen options for 127.0.0.1:",
        ),
        (
            "ssl",
            "server { listen 127.0.0.1:PORT0 ssl; }",
            "no \"ssl_certificate\" is defined for the \"listen ... ssl\"",
        ),
        ("key", "ssl_certificate cert.pem; server { listen 127.0.0.1:PORT0 ssl; }", "no \"ssl_certificate_key\""),
        ("upstream", "upstream a { server 127.0.0.1; }", "no port in upstream \"127.0.0.1\""),
        ("variable", "server { listen 127.0.0.1:PORT0; reply $uri; }", "unknown \"uri\" variable"),
        ("map", "map $line $remote_addr { default 1; }", "the duplicate \"remote_addr\" variable"),
        ("keepalive", "upstream a { server 127.0.0.1:PORT0; keepalive 1; }", "unknown directive \"keepalive\""),
    ] {
        let said = said(stream);
        assert!(said.contains(expect), "{name}: {said}");
    }
    let good = said(&format!("server {{ listen 127.0.0.1:PORT0 ssl; {certificate} }}"));
    assert!(good.contains("successful"), "{good}");
}

#[test]
fn trusted_proxies_name_clients() {
    let lines = Lines::start(
        r#"set_real_ip_from localhost;
           server { listen 127.0.0.1:PORT0 proxy_protocol; deny 192.0.2.2;
               reply "$remote_addr:$remote_port $realip_remote_addr"; }"#,
    );
    let asked = |client: &str| ask(&mut lines.connect(0), &format!("PROXY TCP4 {client} 192.0.2.9 5 6\r\nx\n"));
    assert_eq!(asked("192.0.2.1"), "192.0.2.1:5 127.0.0.1");
    assert_eq!(asked("192.0.2.2"), "", "the rules are about the client");
}

#[test]
fn values_of_addresses_and_shares() {
    let lines = Lines::start(
        r#"geo $area { default world; 127.0.0.0/8 here; }
           geo $line $range { ranges; 192.0.2.0-192.0.2.9 some; }
           split_clients $line $share { 50% first; * second; }
           server { listen 127.0.0.1:PORT0; reply "$area|$range|$share|$geoip_country_code"; }"#,
    );
    // Values are looked up once for a session.
    assert_eq!(ask(&mut lines.connect(0), "192.0.2.5\n"), "here|some|second|");
    assert_eq!(ask(&mut lines.connect(0), "ab\n"), "here||first|");
    let wrong = said("geo $x { proxy 10.0.0.0/8; } server { listen 127.0.0.1:PORT0; }");
    assert!(wrong.contains("invalid network \"proxy\""), "only HTTP has such proxies: {wrong}");
}
