//! `location $variable`, and `client_body_early_read`, with which it may depend on the body.

use e2e::{Backend, Response, Server, Setup};

fn post(server: &Server, target: &str, body: &str) -> Response {
    let length = body.len();
    server.raw(format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
}

fn chunked(server: &Server, target: &str, body: &str) -> Response {
    let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    server.raw(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))
}

/// Not in nginx: a location may have a predicate
#[test]
fn their_place_among_other_locations() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; error_page 418 = @named;
            location $arg_a { return 200 a; }
            location = /exact { return 200 exact; }
            location /prefix { return 200 prefix; }
            location ^~ /noregex { return 200 noregex; location $arg_b { return 200 'noregex b'; } }
            location ~ ^/regex { return 200 regex; location $arg_b { return 200 'regex b'; } }
            location /nested { return 200 nested; location $arg_b { return 200 'nested b'; } }
            location = /named { return 418; }
            location @named { return 200 named; }
            location $arg_c {
                if ($arg_c = 2) { return 200 'c if'; }
                return 200 c;
                location = /c/exact { return 200 'c exact'; }
                location /c/prefix { return 200 'c prefix'; }
                location ~ ^/c/regex { return 200 'c regex'; }
                location $arg_d { return 200 'c d'; }
            }
            location / { return 404; }
        }",
    )
    .start();
    for (target, expect) in [
        ("/x?a=1", Some("a")),
        ("/x", None),
        ("/x?a=", None),
        ("/x?a=0", None),
        ("/x?a=00", Some("a")),
        ("/prefix", Some("prefix")),
        ("/prefix?a=1", Some("a")),
        ("/exact?a=1", Some("exact")),
        ("/noregex?a=1", Some("noregex")),
        ("/noregex?b=1", Some("noregex b")),
        ("/regex?a=1", Some("regex")),
        ("/regex?b=1", Some("regex b")),
        ("/x?c=1", Some("c")),
        ("/x?a=1&c=1", Some("a")),
        ("/nested", Some("nested")),
        ("/nested?b=1", Some("nested b")),
        ("/nested?a=1&b=1", Some("nested b")),
        ("/named?a=1", Some("named")),
        ("/c/exact?c=1&d=1", Some("c exact")),
        ("/c/prefix?c=1", Some("c prefix")),
        ("/c/prefix?c=1&d=1", Some("c d")),
        ("/c/regex?c=1&d=1", Some("c regex")),
        ("/x?c=1&d=1", Some("c d")),
        ("/x?c=2", Some("c if")),
    ] {
        let response = server.get(target);
        assert_eq!((response.status == 200).then(|| response.text()).as_deref(), expect, "{target}");
    }
}

