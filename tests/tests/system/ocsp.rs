//! OCSP with `openssl ocsp` as the responder: responses that are stapled, and the status of clients' certificates.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use e2e::{Backend, Folder, NameServer, Server, Setup, curl, free_port};

fn openssl(folder: &Path, args: &[&str]) -> Output {
    let out = Command::new("openssl").args(args).current_dir(folder).stdin(Stdio::null()).output();
    out.expect("openssl is installed")
}

fn good(folder: &Path, args: &[&str]) {
    let out = openssl(folder, args);
    assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

const CONF: &str = "[ ca ]
default_ca = own
[ own ]
new_certs_dir = .
database = index
default_md = sha256
policy = policy
serial = serial
default_days = 2
copy_extensions = copy
[ policy ]
commonName = supplied
";

/// An authority `root` with its certificates: `good`, `bad` (revoked), `unknown` (it doesn't know that one), `named` (whose
/// responder has a name), `bare` (which has no responder), and for the server `server` and `server-rsa`. They name a
/// responder on a port that is free until it runs. `responder` may sign responses.
struct Authority {
    folder: Folder,
    port: u16,
    _reserved: UdpSocket,
}

const RSA: &[&str] = &["-newkey", "rsa:2048", "-nodes"];
const EC: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
const BY_ROOT: &[&str] = &["ca", "-batch", "-config", "ca.conf", "-keyfile", "root.key", "-cert", "root.crt"];
const RESPONDER: &[&str] = &["-index", "index", "-CA", "root.crt", "-ndays", "1"];
const SIGNED_BY_ROOT: &[&str] = &["-rsigner", "root.crt", "-rkey", "root.key"];

impl Authority {
    fn new() -> Authority {
        let folder = Folder::new();
        for (name, text) in [("ca.conf", CONF), ("serial", "1000\n"), ("index", "")] {
            folder.write(name, text);
        }
        let (port, reserved) = free_port();
        let root = ["req", "-x509", "-subj", "/CN=root", "-days", "2", "-keyout", "root.key", "-out", "root.crt"];
        good(folder.path(), &[&root[..], RSA].concat());
        let authority = Authority { folder, port, _reserved: reserved };
        let (url, named) = (format!("http://127.0.0.1:{port}"), format!("http://ocsp.test:{port}"));
        for (name, kind, url) in [
            ("good", EC, url.as_str()),
            ("bad", EC, &url),
            ("unknown", EC, &url),
            ("named", EC, &named),
            ("bare", EC, ""),
            ("responder", EC, ""),
            ("server", EC, &url),
            ("server-rsa", RSA, &url),
        ] {
            authority.certify(name, kind, url);
        }
        good(authority.folder.path(), &[BY_ROOT, &["-revoke", "bad.crt"]].concat());
        authority
    }

    fn certify(&self, name: &str, kind: &[&str], url: &str) {
        let (key, csr, crt) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let (subject, access) = (format!("/CN={name}"), format!("authorityInfoAccess=OCSP;URI:{url}"));
        let request = ["req", "-new", "-subj", &subject, "-keyout", &key, "-out", &csr];
        let access = match (name, url) {
            ("responder", _) => vec!["-addext", "extendedKeyUsage=OCSPSigning"],
            (_, "") => vec![],
            _ => vec!["-addext", access.as_str()],
        };
        good(self.folder.path(), &[&request[..], kind, &access].concat());
        if name == "unknown" {
            let by = ["-CA", "root.crt", "-CAkey", "root.key", "-set_serial", "7", "-copy_extensions", "copy"];
            good(self.folder.path(), &[&["x509", "-req", "-in", &csr, "-out", &crt, "-days", "2"], &by[..]].concat());
        } else {
            good(self.folder.path(), &[BY_ROOT, &["-notext", "-in", &csr, "-out", &crt]].concat());
        }
    }

    /// The path of a file.
    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Directives for a server's certificate.
    fn server(&self, name: &str) -> String {
        let (crt, key) = (self.file(&format!("{name}.crt")), self.file(&format!("{name}.key")));
        format!("ssl_certificate {crt}; ssl_certificate_key {key};")
    }

    /// Starts the responder.
    fn respond(&self) -> Responder {
        let (port, url) = (self.port.to_string(), format!("http://127.0.0.1:{}", self.port));
        let mut command = Command::new("openssl");
        command.args([&["ocsp", "-port", &port], RESPONDER, SIGNED_BY_ROOT].concat()).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let responder = Responder(command.spawn().expect("openssl is installed"));
        let ask = ["ocsp", "-issuer", "root.crt", "-cert", "good.crt", "-noverify", "-url", &url];
        until("the responder answers", || openssl(self.folder.path(), &ask).status.success());
        responder
    }

    /// A response about a certificate.
    fn response(&self, name: &str) -> Vec<u8> {
        self.response_by("root", name)
    }

    /// The same, signed with the key of another certificate than the root.
    fn response_by(&self, signer: &str, name: &str) -> Vec<u8> {
        let crt = format!("{name}.crt");
        let folder = self.folder.path();
        good(folder, &["ocsp", "-issuer", "root.crt", "-cert", &crt, "-reqout", "request"]);
        let (signer, key) = (format!("{signer}.crt"), format!("{signer}.key"));
        let files = ["-rsigner", &signer, "-rkey", &key, "-reqin", "request", "-respout", "response"];
        good(folder, &[&["ocsp"], RESPONDER, &files].concat());
        std::fs::read(folder.join("response")).expect("it was written")
    }

    /// The same with all times some years ago, and signed again.
    fn expired(&self, name: &str) -> Vec<u8> {
        let mut response = self.response(name);
        // In a response are a status and, three elements deeper, the signed part; its algorithm; the signature.
        let outer = inside(&response, 0);
        let bytes = inside(&response, inside(&response, next(&response, outer)));
        let signed = inside(&response, inside(&response, next(&response, bytes)));
        let algorithm = next(&response, signed);
        let signature = inside(&response, next(&response, algorithm)) + 1;
        for at in signed..algorithm {
            if response[at..].starts_with(b"\x18\x0f20") {
                response[at + 2..at + 6].copy_from_slice(b"2020");
            }
        }
        self.folder.write("signed", &response[signed..algorithm]);
        good(self.folder.path(), &["dgst", "-sha256", "-sign", "root.key", "-out", "signature", "signed"]);
        let new = std::fs::read(self.folder.path().join("signature")).expect("it was written");
        response[signature..signature + new.len()].copy_from_slice(&new);
        response
    }
}

/// Where the contents of the element at this place begin.
fn inside(der: &[u8], at: usize) -> usize {
    let long = usize::from(der[at + 1]);
    at + 2 + if long < 0x80 { 0 } else { long & 0x7f }
}

/// Where the element after the one at this place begins.
fn next(der: &[u8], at: usize) -> usize {
    let start = inside(der, at);
    let bytes = if start == at + 2 { &der[at + 1..start] } else { &der[at + 2..start] };
    start + bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

struct Responder(Child);

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(15), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A responder that answers everything with these bytes, as a response of OCSP.
fn answering(body: Vec<u8>) -> Backend {
    Backend::start(move |_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nConnection: close\r\n\r\n";
        [head.as_bytes(), &body].concat()
    })
}

/// The status and `$ssl_client_verify` of a request with a client's certificate.
fn verify(server: &Server, port: &str, authority: &Authority, name: &str) -> String {
    let url = format!("https://127.0.0.1:{}/", server.port_of(port));
    let (crt, key) = (authority.file(&format!("{name}.crt")), authority.file(&format!("{name}.key")));
    let response = curl(&["-k", "-i", "--cert", &crt, "--key", &key, &url]);
    let response = String::from_utf8_lossy(&response).to_ascii_lowercase();
    let verified = response.lines().find_map(|line| line.strip_prefix("x-verify: ")).unwrap_or_default();
    format!("{} {verified}", response.split(' ').nth(1).unwrap_or_default())
}

const GOOD: &str = "200 success";
const REVOKED: &str = "400 failed:certificate revoked";
const UNKNOWN: &str = "400 failed:certificate status unknown";
const FAILED: &str = "400 failed:certificate status request failed";

/// Servers that ask clients for certificates, and responders for their status.
fn asking(authority: &Authority, servers: &str) -> Setup {
    let (server, root) = (authority.server("server"), authority.file("root.crt"));
    Setup::http(&format!(
        "root %%DIR%%/root; {server} ssl_client_certificate {root}; ssl_verify_client on; ssl_ocsp on;
        add_header X-Verify $ssl_client_verify always; {servers}"
    ))
    .main("error_log error.log info;")
    .file("root/index.html", "hello")
}

/// Differs from nginx: an OCSP responder that refuses the connection
#[test]
fn clients_certificates_are_asked_about() {
    let (authority, names) = (Authority::new(), NameServer::start("ocsp.test"));
    let servers = format!(
        "server {{ listen 127.0.0.1:%%PORT%% ssl; http2 on; }}
        server {{ listen 127.0.0.1:%%PORT_cached%% ssl; ssl_ocsp leaf; ssl_ocsp_cache shared:ocsp:1m; }}
        server {{ listen 127.0.0.1:%%PORT_resolver%% ssl; resolver 127.0.0.1:{} ipv6=off; }}
        server {{ listen 127.0.0.1:%%PORT_off%% ssl; ssl_ocsp off; }}",
        names.port
    );
    let mut server = asking(&authority, &servers).start();
    assert_eq!(verify(&server, "PORT", &authority, "good"), FAILED, "nobody answers");
    let responder = authority.respond();
    for (port, name, expect) in [
        ("PORT", "good", GOOD),
        ("PORT", "bad", REVOKED),
        ("PORT", "unknown", UNKNOWN),
        ("PORT", "bare", FAILED),
        ("PORT", "named", FAILED),
        ("PORT_resolver", "named", GOOD),
        ("PORT_cached", "good", GOOD),
        ("PORT_cached", "bad", REVOKED),
        ("PORT_cached", "unknown", UNKNOWN),
    ] {
        assert_eq!(verify(&server, port, &authority, name), expect, "{port} {name}");
    }
    drop(responder);
    // What is kept is known without a responder, over a reload too.
    for round in 0..2 {
        for (port, name, expect) in [
            ("PORT_cached", "good", GOOD),
            ("PORT_cached", "bad", REVOKED),
            ("PORT_cached", "unknown", UNKNOWN),
            ("PORT", "good", FAILED),
            ("PORT_off", "bad", GOOD),
        ] {
            assert_eq!(verify(&server, port, &authority, name), expect, "{round} {port} {name}");
        }
        server.reload();
    }
    let log = server.read("error.log");
    for text in [
        "connect() failed (111: Connection refused) while requesting certificate status, responder: 127.0.0.1, peer: ",
        "client SSL certificate verify error: certificate revoked while reading client request headers, client: ",
        "client SSL certificate verify error: certificate status unknown while reading client request headers, client: ",
        "no OCSP responder URL in certificate while SSL handshaking, client: 127.0.0.1, server: 127.0.0.1:",
        "no resolver defined to resolve ocsp.test while requesting certificate status, responder: ocsp.test",
    ] {
        assert!(log.contains(text), "{text} in {log}");
    }
}

/// The name of a responder is looked up for a client that is gone when the answer comes, or whose worker leaves.
#[test]
fn names_of_responders_come_late() {
    let late = Duration::from_secs(1);
    let (authority, names) = (Authority::new(), NameServer::late("ocsp.test", late));
    let server = format!(
        "server {{ listen 127.0.0.1:%%PORT%% ssl; resolver 127.0.0.1:{0} ipv6=off; }}
         server {{ listen 127.0.0.1:%%PORT_short%% ssl; resolver 127.0.0.1:{0} ipv6=off; resolver_timeout 300ms; }}
         server {{ listen 127.0.0.1:%%PORT_left%% ssl; resolver 127.0.0.1:{0} ipv6=off; }}",
        names.port
    );
    let mut server = asking(&authority, &server).start();
    server.quiet();
    let _responder = authority.respond();
    let (crt, key) = (authority.file("named.crt"), authority.file("named.key"));
    let given_up = |port: u16, after: &str| {
        let url = format!("https://127.0.0.1:{port}/");
        let options = ["-s", "-k", "-m", after, "--cert", &crt, "--key", &key, &url];
        let status = std::process::Command::new("curl").args(options).status().expect("curl is installed");
        assert!(!status.success(), "the client has left");
    };
    given_up(server.port(), "0.4");
    assert!(names.asked() > 0, "the question");
    // Its answer has come by now, and is nobody's.
    std::thread::sleep(late);
    assert_eq!(verify(&server, "PORT_short", &authority, "named"), FAILED, "it comes too late");
    // One whose resolver knows no name yet.
    let before = server.children();
    given_up(server.port_of("PORT_left"), "0.4");
    server.signal(rustix::process::Signal::HUP);
    server.wait(|s| s.children().iter().all(|pid| !before.contains(pid)), "the old worker's end");
    std::thread::sleep(late);
    assert_eq!(verify(&server, "PORT", &authority, "named"), GOOD);
    let log = server.read("error.log");
    assert!(!log.contains("[alert]") && !log.contains("[emerg]"), "{log}");
}

/// Over a reload connections move to new workers, which ask no responder.
/// Differs from nginx: both move to the new workers
#[test]
fn what_was_said_of_a_client_holds_over_a_reload() {
    let authority = Authority::new();
    let server =
        "server { listen 127.0.0.1:%%PORT%% ssl; } server { listen 127.0.0.1:%%PORT_later%% ssl; ssl_ocsp off; }";
    let mut server = asking(&authority, server).start();
    let _responder = authority.respond();
    let folder = authority.folder.path().display();
    let open = |port: u16, name: &str| {
        let (crt, key) = (format!("{folder}/{name}.crt"), format!("{folder}/{name}.key"));
        e2e::secure::connect(port, &["-tls1_3", "-cert", &crt, "-key", &key])
    };
    let (mut good, mut bad) = (open(server.port(), "good"), open(server.port(), "bad"));
    let mut unasked = open(server.port_of("PORT_later"), "good");
    let kept = good.get("/", "").text();
    assert_eq!(unasked.get("/", "").status, 200);
    // For the handshake of the one that says nothing yet.
    std::thread::sleep(Duration::from_millis(500));
    let text = server.read("nginx.conf").replace("ssl_ocsp off;", "ssl_ocsp on;");
    server.configure(&text);
    let old = server.children();
    server.signal(Signal::HUP);
    server.wait(|server| server.children().iter().any(|pid| !old.contains(pid)), "new workers");
    // Nobody has asked about this one.
    assert!(unasked.closed());
    assert_eq!(good.get("/", "").text(), kept);
    // This one can't move.
    assert_eq!(bad.get("/", "").status, 400);
    drop(bad);
    server.wait(|server| !server.children().iter().any(|pid| old.contains(pid)), "the old workers' end");
}

const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1\r\n\r\nx";

/// Responders that answer badly when they are asked about a certificate, and what the log says then.
fn bad_responders(authority: &Authority, name: &str) -> Vec<(Backend, &'static str)> {
    let mut forged = authority.response(name);
    let time = forged.windows(2).position(|bytes| bytes == b"\x18\x0f").expect("there is a time");
    forged[time + 15] ^= 1;
    vec![
        (answering(b"hello".to_vec()), "d2i_OCSP_RESPONSE() failed"),
        (answering(Vec::new()), "d2i_OCSP_RESPONSE() failed"),
        (answering(vec![0x30, 3, 10, 1, 3]), "OCSP response not successful (3: trylater)"),
        (answering(authority.expired(name)), "OCSP_check_validity() failed"),
        (answering(authority.response("named")), "certificate status not found in the OCSP response"),
        (answering(forged), "OCSP_basic_verify() failed"),
        (Backend::start(|_| PAGE.into()), "OCSP responder sent invalid \"Content-Type\" header"),
        (Backend::start(|_| b"garbage garbage".to_vec()), "OCSP responder sent invalid response"),
        (Backend::start(|_| Vec::new()), "OCSP responder prematurely closed connection"),
    ]
}

#[test]
fn bad_responses_say_nothing_of_a_client() {
    let authority = Authority::new();
    let responders = bad_responders(&authority, "good");
    let servers = responders.iter().enumerate().map(|(n, (responder, _))| {
        let url = format!("http://127.0.0.1:{}/a/path", responder.port);
        format!("server {{ listen 127.0.0.1:%%PORT_{n}%% ssl; ssl_ocsp_responder {url}; }}")
    });
    let first = "server { listen 127.0.0.1:%%PORT%%; }".to_owned();
    let mut server = asking(&authority, &servers.chain([first]).collect::<String>()).start();
    for (n, (responder, text)) in responders.iter().enumerate() {
        assert_eq!(verify(&server, &format!("PORT_{n}"), &authority, "good"), FAILED, "{text}");
        let where_from =
            format!(" while requesting certificate status, responder: 127.0.0.1, peer: 127.0.0.1:{}", responder.port);
        let log = server.read_until("error.log", &where_from);
        assert!(log.lines().any(|line| line.contains(text) && line.contains(&where_from)), "{text} in {log}");
    }
    let asked = responders[6].0.requests();
    assert!(asked[0].line().starts_with("GET /a/path/M") && asked[0].line().ends_with(" HTTP/1.0"), "{asked:?}");
    assert_eq!(asked[0].field("Host"), Some("127.0.0.1"));
}

#[test]
fn the_issuer_may_authorize_responders() {
    let authority = Authority::new();
    let responders = ["responder", "server", "root"].map(|signer| answering(authority.response_by(signer, "good")));
    let servers = responders.iter().enumerate().map(|(n, responder)| {
        let url = format!("http://127.0.0.1:{}", responder.port);
        format!("server {{ listen 127.0.0.1:%%PORT_{n}%% ssl; ssl_ocsp_responder {url}; }}")
    });
    let first = "server { listen 127.0.0.1:%%PORT%%; }".to_owned();
    let server = asking(&authority, &servers.chain([first]).collect::<String>()).start();
    for (n, expect) in [GOOD, FAILED, GOOD].into_iter().enumerate() {
        assert_eq!(verify(&server, &format!("PORT_{n}"), &authority, "good"), expect, "{n}");
    }
}

/// Whether a handshake brings a response, and what that says: empty for none.
fn stapled(server: &Server, port: &str, options: &[&str]) -> String {
    let address = format!("127.0.0.1:{}", server.port_of(port));
    let args = [&["s_client", "-connect", &address, "-status"], options].concat();
    let seen = openssl(server.folder().path(), &args);
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(seen.contains("OCSP response: "), "{seen}");
    let status = seen.lines().find_map(|line| line.trim().strip_prefix("Cert Status: "));
    status.unwrap_or_default().to_owned()
}

const BY_EC: &[&str] = &["-sigalgs", "ECDSA+SHA256"];
const BY_RSA: &[&str] = &["-sigalgs", "RSA-PSS+SHA256"];

#[test]
fn responses_are_fetched_and_stapled() {
    let authority = Authority::new();
    let responder = authority.respond();
    let (both, root) = (authority.server("server") + &authority.server("server-rsa"), authority.file("root.crt"));
    let file = authority.file("file.der");
    std::fs::write(&file, authority.response("server")).expect("the folder is ours");
    let mut server = Setup::http(&format!(
        "ssl_stapling on; ssl_stapling_verify on; ssl_trusted_certificate {root};
        server {{ listen 127.0.0.1:%%PORT%% ssl; {both} }}
        server {{ listen 127.0.0.1:%%PORT_bad%% ssl; {} }}
        server {{ listen 127.0.0.1:%%PORT_unknown%% ssl; {} }}
        server {{ listen 127.0.0.1:%%PORT_file%% ssl; {} ssl_stapling_file {file}; }}
        server {{ listen 127.0.0.1:%%PORT_off%% ssl; {} ssl_stapling off; ssl_stapling_file /nowhere; }}",
        authority.server("bad"),
        authority.server("unknown"),
        authority.server("server"),
        authority.server("server"),
    ))
    .start();
    // Each certificate has its own response, fetched when it is used for the first time.
    for kind in [BY_EC, BY_RSA] {
        assert_eq!(stapled(&server, "PORT", kind), "");
        until("there is a response", || stapled(&server, "PORT", kind) == "good");
        assert_eq!(stapled(&server, "PORT", &[kind, &["-tls1_2"]].concat()), "good");
    }
    for name in ["bad", "unknown"] {
        assert_eq!(stapled(&server, &format!("PORT_{name}"), &[]), "");
        let status = if name == "bad" { "revoked" } else { name };
        let where_from = format!("responder: 127.0.0.1, peer: 127.0.0.1:{}", authority.port);
        let crt = authority.file(&format!("{name}.crt"));
        let text = format!("certificate status \"{status}\" in the OCSP response");
        let text = format!("{text} while requesting certificate status, {where_from}, certificate: \"{crt}\"");
        server.read_until("error.log", &text);
        assert_eq!(stapled(&server, &format!("PORT_{name}"), &[]), "");
    }
    assert_eq!((stapled(&server, "PORT_file", &[]).as_str(), stapled(&server, "PORT_off", &[]).as_str()), ("good", ""));
    // It is asked for now and then, not for each handshake; and used while nobody answers.
    drop(responder);
    assert_eq!(stapled(&server, "PORT", BY_EC), "good");
    let lines = server.read("error.log").lines().filter(|line| line.contains("requesting certificate")).count();
    assert_eq!(lines, 2);
}

/// Differs from nginx: only one that the issuer has signed
#[test]
fn bad_responses_are_not_stapled() {
    let authority = Authority::new();
    let responders = bad_responders(&authority, "server");
    let dead = free_port();
    let ports = responders.iter().map(|(responder, _)| responder.port).chain([dead.0]);
    let servers = ports.enumerate().map(|(n, port)| {
        let url = format!("http://127.0.0.1:{port}/");
        format!("server {{ listen 127.0.0.1:%%PORT_{n}%% ssl; ssl_stapling_responder {url}; }}")
    });
    let (server, root) = (authority.server("server"), authority.file("root.crt"));
    let first = "server { listen 127.0.0.1:%%PORT%%; }".to_owned();
    let servers = servers.chain([first]).collect::<String>();
    let mut server =
        Setup::http(&format!("{server} ssl_stapling on; ssl_trusted_certificate {root}; {servers}")).start();
    let texts = responders.iter().map(|(responder, text)| (responder.port, *text));
    for (n, (port, text)) in texts.chain([(dead.0, "connect() failed (111: Connection refused)")]).enumerate() {
        assert_eq!(stapled(&server, &format!("PORT_{n}"), &[]), "");
        let log = server.read_until("error.log", &format!("peer: 127.0.0.1:{port}, certificate: "));
        assert!(log.lines().any(|line| line.contains(text) && line.contains(&format!(":{port},"))), "{text} in {log}");
        // The next try comes later.
        assert_eq!(stapled(&server, &format!("PORT_{n}"), &[]), "");
        assert_eq!(server.read("error.log").matches(&format!("peer: 127.0.0.1:{port}, ")).count(), 1, "{text}");
    }
}

#[test]
fn faults_of_the_configuration() {
    let authority = Authority::new();
    let (root, server, bare) = (authority.file("root.crt"), authority.server("server"), authority.server("bare"));
    let crt = |name: &str| authority.file(&format!("{name}.crt"));
    let trusted = format!("ssl_trusted_certificate {root};");
    let (asks, any) =
        (format!("ssl_client_certificate {root}; ssl_verify_client on;"), "ssl_verify_client optional_no_ca;");
    let ignored = "[warn] \"ssl_stapling\" ignored,";
    for (directives, expect) in [
        (
            format!("{server} ssl_stapling on;"),
            format!("{ignored} issuer certificate not found for certificate \"{}\"", crt("server")),
        ),
        (
            format!("{bare} {trusted} ssl_stapling on;"),
            format!("{ignored} no OCSP responder URL in the certificate \"{}\"", crt("bare")),
        ),
        (
            format!("{bare} {trusted} ssl_stapling on; ssl_stapling_responder https://a/;"),
            format!(
                "{ignored} invalid URL prefix in OCSP responder \"https://a/\" in the certificate \"{}\"",
                crt("bare")
            ),
        ),
        (
            format!("{bare} {trusted} ssl_stapling on; ssl_stapling_responder http://no.such.invalid/;"),
            format!("{ignored} host not found in OCSP responder \"no.such.invalid/\" in the certificate"),
        ),
        (
            format!("{server} ssl_stapling on; ssl_stapling_file {root};"),
            format!("[emerg] d2i_OCSP_RESPONSE_bio(\"{root}\") failed"),
        ),
        (
            format!("{server} {asks} ssl_ocsp on; ssl_ocsp_responder https://a/;"),
            "[emerg] invalid URL prefix in OCSP responder \"https://a/\" in \"ssl_ocsp_responder\"".into(),
        ),
        (
            format!("{server} {any} ssl_ocsp leaf;"),
            "[emerg] \"ssl_ocsp\" is incompatible with \"ssl_verify_client optional_no_ca\"".into(),
        ),
        (format!("{server} ssl_ocsp yes;"), "[emerg] invalid value \"yes\"".into()),
        (format!("{server} ssl_ocsp_cache on;"), "[emerg] invalid OCSP cache \"on\"".into()),
        (format!("{server} ssl_ocsp_cache shared:a:1k;"), "[emerg] OCSP cache \"shared:a:1k\" is too small".into()),
        (
            format!("{server} {asks} ssl_ocsp on; ssl_ocsp_cache shared:a:1m; ssl_ocsp_responder http://127.0.0.1/;"),
            "test is successful".into(),
        ),
    ] {
        let setup = Setup::http(&format!("server {{ listen 127.0.0.1:%%PORT%% ssl; {directives} }}"));
        let out = setup.prepare().command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(&expect), "{directives}: {said}");
    }
}
