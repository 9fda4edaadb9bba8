//! The configuration of a run.

use std::fmt::Write as _;
use std::path::Path;

use crate::ask::MAX_BODY;
use crate::plan::Settings;

/// Where the server listens: plain, with TLS, with HTTP/2 from the first byte.
pub(crate) const PLAIN: u16 = 80;
/// With TLS.
pub(crate) const SECURE: u16 = 443;
/// With HTTP/2 from the first byte.
pub const PRIOR: u16 = 8080;
/// Addresses of backends: three of the groups, the one that is asked directly, the one that is asked over TLS.
pub(crate) const BACKENDS: [&str; 5] =
    ["10.0.1.1:8000", "10.0.1.2:8000", "10.0.1.3:8000", "10.0.1.4:8000", "10.0.1.5:8443"];
/// Nobody listens here.
pub const REFUSED: &str = "10.0.1.8:8000";
/// Nobody answers here.
pub const SILENT: &str = "10.0.1.9:8000";

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// The text; `folder` has the files, the certificate and room for logs and temporary files.
pub fn text(s: &Settings, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "error_log memory:4m info;
        worker_shutdown_timeout {shutdown}s;
        events {{ worker_connections 1000; }}
        http {{
            log_format simulated '$http_x_id $status $request_method $body_bytes_sent';
            access_log {folder}/access.log simulated{log_buffer};
            default_type application/octet-stream;
            add_header X-Id $http_x_id always;
            client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy;
            {client}
            {proxy}
            limit_conn_zone $arg_k zone=counted:64k;
            limit_req_zone $arg_k zone=rated:64k rate=2r/s;
            {groups}
            server {{
                listen 10.0.0.1:{PLAIN};
                {locations}
            }}
            server {{
                listen 10.0.0.1:{SECURE} ssl;
                http2 on;
                ssl_certificate {folder}/cert.pem;
                ssl_certificate_key {folder}/key.pem;
                {locations}
            }}
            server {{
                listen 10.0.0.1:{PRIOR};
                http2 on;
                {locations}
            }}
        }}",
        shutdown = s.shutdown,
        log_buffer = if s.log_buffer { " buffer=4k flush=1s" } else { "" },
        client = client(s),
        proxy = proxy(s),
        groups = groups(s),
        locations = locations(s, &folder.to_string()),
    )
}

/// What is said of clients.
fn client(s: &Settings) -> String {
    let mut text = String::new();
    for name in ["client_header_timeout", "client_body_timeout", "send_timeout", "keepalive_timeout"] {
        let _ = writeln!(text, "{name} {}ms;", s.timeout);
    }
    if s.file_cache {
        text.push_str("open_file_cache max=4 inactive=2s; open_file_cache_valid 1s; open_file_cache_min_uses 1;\n");
    }
    if s.gzip {
        text.push_str("gzip on; gzip_types *; gzip_proxied any; gzip_min_length 100; gzip_vary on;\n");
    }
    let _ = write!(
        text,
        "sendfile {}; tcp_nopush {}; keepalive_requests {}; lingering_close {}; lingering_time 5s; lingering_timeout 1s;
        reset_timedout_connection {}; client_max_body_size {MAX_BODY}; client_body_buffer_size {}k;
        postpone_output {}; http2_chunk_size {}k; http2_body_preread_size {}k;",
        on_off(s.sendfile),
        on_off(s.nopush),
        s.requests,
        s.lingering,
        on_off(s.reset_timedout),
        s.body_buffer,
        s.postpone,
        s.http2.0,
        s.http2.1,
    );
    text
}

/// What is said of backends.
fn proxy(s: &Settings) -> String {
    let ((condition, tries), (size, count)) = (s.next_upstream, s.buffers);
    format!(
        "proxy_connect_timeout {timeout}ms; proxy_send_timeout {timeout}ms; proxy_read_timeout {timeout}ms;
        proxy_next_upstream {condition}; proxy_next_upstream_tries {tries};
        proxy_buffer_size 4k; proxy_buffers {count} {size}k; proxy_busy_buffers_size {busy}k;
        proxy_max_temp_file_size {temp}k; proxy_temp_file_write_size 8k; proxy_ignore_client_abort {abort};",
        timeout = s.proxy_timeout,
        busy = size.max(4),
        count = count.max(2 * 4 / size),
        temp = s.temp_file,
        abort = on_off(s.ignore_abort),
    )
}

fn groups(s: &Settings) -> String {
    let [one, two, three, ..] = BACKENDS;
    let keepalive = format!("keepalive {};", s.keepalive);
    let zone = |name: &str| if s.zone { format!("zone {name} 64k;") } else { String::new() };
    let fails = format!("max_fails={} fail_timeout=1s", s.max_fails);
    format!(
        "upstream group {{ {} {} server {one} {fails}; server {two} {fails} weight=2; server {three} {fails}; {keepalive} }}
        upstream unbuffered {{ {} server {one} {fails}; server {two} {fails}; {keepalive} }}",
        zone("group"),
        s.balancer,
        zone("unbuffered"),
    )
}

fn locations(s: &Settings, folder: &str) -> String {
    let pages = if s.error_pages {
        "error_page 404 502 /page; error_page 503 @page; location = /page { internal; return 200 page; }
         location @page { return 503 busy; }"
    } else {
        ""
    };
    format!(
        "{pages}
        location /files/ {{ root {folder}; }}
        location /old/ {{ rewrite ^/old/(.*)$ /files/$1 last; }}
        location /slow/ {{ alias {folder}/files/; limit_rate {rate}k; }}
        location /counted/ {{ alias {folder}/files/; limit_conn counted 1; limit_rate {rate}k; }}
        location /rated/ {{ alias {folder}/files/; limit_req zone=rated burst=1{nodelay}; }}
        location = /text {{ return 200 \"text of $http_x_id\"; }}
        location = /moved {{ return 302 /text; }}
        location = /dropped {{ return 444; }}
        location /group/ {{ proxy_pass http://group; }}
        location /unbuffered/ {{ proxy_pass http://unbuffered; proxy_buffering off; proxy_request_buffering off; }}
        location /direct/ {{ proxy_pass http://{direct}; }}
        location /secure/ {{ proxy_pass https://{secure}; proxy_buffering {buffering}; }}
        location /tunnel/ {{
            proxy_pass http://{direct};
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }}
        location = /refused {{ proxy_pass http://{REFUSED}; }}
        location = /silent {{ proxy_pass http://{SILENT}; }}
        location = /status {{ stub_status; access_log off; }}",
        rate = s.rate,
        nodelay = if s.nodelay { " nodelay" } else { "" },
        direct = BACKENDS[3],
        secure = BACKENDS[4],
        buffering = on_off(s.sendfile),
    )
}