/// Not in nginx: a location may have a predicate
#[test]
fn files_backends_and_redirects_in_them() {
    let backend = Backend::start(|r| Backend::ok(r.line()));
    let server = Setup::http(
        &"map $uri $mapped { /mapped 1; }
        map $uri $volatile { volatile; /volatile 1; }
        server { listen 127.0.0.1:%%PORT%%; root %%DIR%%/none;
            location $arg_proxy { proxy_pass http://127.0.0.1:B; }
            location $arg_file { root %%DIR%%/html; }
            location $arg_alias { alias %%DIR%%/html$uri; }
            location $arg_try { alias %%DIR%%/html/; try_files $uri =404; }
            location $arg_nest { location /sub/ { alias %%DIR%%/html/; } return 204; }
            location $arg_dir { location /dir/ { proxy_pass http://127.0.0.1:B; } }
            location /redirect/mapped { rewrite ^ /mapped last; }
            location /redirect/volatile { rewrite ^ /volatile last; }
            location $mapped { return 200 mapped; }
            location $volatile { return 200 volatile; }
        }"
        .replace(":B", &format!(":{}", backend.port)),
    )
    .file("html/t", "file")
    .start();
    for (target, status, expect) in [
        ("/some/path?proxy=1", 200, "GET /some/path?proxy=1 HTTP/1.1"),
        ("/t?file=1", 200, "file"),
        ("/t?alias=1", 200, "file"),
        ("/t?try=1", 200, "file"),
        ("/u?try=1", 404, ""),
        ("/sub/t?nest=1", 200, "file"),
        ("/dir/?dir=1", 200, "GET /dir/?dir=1 HTTP/1.1"),
        ("/dir?dir=1", 301, ""),
        ("/mapped", 200, "mapped"),
        ("/volatile", 200, "volatile"),
        // The map was looked up for the URI before.
        ("/redirect/mapped", 404, ""),
        ("/redirect/volatile", 200, "volatile"),
    ] {
        let response = server.get(target);
        assert_eq!(response.status, status, "{target}");
        assert!(expect.is_empty() || response.text() == expect, "{target}: {}", response.text());
    }
}

/// Not in nginx: a location may have a predicate
#[test]
fn errors() {
    for (text, expect) in [
        ("location $nothing { }", "unknown \"nothing\" variable in"),
        ("location $ { }", "invalid variable name \"$\" in"),
        ("location $arg_a$arg_b { }", "unknown \"arg_a$arg_b\" variable in"),
        ("location ~ (.) { location $1 { } }", "unknown \"1\" variable in"),
        ("location = /x { location $arg_a { } }", "location \"$arg_a\" cannot be inside the exact location \"/x\" in"),
        ("location @x { location $arg_a { } }", "location \"$arg_a\" cannot be inside the named location \"@x\" in"),
        ("location $arg_a { location @x { } }", "named location \"@x\" can be on the server level only in"),
        ("location $arg_a { proxy_pass http://127.0.0.1:1/x; }", "\"proxy_pass\" cannot have URI part in location"),
    ] {
        let server = Setup::http(&format!("server {{ listen 127.0.0.1:%%PORT%%; {text} }}")).prepare();
        let out = server.command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(expect), "{text}: {said}");
    }
}

#[test]
fn the_body_is_read_early() {
    let backend = Backend::start(|r| Backend::ok(&String::from_utf8_lossy(&r.body)));
    let server = Setup::http(
        &"server { listen 127.0.0.1:%%PORT%%; client_body_early_read $arg_on $arg_or; client_max_body_size 40;
            client_body_buffer_size 16; client_body_in_file_only on; error_page 413 /error;
            if ($request_body = secret) { return 200 rule; }
            location / { return 200 'body:$request_body'; }
            location /less { client_max_body_size 4; return 200 x; }
            location /more { client_max_body_size 400; return 200 x; }
            location /moved { rewrite ^ / last; }
            location /proxy { proxy_pass http://127.0.0.1:B; }
            location /stream { proxy_request_buffering off; proxy_pass http://127.0.0.1:B; }
            location = /error { internal; return 200 'too large'; }
        }"
        .replace(":B", &format!(":{}", backend.port)),
    )
    .start();
    let long = "x".repeat(41);
    for (target, body, status, expect) in [
        ("/", "0123456789", 200, "body:"),
        ("/?on=1", "0123456789", 200, "body:0123456789"),
        ("/?on=0", "0123456789", 200, "body:"),
        ("/?on=0&or=off", "0123456789", 200, "body:0123456789"),
        ("/?on=1", "", 200, "body:"),
        ("/?on=1", "secret", 200, "rule"),
        ("/moved?on=1", "abc", 200, "body:abc"),
        ("/?on=1", &long, 413, "too large"),
        ("/less?on=1", "12345", 413, "too large"),
        ("/more?on=1", &long, 413, "too large"),
        ("/proxy?on=1", "to the backend", 200, "to the backend"),
        ("/stream?on=1", "to the backend", 200, "to the backend"),
    ] {
        let answers = [("a length", post(&server, target, body)), ("chunks", chunked(&server, target, body))];
        for (how, got) in answers.into_iter().filter(|(how, _)| !body.is_empty() || *how == "a length") {
            assert_eq!((got.status, got.text().as_str()), (status, expect), "{target} {how}");
        }
    }
    assert_eq!(server.get("/?on=1").text(), "body:");
    let mut c = server.connect();
    c.send("POST /?on=1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(c.head_response().status, 100);
    // The next request comes with the end of this one.
    c.send("abcPOST /?on=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nde");
    assert_eq!((c.response().text(), c.response().text()), ("body:abc".into(), "body:de".into()));
    let expect = "Expect: 100-continue\r\nContent-Length: 41\r\n";
    let refused = server.raw(format!("POST /?on=1 HTTP/1.1\r\nHost: a\r\n{expect}\r\n"));
    assert_eq!(refused.status, 413, "nobody is told to send what is too large");
}

#[test]
fn a_large_body_goes_to_a_file() {
    let backend = Backend::start(|r| Backend::ok(&r.body.len().to_string()));
    let mut server = Setup::http(
        &"server { listen 127.0.0.1:%%PORT%%; client_body_early_read on; client_body_buffer_size 1k;
            location / { add_header X-File $request_body_file; proxy_pass http://127.0.0.1:B; }
        }"
        .replace(":B", &format!(":{}", backend.port)),
    )
    .start();
    let got = post(&server, "/", &"0123456789".repeat(20_000));
    assert_eq!(got.text(), "200000");
    let file = got.field("X-File").map(std::path::PathBuf::from).expect("a file");
    server.wait(|_| !file.exists(), "the end of the file, which goes with the request");
}

/// Not in nginx: a location may have a predicate
#[test]
fn locations_by_what_the_body_says() {
    let server = Setup::http(
        "client_body_early_read on; client_body_buffer_size 16k;
         json_set $method $request_body method;
         map $method $lists { tools/list 1; }
         map $method $calls { tools/call 1; }
         server { listen 127.0.0.1:%%PORT%%;
            location /rpc { return 400;
                location $lists { return 200 list; }
                location $calls { limit_except POST { deny all; } return 200 call; } }
         }",
    )
    .start();
    for (body, status, expect) in [
        (r#"{"method":"tools/list"}"#, 200, "list"),
        (r#"{"method":"tools/call","params":[1]}"#, 200, "call"),
        (r#"{"method":"other"}"#, 400, ""),
        ("{", 400, ""),
    ] {
        let got = post(&server, "/rpc", body);
        assert_eq!(got.status, status, "{body}");
        assert!(expect.is_empty() || got.text() == expect, "{body}: {}", got.text());
    }
}
