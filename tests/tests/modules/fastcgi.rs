//! `fastcgi_pass`: an application of php-fpm, and applications of the test's own for what php-fpm doesn't do.

use std::io::{Read, Write};
use std::time::Duration;

use e2e::application::Application;
use e2e::fcgi::{STDERR, STDOUT, answers, application, end, padded, record, whole};
use e2e::{Backend, Server, Setup, curl, sha256};

use crate::uwsgi::killed_under_load;

fn server(backend: &Backend, inside: &str) -> Server {
    let text = format!("server {{ listen 127.0.0.1:%%PORT%%; {inside} }}");
    Setup::http(&text.replace(":B", &format!(":{}", backend.port))).start()
}

const PHP: &str = "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%/site; index index.php;
    location ~ [^/]\\.php(/|$) {
        fastcgi_split_path_info ^(.+?\\.php)(/.*)$;
        fastcgi_pass unix:%%DIR%%/run/php.sock;
        fastcgi_index index.php;
        fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
        fastcgi_param PATH_INFO $fastcgi_path_info;
        fastcgi_param QUERY_STRING $query_string;
        fastcgi_param REQUEST_METHOD $request_method;
        fastcgi_param CONTENT_TYPE $content_type;
        fastcgi_param CONTENT_LENGTH $content_length;
        fastcgi_param REQUEST_URI $request_uri;
        fastcgi_param SERVER_PROTOCOL $server_protocol;
        fastcgi_param HTTPS $https if_not_empty;
        fastcgi_param REDIRECT_STATUS 200;
    }
    location / { try_files $uri $uri/ =404; }
}";

