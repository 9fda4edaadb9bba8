//! What a configuration takes over of TLS from the one before it (`ssl_object_cache_inheritable`).

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use e2e::secure::shown;
use e2e::{EC, Server, Setup, certificate, openssl};
use rustix::process::Signal;

fn path(server: &Server, name: &str) -> PathBuf {
    server.folder().path().join(name)
}

/// Overwrites a file in place; the time of its last change stays what it was.
fn overwrite(server: &Server, name: &str, text: impl AsRef<[u8]>) {
    let path = path(server, name);
    let changed = fs::metadata(&path).and_then(|known| known.modified()).expect("it is there");
    fs::write(&path, text).and_then(|()| File::options().write(true).open(&path)?.set_modified(changed)).expect("ours");
}

/// Gives a file another time of its last change.
fn age(server: &Server, name: &str) {
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().write(true).open(path(server, name)).and_then(|file| file.set_modified(long_ago)).expect("ours");
}

/// The certificate `name` with its key as the pair `one`: by a rename, or by overwriting the files.
fn put(server: &Server, name: &str, renamed: bool) {
    for kind in ["crt", "key"] {
        let text = fs::read(path(server, &format!("{name}.{kind}"))).expect("it is there");
        let one = format!("one.{kind}");
        if renamed {
            fs::write(path(server, "aside"), text).expect("ours");
            fs::rename(path(server, "aside"), path(server, &one)).expect("ours");
        } else {
            overwrite(server, &one, text);
        }
    }
}

/// A reload that fails; the error log's last line about it.
fn failed_reload(server: &mut Server) -> String {
    let emergencies = |s: &Server| s.read("error.log").matches("[emerg]").count();
    let before = emergencies(server);
    server.signal(Signal::HUP);
    server.wait(|s| emergencies(s) > before && s.read("error.log").ends_with('\n'), "a failed reload");
    let log = server.read("error.log");
    log.lines().rfind(|line| line.contains("[emerg]")).unwrap_or_default().to_owned()
}

fn conf(main: &str, server: &str) -> String {
    format!(
        "daemon off; pid nginx.pid; worker_processes 1; {main} events {{ %%USE%% }} http {{ access_log off;
         client_body_temp_path cb; proxy_temp_path pt; server {{ listen 127.0.0.1:%%PORT%% ssl; {server} }} }}"
    )
}

const PAIR: &str = "ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;";

/// A server with the certificate `one`, and others that may take its place.
fn start(main: &str, server: &str) -> Server {
    let setup = Setup::whole(&conf(main, server));
    ["one", "two", "three"].iter().for_each(|name| certificate(setup.folder(), name, EC));
    setup.start()
}

#[test]
fn unchanged_files_are_not_read_again() {
    let mut server = start("", PAIR);
    server.quiet();
    let port = server.port();
    put(&server, "two", false);
    server.reload();
    assert_eq!(shown(port, &[]), "one");
    // From one configuration to the next.
    server.reload();
    assert_eq!(shown(port, &[]), "one");
    // Another time.
    age(&server, "one.crt");
    age(&server, "one.key");
    server.reload();
    assert_eq!(shown(port, &[]), "two");
    // Another file.
    put(&server, "three", true);
    server.reload();
    assert_eq!(shown(port, &[]), "three");
    // Who starts anew takes nothing over.
    overwrite(&server, "one.key", "no key");
    let tested = server.command(&["-t"]);
    let text = String::from_utf8_lossy(&tested.stderr).into_owned();
    assert!(!tested.status.success() && text.contains("cannot load certificate key"), "{text}");
    server.reload();
    assert_eq!(shown(port, &[]), "three");
}

#[test]
fn the_running_configuration_says_what_is_taken_over() {
    let off = "ssl_object_cache_inheritable off;";
    let mut server = start(off, PAIR);
    let port = server.port();
    put(&server, "two", false);
    server.reload();
    assert_eq!(shown(port, &[]), "two");
    server.configure(&conf("ssl_object_cache_inheritable on;", PAIR));
    put(&server, "three", false);
    server.reload();
    assert_eq!(shown(port, &[]), "three");
    server.configure(&conf(off, PAIR));
    put(&server, "two", false);
    server.reload();
    assert_eq!(shown(port, &[]), "three");
    server.reload();
    assert_eq!(shown(port, &[]), "two");
}

#[test]
fn a_certificate_and_its_key_are_read_again_if_they_do_not_fit() {
    let mut server = start("", PAIR);
    let port = server.port();
    put(&server, "two", false);
    age(&server, "one.crt");
    server.reload();
    assert_eq!(shown(port, &[]), "two");
    put(&server, "three", false);
    age(&server, "one.key");
    server.reload();
    assert_eq!(shown(port, &[]), "three");
}

#[test]
fn a_failed_reload_changes_nothing_of_what_is_known() {
    let mut server = start("", PAIR);
    server.quiet();
    let port = server.port();
    put(&server, "two", false);
    server.configure(&conf("", &format!("{PAIR} ssl_dhparam none;")));
    let error = failed_reload(&mut server);
    assert!(error.contains("BIO_new_file("), "{error}");
    server.configure(&conf("", PAIR));
    server.reload();
    assert_eq!(shown(port, &[]), "one");
}

