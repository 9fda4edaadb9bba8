//! Mutated requests of all kinds against the running server: none may kill it, hang it, or keep others from an answer.
//!
//! 20,000 of them are part of every run; `TIDEGATE_MUTATIONS=1000000 cargo test -p e2e --test system mutations::` makes a
//! long one.

use e2e::Setup;
use e2e::mutations::{backend, mutate, storm};
use e2e::random::Random;

/// Valid requests, which mutations start from.
const CORPUS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /index.html?a=b&c=%20d HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-1,3-4,-2\r\nConnection: keep-alive\r\n\r\n",
    b"GET /large.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=100-50000\r\nIf-Range: \"x\"\r\n\r\n",
    b"HEAD /z/large.txt HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip;q=0.5, br, *;q=0\r\n\r\n",
    b"GET /z/large.txt HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nUser-Agent: Mozilla/4.0 (compatible; MSIE 6.0)\r\n\r\n",
    b"GET /p/ok?x=1 HTTP/1.1\r\nHost: b.example:80\r\nCookie: c=1; d=2\r\nX-Forwarded-For: 10.0.0.1, ::1\r\n\r\n",
    b"POST /p/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;e=\"v\"\r\nabcde\r\n0\r\nT: v\r\n\r\n",
    b"POST /p/b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nabcde",
    b"PUT /u/c HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello world",
    b"GET /u/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n\x81\x05hello",
    b"GET http://h/%41/../b//c HTTP/1.0\r\nIf-None-Match: \"a\", W/\"b\"\r\nIf-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n",
    b"GET /m/x.php?arg=1 HTTP/1.1\r\nHost: www.example.com\r\nX-Kind: one\r\nCookie: c=v\r\n\r\n",
    b"GET /r/one/two?q=%2F HTTP/1.1\r\nHost: a\r\nReferer: http://x/\r\n\r\n",
    b"GET /f/missing HTTP/1.1\r\nHost: a\r\n\r\nGET /f/dir HTTP/1.1\r\nHost: a\r\n\r\nGET /m/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n0123456789",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
    b"GET /old\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// What mutations put in.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"%",
    b"%00",
    b"%2e%2e/",
    b"/../",
    b"//",
    b"/./",
    b";",
    b"?",
    b"#",
    b"\x80",
    b"\xff",
    b"\"",
    b"\\",
    b"$",
    b"${",
    b"HTTP/1.1",
    b"HTTP/9.9",
    b"Host: b\r\n",
    b"Host:\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Range: bytes=0-0,-1,5-,99999999999-\r\n",
    b"If-Modified-Since: 0\r\n",
    b"If-Match: *\r\n",
    b"Accept-Encoding: gzip\r\n",
    b"Upgrade: h2c\r\n",
    b"ffffffffffffffff\r\n",
    b"7fffffffffffffff\r\n",
    b"0\r\n\r\n",
    b"-1",
    b"18446744073709551616",
    b" folded\r\n",
    b"X_Under: 1\r\n",
    b"Cookie: a=b\r\n",
    b"/z/large.txt",
    b"/p/ok",
    b"/r/",
    b"/m/x.php",
    b"/f/",
];

const CONFIGURATION: &str = r#"
    client_header_timeout 1s; client_body_timeout 1s; send_timeout 2s; keepalive_timeout 2s; lingering_timeout 1s;
    access_log off; error_log error.log crit; client_body_buffer_size 1k;
    upstream backend { server 127.0.0.1:BACKEND; keepalive 4; }
    map $http_x_kind $kind { default none; one 1; ~^(?<rest>t.*)$ "more $rest"; "~*x(.)" $1; }
    server {
        listen 127.0.0.1:%%PORT%%; root %%DIR%%; error_page 404 /error.html; server_name localhost ~^(?<sub>\w+)\.example;
        location = /alive { return 200 alive; }
        location /p { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 2s; }
        location /u { proxy_pass http://127.0.0.1:BACKEND/up; proxy_buffering off; proxy_request_buffering off;
            proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
            proxy_read_timeout 2s; }
        location /m { return 200 "$kind $sub $uri $args $arg_arg $cookie_c $http_referer $request_uri $remote_addr $host"; }
        location /r { set $x $1; rewrite ^/r/(.*)/(.*)$ /m/$2?$1 last; if ($args ~ "(q)=(.)") { return 301 /m/$1$2; }
            rewrite ^/r/(.*)$ /$1 break; }
        location /z { gzip on; gzip_types text/plain; gzip_min_length 1; alias %%DIR%%; }
        location /f { error_page 404 = @named; error_page 403 =200 /alive; root %%DIR%%; }
        location @named { return 200 named; }
        location /small { client_max_body_size 10; proxy_pass http://backend; }
        location ~ ^/(?<first>[a-z]+)\.php$ { if ($request_method = POST) { return 405; } return 200 "$first"; }
    }
"#;

/// Request number `n` of a run.
fn request(seed: u64, n: u64) -> Vec<u8> {
    let mut random = Random::new(seed, n);
    let mut bytes = random.of(CORPUS).to_vec();
    for _ in 0..=random.below(5) {
        match random.below(40) {
            // One request goes on as another one.
            0..4 => {
                let (other, at) = (random.of(CORPUS), random.below(bytes.len() + 1));
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len())..]);
            }
            4 => {
                let (byte, length) = (random.of(b"ab/%: \r\n"), random.of(&[900, 5000, 9000, 40_000]));
                let at = random.below(bytes.len() + 1);
                drop(bytes.splice(at..at, vec![byte; length]));
            }
            _ => mutate(&mut bytes, WORDS, &mut random),
        }
    }
    bytes
}

#[test]
fn mutated_requests() {
    let backend = backend();
    let server = Setup::http(&CONFIGURATION.replace("BACKEND", &backend.port.to_string()))
        .file("index.html", "index")
        .file("error.html", "error")
        .file("dir/index.html", "dir")
        .file("large.txt", "0123456789abcdef".repeat(6400))
        .start();
    storm(&server, 20_000, request);
}