#[test]
fn an_application_of_php() {
    let setup = Setup::http(PHP)
        .file("site/index.php", "<?php echo 'front ', $_GET['a'] ?? '-', ' ', $_SERVER['HTTP_X_B'] ?? '-';")
        .file("site/post.php", "<?php echo $_POST['name'], ' ', strlen(file_get_contents('php://input'));")
        .file("site/info.php", "<?php echo $_SERVER['PATH_INFO'], ' ', isset($_SERVER['HTTPS']) ? 'tls' : 'plain';")
        .file("site/gone.php", "<?php http_response_code(410); header('X-C: d'); echo 'gone';")
        .file("site/go.php", "<?php header('Location: /elsewhere');")
        .file("site/large.php", "<?php for ($i = 0; $i < 300000; $i++) { echo str_pad($i, 9), \"\\n\"; }")
        .file("site/up.php", "<?php $x = file_get_contents('php://input'); echo strlen($x), trim($x, 'x');")
        .file("site/bad.php", "<?php error_log('a complaint'); echo 'answered';");
    let Some(_php) = Application::php(&setup.folder().public("run"), "php") else { return };
    let mut server = setup.start();
    let text = |server: &Server, target: &str| server.get(target).text();
    assert_eq!(text(&server, "/?a=b"), "front b -");
    assert_eq!(server.get_with("/index.php", "X-B: c\r\n").text(), "front - c");
    assert_eq!(text(&server, "/info.php/more/of/it"), "/more/of/it plain");
    let gone = server.get("/gone.php");
    assert_eq!((gone.status, gone.field("X-C"), gone.text().as_str()), (410, Some("d"), "gone"));
    let go = server.get("/go.php");
    assert_eq!((go.status, go.field("Location")), (302, Some("/elsewhere")));
    let large = text(&server, "/large.php");
    assert_eq!((large.len(), large.lines().last().map(str::trim)), (3_000_000, Some("299999")));
    let form = "POST /post.php HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 8\r\n\r\nname=abc";
    assert_eq!(server.raw(form).text(), "abc 8");
    let body = vec![b'x'; 200_000];
    let head =
        format!("POST /up.php HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    assert_eq!(server.raw([head.as_bytes(), &body].concat()).text(), "200000");
    assert_eq!(text(&server, "/bad.php"), "answered");
    server.read_until("error.log", "FastCGI sent in stderr: \"PHP message: a complaint\"");
    assert_eq!(server.get("/absent.php").status, 404);
    server.quiet();
}

/// An application with a front controller, as WordPress and most frameworks have it, sessions, uploads, and answers that
/// take their time.
#[test]
fn a_site_of_php() {
    const INDEX: &str = "<?php
        $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
        if ($path === '/count') {
            session_start();
            $_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
            echo 'visit ', $_SESSION['count'];
        } elseif ($path === '/upload') {
            $file = $_FILES['picture'];
            echo $_POST['title'], ' ', $file['name'], ' ', $file['size'], ' ', hash_file('sha256', $file['tmp_name']);
        } elseif ($path === '/halves') {
            header('X-Accel-Buffering: no');
            echo \"first\\n\";
            flush();
            while (!file_exists(__DIR__ . '/../run/go')) { usleep(10000); clearstatcache(); }
            echo \"second\\n\";
        } else {
            http_response_code($path === '/' ? 200 : 404);
            echo 'page ', $path, ' ', $_GET['p'] ?? '-';
        }";
    let conf = PHP.replace("try_files $uri $uri/ =404;", "try_files $uri $uri/ /index.php?$args;");
    let setup = Setup::http(&format!("client_max_body_size 10m; {conf}"))
        .file("site/index.php", INDEX)
        .file("site/style.css", "body {}");
    let place = setup.folder().public("run");
    let Some(_php) = Application::php(&place, "php") else { return };
    let mut server = setup.start();
    assert_eq!(server.get("/style.css").text(), "body {}");
    assert_eq!(server.get("/?p=1").text(), "page / 1");
    let absent = server.get("/a/post/?p=2");
    assert_eq!((absent.status, absent.text().as_str()), (404, "page /a/post/ 2"));
    let first = server.get("/count");
    let cookie = first.field("Set-Cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(first.text(), "visit 1");
    assert_eq!(server.get_with("/count", &format!("Cookie: {cookie}\r\n")).text(), "visit 2");
    assert_eq!(server.get("/count").text(), "visit 1");
    let picture: Vec<u8> = (0..900_000_u32).map(|n| (n % 251) as u8).collect();
    let file = server.folder().write("picture", &picture);
    let form = format!("picture=@{};filename=a b.png", file.display());
    let said = curl(&["-F", "title=Sea", "-F", &form, &server.url("/upload")]);
    assert_eq!(String::from_utf8_lossy(&said), format!("Sea a b.png 900000 {}", sha256(&file)));
    let mut connection = server.connect();
    connection.send("GET /halves HTTP/1.0\r\nHost: a\r\n\r\n");
    let mut begin = Vec::new();
    while !begin.ends_with(b"\r\n\r\nfirst\n") {
        begin.extend(connection.take(1));
    }
    std::fs::write(place.join("go"), "").unwrap();
    assert_eq!(connection.rest(), b"second\n");
    server.quiet();
}

#[test]
fn an_application_that_is_killed() {
    killed_under_load("fastcgi", Application::php);
}

#[test]
fn parameters() {
    let backend = answers(|asked| {
        let lines = asked.params.iter().map(|(name, value)| format!("{name}={value}\n"));
        whole(format!("Content-Type: text/plain\r\n\r\n{}", lines.collect::<String>()))
    });
    let server = server(
        &backend,
        "location / { fastcgi_pass 127.0.0.1:B; }
         location /own { set $no ''; fastcgi_pass 127.0.0.1:B; fastcgi_param A b; fastcgi_param HTTP_X_A c;
             fastcgi_param NONE $no if_not_empty; fastcgi_param EMPTY $no; fastcgi_param A again; }
         location /removed { fastcgi_pass 127.0.0.1:B; fastcgi_param HTTP_PROXY ''; fastcgi_param HTTP_HOST '';
             fastcgi_param EMPTY ''; fastcgi_param HTTP_ ''; fastcgi_param TO $proxy_host$proxy_port; }
         location /alone { fastcgi_pass 127.0.0.1:B; fastcgi_pass_request_headers off; }
         location /names/ { fastcgi_pass 127.0.0.1:B; fastcgi_index i.php; fastcgi_pass_request_headers off;
             fastcgi_param S $fastcgi_script_name; fastcgi_param P $fastcgi_path_info;
             fastcgi_split_path_info ^(.+?\\.php)(/.*)$; }
         location /var { fastcgi_pass 127.0.0.1:$arg_port; fastcgi_pass_request_headers off; }",
    );
    let get = |target: &str, fields: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: h:99\r\n{fields}Connection: close\r\n\r\n");
        server.raw(request).text()
    };
    assert_eq!(
        get("/", "X-A: 1\r\nCookie: a\r\nX-A: 2\r\nCookie: b\r\nEmpty:\r\nHas_Under: x\r\n"),
        "HTTP_HOST=h:99\nHTTP_X_A=1, 2\nHTTP_COOKIE=a; b\nHTTP_EMPTY=\nHTTP_CONNECTION=close\n"
    );
    let many: String = (0..100).map(|n| format!("N{}: {n}\r\n", n % 50)).collect();
    let joined: String = (0..50).map(|n| format!("HTTP_N{n}={n}, {}\n", n + 50)).collect();
    assert_eq!(get("/", &many), format!("HTTP_HOST=h:99\n{joined}HTTP_CONNECTION=close\n"));
    assert_eq!(get("/own", "X-A: 1\r\n"), "A=b\nHTTP_X_A=c\nEMPTY=\nA=again\nHTTP_HOST=h:99\nHTTP_CONNECTION=close\n");
    assert_eq!(get("/removed", "Proxy: p\r\nX-A: 1\r\n"), "EMPTY=\nHTTP_=\nTO=\nHTTP_X_A=1\nHTTP_CONNECTION=close\n");
    assert_eq!(get("/alone", "X-A: 1\r\n"), "HTTP_HOST=h:99\n");
    for (target, script, info) in [
        ("/names/x", "/names/x", ""),
        ("/names/", "/names/i.php", ""),
        ("/names/a.php/b.php/c", "/names/a.php", "/b.php/c"),
    ] {
        assert_eq!(get(target, ""), format!("S={script}\nP={info}\nHTTP_HOST=h:99\n"), "{target}");
    }
    assert_eq!(get(&format!("/var?port={}", backend.port), ""), "HTTP_HOST=h:99\n");
    let long = "x".repeat(5000);
    assert!(get("/", &format!("Long: {long}\r\n")).contains(&format!("\nHTTP_LONG={long}\n")));
}

#[test]
fn bodies_of_requests() {
    let backend = answers(|asked| {
        let length = asked.param("HTTP_CONTENT_LENGTH").unwrap_or("none").to_owned();
        let sum: u64 = asked.body.iter().map(|byte| u64::from(*byte)).sum();
        whole(format!("\r\n{length} {} {sum}", asked.body.len()))
    });
    let server = server(
        &backend,
        "client_max_body_size 10m;
         location / { fastcgi_pass 127.0.0.1:B; }
         location /stream { fastcgi_pass 127.0.0.1:B; fastcgi_request_buffering off; }
         location /none { fastcgi_pass 127.0.0.1:B; fastcgi_pass_request_body off; }",
    );
    let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
    for target in ["/", "/stream"] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        let plain = [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
        assert_eq!(server.raw(plain).text(), format!("300000 300000 {sum}"), "{target}");
        let chunks: Vec<u8> =
            body.chunks(70_000).flat_map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat()).collect();
        let chunked = [format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes(), &chunks, b"0\r\n\r\n"].concat();
        assert_eq!(server.raw(chunked).text(), format!("none 300000 {sum}"), "{target}");
    }
    let request = "POST /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(server.raw(request).text(), "3 0 0");
}

