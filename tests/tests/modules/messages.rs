//! What a test of the configuration says: nginx's own line first, then what may help.

use std::path::Path;
use std::process::Command;

use e2e::{Server, Setup, binary};

/// Whether the program under test is Tidegate: hints are its own.
fn ours() -> bool {
    let out = Command::new(binary()).arg("-v").output().expect("the program starts");
    String::from_utf8_lossy(&out.stderr).to_lowercase().contains("tidegate")
}

/// Files in all states of disrepair.
const PREPARE: &str = "
    key() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 5 -subj /CN=$1 \
            -keyout $1.key -out $1.crt 2>/dev/null; }
    key one && key two && : >empty && echo hello >garbage && mkdir folder &&
    printf 'types { text/html html; }' >some.types";

fn prepared() -> Server {
    let server = Setup::http("").prepare();
    let folder = server.folder().path();
    let status = Command::new("sh").args(["-c", PREPARE]).current_dir(folder).status().expect("a shell starts");
    assert!(status.success());
    server
}

/// What `-t` says of a configuration, without the folder's name.
fn said(server: &Server, text: &str) -> (bool, String) {
    server.folder().write("nginx.conf", text);
    let out = server.command(&["-t"]);
    let folder = server.folder().path().display().to_string();
    (out.status.success(), String::from_utf8_lossy(&out.stderr).replace(&folder, "DIR"))
}

/// Frames for the cases below: `http: …`, `server: …`, `ssl: …` (a server with a certificate), `location: …`; what has none
/// of these stands alone.
fn framed(text: &str) -> String {
    const SSL: &str = "ssl_certificate one.crt; ssl_certificate_key one.key;";
    let http = match text.split_once(": ") {
        Some(("http", rest)) => rest.to_owned(),
        Some(("server", rest)) => format!("server {{ listen 127.0.0.1:1; {rest} }}"),
        Some(("ssl", rest)) => format!("server {{ listen 127.0.0.1:1 ssl; {SSL} {rest} }}"),
        Some(("location", rest)) => format!("server {{ listen 127.0.0.1:1; location /a {{ {rest} }} }}"),
        _ => return text.to_owned(),
    };
    let folders = "client_body_temp_path client_body_temp; proxy_temp_path proxy_temp;";
    format!("pid nginx.pid;\nevents {{ }}\nhttp {{ access_log off; {folders}\n{http}\n}}\n")
}

/// The first error of each configuration begins with the message; an empty message: there is none.
#[track_caller]
fn check(server: &Server, cases: &[(&str, &str)]) {
    for (text, message) in cases {
        let (good, said) = said(server, &framed(text));
        let first = said.lines().find_map(|line| line.split_once("[emerg] ")).map_or("", |(_, message)| message);
        assert!(good == message.is_empty() && first.starts_with(message), "{text}\n{message}\n{said}");
    }
}

