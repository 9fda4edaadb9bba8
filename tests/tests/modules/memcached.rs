//! `memcached_pass`: memcached itself, and servers of the test's own for what it doesn't say.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use e2e::application::{Application, under_load};
use e2e::{Backend, Server, Setup};

/// A client of memcached.
struct Client(BufReader<UnixStream>);

impl Client {
    fn new(socket: &Path) -> Client {
        Client(BufReader::new(UnixStream::connect(socket).unwrap()))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn set(&mut self, key: &str, flags: u32, value: &[u8]) {
        let head = format!("set {key} {flags} 0 {}\r\n", value.len());
        self.0.get_mut().write_all(&[head.as_bytes(), value, b"\r\n"].concat()).unwrap();
        assert_eq!(self.line(), "STORED");
    }

    /// How many connections it has accepted.
    fn connections(&mut self) -> u32 {
        self.0.get_mut().write_all(b"stats\r\n").unwrap();
        let mut found = 0;
        loop {
            let line = self.line();
            if line == "END" {
                return found;
            }
            if let Some(number) = line.strip_prefix("STAT total_connections ") {
                found = number.parse().unwrap();
            }
        }
    }
}

#[test]
fn values() {
    let setup = Setup::http(
        "types { text/plain txt; } default_type application/x-default;
         upstream kept { server unix:%%DIR%%/run/one.sock; keepalive 4; }
         server { listen 127.0.0.1:%%PORT%%; error_log %%DIR%%/error.log info; memcached_gzip_flag 2;
             location / { set $memcached_key $uri; memcached_pass kept; }
             location /page/ { set $memcached_key $uri; memcached_pass kept; error_page 404 = @else; }
             location @else { return 200 \"else $upstream_status $upstream_addr\"; }
         }",
    );
    let place = setup.folder().public("run");
    let Some(memcached) = Application::memcached(&place, "one") else { return };
    let mut server = setup.start();
    let mut client = Client::new(memcached.socket());
    let large: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
    client.set("/a.txt", 0, b"hello");
    client.set("/large", 0, &large);
    client.set("/none", 0, b"");
    client.set("/packed", 3, b"packed");
    client.set("/with%20space", 1, b"spaced");
    let before = client.connections();
    let plain = server.get("/a.txt?x=y");
    assert_eq!((plain.status, plain.text().as_str()), (200, "hello"));
    assert_eq!((plain.field("Content-Type"), plain.field("Content-Length")), (Some("text/plain"), Some("5")));
    assert_eq!((plain.field("Accept-Ranges"), plain.field("Content-Encoding")), (Some("bytes"), None));
    assert_eq!(server.get("/large").body, large);
    assert_eq!(server.get("/large").field("Content-Type"), Some("application/x-default"));
    assert_eq!(server.get("/none").field("Content-Length"), Some("0"));
    assert_eq!(server.get("/packed").field("Content-Encoding"), Some("gzip"));
    let spaced = server.get("/with%20space");
    assert_eq!((spaced.text().as_str(), spaced.field("Content-Encoding")), ("spaced", None));
    let part = server.get_with("/a.txt", "Range: bytes=1-2\r\n");
    assert_eq!((part.status, part.text().as_str()), (206, "el"));
    assert_eq!(server.get("/absent").status, 404);
    server.read_until("error.log", "[info]");
    server.read_until(
        "error.log",
        "key: \"/absent\" was not found by memcached while reading response header from upstream",
    );
    let absent = server.get("/page/absent").text();
    assert_eq!(absent, format!("else 404 unix:{}", memcached.socket().display()));
    assert_eq!(client.connections(), before + 1, "one connection serves all of them");
    let head = server.connect().send("HEAD /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").head_response();
    assert_eq!((head.status, head.field("Content-Length")), (200, Some("5")));
    assert_eq!(server.get("/a.txt").text(), "hello");
    assert_eq!(client.connections(), before + 2, "a connection isn't used after HEAD");
    server.quiet();
}

#[test]
fn a_server_that_is_killed() {
    let setup = Setup::http(
        "upstream both { server unix:%%DIR%%/run/one.sock max_fails=0; server unix:%%DIR%%/run/two.sock max_fails=0; keepalive 4; }
         server { listen 127.0.0.1:%%PORT%%; memcached_next_upstream error timeout not_found;
             location / { set $memcached_key $uri; memcached_pass both; } }",
    );
    let place = setup.folder().public("run");
    let Some(mut one) = Application::memcached(&place, "one") else { return };
    let Some(two) = Application::memcached(&place, "two") else { return };
    Client::new(one.socket()).set("/", 0, b"one");
    Client::new(two.socket()).set("/", 0, b"two");
    let mut server = setup.start();
    let answers = under_load(&server, "/", |wait| {
        wait(50);
        one.kill();
        wait(100);
        // It has no values now: the other one has.
        one.start_again();
        wait(100);
        Client::new(one.socket()).set("/", 0, b"one");
        wait(100);
    });
    assert_eq!(answers.others(&["one", "two"]), [""; 0]);
    assert!(answers.count(200, "one") >= 50 && answers.count(200, "two") >= 200, "{answers:?}");
    server.quiet();
}

/// A server that answers each line, which it gives the closure.
fn answers(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Backend {
    Backend::sockets(move |stream, _| {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            let bytes = answer(line.trim_end());
            if reader.get_mut().write_all(&bytes).is_err() || bytes.is_empty() || line.contains("/close") {
                return;
            }
            line.clear();
        }
    })
}

fn server(backend: &Backend, inside: &str) -> Server {
    let text = format!("server {{ listen 127.0.0.1:%%PORT%%; error_log %%DIR%%/error.log info; {inside} }}");
    Setup::http(&text.replace(":B", &format!(":{}", backend.port))).start()
}

/// What the server says to `get KEY`, and the status and body that the client gets, with a part of the log's line.
#[test]
fn what_servers_say() {
    let cases: Vec<(&str, &str, u16, &str, &str)> = vec![
        ("/value", "VALUE /value 0 5\r\nhello\r\nEND\r\n", 200, "hello", ""),
        ("/wide", "VALUE /wide 4294967300 2\r\nhi\r\nEND\r\n", 200, "hi", ""),
        ("/trailer", "VALUE /trailer 0 5\r\nhelloXXEND\r\n", 200, "hello", "memcached sent invalid trailer"),
        ("/more", "VALUE /more 0 5\r\nhello\r\nEND\r\nmore", 200, "hello", "memcached sent invalid trailer"),
        ("/absent", "END\r\n", 404, "", "key: \"/absent\" was not found by memcached"),
        ("/error", "ERROR\r\n", 502, "", "memcached sent invalid response: \"ERROR\" while reading response header"),
        ("/lf", "VALUE /lf 0 5\nhello\nEND\n", 502, "", "memcached sent invalid response: \"VALUE /lf 0 5\""),
        ("/long", "VALUE /longer 0 5\r\n", 502, "", "memcached sent invalid response: \"VALUE /longer 0 5\""),
        (
            "/key",
            "VALUE /yek 0 5\r\n",
            502,
            "",
            "memcached sent invalid key in response \"VALUE /yek 0 5\" for key \"/key\"",
        ),
        ("/flags", "VALUE /flags x 5\r\n", 502, "", "memcached sent invalid flags in response \"VALUE /flags x 5\""),
        (
            "/length",
            "VALUE /length 0 x\r\n",
            502,
            "",
            "memcached sent invalid length in response \"VALUE /length 0 x\"",
        ),
        ("/big", "", 502, "", "upstream sent too big header while reading response header"),
        ("/close", "VALUE /close", 502, "", "upstream prematurely closed connection while reading response header"),
    ];
    let table: Vec<_> = cases.iter().map(|(key, answer, ..)| (format!("get {key}"), answer.to_string())).collect();
    let backend = answers(move |line| match line {
        "get /big" => [b"VALUE /big".to_vec(), vec![b'x'; 5000]].concat(),
        _ => table.iter().find(|(own, _)| own == line).expect("it is one of the cases").1.clone().into_bytes(),
    });
    let inside = "memcached_gzip_flag 1; location / { set $memcached_key $uri; memcached_pass 127.0.0.1:B; }";
    let mut server = server(&backend, inside);
    for (target, _, status, body, line) in cases {
        let response = server.get(target);
        assert_eq!(response.status, status, "{target}");
        if status == 200 {
            assert_eq!(response.text(), body, "{target}");
        }
        if !line.is_empty() {
            server.read_until("error.log", line);
        }
    }
    assert!(server.read("error.log").contains(&format!("upstream: \"memcached://127.0.0.1:{}\"", backend.port)));
    server.quiet();
}

#[test]
fn a_value_that_is_cut() {
    let backend = Backend::sockets(|mut stream, _| {
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(b"VALUE /x 0 100\r\nhello");
    });
    let mut server = server(&backend, "location / { set $memcached_key $uri; memcached_pass 127.0.0.1:B; }");
    let mut connection = server.connect();
    connection.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let rest = String::from_utf8_lossy(&connection.rest()).into_owned();
    assert!(rest.contains("Content-Length: 100\r\n") && rest.ends_with("\r\n\r\nhello"), "{rest}");
    server.read_until("error.log", "upstream prematurely closed connection while");
    server.quiet();
}

#[test]
fn requests() {
    let backend = answers(|line| {
        let key = line.strip_prefix("get ").unwrap();
        format!("VALUE {key} 0 {}\r\n{key}\r\nEND\r\n", key.len()).into_bytes()
    });
    let mut server = server(
        &backend,
        "location / { set $memcached_key $uri; memcached_pass 127.0.0.1:B; }
         location /args { set $memcached_key $arg_k; memcached_pass 127.0.0.1:B; }",
    );
    for (target, key) in [
        ("/a?b", "/a"),
        ("/a%20b%25%0D%0A%09", "/a%20b%25%0D%0A%09"),
        ("/%C3%A9", "/\u{e9}"),
        ("/args?k=a%20b", "a%2520b"),
    ] {
        assert_eq!(server.get(target).text(), key, "{target}");
    }
    assert_eq!(server.get("/args").status, 500);
    server.read_until("error.log", "the \"$memcached_key\" variable is not set");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = format!("{method} /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(server.raw(request).status, 405, "{method}");
    }
    let request = "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut connection = server.connect();
    connection.send(request);
    assert_eq!((connection.response().text(), connection.response().text()), ("/a".to_owned(), "/b".to_owned()));
    server.quiet();
}

#[test]
fn the_next_server() {
    let bad = answers(|line| match line {
        "get /absent" => b"END\r\n".to_vec(),
        _ => b"ERROR\r\n".to_vec(),
    });
    let good = answers(|line| format!("VALUE {} 0 4\r\ngood\r\nEND\r\n", &line[4..]).into_bytes());
    let group = format!(
        "}} upstream both {{ server 127.0.0.1:{} max_fails=0; server 127.0.0.1:{} backup; }}",
        bad.port, good.port
    );
    let mut server = server(
        &bad,
        &format!(
            "set $memcached_key $uri;
             location / {{ memcached_pass both; memcached_next_upstream not_found invalid_response; }}
             location /off {{ set $memcached_key /absent; memcached_pass both; memcached_next_upstream off; }}
             location /default {{ memcached_pass both; }}
             {group} server {{ listen 127.0.0.1:%%PORT2%%;"
        ),
    );
    for (target, status) in [("/absent", 200), ("/bad", 200), ("/off", 404), ("/default", 502)] {
        assert_eq!(server.get(target).status, status, "{target}");
    }
    server.quiet();
}

#[test]
fn what_is_refused() {
    for (directives, message) in [
        ("set $memcached_key 1; memcached_pass 127.0.0.1;", "no port in upstream \"127.0.0.1\""),
        ("set $memcached_key 1; memcached_pass 127.0.0.1:1/x;", "invalid host in upstream \"127.0.0.1:1/x\""),
        ("memcached_pass 127.0.0.1:1;", "unknown \"memcached_key\" variable"),
        ("memcached_gzip_flag x;", "\"memcached_gzip_flag\" directive invalid number"),
        ("memcached_next_upstream http_500;", "invalid value \"http_500\""),
        ("memcached_buffers 8 4k;", "unknown directive \"memcached_buffers\""),
    ] {
        let text = format!("server {{ listen 127.0.0.1:%%PORT%%; location / {{ {directives} }} }}");
        let output = Setup::http(&text).prepare().command(&["-t"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(message), "{directives}: {said}");
    }
}

/// Not in nginx: `memcached_pass` takes variables
#[test]
fn a_server_by_variable() {
    let backend = answers(|_| b"VALUE k 0 2\r\nhi\r\nEND\r\n".to_vec());
    let inside = "location / { set $memcached_key k; memcached_pass 127.0.0.1:$arg_port; }";
    assert_eq!(server(&backend, inside).get(&format!("/?port={}", backend.port)).text(), "hi");
}
