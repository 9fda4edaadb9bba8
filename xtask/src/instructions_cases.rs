//! The cases whose instructions are counted, and the configuration in which all of them stand beside each other.

use std::fmt::Write;

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// One after the other on one connection.
    Keep,
    /// Each on a connection of its own.
    Close,
    /// Over HTTP/2, a hundred streams at a time.
    Streams,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, for readers.
    pub title: &'static str,
    /// How many requests are counted in a round.
    pub requests: usize,
    /// The request's path; with HTTP/2 it is the one that [`crate::instructions_client`] has in Huffman's code.
    pub path: &'static str,
    /// Its fields after `Host`.
    pub fields: &'static str,
    /// How many bytes are sent with it, as a POST; 0: none, as a GET.
    pub body: usize,
    /// How it is sent.
    pub load: Load,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Directives of the server that make the case.
    pub directives: &'static str,
    /// Whether the requests before the counting make a file, which is kept in memory once it is a few seconds old.
    pub makes_file: bool,
}

/// A page of 1 KiB.
pub(crate) fn page() -> String {
    "abcdefghijklmnopqrstuvwxyz012345".repeat(32)
}

const RETURN: &str = "location / { return 200 PAGE; }";
const FILES: &str = "open_file_cache max=1000 inactive=600s; open_file_cache_valid 600s; open_file_cache_min_uses 1;";
const STREAMS: &str =
    "http2 on; open_file_cache max=1000 inactive=600s; open_file_cache_valid 600s; open_file_cache_min_uses 1;";
const PASS: &str =
    "location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; }";
const GZIP: &str = "gzip on; gzip_comp_level 1; gzip_min_length 100; gzip_types text/plain;";
const GZIP_PASS: &str = "gzip on; gzip_comp_level 1; gzip_types text/plain; \
    location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; }";
const ACCEPT: &str = "Accept-Encoding: gzip\r\n";
const CLOSE: &str = "Connection: close\r\n";
const CACHED: &str = "location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
                      proxy_cache pages; proxy_cache_valid 200 600s; }";
const REAL: &str = "access_log access.log combined; location / { proxy_pass http://backend/real; proxy_http_version 1.1; \
    proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr; \
    proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
    proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Port $server_port; \
    proxy_set_header X-Request-ID $request_id; }";

/// What a browser sends besides `Host`.
const BROWSER: &str = "Connection: keep-alive\r\nCache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"124\", \"Google Chrome\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Windows\"\r\nUpgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 \
    Safari/537.36\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\
    Referer: https://www.example.com/shop/category/list?id=12345\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9,de;q=0.8\r\nCookie: session=Zk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rT; \
    consent=Zk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rT; \
    visitor=Zk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rT; \
    campaign=Zk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7r; \
    basket=Zk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rTZk9x3QpLmN0vB7rT\r\n";

const BASE: Case = Case {
    name: "return",
    title: "return 200, 1 KiB",
    requests: 600,
    path: "/",
    fields: "",
    body: 0,
    load: Load::Keep,
    tls: false,
    directives: RETURN,
    makes_file: false,
};

const STATIC: Case = Case { name: "static", title: "static 1 KiB", path: "/1k.bin", directives: "", ..BASE };

