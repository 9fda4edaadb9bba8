//! `geo`, `split_clients`.

use e2e::Setup;

#[test]
fn networks_and_ranges() {
    let server = Setup::http(
        "geo $arg_ip $net { default none; include nets.conf; delete 10.9.0.0/16; 127.0.0.1 one; 2001:db8::/32 doc; }
         geo $arg_ip $range { ranges; default none; 10.0.0.0-10.0.0.99 all; 10.0.0.10-10.0.0.19 some; }
         geo $me { 127.0.0.0/8 local; }
         geo $behind { proxy 127.0.0.0/8; proxy_recursive; default world; 192.0.2.0/24 office; 127.0.0.0/8 proxy; }
         geo $last { proxy 127.0.0.0/8; proxy 10.0.0.0/8; default world; 10.0.0.0/8 inner; }
         server { listen 127.0.0.1:%%PORT%%; location / { return 200 $net|$range|$me|$behind|$last; } }",
    )
    .file("nets.conf", "10.0.0.0/8 ten; 10.9.0.0/16 nine;")
    .start();
    for (target, fields, expect) in [
        ("/?ip=127.0.0.1", "", "one|none|local|proxy|world"),
        ("/?ip=10.9.0.1", "", "ten|none|local|proxy|world"),
        ("/?ip=10.0.0.9", "", "ten|all|local|proxy|world"),
        ("/?ip=::ffff:10.0.0.10", "", "ten|some|local|proxy|world"),
        ("/?ip=2001:db8::5", "", "doc|none|local|proxy|world"),
        ("/?ip=nonsense", "X-Forwarded-For: 192.0.2.1, 127.0.0.2\r\n", "none|none|local|office|world"),
        ("/", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 10.0.0.1\r\n", "none|none|local|world|inner"),
    ] {
        assert_eq!(server.get_with(target, fields).text(), expect, "{target} {fields}");
    }
}

#[test]
fn clients_on_unix_sockets_have_no_address() {
    let server = Setup::http(
        "geo $area { default other; 255.255.255.255 none; }
         server { listen 127.0.0.1:%%PORT%%; location / { proxy_pass http://unix:%%DIR%%/s; } }
         server { listen unix:%%DIR%%/s; location / { return 200 $area; } }",
    )
    .start();
    assert_eq!(server.get("/").text(), "none");
}

#[test]
fn many_networks() {
    let lines: String =
        (0..100_000).map(|n| format!("{}.{}.{}.0/24 v{n};\n", 1 + n / 65536, n / 256 % 256, n % 256)).collect();
    let server = Setup::http(
        "geo $arg_ip $net { include nets.conf; }
         server { listen 127.0.0.1:%%PORT%%; location / { return 200 [$net]; } }",
    )
    .file("nets.conf", lines)
    .start();
    for (ip, expect) in
        [("1.0.0.1", "[v0]"), ("1.255.255.255", "[v65535]"), ("2.134.159.9", "[v99999]"), ("3.0.0.0", "[]")]
    {
        assert_eq!(server.get(&format!("/?ip={ip}")).text(), expect, "{ip}");
    }
}

#[test]
fn shares_of_clients() {
    let server = Setup::http(
        "split_clients $arg_a $share { 40% first; 30.5% second; * \"\"; }
         split_clients $arg_a $all { 100% $host; }
         split_clients $arg_a $none { 0.01% x; }
         server { listen 127.0.0.1:%%PORT%%; location / { return 200 $share|$all|$none|; } }",
    )
    .start();
    // The shares that nginx has these in.
    for (key, share) in [("", "first"), ("a", "second"), ("ab", "first"), ("hello", ""), ("127.0.0.1", "")] {
        assert_eq!(
            server.get(&format!("/?a={key}")).text(),
            format!("{share}|$host|{}|", if key.is_empty() { "x" } else { "" }),
            "{key}"
        );
    }
}
