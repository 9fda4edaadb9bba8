//! Mail with programs of others: dovecot and Python's aiosmtpd have the mail; curl, swaks and Python's own clients come for it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::mail::{allowed, auth, setup};
use e2e::{Backend, EC, Folder, Server, certificate, free_port, python, tool};
use rustix::process::{Pid, Signal, kill_process};

/// A program that ends with the test.
struct Peer(Child);

impl Peer {
    fn start(mut command: Command, port: u16) -> Peer {
        let child = command.stdin(Stdio::null()).spawn().expect("it is installed");
        let peer = Peer(child);
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(15), "{command:?} doesn't start");
            std::thread::sleep(Duration::from_millis(10));
        }
        peer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// dovecot with a mailbox for everybody whose password is "secret", on these ports of 127.0.0.1. It expects headers of the
/// PROXY protocol.
fn dovecot(folder: &Folder, imap: u16, pop3: u16) -> Option<Peer> {
    let program = tool(&["dovecot"])?;
    let home = folder.public("mail");
    let at = folder.path().display();
    let conf = folder.write(
        "dovecot.conf",
        format!(
            "base_dir = {at}/run\nlog_path = {at}/dovecot.log\nprotocols = imap pop3\nssl = no\n\
             disable_plaintext_auth = no\nhaproxy_trusted_networks = 127.0.0.0/8\n\
             service imap-login {{\n inet_listener imap {{\n address = 127.0.0.1\n port = {imap}\n haproxy = yes\n }}\n \
             inet_listener imaps {{\n port = 0\n }}\n}}\n\
             service pop3-login {{\n inet_listener pop3 {{\n address = 127.0.0.1\n port = {pop3}\n haproxy = yes\n }}\n \
             inet_listener pop3s {{\n port = 0\n }}\n}}\n\
             passdb {{\n driver = static\n args = password=secret\n}}\n\
             userdb {{\n driver = static\n args = uid=nobody gid=nogroup home={home}/%u\n}}\n\
             mail_location = maildir:{home}/%u/box\nfirst_valid_uid = 1\nmail_max_userip_connections = 100\n",
            home = home.display()
        ),
    );
    let mut command = Command::new(program);
    command.arg("-F").arg("-c").arg(conf);
    Some(Peer::start(command, imap))
}

/// aiosmtpd, which keeps what it gets in the folder's file `kept`.
fn aiosmtpd(folder: &Folder, port: u16) -> Option<Peer> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/site/smtp_server.py");
    let mut command = Command::new(python()?);
    command.arg(script).arg(port.to_string()).arg(folder.path().join("kept"));
    Some(Peer::start(command, port))
}

/// A server in front of them, and the one that says who may log in: alice, whose password is "secret".
fn server(ports: [u16; 3]) -> (Server, Backend) {
    let who = auth(move |request| {
        let known = request.field("Auth-User") == Some("alice") && request.field("Auth-Pass") == Some("secret");
        let [imap, pop3, smtp] = ports;
        match request.field("Auth-Protocol") {
            _ if !known => "Auth-Status: Invalid login or password\r\nAuth-Wait: 1".to_owned(),
            Some("imap") => allowed(imap),
            Some("pop3") => allowed(pop3),
            _ => allowed(smtp),
        }
    });
    let setup = setup(&format!(
        "auth_http 127.0.0.1:{}; ssl_certificate site.crt; ssl_certificate_key site.key; starttls only;
         imap_capabilities IMAP4rev1 UIDPLUS IDLE; smtp_capabilities \"SIZE 33554432\" 8BITMIME;
         server {{ listen 127.0.0.1:%%PORT%%; protocol imap; proxy_protocol on; }}
         server {{ listen 127.0.0.1:%%PORT_tls%% ssl; protocol imap; proxy_protocol v2; }}
         server {{ listen 127.0.0.1:%%PORT_pop3%%; protocol pop3; proxy_protocol v2; }}
         server {{ listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; xclient off; proxy_smtp_auth on; }}",
        who.port
    ));
    certificate(setup.folder(), "site", EC);
    (setup.start(), who)
}

/// Runs a program to its end; it must succeed.
fn succeed(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().expect("it is installed");
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{command:?}: {}\n{said}", out.status);
    said
}