/// What the application sends, and the status and body that the client gets, with a part of the log's line.
#[test]
fn responses() {
    let out = |text: &str| record(STDOUT, text);
    let cases: Vec<(&str, Vec<u8>, u16, &str, &str)> = vec![
        ("/plain", whole("A: b\r\n\r\nhello"), 200, "hello", ""),
        ("/status", whole("Status: 404 Nope\r\n\r\nhello"), 404, "hello", ""),
        ("/location", whole("Location: /x\n\nhello"), 302, "hello", ""),
        ("/empty", whole("\r\n"), 200, "", ""),
        (
            "/cut",
            [out("Stat"), padded(STDOUT, b"us: 201 Made\r", 200), out("\n\r"), out("\nhel"), out("lo"), end()].concat(),
            201,
            "hello",
            "",
        ),
        (
            "/stderr",
            [record(STDERR, "oops\n"), out("A:"), record(STDERR, "more"), out(" b\n\nhello"), end()].concat(),
            200,
            "hello",
            "FastCGI sent in stderr: \"more\" while reading response header from upstream",
        ),
        (
            "/later",
            [out("A: b\n\nhel"), record(STDERR, "later\r\n"), out("lo"), end()].concat(),
            200,
            "hello",
            "FastCGI sent in stderr: \"later\" while reading upstream",
        ),
        ("/noend", out("A: b\n\nhello"), 200, "hello", ""),
        ("/extra", whole("Content-Length: 3\n\nhello"), 200, "hel", ""),
        ("/nohead", whole("A: b"), 502, "", "upstream prematurely closed FastCGI stdout while reading response header"),
        (
            "/only",
            [record(STDERR, "dead"), end()].concat(),
            502,
            "",
            "FastCGI sent in stderr: \"dead\" while reading response header",
        ),
        ("/closed", Vec::new(), 502, "", "upstream prematurely closed connection while reading response header"),
        ("/half", out("A: b"), 502, "", "upstream prematurely closed connection while reading response header"),
        ("/ended", record(3, [0; 8]), 502, "", "upstream sent unexpected FastCGI record: 3 while reading"),
        (
            "/http",
            b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
            502,
            "",
            "upstream sent unsupported FastCGI protocol version: 72",
        ),
        ("/kind", record(9, "x"), 502, "", "upstream sent invalid FastCGI record type: 9"),
        ("/other", vec![1, 6, 0, 2, 0, 0, 0, 0], 502, "", "upstream sent unexpected FastCGI request id low byte: 2"),
        ("/bad", whole("A b\n\n"), 502, "", "upstream sent invalid header: \"A\\x20...\""),
        ("/badstatus", whole("Status: xx\n\n"), 502, "", "upstream sent invalid status \"xx\""),
        ("/big", whole(format!("A: {}\n\n", "x".repeat(5000))), 502, "", "upstream sent too big header"),
    ];
    let table = cases.iter().map(|(path, bytes, ..)| ((*path).to_owned(), bytes.clone())).collect::<Vec<_>>();
    let backend = application(move |asked, stream| {
        let uri = asked.param("U").unwrap_or_default();
        let found = table.iter().find(|(path, _)| path == uri);
        let _ = stream.write_all(&found.expect("it is one of the cases").1);
        false
    });
    let mut server = server(&backend, "location / { fastcgi_pass 127.0.0.1:B; fastcgi_param U $uri; }");
    for (path, _, status, body, line) in cases {
        let response = server.get(path);
        assert_eq!(response.status, status, "{path}");
        if status != 502 {
            assert_eq!(response.text(), body, "{path}");
        }
        if !line.is_empty() {
            server.read_until("error.log", line);
        }
    }
    assert!(server.read("error.log").contains(&format!("upstream: \"fastcgi://127.0.0.1:{}\"", backend.port)));
    server.quiet();
}

