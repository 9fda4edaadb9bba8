//! The cases of the benchmark, and the configuration both servers get.

/// What loads the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// wrk: keep-alive connections.
    Wrk,
    /// ab: one connection per request, each with a whole handshake where TLS is spoken.
    Ab,
    /// `openssl s_time`: one connection per request, each with the session of the first.
    Resume,
    /// h2load: HTTP/2, a hundred streams at a time on each connection.
    H2load,
}

/// The keys that a TLS server may have, and how `openssl req` makes them.
pub(crate) const KEYS: [(&str, &[&str]); 2] = [("p256", crate::measure::P256), ("rsa2048", &["-newkey", "rsa:2048"])];

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, for readers.
    pub title: &'static str,
    /// The path asked for.
    pub path: &'static str,
    /// Connections at a time.
    pub conns: usize,
    /// The load generator.
    pub load: Driver,
    /// Directives of the server that make the case.
    pub directives: &'static str,
    /// Whether it needs the backend.
    pub proxied: bool,
    /// The key of [`KEYS`] that the server has, if TLS is spoken.
    pub tls: Option<&'static str>,
    /// What the project wants: CPU time per request as a ratio to nginx, at most.
    pub bar: f64,
}

const CACHE: &str = "open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;";
const PROXY: &str = "location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ''; }";

const STATIC: Case = Case {
    name: "static-1k",
    title: "static 1 KiB, no open_file_cache",
    path: "/1k.bin",
    conns: 64,
    load: Driver::Wrk,
    directives: "",
    proxied: false,
    tls: None,
    bar: 0.75,
};

const HANDSHAKE: Case = Case {
    name: "tls-p256",
    title: "TLS, a handshake (ECDSA P-256) and a request",
    directives: "location / { return 200 $text; }",
    path: "/",
    conns: 16,
    load: Driver::Ab,
    tls: Some("p256"),
    bar: 0.5,
    ..STATIC
};

/// The cases, in the table's order.
pub(crate) const CASES: [Case; 16] = [
    Case {
        name: "return-64",
        title: "return 200, 1 KiB, 64 connections",
        directives: "location / { return 200 $text; }",
        path: "/",
        bar: 0.85,
        ..STATIC
    },
    Case {
        name: "return-512",
        title: "return 200, 1 KiB, 512 connections",
        directives: "location / { return 200 $text; }",
        path: "/",
        conns: 512,
        bar: 0.78,
        ..STATIC
    },
    Case { name: "static-1k-cache", title: "static 1 KiB, open_file_cache", directives: CACHE, bar: 0.60, ..STATIC },
    STATIC,
    Case {
        name: "static-1k-log",
        title: "static 1 KiB, buffered access log",
        directives: "access_log access.log combined buffer=64k flush=1s;",
        bar: 0.65,
        ..STATIC
    },
    Case { name: "static-100k", title: "static 100 KiB", path: "/100k.bin", bar: 0.85, ..STATIC },
    Case { name: "static-10m", title: "static 10 MiB", path: "/10m.bin", conns: 16, bar: 1.0, ..STATIC },
    Case {
        name: "close",
        title: "one connection per request",
        directives: "location / { return 200 $text; }",
        path: "/",
        load: Driver::Ab,
        bar: 0.95,
        ..STATIC
    },
    Case { name: "proxy-1k", title: "proxy, keep-alive, 1 KiB", directives: PROXY, proxied: true, bar: 0.80, ..STATIC },
    Case {
        name: "proxy-100k",
        title: "proxy, keep-alive, 100 KiB",
        directives: PROXY,
        path: "/100k.bin",
        proxied: true,
        bar: 0.90,
        ..STATIC
    },
    HANDSHAKE,
    Case {
        name: "tls-rsa",
        title: "TLS, a handshake (RSA 2048) and a request",
        tls: Some("rsa2048"),
        bar: 0.9,
        ..HANDSHAKE
    },
    Case {
        name: "tls-resumed",
        title: "TLS 1.2, a resumed handshake and a request",
        load: Driver::Resume,
        bar: 0.7,
        ..HANDSHAKE
    },
    Case { name: "tls-1k", title: "TLS, keep-alive, static 1 KiB", tls: Some("p256"), bar: 0.7, ..STATIC },
    Case {
        name: "tls-10m",
        title: "TLS, static 10 MiB",
        path: "/10m.bin",
        conns: 16,
        tls: Some("p256"),
        bar: 0.75,
        ..STATIC
    },
    Case {
        name: "h2-1k",
        title: "HTTP/2, 100 streams, static 1 KiB",
        conns: 4,
        load: Driver::H2load,
        tls: Some("p256"),
        bar: 0.7,
        ..STATIC
    },
];

/// The files that both servers offer: name and size.
pub(crate) const FILES: [(&str, usize); 3] = [("1k.bin", 1024), ("100k.bin", 100 << 10), ("10m.bin", 10 << 20)];

/// A configuration: one worker, `method` for `use` (empty: the default), the case's directives.
pub(crate) fn configuration(case: &Case, port: u16, backend: u16, folder: &str, method: &str) -> String {
    let method = if method.is_empty() { String::new() } else { format!("use {method};") };
    let text = "x".repeat(1024);
    let (ssl, keys) = match case.tls {
        Some(key) => (
            if case.load == Driver::H2load { "ssl http2" } else { "ssl" },
            format!(
                "ssl_certificate {key}.crt; ssl_certificate_key {key}.key; ssl_protocols TLSv1.2 TLSv1.3; \
                 ssl_session_cache shared:tls-{port}:10m;"
            ),
        ),
        None => ("", String::new()),
    };
    format!(
        "daemon off;\npid server-{port}.pid;\nworker_processes 1;\nworker_rlimit_nofile 30000;\n\
         error_log error.log error;\nevents {{ worker_connections 20000; {method} }}\nhttp {{\n    access_log off;\n    \
         sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_timeout 300s; keepalive_requests 1000000000;\n    \
         client_body_temp_path body-{port}; proxy_temp_path proxy-{port};\n    \
         upstream backend {{ server 127.0.0.1:{backend}; keepalive 128; keepalive_requests 1000000000; }}\n    \
         server {{\n        listen 127.0.0.1:{port} backlog=4096 {ssl};\n        {keys}\n        root {folder}/html;\n        \
         set $text {text};\n        {}\n    }}\n}}\n",
        case.directives
    )
}

/// A configuration of 5,000 servers with four locations each.
pub(crate) fn large_configuration(port: u16) -> String {
    let mut text = format!(
        "daemon off;\npid server-{port}.pid;\nworker_processes 1;\nevents {{ }}\nhttp {{\n    access_log off;\n    \
         server_names_hash_max_size 65536; server_names_hash_bucket_size 128;\n    \
         client_body_temp_path body-{port}; proxy_temp_path proxy-{port};\n"
    );
    for n in 0..5000 {
        text += &format!(
            "    server {{\n        listen 127.0.0.1:{port}; server_name site{n}.example www.site{n}.example;\n        \
             root /srv/{n}; gzip on; add_header X-Site {n};\n        location / {{ try_files $uri $uri/ =404; }}\n        \
             location /static/ {{ expires 1d; }}\n        location ~ \\.(png|jpg)$ {{ expires max; access_log off; }}\n        \
             location /app/ {{ proxy_pass http://127.0.0.1:9; proxy_set_header Host $host; }}\n    }}\n"
        );
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = CASES.iter().map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }
}