/// The cases, in the table's order.
pub(crate) const CASES: [Case; 22] = [
    BASE,
    Case { name: "static-cached", title: "static 1 KiB, open_file_cache", directives: FILES, ..STATIC },
    STATIC,
    Case { name: "static-100k", title: "static 100 KiB", path: "/100k.bin", requests: 200, ..STATIC },
    Case { name: "proxy-1k", title: "proxy, keep-alive, 1 KiB", path: "/1k", directives: PASS, requests: 400, ..BASE },
    Case {
        name: "proxy-100k",
        title: "proxy, keep-alive, 100 KiB",
        path: "/100k.bin",
        directives: PASS,
        requests: 100,
        ..BASE
    },
    Case {
        name: "cache-hit",
        title: "proxy, from the cache, 1 KiB",
        path: "/1k",
        directives: CACHED,
        makes_file: true,
        ..BASE
    },
    Case {
        name: "close",
        title: "one connection per request",
        fields: CLOSE,
        load: Load::Close,
        requests: 300,
        ..BASE
    },
    Case {
        name: "log",
        title: "return 200, access log",
        directives: "access_log access.log combined; location / { return 200 PAGE; }",
        ..BASE
    },
    Case {
        name: "log-buffered",
        title: "return 200, buffered access log",
        directives: "access_log buffered.log combined buffer=64k; location / { return 200 PAGE; }",
        ..BASE
    },
    Case {
        name: "gzip-1k",
        title: "gzip 1, 1 KiB",
        path: "/1k.html",
        fields: ACCEPT,
        directives: GZIP,
        requests: 200,
        ..BASE
    },
    Case {
        name: "gzip-30k",
        title: "gzip 1, 30 KiB",
        path: "/30k.txt",
        fields: ACCEPT,
        directives: GZIP,
        requests: 20,
        ..BASE
    },
    Case {
        name: "gzip-100k",
        title: "gzip 1, 100 KiB, not kept in memory",
        path: "/100k.txt",
        fields: ACCEPT,
        directives: GZIP,
        requests: 20,
        ..BASE
    },
    Case {
        name: "gzip-proxied",
        title: "gzip 1, 100 KiB, proxied",
        path: "/100k.txt",
        fields: ACCEPT,
        directives: GZIP_PASS,
        requests: 20,
        ..BASE
    },
    Case {
        name: "tls",
        title: "TLS 1.3, keep-alive, static 1 KiB",
        tls: true,
        directives: FILES,
        requests: 300,
        ..STATIC
    },
    Case {
        name: "tls-handshake",
        title: "TLS 1.3, a handshake and a request",
        fields: CLOSE,
        load: Load::Close,
        tls: true,
        requests: 15,
        ..BASE
    },
    Case { name: "h2", title: "HTTP/2, 100 streams, static 1 KiB", directives: STREAMS, load: Load::Streams, ..STATIC },
    Case {
        name: "h2-tls",
        title: "HTTP/2 over TLS, 100 streams, 1 KiB",
        directives: STREAMS,
        load: Load::Streams,
        tls: true,
        ..STATIC
    },
    Case {
        name: "locations",
        title: "200 locations, 50 regexes that miss",
        path: "/p75/some/page.html",
        directives: "LOCATIONS",
        ..BASE
    },
    Case {
        name: "map",
        title: "map of 20,000",
        path: "/key/number12345",
        directives: "location / { return 200 $mapped; }",
        ..BASE
    },
    Case {
        name: "real",
        title: "a real request, proxied and logged",
        path: "/shop/category/view?id=12345&page=2&sort=price",
        fields: BROWSER,
        directives: REAL,
        requests: 300,
        ..BASE
    },
    Case {
        name: "real-head",
        title: "a real head, return 200",
        path: "/shop/category/view?id=12345&page=2&sort=price",
        fields: BROWSER,
        requests: 400,
        ..BASE
    },
];

const SSI_PAGE: &str = "<html><!--#set var=\"a\" value=\"1\" --><!--#include virtual=\"/1k.html\" -->\
    <!--#if expr=\"$a = 1\" --><!--#echo var=\"request_uri\" --><!--#endif --></html>";

/// Other parts of the program that are in use where speed matters: profiles are made with them too.
pub(crate) const OTHERS: [Case; 6] = [
    Case { name: "upload", path: "/1k", body: 40_000, directives: PASS, requests: 200, ..BASE },
    Case {
        name: "upload-unbuffered",
        path: "/1k",
        body: 40_000,
        directives: "proxy_request_buffering off; location / { proxy_pass http://backend; proxy_http_version 1.1; \
                     proxy_set_header Connection \"\"; }",
        requests: 200,
        ..BASE
    },
    Case { name: "ssi", path: "/page.shtml", directives: "ssi on; ssi_types *;", requests: 200, ..BASE },
    Case {
        name: "filters",
        path: "/100k.txt",
        directives: "sub_filter server daemon; sub_filter_once off; sub_filter_types *; gunzip on; charset utf-8; \
                     add_header X-Id $request_id;",
        requests: 60,
        ..BASE
    },
    Case {
        name: "who-may",
        directives: "allow 127.0.0.0/8; deny all; set $a $arg_a; \
                     if ($a = 1) { return 403; } rewrite ^/x/(.*)$ /y/$1; location / { return 200 PAGE; }",
        ..BASE
    },
    Case { name: "stream", path: "/1k", directives: STREAM, ..BASE },
];

/// Stands for a server of `stream` before the backend.
const STREAM: &str = "STREAM";

/// The files that the server offers, and their contents. Their text packs about as pages do.
pub(crate) fn files() -> [(&'static str, String); 6] {
    let page = page();
    let large = page.repeat(100);
    [
        ("1k.html", page.clone()),
        ("1k.bin", page),
        ("30k.txt", text(30 << 10)),
        ("100k.bin", large),
        ("100k.txt", text(100 << 10)),
        ("page.shtml", SSI_PAGE.to_string()),
    ]
}

/// Made-up sentences of at least this length.
fn text(length: usize) -> String {
    let mut state = 1_u32;
    let mut text = String::new();
    while text.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Small numbers are commoner, as some words are.
        let word = (state >> 16) % (1 + (state >> 8) % 200);
        let _ = write!(text, "{} ", WORDS.get(word as usize % WORDS.len()).unwrap_or(&""));
        let _ = if word.is_multiple_of(7) { write!(text, "{word} ") } else { Ok(()) };
    }
    text
}

