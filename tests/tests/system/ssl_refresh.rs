//! Certificates that are renewed while the server runs, without a reload.

use std::fs;
use std::time::Duration;

use e2e::secure::{self, shown};
use e2e::{EC, RSA, Server, Setup, certificate};

/// Puts a certificate with its key in the place of `one`, as a program does that renews it.
fn put(server: &Server, name: &str) {
    for kind in ["key", "crt"] {
        let path = |name: &str| server.folder().path().join(format!("{name}.{kind}"));
        fs::copy(path(name), path("aside")).and_then(|_| fs::rename(path("aside"), path("one"))).expect("ours");
    }
}

fn setup(main: &str) -> Setup {
    let setup = Setup::http(
        "access_log off;
         server { listen 127.0.0.1:%%PORT%% ssl; ssl_certificate_refresh 100ms;
            ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;
            ssl_certificate %%DIR%%/rsa.crt; ssl_certificate_key %%DIR%%/rsa.key;
            location / { return 200 \"$connection $connection_requests\"; } }
         server { listen 127.0.0.1:%%PORT_off%% ssl;
            ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key; }",
    )
    .main(main);
    for name in ["one", "two", "three"] {
        certificate(setup.folder(), name, EC);
    }
    certificate(setup.folder(), "rsa", RSA);
    setup
}

fn renewed_and_broken(main: &str) {
    let mut server = setup(main).start();
    let port = server.port();
    assert_eq!(shown(port, &[]), "one");
    let mut kept = secure::connect(port, &[]);
    let number = kept.get("/", "").text();
    let number = number.split(' ').next().expect("a number");
    // Somebody is at work on it: it must not be read.
    let text = fs::read_to_string(server.folder().path().join("nginx.conf")).expect("it is there");
    fs::write(server.folder().path().join("nginx.conf"), "no configuration").expect("ours");
    put(&server, "two");
    server.wait(|_| shown(port, &[]) == "two", "the renewed certificate");
    // The other one is what it was, and who was connected still is.
    assert_eq!(shown(port, &["-sigalgs", "RSA-PSS+SHA256"]), "rsa");
    assert_eq!(kept.get("/", "").text(), format!("{number} 2"));
    // Half of one.
    fs::write(server.folder().path().join("one.crt"), "-----BEGIN CERTIFICATE-----\nMIIB").expect("ours");
    server.wait(|s| s.read("error.log").contains("PEM_read_bio_X509_AUX() failed"), "an error");
    assert_eq!(shown(port, &[]), "two");
    // Two that don't belong together.
    fs::copy(server.folder().path().join("three.crt"), server.folder().path().join("one.crt")).expect("ours");
    server.wait(|s| s.read("error.log").contains("key values mismatch"), "an error");
    assert_eq!(shown(port, &[]), "two");
    std::thread::sleep(Duration::from_millis(500));
    let log = server.read("error.log");
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("[error]")).collect();
    assert!(
        errors.len() == 2 && errors[0].contains("one.crt") && errors[1].contains("one.key"),
        "once each: {errors:?}"
    );
    assert!(errors.iter().all(|line| line.ends_with(", the certificate before it stays")), "{errors:?}");
    put(&server, "three");
    server.wait(|_| shown(port, &[]) == "three", "the renewed certificate");
    assert_eq!(kept.get("/", "").text(), format!("{number} 3"));
    // Not where it isn't asked for, before a reload.
    let off = server.port_of("PORT_off");
    assert_eq!(shown(off, &[]), "one");
    fs::write(server.folder().path().join("nginx.conf"), text).expect("ours");
    server.signal(rustix::process::Signal::HUP);
    server.wait(|_| shown(off, &[]) == "three", "a reload");
    assert_eq!(shown(port, &[]), "three");
    assert!(!server.read("error.log").contains("[alert]"));
}

/// Not in nginx: ssl_certificate_refresh TIME
#[test]
fn the_master_takes_what_is_renewed() {
    renewed_and_broken("worker_processes 2; error_log error.log notice;");
}

/// Not in nginx: ssl_certificate_refresh TIME
#[test]
fn so_does_a_single_process() {
    let single = setup("master_process off; error_log error.log notice;").start();
    put(&single, "two");
    let mut single = single;
    let port = single.port();
    single.wait(|_| shown(port, &[]) == "two", "the renewed certificate");
}

/// Not in nginx: ssl_certificate_refresh TIME
#[test]
fn faults_of_the_configuration() {
    let check = |value: &str, expect: &str| {
        let setup = Setup::http(&format!("ssl_certificate_refresh {value}; server {{ listen 127.0.0.1:%%PORT%%; }}"));
        let out = setup.prepare().command(&["-t"]);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(expect), "{value}: {text}");
    };
    check("0", "the time must be more than 0");
    check("soon", "invalid value");
}
