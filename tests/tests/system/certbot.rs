//! Certbot obtains a certificate from pebble, an authority for tests, and installs it: it tests, changes and reloads the
//! configuration, and reads `-V`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::{EC, Folder, binary, certificate, tool};

#[test]
fn certbot_installs_a_certificate() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for program in ["certbot", "pebble"] {
        let Some(_) = tool(&[program]) else { return };
    }
    let folder = Folder::new();
    folder.public("html");
    certificate(&folder, "localhost", EC);
    fs::rename(folder.path().join("localhost.crt"), folder.path().join("authority.crt")).expect("it was made");
    folder.write("html/index.html", "the page\n");
    folder.write("hosts", "127.0.0.1 localhost site.example.com\n");
    folder.write(
        "pebble.json",
        r#"{ "pebble": { "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
            "certificate": "authority.crt", "privateKey": "localhost.key", "httpPort": 80, "tlsPort": 443 } }"#,
    );
    folder.write(
        "nginx/nginx.conf",
        "pid /mnt/nginx.pid;\nerror_log /mnt/error.log;\nevents { }\nhttp {\n    access_log off;\n    server {\n        \
         listen 80;\n        server_name site.example.com;\n        root /mnt/html;\n    }\n}\n",
    );
    folder.write("bin/.keep", "");
    fs::copy(binary(), folder.path().join("bin/nginx")).expect("a program can be copied");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("site/certbot.sh");
    let command = format!("mount --bind {} /mnt && exec sh {}", folder.path().display(), script.display());
    let out = Command::new("timeout")
        .args(["120", "unshare", "-m", "-p", "-n", "-f", "--kill-child", "--mount-proc", "sh", "-c", &command])
        .stdin(Stdio::null())
        .output()
        .expect("timeout is installed");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let log = fs::read_to_string(folder.path().join("error.log")).unwrap_or_default();
    assert!(out.status.success(), "{out:?}\n{log}");
    assert!(said.contains("== page\nthe page\n== redirect\n301 https://site.example.com/\n"), "{said}\n{log}");
    assert!(said.ends_with("the page\n"), "renewed: {said}");
    assert!(!said.contains("OpenSSL alternatives"), "certbot knows the library: {said}");
    let options = fs::read_to_string(folder.path().join("etc/options-ssl-nginx.conf")).expect("certbot wrote it");
    assert!(options.contains("ssl_session_tickets off"), "certbot has read the versions: {options}");
    assert!(!["[warn]", "[alert]", "[emerg]", "[crit]"].iter().any(|level| log.contains(level)), "{log}");
}