#[test]
fn files_of_tls_are_read() {
    let missing = "BIO_new_file() failed (SSL: error:80000002:system library::No such file or directory:calling fopen(";
    let missing = |what: &str| format!("cannot load {what} \"DIR/none\": {missing}DIR/none, r)");
    let (certificate, list) = (missing("certificate"), missing("CRL"));
    const NOTHING: &str = "PEM_read_bio_X509_AUX() failed (SSL: error:0480006C:PEM routines::no start line:Expecting: TRUSTED \
                           CERTIFICATE)";
    let nothing = |name: &str| format!("cannot load certificate \"DIR/{name}\": {NOTHING}");
    let no_list = |name: &str| {
        let why =
            "PEM_read_bio_X509_CRL() failed (SSL: error:0480006C:PEM routines::no start line:Expecting: X509 CRL)";
        format!("cannot load CRL \"DIR/{name}\": {why}")
    };
    let (empty, folder, garbage) = (nothing("empty"), nothing("folder"), nothing("garbage"));
    let (empty_list, certificate_as_list) = (no_list("empty"), no_list("one.crt"));
    let https = "location: proxy_pass https://127.0.0.1:1; proxy_ssl_verify on;";
    let proxied = |more: &str| format!("{https} {more}");
    let proxied = ["none", "garbage"].map(|name| proxied(&format!("proxy_ssl_trusted_certificate {name};")));
    check(
        &prepared(),
        &[
            ("server: ssl_certificate none; ssl_certificate_key one.key;", &certificate),
            ("server: ssl_certificate empty; ssl_certificate_key one.key;", &empty),
            ("server: ssl_certificate folder; ssl_certificate_key one.key;", &folder),
            ("server: ssl_certificate one.crt;", "no \"ssl_certificate_key\" is defined for certificate \"one.crt\""),
            (
                "server: ssl_certificate one.crt; ssl_certificate_key two.key;",
                "SSL_CTX_use_PrivateKey(\"DIR/two.key\") failed (SSL: error:05800074:x509 certificate routines::key values \
                 mismatch)",
            ),
            ("ssl: ssl_trusted_certificate none;", &certificate),
            ("ssl: ssl_trusted_certificate empty;", &empty),
            ("ssl: ssl_trusted_certificate garbage;", &garbage),
            ("ssl: ssl_crl none;", &list),
            ("ssl: ssl_crl empty;", &empty_list),
            ("ssl: ssl_crl one.crt;", &certificate_as_list),
            ("ssl: ssl_dhparam none;", "BIO_new_file(\"DIR/none\") failed (SSL: error:80000002:system library"),
            (
                "ssl: ssl_dhparam one.crt;",
                "PEM_read_bio_DHparams(\"DIR/one.crt\") failed (SSL: error:0480006C:PEM routines",
            ),
            ("ssl: ssl_verify_client on; ssl_client_certificate none;", &certificate),
            (
                "ssl: ssl_verify_client on;",
                "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client",
            ),
            ("ssl: ssl_session_ticket_key none;", "open() \"DIR/none\" failed (2: No such file or directory)"),
            ("ssl: ssl_session_ticket_key none; ssl_session_tickets off;", "open() \"DIR/none\" failed"),
            ("ssl: ssl_session_ticket_key one.crt;", "\"DIR/one.crt\" must be 48 or 80 bytes"),
            ("ssl: ssl_stapling on; ssl_stapling_file none;", "BIO_new_file(\"DIR/none\") failed (SSL: error:80000002"),
            ("ssl: ssl_stapling on; ssl_stapling_file garbage;", "d2i_OCSP_RESPONSE_bio(\"DIR/garbage\") failed"),
            (
                "ssl: ssl_conf_command Nothing x;",
                "SSL_CONF_cmd(\"Nothing\", \"x\") failed (SSL: error:0A000182:SSL routines",
            ),
            ("server: ssl_password_file folder;", "read() \"DIR/folder\" failed (21: Is a directory)"),
            (&proxied[0], &certificate),
            (&proxied[1], &garbage),
            (
                "http: server { listen 127.0.0.1:1 ssl; ssl_reject_handshake on; } server { listen 127.0.0.1:1 ssl; }",
                "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive",
            ),
            // Without a certificate there is no TLS, and nothing is read.
            ("server: ssl_trusted_certificate none; ssl_crl none; ssl_dhparam none; ssl_session_ticket_key none;", ""),
            ("server: ssl_conf_command Nothing x;", ""),
            ("ssl: ssl_client_certificate none;", ""),
        ],
    );
}

/// Not in nginx: a name without an address doesn't stop the start
#[test]
fn names_that_have_no_address() {
    let strict = "http: upstream_resolve_at_start on;";
    check(
        &prepared(),
        &[
            (
                &format!(
                    "{strict} server {{ listen 127.0.0.1:1; location / {{ proxy_pass http://none.invalid:81/b; }} }}"
                ),
                "host not found in upstream \"none.invalid\" in ",
            ),
            (
                &format!("{strict} upstream u {{ server none.invalid:81; }}"),
                "host not found in upstream \"none.invalid:81\" in ",
            ),
        ],
    );
}

#[test]
fn names_that_nothing_has() {
    check(
        &prepared(),
        &[
            ("location: aio threads=none;", "unknown thread pool \"none\""),
            ("http: aio threads=none; server { listen 127.0.0.1:1; aio off; }", "unknown thread pool \"none\""),
            ("location: aio threads=$none;", "unknown \"none\" variable"),
            ("location: limit_req zone=none;", "zero size shared memory zone \"none\""),
            ("location: limit_conn none 1;", "zero size shared memory zone \"none\""),
            ("location: access_log logs none;", "unknown log format \"none\""),
            (
                "location: access_log none/access.log;",
                "open() \"DIR/none/access.log\" failed (2: No such file or directory)",
            ),
            ("location: error_log memory:1k;", "invalid buffer size \"1k\""),
            ("location: error_log memory:x;", "invalid buffer size \"x\""),
            ("http: upstream u { server 127.0.0.1 backup; }", "no servers in upstream \"u\""),
            ("http: upstream u { server none.invalid x; }", "invalid parameter \"x\""),
            ("http: connection_pool_size 100;", "the pool size must be no less than 112"),
            ("http: request_pool_size 113;", "the pool size must be a multiple of 16"),
            ("http: http2_pool_size 1;", "the pool size must be no less than 112"),
            ("http: upstream u { server http://127.0.0.1; }", "invalid host in upstream \"http://127.0.0.1\""),
            ("http: resolver [::1]x;", "invalid host in resolver \"[::1]x\""),
            ("http: resolver [x];", "invalid IPv6 address in resolver \"[x]\""),
            ("location: access_log syslog:server=a/b;", "invalid host in syslog server \"a/b\""),
            ("thread_pool a b;", "\"thread_pool\" must have \"threads\" parameter"),
            ("thread_pool a max_queue=3;", "\"thread_pool\" must have \"threads\" parameter"),
            ("location: open_log_file_cache max=1 min_uses=0;", ""),
            ("location: access_log \"\"; error_log \"\" info;", ""),
            ("http: server { listen 127.0.0.1:1 rcvbuf=0 sndbuf=0; }", ""),
            ("http: server { listen []; }", "no host in \"[]\" of the \"listen\" directive"),
            (
                "http: server { listen 127.0.0.1:1; large_client_header_buffers 4 100; }",
                "the \"large_client_header_buffers\" size must be equal to or greater than \"connection_pool_size\"",
            ),
            ("pid nginx.pid; thread_pool a threads=1; events { } http { aio threads=a; access_log off; }", ""),
        ],
    );
}