/// Differs from nginx: a status below 200 from an application of FastCGI, uwsgi or SCGI
#[test]
fn a_status_that_is_no_final_one() {
    let backend = answers(|_| whole("Status: 101 Switching\r\n\r\n"));
    let mut server = server(&backend, "location / { fastcgi_pass 127.0.0.1:B; }");
    assert_eq!(server.get("/").status, 502);
    server.read_until("error.log", "upstream sent invalid status \"101 Switching\"");
    server.quiet();
}

/// Differs from nginx: a response of FastCGI that is shorter than its `Content-Length`
#[test]
fn a_body_that_is_cut() {
    let backend = application(|_, stream| {
        let _ = stream.write_all(&record(STDOUT, "Content-Length: 100\r\n\r\nhello"));
        false
    });
    let mut server = server(&backend, "location / { fastcgi_pass 127.0.0.1:B; }");
    let mut connection = server.connect();
    connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let rest = String::from_utf8_lossy(&connection.rest()).into_owned();
    assert!(rest.contains("Content-Length: 100\r\n") && rest.ends_with("\r\n\r\nhello"), "{rest}");
    server.quiet();
}

/// Differs from nginx: with `fastcgi_keep_conn` and without buffering
#[test]
fn a_response_without_its_end() {
    let backend = application(|_, stream| {
        let _ = stream.write_all(&record(STDOUT, "\r\nhello"));
        false
    });
    let server = server(
        &backend,
        "location / { fastcgi_pass 127.0.0.1:B; }
         location /kept { fastcgi_pass 127.0.0.1:B; fastcgi_keep_conn on; }
         location /unbuffered { fastcgi_pass 127.0.0.1:B; fastcgi_keep_conn on; fastcgi_buffering off; }",
    );
    for (target, whole) in [("/", true), ("/kept", false), ("/unbuffered", false)] {
        let mut connection = server.connect();
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let rest = String::from_utf8_lossy(&connection.rest()).into_owned();
        assert!(rest.contains("5\r\nhello\r\n") && rest.ends_with("0\r\n\r\n") == whole, "{target} {rest}");
    }
}

