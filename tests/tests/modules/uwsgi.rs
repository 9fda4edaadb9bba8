//! `uwsgi_pass`: an application of Python behind uWSGI, and applications of the test's own for what that doesn't do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use e2e::application::{Application, Wsgi, under_load};
use e2e::{Backend, RSA, Server, Setup, certificate};

fn server(backend: &Backend, inside: &str) -> Server {
    let text = format!("server {{ listen 127.0.0.1:%%PORT%%; error_log %%DIR%%/error.log info; {inside} }}");
    Setup::http(&text.replace(":B", &format!(":{}", backend.port))).start()
}

#[test]
fn an_application_of_python() {
    python_answers("uwsgi", Wsgi::Uwsgi);
}

/// What `site/wsgi.py` answers, whatever the protocol.
pub(crate) fn python_answers(prefix: &str, protocol: Wsgi) {
    let params = ["REQUEST_METHOD", "CONTENT_TYPE", "CONTENT_LENGTH", "QUERY_STRING", "SERVER_PROTOCOL", "SERVER_NAME"];
    let params: String =
        params.iter().map(|name| format!("{prefix}_param {name} ${};", name.to_ascii_lowercase())).collect();
    let setup = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; client_max_body_size 10m;
             {params} {prefix}_param PATH_INFO $document_uri; {prefix}_param FILE %%DIR%%/run/go;
             location / {{ {prefix}_pass unix:%%DIR%%/run/one.sock; }}
             location /halves {{ {prefix}_buffering off; {prefix}_pass unix:%%DIR%%/run/one.sock; }}
         }}"
    ));
    let place = setup.folder().public("run");
    let Some(_application) = Application::python(&place, "one", protocol) else { return };
    let mut server = setup.start();
    assert_eq!(server.get("/").text(), "one");
    assert_eq!(server.get_with("/fields?x=y", "X-A: b\r\nX-A: c\r\n").text(), "GET b, c x=y");
    let gone = server.get("/gone");
    assert_eq!((gone.status, gone.field("X-B"), gone.text().as_str()), (410, Some("c"), "gone"));
    let large = server.get("/large").text();
    assert_eq!((large.len(), large.lines().last()), (1_800_000, Some("00199999")));
    let head = server.connect().send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
    assert_eq!((head.field("Content-Length"), head.body.len()), (Some("3"), 0));
    uploads(&server);
    halves(&server, &place);
    server.quiet();
}

fn uploads(server: &Server) {
    let body: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
    let expect = format!("700000 {}", e2e::sha256(&server.folder().write("upload", &body)));
    let head = "POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let plain = [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    assert_eq!(server.raw(plain).text(), expect);
    let chunks: Vec<u8> =
        body.chunks(70_000).flat_map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat()).collect();
    let chunked = [format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes(), &chunks, b"0\r\n\r\n"].concat();
    assert_eq!(server.raw(chunked).text(), expect);
}

/// The first half comes while the application waits.
fn halves(server: &Server, place: &Path) {
    let mut connection = server.connect();
    connection.send("GET /halves HTTP/1.0\r\nHost: a\r\n\r\n");
    let mut first = Vec::new();
    while !first.ends_with(b"\r\n\r\nfirst\n") {
        first.extend(connection.take(1));
    }
    std::fs::write(place.join("go"), "").unwrap();
    assert_eq!(connection.rest(), b"second\n");
}

/// One of two applications is killed and comes back; the other answers meanwhile.
pub(crate) fn killed_under_load(prefix: &str, start: impl Fn(&Path, &str) -> Option<Application>) {
    let setup = Setup::http(&format!(
        "upstream both {{ server unix:%%DIR%%/run/one.sock max_fails=0; server unix:%%DIR%%/run/two.sock max_fails=0; }}
         server {{ listen 127.0.0.1:%%PORT%%; {prefix}_param REQUEST_METHOD $request_method; {prefix}_param PATH_INFO /;
             {prefix}_param SCRIPT_FILENAME %%DIR%%/name.php; location / {{ {prefix}_pass both; }} }}"
    ));
    let setup = setup.file("name.php", "<?php header('Content-Length: 3'); echo getenv('NAME');");
    let place = setup.folder().public("run");
    let Some(mut one) = start(&place, "one") else { return };
    let Some(_two) = start(&place, "two") else { return };
    let mut server = setup.start();
    let answers = under_load(&server, "/", |wait| {
        wait(50);
        one.kill();
        wait(100);
        one.start_again();
        wait(100);
    });
    // What was on its way when the application was killed may be cut after its head: as many as it has processes.
    let cut = answers.others(&["one", "two"]);
    assert!(cut.len() <= 2 && cut.iter().all(|answer| answer.starts_with("HTTP/1.1 200 ")), "{cut:?}");
    assert!(answers.count(200, "one") >= 50 && answers.count(200, "two") >= 100, "{answers:?}");
    assert_eq!(server.get("/").status, 200);
    server.read_until("error.log", "failed (");
    server.quiet();
}