#[test]
fn real_peers() {
    // dovecot changes users.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let ports = [free_port(), free_port(), free_port()];
    let [imap, pop3, smtp] = [ports[0].0, ports[1].0, ports[2].0];
    let (Some(_dovecot), Some(_aiosmtpd)) = (dovecot(&folder, imap, pop3), aiosmtpd(&folder, smtp)) else { return };
    let (Some(python), Some(swaks)) = (python(), tool(&["swaks"])) else { return };
    let (server, _who) = server([imap, pop3, smtp]);
    let authority = server.folder().path().join("site.crt").display().to_string();
    let port = |name: &str| server.port_of(name).to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/site/mail_client.py");
    let python_client = || {
        let mut command = Command::new(&python);
        command.arg(script).args([&port("PORT"), &port("PORT_pop3"), &port("PORT_smtp"), &authority]);
        command
    };
    assert_eq!(succeed(&mut python_client()), "ok\n");
    let curl = |url: String, options: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "30", "--ssl-reqd", "--cacert", &authority, "-u", "alice:secret"]);
        command.args(["--connect-to", "::127.0.0.1:", &url]);
        succeed(command.args(options))
    };
    let mail = folder.write("mail.txt", "Subject: by curl\r\n\r\nA line.\r\n").display().to_string();
    for url in [format!("imap://site:{}", port("PORT")), format!("imaps://site:{}", port("PORT_tls"))] {
        curl(format!("{url}/INBOX"), &["-T", &mail]);
        assert!(curl(url.clone(), &["-X", "STATUS INBOX (MESSAGES)"]).contains("* STATUS INBOX (MESSAGES "));
        assert!(curl(format!("{url}/INBOX;MAILINDEX=2"), &[]).contains("Subject: by curl"));
    }
    let pop = format!("pop3://site:{}", port("PORT_pop3"));
    assert!(curl(pop.clone(), &[]).lines().count() >= 2);
    assert!(curl(format!("{pop}/2"), &["--login-options", "AUTH=PLAIN"]).contains("Subject: by curl"));
    let to = ["--mail-from", "alice@example.com", "--mail-rcpt", "dave@example.com", "-T", &mail];
    curl(format!("smtp://site:{}", port("PORT_smtp")), &to);
    for mechanism in ["PLAIN", "LOGIN"] {
        let said = succeed(
            Command::new(&swaks)
                .args(["--server", &format!("127.0.0.1:{}", port("PORT_smtp")), "--tls", "--auth", mechanism])
                .args(["--auth-user", "alice", "--auth-password", "secret", "--from", "alice@example.com"])
                .args(["--to", "erin@example.com", "--body", &format!("by swaks with {mechanism}")]),
        );
        assert!(said.contains("235 2.0.0 OK"), "{said}");
    }
    let kept = std::fs::read_to_string(folder.path().join("kept")).expect("mail has come");
    for part in [
        "from alice@example.com to bob@example.com,carol@example.com by alice\nSubject: hello",
        "from alice@example.com to dave@example.com by alice\nSubject: by curl",
        "by swaks with PLAIN",
        "by swaks with LOGIN",
    ] {
        assert!(kept.contains(part), "{part:?} isn't in {kept}");
    }
    let log = std::fs::read_to_string(folder.path().join("dovecot.log")).expect("dovecot writes it");
    assert!(log.contains("user=<alice>") && log.contains("rip=127.0.0.1"), "{log}");
}

/// Sessions of Python's clients go on while the workers are replaced, and the program.
///
/// Not in nginx: both connections move to the new workers
#[test]
fn sessions_over_reloads() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let ports = [free_port(), free_port()];
    let (Some(_dovecot), Some(python)) = (dovecot(&folder, ports[0].0, ports[1].0), python()) else { return };
    let (mut server, _who) = server([ports[0].0, ports[1].0, 1]);
    // It logs in, says so, and goes on with each line that it gets.
    let script = "import imaplib, ssl, sys
context = ssl._create_unverified_context()
sessions = [imaplib.IMAP4('127.0.0.1', int(sys.argv[1])) for _ in range(20)]
sessions += [imaplib.IMAP4_SSL('127.0.0.1', int(sys.argv[2]), ssl_context=context) for _ in range(20)]
for session in sessions:
    if 'STARTTLS' in session.capabilities: session.starttls(context)
    session.login('alice', 'secret')
    session.select('INBOX')
print('in', flush=True)
for line in sys.stdin:
    for session in sessions:
        assert session.noop()[0] == 'OK'
        assert session.append('INBOX', None, None, b'x' * 5000)[0] == 'OK'
    print('done', flush=True)
for session in sessions:
    session.logout()
print('out', flush=True)";
    let mut client = Command::new(python)
        .args(["-c", script, &server.port().to_string(), &server.port_of("PORT_tls").to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut ask = client.stdin.take().expect("a pipe");
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(client.stdout.take().expect("a pipe")));
    let mut hear = |expect: &str| assert_eq!(said.next().expect("a line").expect("text"), expect);
    hear("in");
    let mut go_on = || {
        std::io::Write::write_all(&mut ask, b"\n").expect("it reads");
        hear("done");
    };
    for _ in 0..3 {
        server.reload();
        go_on();
    }
    // A new program: its workers get the sessions of the old ones.
    let old = server.pid();
    server.signal(Signal::USR2);
    server.wait(|s| s.read("nginx.pid").trim().parse().is_ok_and(|pid: u32| pid != old), "another master");
    let new = server.read("nginx.pid").trim().parse().ok().and_then(Pid::from_raw).expect("a new master");
    server.signal(Signal::QUIT);
    server.wait_end();
    go_on();
    drop(ask);
    hear("out");
    assert!(client.wait().expect("it ends").success());
    let log = server.read_until("error.log", "proxied session done");
    assert!(!log.contains("[error]"), "{log}");
    kill_process(new, Signal::QUIT).expect("it runs");
    let begun = Instant::now();
    while std::fs::exists(server.folder().path().join("nginx.pid")).expect("the folder is ours") {
        assert!(begun.elapsed() < Duration::from_secs(20), "the new master ends");
        std::thread::sleep(Duration::from_millis(10));
    }
}