#[test]
fn values_that_no_server_inherits() {
    let busy = "\"proxy_busy_buffers_size\" must be less than the size of all \"proxy_buffers\" minus one buffer in ";
    let unknown = "unknown \"none\" variable";
    check(
        &prepared(),
        &[
            ("http: proxy_set_header X $none; server { listen 127.0.0.1:1; proxy_set_header Y z; }", ""),
            ("http: proxy_set_body ${none; server { listen 127.0.0.1:1; proxy_set_body z; }", ""),
            ("http: proxy_set_header X $none; proxy_set_body $none; proxy_buffer_size 64k;", ""),
            (
                "http: ssl_certificate $none; ssl_certificate_key $none;
                 server { listen 127.0.0.1:1; ssl_certificate one.crt; ssl_certificate_key one.key; }",
                "",
            ),
            ("http: proxy_buffer_size 64k; server { listen 127.0.0.1:1; proxy_buffers 8 64k; }", ""),
            ("http: proxy_buffers 1 4k; server { listen 127.0.0.1:1; proxy_buffers 4 4k; }", ""),
            ("http: proxy_set_header X $none; server { listen 127.0.0.1:1; }", unknown),
            ("server: proxy_set_header X $none; location /a { proxy_set_header Y z; }", unknown),
            ("http: proxy_set_body $none; server { listen 127.0.0.1:1; }", unknown),
            ("http: ssl_certificate $none; ssl_certificate_key $none; server { listen 127.0.0.1:1; }", unknown),
            // Others are compiled where they stand.
            ("http: add_header X $none; server { listen 127.0.0.1:1; add_header Y z; }", unknown),
            ("http: proxy_method $none;", unknown),
            ("http: proxy_ssl_certificate_key $none;", unknown),
            ("http: proxy_buffer_size 64k; server { listen 127.0.0.1:1; }", busy),
            ("location: proxy_buffer_size 64k;", busy),
            ("location: proxy_buffers 1 4k;", "there must be at least 2 \"proxy_buffers\" in "),
            ("location: proxy_max_temp_file_size 1k;", "\"proxy_max_temp_file_size\" must be equal to zero to disable"),
        ],
    );
}

#[test]
fn the_first_of_several_errors() {
    check(
        &prepared(),
        &[
            ("location: if ( ) { return 200; }", "invalid condition \")\""),
            ("location: if ($host == a) { return 200; }", "unexpected \"==\" in condition"),
            ("http: map $uri $y { a { b; } }", "unexpected \"{\""),
            ("http: types { a { b c; } }", "unexpected \"{\""),
            ("http: resolver ::1;", "invalid port in resolver \"::1\""),
            ("http: server { listen ::1; }", "invalid port in \"::1\" of the \"listen\" directive"),
            ("http: server { listen x:y; }", "invalid port in \"x:y\" of the \"listen\" directive"),
            (
                "http: server { listen unix:; }",
                "no path in the unix domain socket in \"unix:\" of the \"listen\" directive",
            ),
            ("server: location /b { } location /b { } no_such on;", "unknown directive \"no_such\""),
            (
                "http: server { listen 1 default_server; } server { listen 1 default_server; no_such on; }",
                "a duplicate default server for 0.0.0.0:1 in ",
            ),
            (
                "http: server { listen 1 bind; } server { listen 1 bind; no_such on; }",
                "duplicate listen options for 0.0.0.0:1",
            ),
            ("http: no_such on; } }", "unknown directive \"no_such\""),
            ("no_such on;\nevents { }\n}\n", "unknown directive \"no_such\""),
            ("events { }\nhttp {\n no_such on;\n", "unknown directive \"no_such\""),
            ("events { }\nhttp { no_such on; include none; }\n", "unknown directive \"no_such\""),
            ("events { }\nhttp { no_such on }\n", "unexpected \"}\""),
            ("events { }\nhttp { upstream u { foo; } }\n", "unknown directive \"foo\""),
            ("http: server { location ~ a{2} { } }", "unknown directive \"2}\""),
            ("http: server { rewrite ^/a{2}$ /b; }", "directive \"rewrite\" is not terminated by \";\""),
            ("http: server { location ~ ^/([a-z]{2})/ { } }", "pcre2_compile() failed: missing closing parenthesis in"),
        ],
    );
}

