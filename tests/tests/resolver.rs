//! `resolver`: names that are only known when a request comes.

use e2e::{Backend, NameServer, Setup};

#[test]
fn names_in_proxy_pass_are_looked_up() {
    let names = NameServer::start("backend.test");
    let backend = Backend::start(|request| {
        Backend::ok(&format!("{} {}", request.line(), request.field("Host").unwrap_or_default()))
    });
    let (dns, port) = (names.port, backend.port);
    let mut server = Setup::http(&format!(
        "resolver 127.0.0.1:{dns} valid=10m ipv6=off; resolver_timeout 5s;
        server {{ listen 127.0.0.1:%%PORT%%;
            location / {{ proxy_pass http://$arg_h:{port}; add_header X-To $upstream_addr; }}
            location /both {{ resolver 127.0.0.1:{dns}; proxy_pass http://$arg_h:{port}/both?; }}
            location /late {{ resolver 127.0.0.1:%%PORT_nobody%%; resolver_timeout 100ms; proxy_pass http://$arg_h; }} }}"
    ))
    .start();
    for name in ["backend.test", "BACKEND.test", "backend.test."] {
        let response = server.get(&format!("/x?h={name}"));
        assert_eq!(response.text(), format!("GET /x?h={name} HTTP/1.1 {name}:{port}"));
        assert_eq!(response.field("X-To"), Some(format!("127.0.0.1:{port}").as_str()));
    }
    assert_eq!(names.asked(), 1, "the answer is kept");
    assert_eq!(server.get("/both?h=backend.test").status, 200);
    assert_eq!(names.asked(), 3, "a resolver of its own asks itself, for both kinds of addresses");
    for (path, log) in [
        ("/?h=other.test", "other.test could not be resolved (3: Host not found), client: "),
        ("/?h=a..b", "a..b could not be resolved (3: Host not found), client: "),
        ("/late?h=backend.test", "backend.test could not be resolved (110: Operation timed out), client: "),
    ] {
        assert_eq!(server.get(path).status, 502, "{path}");
        server.read_until("error.log", log);
    }
}

/// Not in nginx: resolver … status_zone=
#[test]
fn faults_of_the_configuration() {
    for (directives, expect) in [
        ("resolver valid=1s;", "no name servers defined"),
        ("resolver 127.0.0.1 valid=x;", "invalid parameter: valid=x"),
        ("resolver 127.0.0.1 ipv6=x;", "invalid parameter: ipv6=x"),
        ("resolver 127.0.0.1:0;", "invalid port in resolver \"127.0.0.1:0\""),
        ("resolver no.such.invalid;", "host not found in resolver \"no.such.invalid\""),
        ("resolver 127.0.0.1; resolver 127.0.0.2;", "\"resolver\" directive is duplicate"),
        ("resolver 127.0.0.1; resolver_timeout x;", "\"resolver_timeout\" directive invalid value"),
        ("resolver 127.0.0.1 ipv4=off ipv6=off;", "\"ipv4\" and \"ipv6\" cannot both be \"off\""),
        ("resolver 127.0.0.1 [::1]:5353 valid=30s ipv4=on status_zone=x;", "test is successful"),
    ] {
        let server = Setup::http(&format!("{directives} server {{ listen 127.0.0.1:%%PORT%%; }}")).prepare();
        let out = server.command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(expect), "{directives}: {said}");
    }
}