#[test]
fn fields_and_methods() {
    let backend = answers(|asked| {
        let date = "Date: then\r\nServer: mine\r\nX-Accel-Expires: 1\r\nConnection: close\r\nX-Hide: x\r\n";
        match asked.param("U") {
            Some("/head") => whole("Content-Length: 5\r\n\r\nhello"),
            Some("/redirect") => whole("X-Accel-Redirect: /inside\r\n\r\n"),
            _ => whole(format!("Status: 200 OK\r\n{date}\r\nhello")),
        }
    });
    let server = server(
        &backend,
        "fastcgi_param U $uri;
         location / { fastcgi_pass 127.0.0.1:B; fastcgi_hide_header X-Hide; }
         location /pass { fastcgi_pass 127.0.0.1:B; fastcgi_pass_header Status; fastcgi_pass_header X-Accel-Expires; }
         location /page { fastcgi_pass 127.0.0.1:B; fastcgi_intercept_errors on; }
         location /inside { internal; return 200 inside; }",
    );
    let plain = server.get("/");
    assert_eq!((plain.all("Date"), plain.all("Server")), (vec!["then"], vec!["mine"]));
    for name in ["Status", "X-Accel-Expires", "X-Hide"] {
        assert_eq!(plain.field(name), None, "{name}");
    }
    let passed = server.get("/pass");
    assert_eq!((passed.field("Status"), passed.field("X-Accel-Expires")), (Some("200 OK"), Some("1")));
    let head = server.connect().send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
    assert_eq!((head.field("Content-Length"), head.body.len()), (Some("5"), 0));
    assert!(head.field("Date").is_some() && head.field("Server").is_some(), "they are ours where there are none");
    assert_eq!(server.get("/redirect").text(), "inside");
}