/// A name in a regex is one for `set`: the server's own variables can't be stored to.
#[test]
fn names_in_regexes() {
    check(
        &prepared(),
        &[
            ("server: location ~ ^/(?<host>.*)$ { }", "the duplicate \"host\" variable"),
            ("server: server_name ~(?<uri>a);", "the duplicate \"uri\" variable"),
            ("server: rewrite (?<request_id>a) /b;", "the duplicate \"request_id\" variable"),
            ("http: map $uri $x { ~(?<status>a) 1; }", "the duplicate \"status\" variable"),
            ("server: rewrite (?<args>a) /b; location ~ (?<limit_rate>1) { } location ~ (?<own>1) { }", ""),
        ],
    );
}

/// Of several faults of TLS the same one is told as by nginx, whatever their order in the file.
#[test]
fn the_first_fault_of_tls() {
    const CIPHERS: &str = "SSL_CTX_set_cipher_list(\"foo\") failed";
    check(
        &prepared(),
        &[
            ("ssl: ssl_trusted_certificate none; ssl_ciphers foo;", CIPHERS),
            ("ssl: ssl_verify_client on; ssl_ocsp on; ssl_ocsp_responder https://x; ssl_ciphers foo;", CIPHERS),
            ("ssl: ssl_dhparam none; ssl_ciphers foo;", CIPHERS),
            ("ssl: ssl_conf_command foo x; ssl_ciphers foo;", CIPHERS),
            ("ssl: ssl_ecdh_curve bar; ssl_dhparam none;", "BIO_new_file(\"DIR/none\") failed"),
            ("ssl: ssl_session_ticket_key none; ssl_ecdh_curve bar;", "SSL_CTX_set1_curves_list(\"bar\") failed"),
            (
                "ssl: ssl_conf_command Ciphersuites foo;",
                "SSL_CONF_cmd(\"Ciphersuites\", \"foo\") failed (SSL: error:0A",
            ),
            ("ssl: ssl_conf_command Curves foo;", "SSL_CONF_cmd(\"Curves\", \"foo\") failed (SSL: error:0A080106:SSL"),
            (
                "ssl: ssl_conf_command CipherString foo;",
                "SSL_CONF_cmd(\"CipherString\", \"foo\") failed (SSL: error:0A",
            ),
            (
                "ssl: ssl_conf_command Certificate none;",
                "SSL_CONF_cmd(\"Certificate\", \"DIR/none\") failed (SSL: error:8",
            ),
            (
                "ssl: ssl_conf_command PrivateKey none;",
                "SSL_CONF_cmd(\"PrivateKey\", \"DIR/none\") failed (SSL: error:8",
            ),
            ("ssl: ssl_conf_command Certificate one.crt;", ""),
            ("ssl: ssl_conf_command PrivateKey one.key;", ""),
            ("server: ssl_conf_command foo x;", ""),
        ],
    );
}

/// nginx stops at the first error: what it would have warned of after that isn't told before it.
#[test]
fn warnings_up_to_the_first_error() {
    let server = prepared();
    let low = |name: &str| format!("\"{name}\" is not supported, ignored");
    let http2 = "the \"listen ... http2\" directive is deprecated".to_owned();
    for (text, warnings) in [
        ("http: send_lowat 1; no_such on;", vec![low("send_lowat")]),
        ("http: no_such on; send_lowat 1;", vec![]),
        ("http: proxy_send_lowat 1;", vec![low("proxy_send_lowat")]),
        ("http: server { listen 127.0.0.1:1 http2 no_such; }", vec![http2.clone()]),
        ("http: server { listen 127.0.0.1:1 no_such http2; }", vec![]),
        ("http: sendfile x; server { listen 127.0.0.1:1 ssl http2; }", vec![]),
        ("http: directio x;", vec![]),
        (
            "http: server { listen 127.0.0.1:1 ssl; } server { listen 127.0.0.1:1 proxy_protocol; } no_such on;",
            vec!["protocol options redefined for 127.0.0.1:1 in DIR/nginx.conf:4".into()],
        ),
        ("http: server { listen 127.0.0.1:1 ssl; } server { listen 127.0.0.1:1; } no_such on;", vec![]),
        ("debug_points x;", vec![]),
        ("events { debug_connection 10.1.2.3/8; }", vec!["low address bits of 10.1.2.3/8 are meaningless".into()]),
    ] {
        let (_, said) = said(&server, &framed(text));
        let found: Vec<&str> = said.lines().filter_map(|line| Some(line.split_once("[warn] ")?.1)).collect();
        let as_told = found.iter().zip(&warnings).all(|(found, warning)| found.starts_with(warning));
        assert!(as_told && found.len() == warnings.len(), "{text}\n{said}");
    }
}