#[test]
fn an_application_that_is_killed() {
    killed_under_load("uwsgi", |place, name| Application::python(place, name, Wsgi::Uwsgi));
}

#[test]
fn over_tls() {
    let setup = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; uwsgi_param REQUEST_METHOD $request_method; uwsgi_param PATH_INFO /;
             uwsgi_ssl_trusted_certificate %%DIR%%/run/site.crt; uwsgi_ssl_name site;
             location / { uwsgi_pass suwsgi://127.0.0.1:%%PORT_uwsgi%%; uwsgi_ssl_verify on; }
             location /other { uwsgi_pass suwsgi://127.0.0.1:%%PORT_uwsgi%%; uwsgi_ssl_verify on; uwsgi_ssl_name x; }
             location /var { uwsgi_pass $arg_scheme://127.0.0.1:%%PORT_uwsgi%%; }
         }",
    );
    let place = setup.folder().public("run");
    certificate(setup.folder(), "site", RSA);
    for name in ["site.crt", "site.key"] {
        std::fs::copy(setup.folder().path().join(name), place.join(name)).unwrap();
        std::fs::set_permissions(place.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    }
    let mut server = setup.prepare();
    let port = server.port_of("PORT_uwsgi");
    let Some(_application) = Application::python(&place, "one", Wsgi::Suwsgi(port)) else { return };
    server.launch();
    assert_eq!(server.get("/").text(), "one");
    assert_eq!(server.get("/other").status, 502);
    server.read_until("error.log", "upstream SSL certificate does not match \"x\" while SSL handshaking to upstream");
    assert_eq!(server.get("/var?scheme=suwsgi").text(), "one");
    server.quiet();
}

/// A request as the application got it.
struct Asked {
    modifiers: (u8, u8),
    variables: Vec<(String, String)>,
    /// What follows the variables in the block.
    rest: String,
    body: Vec<u8>,
}

impl Asked {
    fn variable(&self, name: &str) -> &str {
        self.variables.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }
}

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    let mut block = vec![0; usize::from(u16::from_le_bytes([head[1], head[2]]))];
    stream.read_exact(&mut block).ok()?;
    let (mut variables, mut rest) = (Vec::new(), &block[..]);
    let take = |rest: &mut &[u8]| {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (part, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        *rest = after;
        Some(String::from_utf8_lossy(part).into_owned())
    };
    loop {
        let before = rest;
        let (Some(name), Some(value)) = (take(&mut rest), take(&mut rest)) else {
            rest = before;
            break;
        };
        variables.push((name, value));
    }
    let rest = String::from_utf8_lossy(rest).into_owned();
    let mut asked = Asked { modifiers: (head[0], head[3]), variables, rest, body: Vec::new() };
    asked.body.resize(asked.variable("CONTENT_LENGTH").parse().unwrap_or(0), 0);
    stream.read_exact(&mut asked.body).ok()?;
    Some(asked)
}

fn application(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Backend {
    Backend::sockets(move |mut stream, _| {
        if let Some(asked) = read(&mut stream) {
            let _ = stream.write_all(&answer(&asked));
        }
    })
}

#[test]
fn requests() {
    let backend = application(|asked| {
        let lines = asked.variables.iter().map(|(name, value)| format!("{name}={value}\n"));
        let (one, two) = asked.modifiers;
        let text = lines.collect::<String>();
        format!("Content-Type: text/plain\r\n\r\n{one} {two} {} {}\n{text}", asked.rest, asked.body.len()).into_bytes()
    });
    let server = server(
        &backend,
        "location / { uwsgi_pass 127.0.0.1:B; }
         location /own { set $no ''; uwsgi_pass uwsgi://127.0.0.1:B; uwsgi_param A b; uwsgi_param HTTP_X_A c;
             uwsgi_param NONE $no if_not_empty; uwsgi_param EMPTY $no; uwsgi_modifier1 5; uwsgi_modifier2 255; }
         location /code { uwsgi_pass 127.0.0.1:B; uwsgi_pass_request_headers off; uwsgi_string 'some $uri'; }
         location /body { uwsgi_pass 127.0.0.1:B; uwsgi_param CONTENT_LENGTH $content_length; uwsgi_pass_request_headers off; }
         location /var { uwsgi_pass $arg_to; uwsgi_pass_request_headers off; }",
    );
    let get = |target: &str, fields: &str| {
        server.raw(format!("GET {target} HTTP/1.1\r\nHost: h:99\r\n{fields}Connection: close\r\n\r\n")).text()
    };
    assert_eq!(
        get("/", "X-A: 1\r\nCookie: a\r\nX-A: 2\r\nCookie: b\r\nEmpty:\r\n"),
        "0 0  0\nHTTP_HOST=h:99\nHTTP_X_A=1, 2\nHTTP_COOKIE=a; b\nHTTP_EMPTY=\nHTTP_CONNECTION=close\n"
    );
    assert_eq!(get("/own", "X-A: 1\r\n"), "5 255  0\nA=b\nHTTP_X_A=c\nEMPTY=\nHTTP_HOST=h:99\nHTTP_CONNECTION=close\n");
    assert_eq!(get("/code", "X-A: 1\r\n"), "0 0 some $uri 0\nHTTP_HOST=h:99\n");
    let request = "POST /body HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(server.raw(request).text(), "0 0  5\nCONTENT_LENGTH=5\nHTTP_HOST=h\n");
    for to in ["", "uwsgi://"] {
        let text = get(&format!("/var?to={to}127.0.0.1:{}", backend.port), "");
        assert_eq!(text, "0 0  0\nHTTP_HOST=h:99\n", "{to}");
    }
}

#[test]
fn a_request_that_is_too_big() {
    let backend = application(|_| b"\r\n".to_vec());
    let inside = "large_client_header_buffers 4 70k; location / { uwsgi_pass 127.0.0.1:B; }";
    let mut server = server(&backend, inside);
    let get = |size: usize| server.get_with("/", &format!("X: {}\r\n", "x".repeat(size))).status;
    assert_eq!(get(65_000), 200);
    assert_eq!(get(66_000), 500);
    server.read_until("error.log", "[alert]");
    server.read_until("error.log", "uwsgi request is too big: 660");
    server.quiet();
}

/// What an application of CGI sends, and the status and body that the client gets, with a part of the log's line.
pub(crate) const RESPONSES: &[(&str, &str, u16, &str, &str)] = &[
    ("/plain", "A: b\r\n\r\nhello", 200, "hello", ""),
    ("/lines", "A: b\n\nhello", 200, "hello", ""),
    ("/http", "HTTP/1.1 201 Made\r\nA: b\r\n\r\nhello", 201, "hello", ""),
    ("/twice", "HTTP/1.1 200 OK\r\nStatus: 404 Nope\r\n\r\nhello", 200, "hello", ""),
    ("/status", "Status: 404 Nope\r\n\r\nhello", 404, "hello", ""),
    ("/odd", "HTTP/1.x 404 Nope\r\nA: b\r\n\r\nhello", 200, "hello", ""),
    ("/location", "Location: /x\n\nhello", 302, "hello", ""),
    ("/empty", "\r\n", 200, "", ""),
    ("/length", "Content-Length: 5\r\n\r\nhello", 200, "hello", ""),
    ("/extra", "Content-Length: 3\r\n\r\nhello", 200, "hel", "sent more data than specified in \"Content-Length\""),
    ("/coded", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, "0\r\n\r\n", ""),
    ("/redirect", "X-Accel-Redirect: /inside\r\n\r\nhello", 200, "inside", ""),
    ("/closed", "", 502, "", "upstream prematurely closed connection while reading response header from upstream"),
    ("/half", "HTTP/1.1 200", 502, "", "upstream prematurely closed connection while reading response header"),
    ("/bad", "A b\r\n\r\n", 502, "", "upstream sent invalid header: \"A\\x20...\" while reading response header"),
    ("/icy", "ICY 200 OK\r\n\r\n", 502, "", "upstream sent invalid header: \"ICY\\x20...\""),
    ("/badstatus", "Status: xx\r\n\r\n", 502, "", "upstream sent invalid status \"xx\""),
    (
        "/both",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        502,
        "",
        "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
    ),
];

/// Asks for each of [`RESPONSES`].
pub(crate) fn responses(server: &mut Server) {
    for (path, _, status, body, line) in RESPONSES {
        let response = server.get(path);
        assert_eq!(response.status, *status, "{path}");
        if *status != 502 {
            assert_eq!(response.text(), *body, "{path}");
        }
        if !line.is_empty() {
            server.read_until("error.log", line);
        }
    }
}

#[test]
fn answers() {
    let backend = application(|asked| {
        let found = RESPONSES.iter().find(|(path, ..)| *path == asked.variable("U"));
        found.expect("it is one of the cases").1.as_bytes().to_vec()
    });
    let inside =
        "uwsgi_param U $uri; location / { uwsgi_pass 127.0.0.1:B; } location /inside { internal; return 200 inside; }";
    let mut server = server(&backend, inside);
    responses(&mut server);
    assert!(server.read("error.log").contains(&format!("upstream: \"uwsgi://127.0.0.1:{}\"", backend.port)));
    server.quiet();
}

/// Differs from nginx: a status below 200 from an application of FastCGI, uwsgi or SCGI
#[test]
fn a_status_that_is_no_final_one() {
    let backend = application(|_| b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello".to_vec());
    let mut server = server(&backend, "location / { uwsgi_pass 127.0.0.1:B; }");
    assert_eq!(server.get("/").status, 502);
    server.read_until("error.log", "upstream sent invalid status \"103 Early Hints\"");
    server.quiet();
}

#[test]
fn the_switch_to_another_protocol() {
    let backend = Backend::sockets(|mut stream, _| {
        let asked = read(&mut stream).unwrap();
        assert_eq!(asked.variable("HTTP_UPGRADE"), "lower");
        stream.write_all(b"HTTP/1.1 101 Switching\r\nUpgrade: lower\r\nConnection: Upgrade\r\n\r\nhello ").unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).unwrap();
        stream.write_all(&text.map(|byte| byte.to_ascii_lowercase())).unwrap();
    });
    let mut server = server(&backend, "location / { uwsgi_pass 127.0.0.1:B; }");
    let mut connection = server.connect();
    connection.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: lower\r\n\r\nWORLD");
    assert_eq!(connection.response().status, 101);
    assert_eq!(connection.rest(), b"hello world");
    server.quiet();
}

#[test]
fn the_next_application() {
    let bad = application(|asked| match asked.variable("U") {
        "/500" => b"Status: 500 No\r\n\r\n".to_vec(),
        "/404" => b"Status: 404 No\r\n\r\n".to_vec(),
        _ => b"no head".to_vec(),
    });
    let good = application(|_| b"\r\ngood".to_vec());
    let group = format!("}} upstream both {{ server 127.0.0.1:{}; server 127.0.0.1:{} backup; }}", bad.port, good.port);
    let inside = format!(
        "uwsgi_param U $uri; uwsgi_next_upstream error invalid_header http_500;
         location / {{ uwsgi_pass both; }} {group} server {{ listen 127.0.0.1:%%PORT2%%;"
    );
    let mut server = server(&bad, &inside);
    for (target, expect) in [("/404", ""), ("/", "good"), ("/500", "good")] {
        assert_eq!(server.get(target).text(), expect, "{target}");
    }
    server.quiet();
}

#[test]
fn what_is_refused() {
    for (directives, message) in [
        ("uwsgi_pass 127.0.0.1;", "no port in upstream \"127.0.0.1\""),
        ("uwsgi_pass uwsgi://127.0.0.1:1/x;", "invalid host in upstream \"127.0.0.1:1/x\""),
        ("uwsgi_pass http://127.0.0.1:1;", "invalid host in upstream \"http://127.0.0.1:1\""),
        ("uwsgi_modifier1 256;", "value must be between 0 and 255"),
        ("uwsgi_modifier2 x;", "\"uwsgi_modifier2\" directive invalid number"),
        ("uwsgi_next_upstream http_502;", "invalid value \"http_502\""),
        ("uwsgi_next_upstream http_504;", "invalid value \"http_504\""),
        ("uwsgi_param A b c;", "invalid parameter \"c\""),
        (
            "uwsgi_pass suwsgi://127.0.0.1:1; uwsgi_ssl_verify on;",
            "no uwsgi_ssl_trusted_certificate for uwsgi_ssl_verify",
        ),
    ] {
        let text = format!("server {{ listen 127.0.0.1:%%PORT%%; location / {{ {directives} }} }}");
        let output = Setup::http(&text).prepare().command(&["-t"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(message), "{directives}: {said}");
    }
}
