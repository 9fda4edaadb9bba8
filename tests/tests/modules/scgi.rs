//! `scgi_pass`: an application of Python behind uWSGI, which speaks SCGI too, and applications of the test's own.

use std::io::{Read, Write};
use std::net::TcpStream;

use e2e::application::{Application, Wsgi};
use e2e::{Backend, Server, Setup};

use crate::uwsgi::{RESPONSES, killed_under_load, python_answers, responses};

fn server(backend: &Backend, inside: &str) -> Server {
    let text = format!("server {{ listen 127.0.0.1:%%PORT%%; error_log %%DIR%%/error.log info; {inside} }}");
    Setup::http(&text.replace(":B", &format!(":{}", backend.port))).start()
}

#[test]
fn an_application_of_python() {
    python_answers("scgi", Wsgi::Scgi);
}

#[test]
fn an_application_that_is_killed() {
    killed_under_load("scgi", |place, name| Application::python(place, name, Wsgi::Scgi));
}

/// The headers and the body of a request.
type Asked = (Vec<(String, String)>, Vec<u8>);

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let (mut size, mut byte) = (0, [0]);
    loop {
        stream.read_exact(&mut byte).ok()?;
        match byte[0] {
            b':' => break,
            digit => size = size * 10 + usize::from(digit - b'0'),
        }
    }
    let mut block = vec![0; size + 1];
    stream.read_exact(&mut block).ok()?;
    assert_eq!(block.pop(), Some(b','));
    let words: Vec<_> = block.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let headers: Vec<_> = words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    assert_eq!(headers[0].0, "CONTENT_LENGTH");
    let mut body = vec![0; headers[0].1.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some((headers, body))
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
    let backend = application(|(headers, body)| {
        let lines = headers.iter().map(|(name, value)| format!("{name}={value}\n"));
        format!("\r\n{}{}", lines.collect::<String>(), String::from_utf8_lossy(body)).into_bytes()
    });
    let server = server(
        &backend,
        "location / { scgi_pass 127.0.0.1:B; }
         location /own { set $no ''; scgi_pass 127.0.0.1:B; scgi_param SCGI 1; scgi_param HTTP_X_A c;
             scgi_param NONE $no if_not_empty; scgi_param EMPTY $no; }
         location /alone { scgi_pass 127.0.0.1:B; scgi_pass_request_headers off; }
         location /stream { scgi_pass 127.0.0.1:B; scgi_pass_request_headers off; scgi_request_buffering off; }
         location /var { scgi_pass $arg_to; scgi_pass_request_headers off; }",
    );
    let ask = |request: &str| server.raw(request.replace('|', "\r\n")).text();
    assert_eq!(
        ask("GET / HTTP/1.1|Host: h:9|X-A: 1|X-A: 2|Connection: close||"),
        "CONTENT_LENGTH=0\nHTTP_HOST=h:9\nHTTP_X_A=1, 2\nHTTP_CONNECTION=close\n"
    );
    assert_eq!(
        ask("GET /own HTTP/1.1|Host: h|X-A: 1|Connection: close||"),
        "CONTENT_LENGTH=0\nSCGI=1\nHTTP_X_A=c\nEMPTY=\nHTTP_HOST=h\nHTTP_CONNECTION=close\n"
    );
    for target in ["/alone", "/stream"] {
        for body in ["Content-Length: 5||hello", "Transfer-Encoding: chunked||2|he|3|llo|0||"] {
            let text = ask(&format!("POST {target} HTTP/1.1|Host: h|Connection: close|{body}"));
            assert_eq!(text, "CONTENT_LENGTH=5\nHTTP_HOST=h\nhello", "{target} {body}");
        }
    }
    let text = ask(&format!("GET /var?to=127.0.0.1:{} HTTP/1.1|Host: h|Connection: close||", backend.port));
    assert_eq!(text, "CONTENT_LENGTH=0\nHTTP_HOST=h\n");
}

#[test]
fn answers() {
    let backend = application(|(headers, _)| {
        let uri = headers.iter().find(|(name, _)| name == "U").map(|(_, value)| value.as_str());
        let found = RESPONSES.iter().find(|(path, ..)| Some(*path) == uri);
        found.expect("it is one of the cases").1.as_bytes().to_vec()
    });
    let inside =
        "scgi_param U $uri; location / { scgi_pass 127.0.0.1:B; } location /inside { internal; return 200 inside; }";
    let mut server = server(&backend, inside);
    responses(&mut server);
    assert!(server.read("error.log").contains(&format!("upstream: \"scgi://127.0.0.1:{}\"", backend.port)));
    server.quiet();
}

#[test]
fn what_is_refused() {
    for (directives, message) in [
        ("scgi_pass 127.0.0.1;", "no port in upstream \"127.0.0.1\""),
        ("scgi_pass scgi://127.0.0.1:1;", "invalid host in upstream \"scgi://127.0.0.1:1\""),
        ("scgi_next_upstream http_502;", "invalid value \"http_502\""),
        ("scgi_buffers 1 4k;", "there must be at least 2 \"scgi_buffers\""),
    ] {
        let text = format!("server {{ listen 127.0.0.1:%%PORT%%; location / {{ {directives} }} }}");
        let output = Setup::http(&text).prepare().command(&["-t"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(message), "{directives}: {said}");
    }
}