#[test]
fn connections_are_kept_if_asked_for() {
    let backend = answers(|asked| match asked.param("U") {
        Some("/length") => whole(format!("Content-Length: 1\r\n\r\n{}", asked.number)),
        _ => whole(format!("\r\n{}", asked.number)),
    });
    let server = server(
        &backend,
        "fastcgi_param U $uri;
         location / { fastcgi_pass kept; fastcgi_keep_conn on; }
         location /close { fastcgi_pass kept; }
         } upstream kept { server 127.0.0.1:B; keepalive 2; } server { listen 127.0.0.1:%%PORT2%%;",
    );
    let numbers: Vec<_> = ["/", "/length", "/"].iter().map(|target| server.get(target).text()).collect();
    assert_eq!(numbers, ["0", "1", "2"]);
    assert_eq!(server.connect().send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").head_response().status, 200);
    assert_eq!(server.get("/").text(), "0", "a connection isn't used after HEAD");
    let numbers: Vec<_> = (0..3).map(|_| server.get("/close").text()).collect();
    assert_eq!(numbers, ["1", "0", "0"], "a kept connection is used, and no other is kept");
}

#[test]
fn the_next_application() {
    let bad = answers(|asked| match asked.param("U") {
        Some("/stderr") => [record(STDERR, "PHP Fatal error: x"), whole("\r\nbad")].concat(),
        Some("/500") => whole("Status: 500 No\r\n\r\n"),
        _ => whole("no head"),
    });
    let good = answers(|_| whole("\r\ngood"));
    let group = format!("}} upstream both {{ server 127.0.0.1:{}; server 127.0.0.1:{} backup; }}", bad.port, good.port);
    let mut server = server(
        &bad,
        &format!(
            "fastcgi_param U $uri; fastcgi_catch_stderr 'PHP Fatal'; fastcgi_next_upstream invalid_header http_500;
             location / {{ fastcgi_pass both; }} location /one {{ fastcgi_pass 127.0.0.1:B; }}
             {group} server {{ listen 127.0.0.1:%%PORT2%%;"
        ),
    );
    for target in ["/", "/stderr", "/500"] {
        assert_eq!(server.get(target).text(), "good", "{target}");
    }
    assert_eq!(server.get("/one").status, 502);
    server.quiet();
}

#[test]
fn a_client_that_leaves_ends_the_request() {
    let (told, heard) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let backend = application(move |_, stream| {
        let mut byte = [0];
        let over = std::io::Read::read(stream, &mut byte).is_ok_and(|n| n == 0);
        let _ = told.lock().unwrap().send(over);
        false
    });
    let mut server = server(&backend, "location / { fastcgi_pass 127.0.0.1:B; }");
    let mut connection = server.connect();
    connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    while backend.connections() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(connection);
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(true));
    server.quiet();
}

#[test]
fn what_is_refused() {
    for (directives, message) in [
        ("fastcgi_pass 127.0.0.1;", "no port in upstream \"127.0.0.1\""),
        ("fastcgi_pass 127.0.0.1:9000/foo;", "invalid host in upstream \"127.0.0.1:9000/foo\""),
        ("fastcgi_pass http://127.0.0.1:9000;", "invalid host in upstream \"http://127.0.0.1:9000\""),
        ("fastcgi_pass localhost:1; fastcgi_pass localhost:2;", "\"fastcgi_pass\" directive is duplicate"),
        ("fastcgi_param A b c;", "invalid parameter \"c\""),
        ("fastcgi_param A;", "invalid number of arguments in \"fastcgi_param\" directive"),
        ("fastcgi_index a; fastcgi_index b;", "\"fastcgi_index\" directive is duplicate"),
        ("fastcgi_split_path_info ^(.*)$;", "pattern \"^(.*)$\" must have 2 captures"),
        ("fastcgi_next_upstream http_502;", "invalid value \"http_502\""),
        ("fastcgi_next_upstream http_504;", "invalid value \"http_504\""),
        ("fastcgi_busy_buffers_size 1;", "\"fastcgi_busy_buffers_size\" must be equal to or greater than the maximum"),
    ] {
        let text = format!("server {{ listen 127.0.0.1:%%PORT%%; location / {{ {directives} }} }}");
        let output = Setup::http(&text).prepare().command(&["-t"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(message), "{directives}: {said}");
    }
}

#[test]
fn the_pass_that_counts() {
    let http = Backend::start(|_| Backend::ok("http"));
    let fast = answers(|_| whole("\r\nfast"));
    let text = "location /a { proxy_pass http://127.0.0.1:H; fastcgi_pass 127.0.0.1:B; }
         location /b { fastcgi_pass 127.0.0.1:B; proxy_pass http://127.0.0.1:H; }
         location /c { fastcgi_pass 127.0.0.1:B; if ($arg_x) { proxy_pass http://127.0.0.1:H; } }
         location /d { proxy_pass http://127.0.0.1:H; if ($arg_x) { fastcgi_pass 127.0.0.1:B; } }"
        .replace(":H", &format!(":{}", http.port));
    let server = server(&fast, &text);
    for (target, expect) in
        [("/a", "fast"), ("/b", "http"), ("/c", "fast"), ("/c?x=1", "http"), ("/d", "http"), ("/d?x=1", "fast")]
    {
        assert_eq!(server.get(target).text(), expect, "{target}");
    }
}

#[test]
fn a_request_goes_on_while_its_response_comes() {
    const LENGTH: usize = 300_000;
    let app = Backend::sockets(|mut s, _| {
        let (mut part, mut received) = (vec![0; 65_536], 0);
        let mut answer = Some(record(STDOUT, "Status: 200 OK\r\n\r\nbegun"));
        while received < LENGTH {
            let Ok(n @ 1..) = s.read(&mut part) else { return };
            received += part[..n].iter().filter(|byte| **byte == b'~').count();
            if s.write_all(&answer.take().unwrap_or_default()).is_err() {
                return;
            }
        }
        let _ = s.write_all(&whole("ended"));
    });
    let server = Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; fastcgi_request_buffering off; fastcgi_buffering off; fastcgi_read_timeout 5s;
            location / {{ fastcgi_pass 127.0.0.1:{}; }} }}",
        app.port
    ))
    .start();
    let mut c = server.connect();
    c.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n~"));
    let mut got = Vec::new();
    while !got.ends_with(b"begun\r\n") {
        got.extend(c.take(1));
    }
    assert_eq!(c.send(vec![b'~'; LENGTH - 1]).take(10), b"5\r\nended\r\n");
}