/// Names that aren't UTF-8 are told as they are.
#[test]
fn bytes_of_names() {
    let server = prepared();
    for (text, message) in [
        ("http { \u{1} x; }", "unknown directive \"\u{1}\""),
        ("http { include DIR/\u{1}.conf; }", "open() \"DIR/\u{1}.conf\" failed"),
        ("http { access_log DIR/\u{1}/x; server { listen 127.0.0.1:1; } }", "open() \"DIR/\u{1}/x\" failed"),
        ("error_log DIR/\u{1}/x;", "open() \"DIR/\u{1}/x\" failed"),
        (
            "http { client_body_temp_path DIR/\u{1}/x; server { listen 127.0.0.1:1; } }",
            "mkdir() \"DIR/\u{1}/x\" failed",
        ),
        ("pid DIR/\u{1}/x;", "open() \"DIR/\u{1}/x\" failed"),
        ("user \u{1};", "getpwnam(\"\u{1}\") failed"),
        ("http { gzip \u{1}; }", "invalid value \"\u{1}\" in \"gzip\" directive"),
    ] {
        let folder = server.folder().path().display().to_string();
        let bytes = |text: &str| -> Vec<u8> {
            text.replace("DIR", &folder).bytes().map(|byte| if byte == 1 { 0xe9 } else { byte }).collect()
        };
        let pid = if text.starts_with("pid") { "" } else { "pid nginx.pid; " };
        server.folder().write("nginx.conf", bytes(&format!("{pid}events {{ }}\n{text}\n")));
        let said = server.command(&["-t"]).stderr;
        let message = bytes(message);
        assert!(said.windows(message.len()).any(|part| part == message), "{text}\n{}", String::from_utf8_lossy(&said));
    }
}

/// Where a variable stands by itself, all that follows the dollar is its name.
#[test]
fn variables_that_stand_by_themselves() {
    check(
        &prepared(),
        &[
            ("location: if ($args=a) { }", "unknown \"args=a\" variable"),
            ("location: if ($args=\"a\") { }", "unknown \"args=\"a\"\" variable"),
            ("server: if ($host.x) { return 403; }", "unknown \"host.x\" variable"),
            ("location: if (${args} = a) { }", "unknown \"{args}\" variable"),
            ("location: if ($1) { }", "unknown \"1\" variable"),
            ("location: if ($arg_a=b) { } if ($args != a) { } if ($http_x) { }", ""),
            ("location: set $a-b 1; if ($a-b) { } if ($A-B ~ 1) { }", ""),
            ("http: geo $x-y $z { }", "unknown \"x-y\" variable"),
            ("http: charset $1;", "unknown \"1\" variable"),
            ("http: charset $args.x;", "unknown \"args.x\" variable"),
            ("http: log_format a $1;", "unknown \"1\" variable"),
            ("http: log_format a '$args $10b';", "unknown \"10b\" variable"),
            ("location: set $invalid_referer 1; valid_referers a;", ""),
            ("http: map $uri $invalid_referer { }", ""),
        ],
    );
}

/// Errors and warnings name the line in the file in which they are, and those of a file that is read first come first.
#[test]
fn places_in_included_files() {
    let server = prepared();
    server.folder().write("lines", "# first\na b;\n");
    server.folder().write("block", "server {\n}\n");
    server.folder().write("1.part", format!("{}no_such on;\n", "#\n".repeat(40)));
    server.folder().write("2.part", "other on;\n");
    check(
        &server,
        &[
            ("http: map $uri $b {\n\n\n a b;\n include lines; }", "conflicting parameter \"a\" in DIR/lines:2"),
            ("http: geo $b {\n include lines; }", "invalid network \"a\" in DIR/lines:2"),
            ("http: types {\n include block; }", "unexpected \"{\" in DIR/block:1"),
            ("http: include ?.part;", "unknown directive \"no_such\" in DIR/1.part:41"),
            ("location: return 200 $first$second;", "unknown \"first\" variable"),
            ("location: early_hints $first $second;", "unknown \"first\" variable"),
            ("http: log_format x \"$third\" '$fourth';", "unknown \"third\" variable"),
        ],
    );
}