#[test]
fn encrypted_keys_are_decrypted_by_each_configuration() {
    let pair = |passwords: &str| {
        format!("ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/locked.key; {passwords}")
    };
    let setup =
        Setup::whole(&conf("", &pair("ssl_password_file %%DIR%%/right;"))).file("right", "abc").file("wrong", "x");
    certificate(setup.folder(), "one", EC);
    let locked = ["pkey", "-in", "one.key", "-aes256", "-passout", "pass:abc", "-out", "locked.key"];
    openssl(setup.folder().path(), &locked);
    let mut server = setup.start();
    server.quiet();
    server.configure(&conf("", &pair("ssl_password_file %%DIR%%/wrong;")));
    let error = failed_reload(&mut server);
    assert!(error.contains("cannot load certificate key"), "{error}");
    // Nor does another server have the password.
    let right = pair("ssl_password_file %%DIR%%/right;");
    let wrong = pair("ssl_password_file %%DIR%%/wrong;");
    server.configure(&conf("", &format!("{right} }} server {{ listen 127.0.0.1:%%PORT%% ssl; server_name x; {wrong}")));
    let error = failed_reload(&mut server);
    assert!(error.contains("cannot load certificate key"), "{error}");
    server.configure(&conf("", &right));
    server.reload();
    assert_eq!(shown(server.port(), &[]), "one");
}

/// Files, and what a message says of each that can't be read.
const OBJECTS: &[(&str, &str)] = &[
    ("one.crt", "cannot load certificate "),
    ("one.key", "cannot load certificate key "),
    ("clients.crt", "cannot load certificate "),
    ("trusted.crt", "cannot load certificate "),
    ("clients.crl", "cannot load CRL "),
    ("own.crt", "cannot load certificate "),
    ("own.key", "cannot load certificate key "),
    ("backends.crt", "cannot load certificate "),
    ("backends.crl", "cannot load CRL "),
    ("stream.crt", "cannot load certificate "),
    ("stream.key", "cannot load certificate key "),
    ("tunnel.crt", "cannot load certificate "),
    ("tunnel.key", "cannot load certificate key "),
    ("mail.crt", "cannot load certificate "),
    ("mail.key", "cannot load certificate key "),
];

const EVERYWHERE: &str = "daemon off; pid nginx.pid; worker_processes 1; events { %%USE%% }
    http { access_log off; client_body_temp_path cb; proxy_temp_path pt;
        server { listen 127.0.0.1:%%PORT%% ssl; ssl_certificate one.crt; ssl_certificate_key one.key;
            ssl_verify_client on; ssl_client_certificate clients.crt; ssl_trusted_certificate trusted.crt;
            ssl_crl clients.crl;
            location / { proxy_pass https://127.0.0.1:1; proxy_ssl_certificate own.crt;
                proxy_ssl_certificate_key own.key; proxy_ssl_verify on;
                proxy_ssl_trusted_certificate backends.crt; proxy_ssl_crl backends.crl; } } }
    stream { server { listen 127.0.0.1:%%PORT_stream%% ssl; proxy_pass 127.0.0.1:1;
        ssl_certificate stream.crt; ssl_certificate_key stream.key;
        proxy_ssl on; proxy_ssl_certificate tunnel.crt; proxy_ssl_certificate_key tunnel.key; } }
    mail { server_name x; auth_http 127.0.0.1:1;
        server { listen 127.0.0.1:%%PORT_mail%% ssl; protocol imap;
            ssl_certificate mail.crt; ssl_certificate_key mail.key; } }";

#[test]
fn all_kinds_of_objects_of_all_protocols_are_taken_over() {
    let setup = Setup::whole(EVERYWHERE)
        .file("index", "")
        .file("ca.cnf", "[ca]\ndefault_ca=m\n[m]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=9\n");
    certificate(setup.folder(), "one", EC);
    let dir = setup.folder().path().to_path_buf();
    let list = ["ca", "-config", "ca.cnf", "-keyfile", "one.key", "-cert", "one.crt", "-gencrl", "-out", "one.crl"];
    openssl(&dir, &list);
    for (name, _) in OBJECTS.iter().filter(|(name, _)| !name.starts_with("one.")) {
        let (_, kind) = name.split_once('.').expect("a kind");
        fs::copy(dir.join(format!("one.{kind}")), dir.join(name)).expect("ours");
    }
    let mut server = setup.start();
    server.quiet();
    let good: Vec<Vec<u8>> = OBJECTS.iter().map(|(name, _)| fs::read(dir.join(name)).expect("there")).collect();
    OBJECTS.iter().for_each(|(name, _)| overwrite(&server, name, "broken"));
    server.reload();
    // Each of them was taken over: it is read once it looks changed.
    for ((name, message), good) in OBJECTS.iter().zip(&good) {
        age(&server, name);
        let error = failed_reload(&mut server);
        assert!(error.contains(message) && error.contains(&format!("{name}\"")), "{name}: {error}");
        overwrite(&server, name, good);
    }
    server.reload();
}

/// Not in nginx: ssl_certificate_refresh TIME
#[test]
fn what_was_renewed_last_is_taken_over() {
    let mut server = start("error_log error.log notice;", &format!("{PAIR} ssl_certificate_refresh 100ms;"));
    let port = server.port();
    for kind in ["crt", "key"] {
        // Another time, but the same second.
        let one = path(&server, &format!("one.{kind}"));
        let changed = fs::metadata(&one).and_then(|known| known.modified()).expect("it is there");
        let second = changed.duration_since(UNIX_EPOCH).expect("later").as_secs();
        fs::copy(path(&server, &format!("two.{kind}")), &one).expect("ours");
        let file = File::options().write(true).open(&one).expect("ours");
        file.set_modified(UNIX_EPOCH + Duration::new(second, 1)).expect("ours");
    }
    server.wait(|_| shown(port, &[]) == "two", "the renewed certificate");
    server.wait(|s| s.children().len() == 1, "the old worker's end");
    server.reload();
    assert_eq!(shown(port, &[]), "two");
}
