//! TLS with clients and backends: curl and openssl as peers.

use std::io::Write;
use std::process::{Command, Stdio};

use e2e::{EC, RSA, Server, Setup, certificate, curl, openssl};

/// What curl gets from a server under a name; `options` are its own.
fn get(server: &Server, name: &str, path: &str, options: &[&str]) -> String {
    let resolve = format!("{name}:{}:127.0.0.1", server.port());
    let url = format!("https://{name}:{}{path}", server.port());
    let mut args = vec!["-k", "--resolve", &resolve, &url];
    args.extend(options);
    String::from_utf8_lossy(&curl(&args)).into_owned()
}

/// What `openssl s_client` says of a connection.
fn s_client(server: &Server, options: &[&str], request: &str) -> String {
    let address = format!("127.0.0.1:{}", server.port());
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-ign_eof"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    child.stdin.take().expect("it was asked for").write_all(request.as_bytes()).ok();
    let out = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

const CLOSE: &str = "GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n";

#[test]
fn names_choose_servers_and_certificates() {
    let setup = Setup::http(
        "server { listen 127.0.0.1:%%PORT%% ssl; server_name one.test;
            ssl_certificate %%DIR%%/one.test.crt; ssl_certificate_key %%DIR%%/one.test.key;
            ssl_certificate %%DIR%%/rsa.test.crt; ssl_certificate_key %%DIR%%/rsa.test.key;
            location / { return 200 \"$server_name $ssl_server_name $ssl_protocol $ssl_cipher $scheme $https\"; }
            location = /to { return 301 /there; } }
        server { listen 127.0.0.1:%%PORT%%; server_name two.test; ssl_protocols TLSv1.2;
            ssl_certificate %%DIR%%/two.test.crt; ssl_certificate_key %%DIR%%/two.test.key;
            location / { return 200 \"$server_name $ssl_protocol\"; } }
        server { listen 127.0.0.1:%%PORT%%; server_name closed.test; ssl_reject_handshake on; }",
    );
    for (name, kind) in [("one.test", EC), ("two.test", EC), ("rsa.test", RSA)] {
        certificate(setup.folder(), name, kind);
    }
    let server = setup.start();
    assert_eq!(get(&server, "one.test", "/", &[]), "one.test one.test TLSv1.3 TLS_AES_256_GCM_SHA384 https on");
    let old = get(&server, "one.test", "/", &["--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256"]);
    assert_eq!(old, "one.test one.test TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256 https on");
    assert_eq!(get(&server, "two.test", "/", &[]), "two.test TLSv1.2");
    assert_eq!(get(&server, "other.test", "/", &[]), "one.test other.test TLSv1.3 TLS_AES_256_GCM_SHA384 https on");
    let moved = get(&server, "one.test", "/to", &["-I"]);
    assert!(moved.contains(&format!("Location: https://one.test:{}/there\r\n", server.port())), "{moved}");
    for (name, expect) in [("one.test", "CN = one.test"), ("two.test", "CN = two.test")] {
        let seen = s_client(&server, &["-servername", name], CLOSE);
        assert!(seen.contains(expect), "{seen}");
    }
    let refused = s_client(&server, &["-servername", "closed.test"], CLOSE);
    assert!(refused.contains("unrecognized name"), "{refused}");
}

/// A name is shown as it was sent, and compared as names are; whose it is not doesn't bind its requests.
#[test]
fn names_as_they_were_sent() {
    let setup = Setup::http(
        "log_format seen $request_uri|$status|$ssl_server_name|$ssl_ciphers; access_log seen.log seen;
        ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;
        server { listen 127.0.0.1:%%PORT%% ssl; ssl_verify_client optional; ssl_client_certificate %%DIR%%/one.crt;
            return 200 \"default\"; }
        server { listen 127.0.0.1:%%PORT%% ssl; server_name one.test *.Wild.test;
            ssl_verify_client optional; ssl_client_certificate %%DIR%%/one.crt; return 200 \"one\"; }",
    );
    certificate(setup.folder(), "one", EC);
    let mut server = setup.start();
    let mut expect = Vec::new();
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, host, status) in [
            ("One.Test", "one.test", 200),
            ("one.test.", "ONE.test.", 200),
            ("A.wild.TEST.", "a.Wild.test", 200),
            ("one.test", "x", 421),
            ("LocalHost", "x", 200),
            ("localhost.", "localhost", 200),
            ("other.test", "one.test", 200),
        ] {
            let request = format!("GET /{name} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            s_client(&server, &[version, "-servername", name, "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], &request);
            expect.push(format!("/{name}|{status}|{name}"));
        }
    }
    server.wait(|s| s.read("seen.log").lines().count() == expect.len(), "the lines");
    for (line, expect) in server.read("seen.log").lines().zip(&expect) {
        let (seen, ciphers) = line.rsplit_once('|').expect("four parts");
        assert_eq!(seen, expect);
        assert!(ciphers.ends_with(":TLS_EMPTY_RENEGOTIATION_INFO_SCSV"), "{line}");
    }
}

/// What a regex of a server's names captures is there for requests to the name of the handshake too; requests to other hosts
/// are those of their hosts' servers, or the default's.
#[test]
fn regexes_of_names_capture_over_tls() {
    let setup = Setup::http(
        "ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;
        server { listen 127.0.0.1:%%PORT%% ssl; http2 on; server_name default.test; return 200 \"default $user,$1\"; }
        server { listen 127.0.0.1:%%PORT%% ssl; http2 on; server_name ~^(?<user>.+)\\.example\\.com$;
            return 200 \"regex $user,$1\"; }
        server { listen 127.0.0.1:%%PORT%% ssl; http2 on; server_name exact.test; return 200 \"exact $user,$1\"; }
        server { listen 127.0.0.1:%%PORT_B%% ssl; server_name ~^(?<user>.+)\\.example\\.com$;
            return 200 \"alone $user,$1\"; }",
    );
    certificate(setup.folder(), "one", EC);
    let server = setup.start();
    for version in ["--http1.1", "--http2"] {
        for (name, host, expect) in [
            ("bob.example.com", "bob.example.com", "regex bob,bob"),
            ("Bob.Example.com", "BOB.example.com", "regex bob,bob"),
            ("bob.example.com", "carl.example.com", "regex carl,carl"),
            ("bob.example.com", "nobody.test", "default ,"),
            ("exact.test", "exact.test", "exact ,"),
            ("exact.test", "nobody.test", "default ,"),
            ("nobody.test", "bob.example.com", "regex bob,bob"),
        ] {
            let got = get(&server, name, "/", &[version, "-H", &format!("Host: {host}")]);
            assert_eq!(got, expect, "{version} {name} {host}");
        }
    }
    let alone = format!("https://bob.example.com:{}/", server.port_of("PORT_B"));
    let got = curl(&["-k", "--connect-to", &format!("::127.0.0.1:{}", server.port_of("PORT_B")), &alone]);
    assert_eq!(String::from_utf8_lossy(&got), "alone bob,bob");
    // Without a host it is the default's.
    let seen = s_client(&server, &["-servername", "exact.test"], "GET / HTTP/1.0\r\n\r\n");
    assert!(seen.contains("default ,"), "{seen}");
}

#[test]
fn requests_that_are_none_stay_with_the_server_of_the_handshake() {
    let setup = Setup::http(
        "ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;
        server { listen 127.0.0.1:%%PORT%% ssl; server_name default.test; error_page 400 /e;
            location / { return 200 \"of the default\"; } }
        server { listen 127.0.0.1:%%PORT%% ssl; server_name one.test; error_page 400 /e;
            location / { return 200 \"of the handshake\"; } }",
    );
    certificate(setup.folder(), "one", EC);
    let server = setup.start();
    for (request, expect) in [
        ("BAD\x01\r\n\r\n", "of the handshake"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "of the handshake"),
        ("GET / HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: x\r\n\r\n", "of the default"),
        ("GET / HTTP/1.1\r\n\r\n", "of the default"),
    ] {
        let seen = s_client(&server, &["-servername", "one.test"], request);
        assert!(seen.contains(expect), "{request}: {seen}");
    }
}

/// Differs from nginx: they outlive reloads, follow from one another
#[test]
fn sessions_are_resumed_across_workers_and_reloads() {
    let setup = Setup::whole(
        "daemon off; pid nginx.pid; worker_processes 2; events { %%USE%% }
        http { access_log off; client_body_temp_path cb; proxy_temp_path pt;
            server { listen 127.0.0.1:%%PORT%% ssl; server_name one.test;
                ssl_certificate %%DIR%%/one.test.crt; ssl_certificate_key %%DIR%%/one.test.key;
                location / { return 200 \"reused:$ssl_session_reused\"; } } }",
    );
    certificate(setup.folder(), "one.test", EC);
    let mut server = setup.start();
    let session = server.folder().path().join("session.pem");
    let session = session.to_str().expect("the folder has a plain name");
    for version in ["-tls1_2", "-tls1_3"] {
        let first = s_client(&server, &[version, "-sess_out", session], CLOSE);
        assert!(first.contains("reused:."), "{first}");
        for _ in 0..4 {
            let next = s_client(&server, &[version, "-sess_in", session], CLOSE);
            assert!(next.contains("reused:r"), "{next}");
        }
        server.reload();
        let next = s_client(&server, &[version, "-sess_in", session], CLOSE);
        assert!(next.contains("reused:r"), "after a reload: {next}");
    }
}

#[test]
fn clients_have_certificates() {
    let setup = Setup::http(
        "error_log %%DIR%%/tls.log info;
        server { listen 127.0.0.1:%%PORT%% ssl; server_name one.test;
            ssl_certificate %%DIR%%/one.test.crt; ssl_certificate_key %%DIR%%/one.test.key;
            ssl_verify_client optional; ssl_client_certificate %%DIR%%/ca.crt; ssl_crl %%DIR%%/ca.crl;
            location / { return 200 \"$ssl_client_verify $ssl_client_s_dn $ssl_client_i_dn_legacy $ssl_client_serial\"; } }
        server { listen 127.0.0.1:%%PORT%%; server_name strict.test;
            ssl_certificate %%DIR%%/one.test.crt; ssl_certificate_key %%DIR%%/one.test.key;
            ssl_verify_client on; ssl_client_certificate %%DIR%%/ca.crt; location / { return 200 in; } }",
    )
    .file("index", "")
    .file("ca.cnf", CA);
    let dir = setup.folder().path().to_path_buf();
    certificate(setup.folder(), "one.test", EC);
    openssl(
        &dir,
        &[
            "req",
            "-x509",
            "-nodes",
            "-days",
            "9",
            "-subj",
            "/O=Org/CN=ca",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-newkey",
            "rsa:2048",
        ],
    );
    for (name, serial) in [("good", "0x0A1B"), ("bad", "0x0C")] {
        let (subject, key, csr, crt) =
            (format!("/O=A, B/CN={name}"), format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        openssl(
            &dir,
            &["req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", &subject, "-keyout", &key, "-out", &csr],
        );
        openssl(
            &dir,
            &[
                "x509",
                "-req",
                "-in",
                &csr,
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-set_serial",
                serial,
                "-days",
                "9",
                "-out",
                &crt,
            ],
        );
    }
    openssl(&dir, &["ca", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.crt", "-revoke", "bad.crt"]);
    openssl(&dir, &["ca", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.crt", "-gencrl", "-out", "ca.crl"]);
    let server = setup.start();
    let with = |host: &str, name: &str| {
        let (crt, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        get(&server, host, "/", &["--cert", crt.to_str().unwrap(), "--key", key.to_str().unwrap()])
    };
    assert_eq!(with("one.test", "good"), "SUCCESS CN=good,O=A\\, B /O=Org/CN=ca 0A1B");
    assert_eq!(get(&server, "one.test", "/", &[]), "NONE   ");
    assert!(with("one.test", "bad").contains("The SSL certificate error"));
    assert!(with("one.test", "one.test").contains("The SSL certificate error"));
    assert_eq!(with("strict.test", "good"), "in");
    assert!(get(&server, "strict.test", "/", &[]).contains("No required SSL certificate was sent"));
    let host = format!("Host: strict.test:{}", server.port());
    let misdirected = get(&server, "one.test", "/", &["-H", &host, "-i"]);
    assert!(misdirected.starts_with("HTTP/1.1 421 "), "{misdirected}");
    let log = server.read("tls.log");
    assert!(log.contains("client SSL certificate verify error: (23:certificate revoked)"), "{log}");
}

/// Differs from nginx: older protocols in a list are passed over
#[test]
fn faults_of_the_configuration() {
    let check = |directives: &str, expect: &str| {
        let setup = Setup::http(&format!("server {{ listen 127.0.0.1:%%PORT%% ssl; {directives} }}"));
        certificate(setup.folder(), "one", EC);
        certificate(setup.folder(), "two", EC);
        let server = setup.prepare();
        let out = server.command(&["-t"]);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(expect), "{directives}: {text}");
    };
    let good = "ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;";
    check("", "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive");
    check("ssl_certificate %%DIR%%/one.crt;", "no \"ssl_certificate_key\" is defined for certificate");
    check("ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/two.key;", "key values mismatch");
    check("ssl_certificate %%DIR%%/none.crt; ssl_certificate_key %%DIR%%/two.key;", "cannot load certificate \"");
    check("ssl_certificate %%DIR%%/one.key; ssl_certificate_key %%DIR%%/one.key;", "PEM_read_bio_X509_AUX() failed");
    check("ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.crt;", "cannot load certificate key");
    check(&format!("{good} ssl_protocols TLSv1;"), "no protocol of \"ssl_protocols\" is supported");
    check(&format!("{good} ssl_ciphers RC4;"), "no cipher match");
    check(&format!("{good} ssl_ecdh_curve nonsense;"), "SSL_CTX_set1_curves_list(\"nonsense\") failed");
    check(
        &format!("{good} ssl_verify_client on;"),
        "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client",
    );
    check(&format!("{good} ssl_session_cache shared:x:1;"), "session cache \"shared:x:1\" is too small");
    check(&format!("{good} ssl_session_ticket_key %%DIR%%/one.crt;"), "must be 48 or 80 bytes");
    check(&format!("{good} ssl_conf_command Nonsense x;"), "SSL_CONF_cmd(\"Nonsense\", \"x\") failed");
}

/// Keys as older versions of openssl wrote them.
#[test]
fn keys_encrypted_with_3des() {
    let setup = Setup::http(
        "server { listen 127.0.0.1:%%PORT%% ssl; ssl_password_file %%DIR%%/words;
            ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.old;
            ssl_certificate %%DIR%%/rsa.crt; ssl_certificate_key %%DIR%%/rsa.p8; }",
    )
    .file("words", "wrong\nsecret\n");
    certificate(setup.folder(), "one", EC);
    certificate(setup.folder(), "rsa", RSA);
    let dir = setup.folder().path();
    openssl(dir, &["ec", "-in", "one.key", "-des3", "-passout", "pass:secret", "-out", "one.old"]);
    let pkcs8 = ["pkcs8", "-topk8", "-v2", "des3", "-passout", "pass:secret", "-in", "rsa.key", "-out", "rsa.p8"];
    openssl(dir, &pkcs8);
    let old = std::fs::read_to_string(dir.join("one.old")).expect("it is there");
    assert!(old.contains("DEK-Info: DES-EDE3-CBC"), "{old}");
    let server = setup.start();
    for (schemes, expect) in [("ECDSA+SHA256", "CN = one"), ("RSA-PSS+SHA256", "CN = rsa")] {
        let seen = s_client(&server, &["-sigalgs", schemes], CLOSE);
        assert!(seen.contains(expect), "{seen}");
    }
}

/// Not in nginx: `ssl_key_log` is in the commercial edition only
#[test]
fn keys_and_schemes_are_told() {
    let setup = Setup::http(
        "ssl_key_log keys.log; ssl_session_tickets off;
        server { listen 127.0.0.1:%%PORT%% ssl; ssl_verify_client optional_no_ca;
            ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;
            ssl_certificate %%DIR%%/rsa.crt; ssl_certificate_key %%DIR%%/rsa.key;
            location / { return 200 \"<$ssl_sigalg:$ssl_client_sigalg:$ssl_ech_status:$ssl_ech_outer_server_name>\"; } }",
    )
    .main("sandbox on;");
    certificate(setup.folder(), "one", EC);
    certificate(setup.folder(), "rsa", RSA);
    let mut server = setup.start();
    let path = |name: &str| server.folder().path().join(name).display().to_string();
    let (theirs, crt, key, log) = (path("theirs"), path("rsa.crt"), path("rsa.key"), path("keys.log"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&log).expect("it is made").permissions());
    assert_eq!(mode & 0o777, 0o600);
    for (options, expect) in [
        (&["-tls1_3", "-sigalgs", "ECDSA+SHA256"][..], "<ecdsa_secp256r1_sha256:::>"),
        (&["-tls1_2", "-sigalgs", "RSA-PSS+SHA384"], "<rsa_pss_rsae_sha384:::>"),
        (&["-tls1_3", "-cert", &crt, "-key", &key], ":rsa_pss_rsae_sha512::>"),
        (&["-tls1_2", "-cert", &crt, "-key", &key, "-client_sigalgs", "RSA-PSS+SHA256"], ":rsa_pss_rsae_sha256::>"),
    ] {
        let seen = s_client(&server, &[options, &["-keylogfile", &theirs]].concat(), CLOSE);
        assert!(seen.contains(expect), "{options:?}: {seen}");
    }
    let keys = |name: &str| {
        let text = std::fs::read_to_string(name).expect("it is there");
        let mut lines: Vec<String> =
            text.lines().filter(|l| !l.starts_with('#')).map(str::to_ascii_lowercase).collect();
        lines.sort();
        lines
    };
    // The exporter's secret is something that only one of both tells.
    let shared = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().filter(|line| !line.starts_with("exporter_secret")).collect()
    };
    let (ours, theirs) = (shared(keys(&log)), shared(keys(&theirs)));
    assert!(ours.len() == 10 && ours == theirs, "{ours:#?} {theirs:#?}");
    // It is a log: it moves away, and another one begins.
    std::fs::rename(&log, path("moved")).expect("ours");
    server.signal(rustix::process::Signal::USR1);
    server.wait(|_| std::fs::metadata(&log).is_ok(), "another file");
    s_client(&server, &[], CLOSE);
    server.wait(|_| keys(&log).len() >= 4, "keys in it");
}

/// Not in nginx: `ssl_key_log` is in the commercial edition only
#[test]
fn keys_of_connections_to_backends_are_told() {
    let setup = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; proxy_ssl_session_reuse off; proxy_ssl_key_log own.log;
            location / { proxy_pass https://unix:%%DIR%%/tls.sock; }
            location /old { proxy_pass https://unix:%%DIR%%/tls.sock; proxy_ssl_protocols TLSv1.2; } }
         server { listen unix:%%DIR%%/tls.sock ssl; ssl_key_log theirs.log; ssl_session_tickets off;
            ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key; location / { return 200 told; } }",
    );
    certificate(setup.folder(), "one", EC);
    let server = setup.start();
    for target in ["/", "/old"] {
        assert_eq!(server.get(target).text(), "told");
    }
    let lines = |name: &str| {
        let mut lines: Vec<String> = server.read(name).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (own, theirs) = (lines("own.log"), lines("theirs.log"));
    assert!(own.iter().any(|line| line.starts_with("CLIENT_RANDOM ")), "{own:#?}");
    assert!(own.iter().any(|line| line.starts_with("SERVER_TRAFFIC_SECRET_0 ")), "{own:#?}");
    assert_eq!(own, theirs);
}

/// Files as editors and other programs leave them, and keys of all kinds.
#[test]
fn files_in_all_shapes() {
    let nginx = e2e::binary().ends_with("nginx");
    let setup = Setup::http("%%CONF%%").file("index", "").file("ca.cnf", CA);
    let dir = setup.folder().path().to_path_buf();
    certificate(setup.folder(), "one", EC);
    certificate(setup.folder(), "rsa", RSA);
    certificate(setup.folder(), "pss", &["-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"]);
    openssl(&dir, &["ecparam", "-name", "prime256v1", "-genkey", "-out", "params.key"]);
    openssl(&dir, &["req", "-x509", "-key", "params.key", "-out", "params.crt", "-days", "9", "-subj", "/CN=x"]);
    openssl(&dir, &["ca", "-config", "ca.cnf", "-keyfile", "rsa.key", "-cert", "rsa.crt", "-gencrl", "-out", "crl"]);
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("it is there");
    let write = |name: &str, content: &str| std::fs::write(dir.join(name), content).expect("the folder is ours");
    let (crt, key, crl, mark) = (read("one.crt"), read("one.key"), read("crl"), "\u{feff}");
    let server = setup.prepare();
    let check = |directives: &str, expect: &str| {
        let directives = directives.replace("%%DIR%%", &dir.display().to_string());
        let conf = format!(
            "pid nginx.pid; events {{}} http {{ access_log off; client_body_temp_path cb; proxy_temp_path pt; server {{ listen 127.0.0.1:1 ssl; {directives} }} }}"
        );
        write("shape.conf", &conf);
        let out = server.command(&["-t", "-c", "shape.conf"]);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.success(), expect.is_empty(), "{directives}: {text}");
        assert!(text.contains(expect), "{directives}: {text}");
    };
    let shapes = |text: &str| {
        let crlf = text.replace('\n', "\r\n");
        [
            format!("{mark}{text}"),
            format!("{mark}{crlf}"),
            crlf,
            format!("Bag Attributes\n    localKeyID: 01\n\n{text}and more: text\n"),
            format!("{text}\0\u{1}garbage -----BEGIN"),
            text.trim_end().to_owned(),
            text.replace('\n', " \t\n"),
        ]
    };
    for (crt, (key, crl)) in shapes(&crt).iter().zip(shapes(&key).iter().zip(&shapes(&crl))) {
        write("s.crt", crt);
        write("s.key", key);
        write("s.crl", crl);
        check(
            "ssl_certificate %%DIR%%/s.crt; ssl_certificate_key %%DIR%%/s.key;
            ssl_verify_client on; ssl_client_certificate %%DIR%%/s.crt; ssl_crl %%DIR%%/s.crl;
            location / { proxy_pass https://127.0.0.1:1; proxy_ssl_verify on;
                proxy_ssl_trusted_certificate %%DIR%%/s.crt; proxy_ssl_crl %%DIR%%/s.crl;
                proxy_ssl_certificate %%DIR%%/s.crt; proxy_ssl_certificate_key %%DIR%%/s.key; }",
            "",
        );
    }
    let pair = "ssl_certificate %%DIR%%/s.crt; ssl_certificate_key %%DIR%%/s.key;";
    // All in one file; a key after its parameters; what follows the key is broken.
    for (crt, key) in [
        (format!("{crt}{key}"), format!("{key}{crt}")),
        (read("params.crt"), read("params.key")),
        (crt.clone(), format!("{key}-----BEGIN X-----\nabc")),
        (crt.clone(), format!("{key}{}", read("rsa.key"))),
        (crt.clone(), format!("{}{key}", read("rsa.key"))),
    ] {
        write("s.crt", &crt);
        write("s.key", &key);
        check(pair, "");
    }
    let good = "ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/one.key;";
    for text in ["", "text\n", "-----BEGIN X-----\n-----END X-----\n"] {
        let expect = "() failed";
        write("s.crt", text);
        check("ssl_certificate %%DIR%%/s.crt; ssl_certificate_key %%DIR%%/one.key;", expect);
        check(&format!("{good} ssl_verify_client on; ssl_client_certificate %%DIR%%/s.crt;"), expect);
        check(
            &format!("{good} ssl_verify_client on; ssl_client_certificate %%DIR%%/one.crt; ssl_crl %%DIR%%/s.crt;"),
            expect,
        );
        check("ssl_certificate %%DIR%%/one.crt; ssl_certificate_key %%DIR%%/s.crt;", expect);
    }
    write("s.crt", &crt.replace("END CERTIFICATE", "END X"));
    check(pair, "bad end line");
    let lists =
        ["DEFAULT@SECLEVEL=0", "HIGH@SECLEVEL=1:!aNULL", "ALL:!aNULL@SECLEVEL=0:!MD5", "HIGH:@SECLEVEL=2@STRENGTH"];
    for list in lists {
        check(
            &format!(
                "{good} ssl_ciphers {list}; ssl_conf_command CipherString {list};
                location / {{ proxy_pass https://127.0.0.1:1; proxy_ssl_ciphers {list}; }}"
            ),
            "",
        );
    }
    check(&format!("{good} ssl_ciphers HIGH@SECLEVEL=6;"), "invalid command");
    // Those of RSA-PSS are OpenSSL's alone.
    let pss = if nginx { "" } else { "an RSA-PSS key is not supported" };
    check("ssl_certificate %%DIR%%/pss.crt; ssl_certificate_key %%DIR%%/pss.key;", pss);
}

const CA: &str = "[ca]\ndefault_ca=m\n[m]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=9\n";
