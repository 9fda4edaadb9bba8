//! `json_set`, `json_max_depth`.

use e2e::{Server, Setup};

/// A server that shows the variables of these lines.
fn server(lines: &str) -> Server {
    let names = lines.lines().filter_map(|line| line.split_whitespace().nth(1));
    let shown: Vec<String> = names.map(|name| format!("[{name}]")).collect();
    Setup::http(&format!(
        "json_max_depth 5; {lines}
         server {{ listen 127.0.0.1:%%PORT%%; client_body_early_read on; location / {{ return 200 '{}'; }} }}",
        shown.concat()
    ))
    .start()
}

fn post(server: &Server, body: &str) -> String {
    let length = body.len();
    server
        .raw(format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"))
        .text()
}

/// Not in nginx: `json_set` is built in
#[test]
fn values_of_a_body() {
    let server = server(
        "json_set $name $request_body user.name;
         json_set $age $request_body user.age;
         json_set $tag $request_body tags[1];
         json_set $tags $request_body tags;
         json_set $quoted $request_body 'user[\"a.b\"]';
         json_set $deep $request_body a.b.c.d.e;",
    );
    for (body, expect) in [
        (
            r#"{"user":{"name":"Zoë \"Z\"","age":30,"a.b":null},"tags":["x", "y"]}"#,
            "[Zoë \"Z\"][30][y][[\"x\", \"y\"]][null][]",
        ),
        (r#"{"user":{"name":"a","name":"b"}}"#, "[b][][][][][]"),
        (r#"{"a":{"b":{"c":{"d":{"e":1}}}}}"#, "[][][][][][1]"),
        (r#"{"user":{"name":"a"},"a":{"b":{"c":{"d":{"e":{}}}}}}"#, "[][][][][][]"),
        (r#"{"user":{"name":"a"}"#, "[][][][][][]"),
        (r#"{"user":{"name":"a","x":"\uDEAD"}}"#, "[][][][][][]"),
        ("", "[][][][][][]"),
    ] {
        assert_eq!(post(&server, body), expect, "{body}");
    }
}

/// Not in nginx: `json_set` is built in
#[test]
fn variables_of_other_sources_and_set() {
    let server = Setup::http(
        "json_set $a $arg_json a; json_set $b $arg_json b; json_set $c $arg_other a; json_set $http_token $arg_json token;
         server { listen 127.0.0.1:%%PORT%%;
            location / { set $a fixed; return 200 '$a $b $c $http_token'; }
            location /moved { rewrite ^ '/target?json={\"a\":\"late\"}&other=[]' last; }
            location /target { return 200 '$a'; }
         }",
    )
    .start();
    let got = server.get_with(r#"/?json={"a":1,"b":2,"token":"x"}&other={"a":3}"#, "Token: y\r\n");
    assert_eq!(got.text(), "fixed 2 3 x");
    assert_eq!(server.get("/moved").text(), "late");
}

/// Not in nginx: `json_set` is built in
#[test]
fn errors() {
    for (lines, expect) in [
        ("json_set $v $arg_a '';", "empty json_set path in"),
        ("json_set $v $arg_a a[;", "invalid json_set path \"a[\" in"),
        ("json_set v $arg_a a;", "invalid variable name \"v\" in"),
        ("json_set $v arg_a a;", "invalid variable name \"arg_a\" in"),
        ("json_set $v $nothing a;", "unknown \"nothing\" variable in"),
        ("json_set $v $arg_a a; json_set $v $arg_a b;", "json_set variable \"v\" is already defined in"),
        ("json_set $host $arg_a a;", "the duplicate \"host\" variable in"),
        ("json_max_depth 0;", "value must be between 1 and 256 in"),
        ("json_max_depth 257;", "value must be between 1 and 256 in"),
        ("json_max_depth 1; json_max_depth 2;", "\"json_max_depth\" directive is duplicate in"),
        ("server { json_set $v $arg_a a; }", "\"json_set\" directive is not allowed here in"),
    ] {
        let server = Setup::http(&format!("{lines} server {{ listen 127.0.0.1:%%PORT%%; }}")).prepare();
        let out = server.command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(expect), "{lines}: {said}");
    }
}
