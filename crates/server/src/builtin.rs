//! The configuration for a start without one: a welcome page, or a folder.

use std::net::{Ipv4Addr, TcpListener};

/// A configuration, and where it can be reached.
pub struct BuiltIn {
    /// Its text.
    pub text: String,
    /// `http://127.0.0.1:8080/`.
    pub url: String,
}

/// A welcome page on port 8080, or the next one that is free.
pub fn welcome() -> BuiltIn {
    let port = free_port();
    let page = WELCOME.replace('\'', "&#39;");
    site(port, &format!("location / {{ default_type text/html; return 200 '{page}'; }}"))
}

/// The files of the prefix, on port 8080 or the next one that is free.
pub fn folder() -> BuiltIn {
    // Relative to the prefix, so that no byte of its path can have a meaning here.
    site(free_port(), "root .; index index.html index.htm; location / { try_files $uri $uri/ =404; }")
}

fn site(port: u16, inside: &str) -> BuiltIn {
    let pid = std::env::temp_dir().join(format!("tidegate-{}.pid", std::process::id()));
    let pid = pid.display();
    // Who serves their own folder is to be able to read it.
    let user = if os::users::effective_uid() == 0 { "user root;\n" } else { "" };
    let text = format!(
        "\
daemon off;
{user}pid \"{pid}\";
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    types {{
{TYPES}    }}
    default_type application/octet-stream;
    access_log off;
    sendfile on;
    server {{ listen {port}; {inside} }}
}}
"
    );
    BuiltIn { text, url: format!("http://127.0.0.1:{port}/") }
}

fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    (FIRST_PORT..FIRST_PORT + 100).find(free).unwrap_or(FIRST_PORT)
}

const FIRST_PORT: u16 = 8080;

const WELCOME: &str = "<!doctype html><meta charset=utf-8><title>Tidegate</title>\
<style>body{font:1.1em/1.6 system-ui,sans-serif;max-width:38em;margin:4em auto;padding:0 1em;color:#123}\
code{background:#eef;padding:.1em .3em}</style>\
<h1>Tidegate is running.</h1><p>Serve a folder: <code>tidegate FOLDER</code>\
<p>Use an nginx.conf: <code>tidegate -c nginx.conf</code>\n";

const TYPES: &str = "\
        text/html html htm shtml;
        text/css css;
        text/xml xml;
        text/plain txt md;
        text/javascript js mjs;
        application/json json map;
        application/pdf pdf;
        application/wasm wasm;
        application/zip zip;
        application/gzip gz;
        font/woff woff;
        font/woff2 woff2;
        image/avif avif;
        image/gif gif;
        image/jpeg jpeg jpg;
        image/png png;
        image/svg+xml svg svgz;
        image/webp webp;
        image/x-icon ico;
        audio/mpeg mp3;
        audio/ogg ogg;
        video/mp4 mp4;
        video/webm webm;
";
