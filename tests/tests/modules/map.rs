//! `map`, and variables.

use e2e::Setup;

#[test]
fn lookups() {
    let server = Setup::http(
        "map $arg_a $plain { default none; one 1; TWO 2; '' empty; \\default literal; }
         map $host $names { hostnames; default other; example.com exact; *.example.com tail; mail.* head; }
         map $uri $regex { default no; ~^/u/(?<id>\\d+) id-$id; ~*\\.PNG$ image; }
         map $arg_a$arg_b $chained { default $plain; xy both; }
         server { listen 127.0.0.1:%%PORT%%;
            location / { return 200 \"$plain|$names|$regex|$chained\"; } }",
    )
    .start();
    let cases = [
        ("/", "localhost", "empty|other|no|empty"),
        ("/?a=one", "localhost", "1|other|no|1"),
        ("/?a=two", "localhost", "2|other|no|2"),
        ("/?a=default", "localhost", "literal|other|no|literal"),
        ("/?a=x&b=y", "example.com", "none|exact|no|both"),
        ("/u/42?a=z", "www.example.com", "none|tail|id-42|none"),
        ("/a.png?a=z", "mail.org", "none|head|image|none"),
    ];
    for (target, host, text) in cases {
        let got = server.raw(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(got.text(), text, "{target} {host}");
    }
}

/// A regex isn't asked for an empty value; with `hostnames` it doesn't see the dot at the end.
#[test]
fn what_regexes_see() {
    let regexes = "~^$ empty; ~\\.$ dot; ~^A\\.b$ host; ~.* any; default none;";
    let server = Setup::http(&format!(
        "map $http_x $plain {{ {regexes} }}
         map $http_x $names {{ hostnames; {regexes} }}
         server {{ listen 127.0.0.1:%%PORT%%; location / {{ return 200 $plain|$names; }} }}"
    ))
    .start();
    for (field, text) in [
        ("", "none|none"),
        ("X:\r\n", "none|none"),
        ("X: .\r\n", "dot|none"),
        ("X: ..\r\n", "dot|dot"),
        ("X: A.b\r\n", "host|host"),
        ("X: A.b.\r\n", "dot|host"),
        ("X: c.\r\n", "dot|any"),
    ] {
        assert_eq!(server.get_with("/", field).text(), text, "{field}");
    }
}

#[test]
fn variables() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; server_name srv;
            location / { return 200 \"$VAR\"; } }"
            .replace("$VAR", "$request_method|$request_uri|$uri|$document_uri|$args|$is_args|$query_string|$host|$http_x_a|\
                $cookie_c|$arg_q|$scheme|$server_name|$server_port|$remote_addr|$server_protocol|$request|$content_length|\
                $content_type|$status|${uri}z")
            .as_str(),
    )
    .start();
    let port = server.port();
    let got = server.raw(
        "GET /a%20b?q=1&r HTTP/1.1\r\nHost: Some.Host:80\r\nX-A: xa\r\nCookie: b=1; c=two\r\nContent-Type: t/x\r\n\
         Connection: close\r\n\r\n",
    );
    let expect = format!(
        "GET|/a%20b?q=1&r|/a b|/a b|q=1&r|?|q=1&r|some.host|xa|two|1|http|srv|{port}|127.0.0.1|HTTP/1.1|\
         GET /a%20b?q=1&r HTTP/1.1||t/x|200|/a bz"
    );
    assert_eq!(got.text(), expect);
}