/// What may be said again, and what is larger than anything that could be meant.
#[test]
fn repeated_and_large_values() {
    let mail = |text: &str| format!("pid nginx.pid; events {{ }} mail {{ auth_http 127.0.0.1/a; {text} }}");
    let stream = |text: &str| format!("pid nginx.pid; events {{ }} stream {{ {text} }}");
    let repeated = "server { listen 127.0.0.1:1; protocol smtp; smtp_capabilities A; smtp_capabilities B; }";
    let server = prepared();
    // Without a name the file is the usual one.
    std::fs::create_dir(server.folder().path().join("logs")).expect("a folder for it");
    check(
        &server,
        &[
            ("location: early_hints $args; early_hints $uri; flv; flv;", ""),
            (
                "http: ancient_browser_value a; ancient_browser_value b; modern_browser_value a; modern_browser_value b;",
                "",
            ),
            ("http: http2_max_requests 1; http2_max_requests 2; http2_push_preload on; http2_push_preload on;", ""),
            ("ssl: ssl_session_cache off; ssl_session_cache none;", ""),
            (&mail(repeated), ""),
            (&mail("imap_capabilities A; imap_capabilities B; pop3_capabilities A; pop3_capabilities B;"), ""),
            ("http: proxy_cache_min_uses 100000; proxy_next_upstream_tries 4294967296;", ""),
            ("ssl: ssl_verify_depth 4294967296; http2_max_concurrent_streams 4294967296;", ""),
            (&mail("max_errors 4294967296;"), ""),
            ("http: proxy_cache_use_stale error non_idempotent;", ""),
            ("events { } pid '';", ""),
            ("http: server { listen unix:s deferred fastopen=5 so_keepalive=30m::10; }", ""),
            ("http: keepalive_time ' 1s';", "\"keepalive_time\" directive invalid value"),
            ("http: keepalive_time ' 1';", ""),
            ("http: server { listen 127.0.0.1:1 backlog=-1; }", "invalid backlog \"backlog=-1\""),
            ("http: split_clients $uri $a { 50% b; * c; 10% d; }", "percent total is greater than 100%"),
            ("http: split_clients $uri $a { .5% b; * c; }", ""),
            ("http: upstream u { least_time header; least_time header; }", "\"least_time\" directive is duplicate"),
            (&stream("upstream u { server 127.0.0.1:1 drain; }"), "invalid parameter \"drain\""),
            (&stream("upstream u { server 127.0.0.1:1 route=a; }"), "invalid parameter \"route=a\""),
            (&mail("\nserver { protocol imap; }"), "no \"listen\" is defined for server in "),
            (
                &mail("server { listen 127.0.0.1:1; protocol imap;\nstarttls on; }"),
                "no \"ssl_certificate\" is defined for the \"starttls\" directive in DIR/nginx.conf:2",
            ),
        ],
    );
}

#[test]
fn words_of_errors() {
    let stream =
        |text: &str| format!("pid nginx.pid; events {{ }} stream {{ server {{ listen 127.0.0.1:1; {text} }} }}");
    check(
        &prepared(),
        &[
            ("http: types { include a b; }", "invalid number of arguments in \"include\" directive"),
            ("http: types { include; }", "invalid number of arguments in \"include\" directive"),
            ("location: set $a '${-';", "the closing bracket in \"\" variable is missing"),
            ("location: set $a '${';", "invalid variable name"),
            ("http: http2_streams_index_size 3;", "\"http2_streams_index_size\" directive must be a power of two"),
            (&stream("pass none.invalid:1;"), "\"pass\" directive has no addresses"),
            (&stream("pass 127.0.0.1;"), "\"pass\" directive has no port"),
            (&stream("listen 127.0.0.1:2 default;"), "invalid parameter \"default\""),
            (&stream("pass http://a;"), "invalid host in \"http://a\" of the \"pass\" directive"),
            (
                "http: proxy_cache_path a keys_zone=b:1m;\nproxy_cache_path a keys_zone=c:1m;",
                "the same path name \"DIR/a\" used in DIR/nginx.conf:4 and in DIR/nginx.conf:5",
            ),
            (
                "http: proxy_cache_path a keys_zone=b:1m use_temp_path=x;",
                "invalid use_temp_path value \"use_temp_path=x\", it must be",
            ),
            (
                "http: upstream u { server a.invalid resolve; }",
                "resolving names at run time requires upstream \"u\" in DIR/nginx.conf:4 to be in shared memory",
            ),
            ("http: map $uri $b { A c; a d; }", "conflicting parameter \"a\""),
        ],
    );
}

/// What tells the version, or how the program is called, takes nothing away from a test.
#[test]
fn texts_come_before_the_test() {
    let server = prepared();
    for (configuration, good) in [("events { } bogus;", false), ("pid nginx.pid; events { }", true)] {
        server.folder().write("nginx.conf", configuration);
        for (options, dumps) in [
            (&["-v", "-t"][..], false),
            (&["-Vt"], false),
            (&["-t", "-v"], false),
            (&["-V", "-T"], true),
            (&["-ht"], false),
        ] {
            let out = server.command(options);
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            let words = if good { "test is successful" } else { "unknown directive \"bogus\"" };
            let (version, test) = (said.find(" version: "), said.find(words));
            assert!(version.is_some() && version < test, "{options:?}: {said}");
            assert_eq!((out.status.success(), out.stdout.is_empty()), (good, !(good && dumps)), "{options:?}: {said}");
        }
        assert!(server.command(&["-v"]).status.success());
    }
}

