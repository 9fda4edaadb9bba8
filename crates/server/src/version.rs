//! What `-v`, `-V` and `-h` print.

use conf::Registry;
use engine::personality::{NGINX_VERSION, Personality, VERSION};

/// `-v`: one line.
pub(crate) fn version(personality: &Personality) -> String {
    format!("{} version: {}\n", personality.name, personality.version())
}

/// `-V`: the version, and how the program was built. Test suites and certbot read it: nginx's version stands there in
/// nginx's own form under either name.
pub(crate) fn configure(personality: &Personality, registry: &Registry) -> String {
    let mut text = version(personality);
    if !personality.is_nginx() {
        text.push_str(&format!("compatible with nginx version: nginx/{NGINX_VERSION}\n"));
    }
    text.push_str(&format!("built by {}\n", env!("RUSTC_VERSION")));
    if has(registry, "http_ssl") {
        text.push_str(&format!("built with {}\nTLS SNI support enabled\n", http::TLS_LIBRARY));
    }
    text.push_str(&format!("configure arguments: {}\n", arguments(personality, registry).join(" ")));
    text
}

fn arguments(personality: &Personality, registry: &Registry) -> Vec<String> {
    let mut words = vec![
        format!("--prefix={}", buf::text::path(&personality.prefix)),
        format!("--conf-path={}", buf::text::path(&personality.conf_path)),
        format!("--error-log-path={}", buf::text::path(&personality.error_log)),
        format!("--http-log-path={}", buf::text::path(&personality.http_log)),
        format!("--pid-path={}", buf::text::path(&personality.pid)),
        format!("--lock-path={}", buf::text::path(&personality.lock)),
        "--with-threads".to_string(),
    ];
    if personality.is_nginx() {
        words.push(format!("--build=tidegate/{VERSION}"));
    }
    for module in OPTIONAL.iter().filter(|module| has(registry, module)) {
        words.push(format!("--with-{module}"));
    }
    if !has(registry, "http") {
        words.push("--without-http".to_string());
    }
    for module in STOCK {
        // Of a protocol that isn't there nothing is said, as nginx does.
        let protocol = module.split('_').next().unwrap_or_default();
        if (protocol == "http" || has(registry, protocol)) && !has(registry, module) {
            words.push(format!("--without-{module}"));
        }
    }
    if registry.rows("proxy_cache").next().is_none() {
        words.push("--without-http-cache".to_string());
    }
    words
}

/// Whether what a configure option names is built in: the tables' modules say it.
fn has(registry: &Registry, option: &str) -> bool {
    let base = option.strip_suffix("_module").unwrap_or(option);
    let names = [
        format!("ngx_{base}_module"),
        format!("ngx_{base}_filter_module"),
        // `mail` and `stream` are protocols.
        format!("ngx_{base}_core_module"),
    ];
    registry.tables().iter().any(|table| names.iter().any(|name| name == table.module))
}

/// `-h`.
pub(crate) fn help(personality: &Personality) -> String {
    let Personality { name, prefix, conf_path, error_log, .. } = personality;
    let (prefix, conf_path, error_log) =
        (buf::text::path(prefix), buf::text::path(conf_path), buf::text::path(error_log));
    let mut text = version(personality);
    text.push_str(&format!(
        "\
Usage: {name} [-?hvVtTq] [-s signal] [-p prefix]
             [-e filename] [-c filename] [-g directives]
"
    ));
    if !personality.is_nginx() {
        text.push_str(&format!(
            "       {name} [-a address:port] FOLDER   : serve a folder\n       {name} [-a address:port]          : serve a welcome page\n"
        ));
    }
    let address = match personality.is_nginx() {
        true => "",
        false => "  -a addr:port  : where a folder or the welcome page is served (default: 127.0.0.1:8080)\n",
    };
    text.push_str(&format!(
        "
Options:
  -?,-h         : this help
  -v            : show version and exit
  -V            : show version and configure options then exit
  -t            : test configuration and exit
  -T            : test configuration, dump it and exit
  -q            : suppress non-error messages during configuration testing
  -s signal     : send signal to a master process: stop, quit, reopen, reload
  -p prefix     : set prefix path (default: {prefix})
  -e filename   : set error log file (default: {error_log})
  -c filename   : set configuration file (default: {conf_path})
  -g directives : set global directives out of configuration file
{address}  --explain name    : show what a directive does, and where it may stand
  --dump-directives : list all directives as tab-separated values
  --dump-variables  : list all variables as tab-separated values

"
    ));
    text
}

/// What nginx builds only if it is asked to.
const OPTIONAL: [&str; 29] = [
    "http_ssl_module",
    "http_v2_module",
    "http_v3_module",
    "http_realip_module",
    "http_addition_module",
    "http_xslt_module",
    "http_image_filter_module",
    "http_geoip_module",
    "http_sub_module",
    "http_dav_module",
    "http_flv_module",
    "http_mp4_module",
    "http_gunzip_module",
    "http_gzip_static_module",
    "http_auth_request_module",
    "http_random_index_module",
    "http_secure_link_module",
    "http_degradation_module",
    "http_slice_module",
    "http_stub_status_module",
    "http_json_module",
    "http_perl_module",
    "mail",
    "mail_ssl_module",
    "stream",
    "stream_ssl_module",
    "stream_realip_module",
    "stream_geoip_module",
    "stream_ssl_preread_module",
];

/// What nginx builds unless it is asked not to.
const STOCK: [&str; 48] = [
    "http_charset_module",
    "http_gzip_module",
    "http_ssi_module",
    "http_userid_module",
    "http_access_module",
    "http_auth_basic_module",
    "http_mirror_module",
    "http_autoindex_module",
    "http_geo_module",
    "http_map_module",
    "http_split_clients_module",
    "http_referer_module",
    "http_rewrite_module",
    "http_proxy_module",
    "http_fastcgi_module",
    "http_uwsgi_module",
    "http_scgi_module",
    "http_grpc_module",
    "http_memcached_module",
    "http_limit_conn_module",
    "http_limit_req_module",
    "http_empty_gif_module",
    "http_browser_module",
    "http_tunnel_module",
    "http_upstream_hash_module",
    "http_upstream_ip_hash_module",
    "http_upstream_least_conn_module",
    "http_upstream_least_time_module",
    "http_upstream_random_module",
    "http_upstream_keepalive_module",
    "http_upstream_zone_module",
    "http_upstream_sticky_module",
    "mail_pop3_module",
    "mail_imap_module",
    "mail_smtp_module",
    "stream_limit_conn_module",
    "stream_access_module",
    "stream_geo_module",
    "stream_map_module",
    "stream_split_clients_module",
    "stream_return_module",
    "stream_pass_module",
    "stream_set_module",
    "stream_upstream_hash_module",
    "stream_upstream_least_conn_module",
    "stream_upstream_least_time_module",
    "stream_upstream_random_module",
    "stream_upstream_zone_module",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_show_nginx_version() {
        let registry = Registry::new();
        for personality in [Personality::nginx(), Personality::tidegate()] {
            let text = configure(&personality, &registry);
            assert!(text.contains("nginx version: nginx/1.31.5"), "{text}");
            assert!(text.contains("--without-http_proxy_module") && !text.contains("stream_return"), "{text}");
        }
    }
}
