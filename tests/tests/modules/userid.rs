//! `userid`: cookies by which clients are known again.

use e2e::Setup;

/// A cookie that nginx has made, and what it says of it.
const COOKIE: &str = "fwAAAWGGlm2sEAAAAwIDBA==";
const HEX: &str = "0100007F6D968661000010AC04030203";

#[test]
fn cookies() {
    let server = Setup::http(
        "log_format ids '$uri $uid_got|$uid_set'; access_log ids.log ids;
         server { listen 127.0.0.1:%%PORT%%; userid on;
            location /on { return 204; }
            location /v1 { userid v1; userid_name v; return 404; }
            location /log { userid log; return 204; }
            location /off { userid off; return 204; }
            location /full { userid_service 258; userid_name n; userid_domain .a.test; userid_path /p; userid_expires max;
                userid_p3p policy; userid_flags secure httponly samesite=lax; return 204; }
            location /mark { userid_mark q; userid_expires 1h; return 204; }
            location /reset { set $uid_reset 1; return 204; }
            location /told { set $uid_reset log; return 204; }
            location /kept { set $uid_reset 0; return 204; } }",
    )
    .start();
    let set = |target: &str, cookie: &str| {
        let got = server.get_with(target, &format!("Cookie: {cookie}\r\n"));
        got.field("Set-Cookie").map(str::to_owned)
    };
    let first = set("/on", "").expect("a cookie");
    assert!(first.starts_with("uid=fwAAA") && first.ends_with("Ag==; path=/"), "127.0.0.1 comes first: {first}");
    assert_ne!(set("/on", ""), Some(first), "each is another one");
    let older = set("/v1", "").expect("errors have it too");
    assert!(older.starts_with("v=AAAAA"), "{older}");
    for target in ["/log", "/off"] {
        assert_eq!(set(target, ""), None, "{target}");
    }
    let full = server.get("/full");
    let cookie = full.field("Set-Cookie").expect("a cookie");
    assert!(cookie.starts_with("n=AAABA"), "{cookie}");
    let rest = "; expires=Thu, 31-Dec-37 23:55:55 GMT; domain=.a.test; path=/p; secure; httponly; samesite=lax";
    assert!(cookie.ends_with(rest), "{cookie}");
    assert_eq!(full.field("P3P"), Some("policy"));
    // Who is known gets no other one, unless the mark is missing.
    let known = format!("x=1; UID={COOKIE}");
    for target in ["/on", "/kept"] {
        assert_eq!(set(target, &known), None, "{target}");
    }
    let marked = set("/mark", &known).expect("it has no mark");
    assert!(marked.starts_with(&format!("uid={}q=; expires=", &COOKIE[..22])), "{marked}");
    assert_eq!(set("/mark", &format!("uid={}q=", &COOKIE[..22])), None);
    for target in ["/reset", "/told"] {
        let other = set(target, &known).expect("a new one");
        assert!(!other.contains(&COOKIE[..22]), "{other}");
    }
    for broken in ["uid=short", "uid=\"fwAAAWGGlm2sEAAAAwIDBA==\""] {
        assert!(set("/on", broken).is_some(), "{broken}");
    }
}

#[test]
fn logs() {
    let mut server = Setup::http(
        "log_format ids '$uri $uid_got|$uid_set'; access_log ids.log ids; error_log error.log info;
         server { listen 127.0.0.1:%%PORT%%; userid on;
            location /on { return 204; }
            location /told { set $uid_reset log; return 204; }
            location /log { userid log; return 204; } }",
    )
    .start();
    let cookie = format!("Cookie: uid={COOKIE}\r\n");
    for (target, fields) in
        [("/on", ""), ("/on?2", &cookie[..]), ("/told", &cookie), ("/log", &cookie), ("/on", "Cookie: uid=short\r\n")]
    {
        server.get_with(target, fields);
    }
    server.read_until("error.log", "client sent too short userid cookie \"uid=short\"");
    assert!(server.read("error.log").contains(&format!("userid cookie \"uid={HEX}\" was reset")));
    let log = server.read_until("ids.log", "/log");
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].starts_with("/on -|uid=0100007F") && lines[0].len() == "/on -|uid=".len() + 32, "{}", lines[0]);
    assert_eq!(lines[1], format!("/on uid={HEX}|-"));
    assert!(lines[2].starts_with(&format!("/told uid={HEX}|uid=0100007F")), "{}", lines[2]);
    assert_eq!(lines[3], format!("/log uid={HEX}|-"));
}

#[test]
fn a_level_without_cookies_decides_nothing() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; set $seen $uid_got; location / { userid on; return 200 $seen; } }",
    )
    .start();
    assert!(server.get("/").field("Set-Cookie").is_some_and(|cookie| cookie.starts_with("uid=")));
}

/// Differs from nginx: a request and its subrequests have one new identifier
#[test]
fn subrequests_share_the_identifier() {
    let mut server = Setup::http(
        "log_format ids '$uid_set'; log_subrequest on;
         server { listen 127.0.0.1:%%PORT%%; userid on; access_log ids.log ids;
            location / { auth_request /auth; try_files /none @made; }
            location /auth { internal; return 204; }
            location @made { return 200 x; } }",
    )
    .start();
    let cookie = server.get("/").field("Set-Cookie").expect("a cookie").to_owned();
    assert!(cookie.starts_with("uid=fwAAA"), "{cookie}");
    server.get_with("/", &format!("Cookie: uid={COOKIE}\r\n"));
    let log = server.read_until("ids.log", "\n-\n-\n");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], lines[1], "the subrequest's and the request's");
    let digits = lines[1].strip_prefix("uid=").expect("an identifier");
    let numbers = (0..4).map(|n| u32::from_str_radix(&digits[8 * n..8 * n + 8], 16).expect("digits").to_le_bytes());
    let bytes: Vec<u8> = numbers.flatten().collect();
    assert_eq!(base64(&bytes), cookie[4..].split(';').next().expect("a value"), "the cookie's");
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|part| {
        let number = part.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        (0..4).map(move |at| if at <= part.len() { DIGITS[(number >> (18 - 6 * at)) as usize & 63] } else { b'=' })
    });
    digits.map(char::from).collect()
}