const WORDS: [&str; 16] = [
    "the",
    "server",
    "request",
    "of",
    "connection",
    "a",
    "location",
    "and",
    "configuration",
    "time",
    "memory",
    "to",
    "header",
    "worker",
    "response",
    "in",
];

/// The configuration of the measured server: one process, a server for each case on its port.
pub(crate) fn configuration(cases: &[Case], ports: &[u16], backend: u16) -> String {
    let mut streams = String::new();
    let mut text = head("measured");
    let _ = writeln!(
        text,
        "    upstream backend {{ server 127.0.0.1:{backend}; keepalive 64; keepalive_requests 100000000; keepalive_timeout 600s; }}\n    \
         proxy_cache_path cache keys_zone=pages:1m inactive=600s;\n    large_client_header_buffers 8 16k;\n    \
         map_hash_max_size 65536; map_hash_bucket_size 128;\n    map $uri $mapped {{\n        default none;"
    );
    for n in 0..20_000 {
        let _ = writeln!(text, "        /key/number{n} v{n};");
    }
    text += "    }\n";
    for (case, port) in cases.iter().zip(ports) {
        let directives = match case.directives {
            "LOCATIONS" => locations(),
            STREAM => {
                let _ = writeln!(streams, "    server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{backend}; }}");
                continue;
            }
            directives => directives.replace("PAGE", &page()),
        };
        let (ssl, keys) = match case.tls {
            true => ("ssl", "ssl_certificate site.crt; ssl_certificate_key site.key; ssl_protocols TLSv1.3;"),
            false => ("", ""),
        };
        let _ = writeln!(
            text,
            "    server {{\n        listen 127.0.0.1:{port} backlog=1024 {ssl}; {keys} root www;\n        {directives}\n    }}"
        );
    }
    if !streams.is_empty() {
        let _ = write!(text, "}}\nstream {{\n{streams}");
    }
    text + "}\n"
}

/// The configuration of the backend, which isn't measured.
pub(crate) fn backend(port: u16) -> String {
    let page = page();
    head("backend")
        + &format!(
            "    large_client_header_buffers 8 16k; open_file_cache max=100;\n    server {{\n        listen 127.0.0.1:{port}; root www;\n        \
             location = /1k {{ return 200 {page}; }}\n        location /real {{\n            \
             add_header Cache-Control \"private, max-age=60\"; add_header X-Frame-Options SAMEORIGIN;\n            \
             add_header X-Content-Type-Options nosniff; add_header Vary \"Accept-Encoding, Cookie\";\n            \
             add_header Set-Cookie \"sid=0123456789abcdef0123456789abcdef; Path=/; HttpOnly; Secure\";\n            \
             add_header X-Powered-By \"App/7.4\"; return 200 {page};\n        }}\n    }}\n}}\n"
        )
}

fn head(name: &str) -> String {
    format!(
        "daemon off; master_process off; pid {name}.pid; error_log {name}.log error;\nevents {{ worker_connections 2048; }}\n\
         http {{\n    keepalive_requests 100000000; keepalive_timeout 600s; access_log off; sendfile on; tcp_nopush on;\n    \
         client_body_temp_path body-{name}; proxy_temp_path proxy-{name}; default_type application/octet-stream;\n    \
         types {{ text/html html; text/plain txt; text/css css; application/javascript js; image/png png; image/jpeg jpg; \
         application/json json; application/octet-stream bin; }}\n"
    )
}

fn locations() -> String {
    let prefixes = (0..150).map(|n| format!("location /p{n}/ {{ return 200 p{n}; }}\n"));
    let regexes = (0..50).map(|n| format!("location ~ ^/r{n}/.*\\.(php|phtml)$ {{ return 200 r{n}; }}\n"));
    prefixes.chain(regexes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one in Huffman's code.
    const STREAM_PATH: &str = "/1k.bin";

    #[test]
    fn cases() {
        let mut names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
        assert!(CASES.iter().all(|case| case.load != Load::Streams || case.path == STREAM_PATH));
        assert_eq!(files().map(|(_, text)| text.len() / 1024), [1, 1, 30, 100, 100, 0]);
    }
}