#[test]
fn charsets_and_replacements() {
    let same = "\"charset_map\" between the same charsets \"A\" and \"a\"";
    let column = "\"charset_map\" with \"utf-8\" charset should be given in the second column";
    check(
        &prepared(),
        &[
            ("http: sub_filter '' x;", "empty search pattern"),
            ("http: sub_filter x;", "invalid number of arguments in \"sub_filter\" directive"),
            ("http: charset_map A B { } charset_map B A { }", "duplicate \"charset_map\" between \"B\" and \"A\""),
            ("http: charset_map A a { }", same),
            ("http: charset_map utf-8 A { D18E 80; }", column),
            ("http: charset_map A B { 100 1; }", "invalid value \"100\""),
            ("http: charset_map A B { 1 zz; }", "invalid value \"zz\""),
            ("http: charset_map A B { 1; }", "invalid parameters number"),
            ("http: charset_map A utf-8 { 80 C2; }", "invalid value \"C2\""),
            ("http: charset_map A utf-8 { 80 62; }", "invalid value \"62\""),
            ("http: charset_map A utf-8 { 80 D18E; 81 D18E; }", ""),
            ("server: charset A; source_charset B;", "no \"charset_map\" between the charsets \"B\" and \"A\""),
            ("http: charset A; server { source_charset b; } charset_map A B { }", ""),
            ("server: charset $args; source_charset B;", ""),
            ("http: gunzip_buffers 0 4k;", "\"gunzip_buffers\" directive invalid value"),
            ("server: flv;", "\"flv\" directive is not allowed here"),
            ("location: mp4 x;", "invalid number of arguments in \"mp4\" directive"),
        ],
    );
}

#[test]
fn warnings() {
    let server = prepared();
    for (text, message) in [
        (
            "http: types { text/html html; text/plain html; }",
            "duplicate extension \"html\", content type: \"text/plain\", previous content type: \"text/html\"",
        ),
        (
            "http: include some.types; types { text/css HTML; }",
            "duplicate extension \"html\", content type: \"text/css\"",
        ),
        (
            "http: server { listen 127.0.0.1:1; } server { listen 127.0.0.1:1; server_name \"\"; }",
            "conflicting server name \"\" on 127.0.0.1:1, ignored",
        ),
    ] {
        let (good, said) = said(&server, &framed(text));
        assert!(good && said.contains(&format!("[warn] {message}")), "{text}\n{said}");
    }
}

#[test]
fn what_may_help() {
    if !ours() {
        return;
    }
    let server = prepared();
    let two_listens = "http: server { listen 127.0.0.1:1;\n listen 127.0.0.1:1; }";
    for (text, hint) in [
        (
            "http: server { location ~ ^/a{2}/b { } }",
            "^^^^^^^ a \"{\" ends a word that isn't in quotes, quote it: \"^/a{2}/b\"",
        ),
        ("http: server { rewrite ^/a{2,3}$ /b; }", "quote it: \"^/a{2,3}$\""),
        ("http: log_format f \"$hots $uri\";", "   ^^^^^ did you mean \"$host\"?"),
        ("location: return 200 ${reqest_uri};", "^^^^^^^^^^^^^ did you mean \"$request_uri\"?"),
        ("http: gzip on;\ngzip off;", "the first one stands in DIR/nginx.conf:4"),
        ("server: location /b { }\nlocation /b { }", "the first one stands in DIR/nginx.conf:4"),
        (
            "http: upstream u { server 127.0.0.1; }\nupstream u { server 127.0.0.1; }",
            "the first one stands in DIR/nginx.conf:4",
        ),
        (two_listens, "the first one stands in DIR/nginx.conf:4"),
        ("location: limit_req zone=none;", "zone \"none\" isn't declared by any \"limit_req_zone\""),
        ("location: limit_conn none 1;", "zone \"none\" isn't declared by any \"limit_conn_zone\""),
        ("location: aio threads=none;", "no \"thread_pool none threads=...;\" stands outside of all blocks"),
        ("location: proxy_pass 127.0.0.1:80;", "\"http://\" is missing, write \"http://127.0.0.1:80\""),
        ("location: if ($uri == a) { }", "equality is written \"=\""),
        ("location: if ($uri = a && $host) { }", "a condition is one test"),
        ("location: if ($uri) { } else { }", "there is no \"else\""),
        ("http: // a comment\n;", "a comment begins with \"#\""),
        ("http: gzip on; // a comment\n", "a comment begins with \"#\""),
        (
            "http: log_format f \u{201c}$host\u{201d};server { root \u{201c}/a b\u{201d}; }",
            "these are typographic quotes",
        ),
        ("http: gzip yes;", "^^^ write \"on\""),
        ("http: gzip false;", "^^^^^ write \"off\""),
        ("http: keepalive_timeout 1minute;", "^^^^^^^ write \"1m\""),
        ("http: client_max_body_size 10MB;", "^^^^ write \"10m\""),
        ("http: client_max_body_size 10 M;", "number and unit are one word: write \"10M\""),
        ("http: gzip = on;", "name and value are separated by white space"),
        ("location: echo hello;", "a third-party module's directive (echo-nginx-module), Tidegate does not have it"),
        (
            "location: content_by_lua_block { ngx.say(\"a\") }",
            "a third-party module's directive (lua-nginx-module (OpenResty))",
        ),
        ("http: vhost_traffic_status_zone;", "a third-party module's directive (nginx-module-vts)"),
    ] {
        let (_, said) = said(&server, &framed(text));
        let first = said.lines().find(|line| !line.ends_with("syntax is ok"));
        assert!(first.is_some_and(|line| line.contains("[emerg] ")), "{text}\n{said}");
        assert!(said.contains(hint), "{text}\n{hint}\n{said}");
    }
    let (_, said) = said(&server, &framed("location: content_by_lua_block { if a then b() end }"));
    assert!(!said.contains("is a \";\" missing"), "{said}");
}

#[test]
fn places_of_what_is_not_there() {
    if !ours() {
        return;
    }
    let server = prepared();
    for (text, line) in [
        ("http: \nserver { listen 127.0.0.1:1;\n ssl_certificate none;\n ssl_certificate_key one.key; }", 6),
        ("http: \nserver { listen 127.0.0.1:1;\n ssl_certificate one.crt;\n ssl_certificate_key none; }", 7),
        ("ssl: \nssl_crl\n none;", 6),
        ("ssl: \nssl_ciphers none;", 5),
        ("location: \nclient_body_temp_path none/a;", 5),
        ("location: \n access_log none/a;", 5),
        ("location: \n limit_req zone=none;", 5),
        ("location: \n proxy_set_header X $none;", 5),
        ("http: \n proxy_buffer_size 64k;\nserver { listen 127.0.0.1:1; }", 5),
    ] {
        let (_, said) = said(&server, &framed(text));
        let first = said.lines().find(|line| line.contains("[emerg] ")).unwrap_or_default();
        assert!(first.ends_with(&format!(" in DIR/nginx.conf:{line}")), "{text}\n{said}");
    }
}

#[test]
fn who_holds_a_port() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let server = prepared();
    server.folder().write("nginx.conf", framed(&format!("http: server {{ listen 127.0.0.1:{port}; }}")));
    let out = server.command(&[]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let message = format!("[emerg] bind() to 127.0.0.1:{port} failed (98: Address already in use)\n");
    assert!(!out.status.success() && said.contains(&message), "{said}");
    if ours() {
        let holder = format!("process {} (", std::process::id());
        let first = said.lines().next().unwrap_or_default();
        assert!(
            message.ends_with(&format!("{}\n", first.split_once("[emerg]").map_or("", |(_, rest)| rest))),
            "{said}"
        );
        assert_eq!(said.matches(&holder).count(), 1, "{said}");
        assert!(said.contains("nginx.conf:4"), "{said}");
    }
}

#[test]
fn a_bad_file_leaves_the_running_configuration() {
    let text = "http { access_log off; client_body_temp_path c; proxy_temp_path p;
        server { listen 127.0.0.1:%%PORT%%; %%MORE%% return 200 ok; } }";
    let text = format!("daemon off; pid nginx.pid; events {{ }} {text}");
    let mut server = Setup::whole(&text.replace("%%MORE%%", "")).start();
    let key = ["one.crt", "one.key"].map(|name| server.folder().path().join(name));
    let status = Command::new("sh").args(["-c", PREPARE]).current_dir(server.folder().path()).status();
    assert!(status.is_ok_and(|status| status.success()) && key.iter().all(|path| Path::exists(path)));
    let ssl = "ssl_certificate one.crt; ssl_certificate_key one.key;";
    let list = format!("{ssl} ssl_crl none;");
    for (more, message) in [
        ("aio threads=none;", "unknown thread pool \"none\""),
        ("ssl_certificate none; ssl_certificate_key none;", "cannot load certificate \""),
        (&list, "cannot load CRL \""),
    ] {
        server.configure(&text.replace("%%MORE%%", more));
        server.quiet();
        let _ = server.command(&["-s", "reload"]);
        server.read_until("error.log", message);
        assert_eq!(server.get("/").text(), "ok", "{more}");
    }
}
