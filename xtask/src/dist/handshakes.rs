//! TLS of the program as it is given away: with each kind of key, version, cipher and group, by each of the ways that the
//! library of cryptography has for one kind of processor or another.
//!
//! Its assembler is what a layout of the code could break, and which part of it runs depends on the processor.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::instructions::Server;
use crate::measure::{self, P256};
use crate::tools::{self, Outcome};

/// Keys, and how `openssl req` makes them.
const KEYS: [(&str, &[&str]); 5] = [
    ("rsa2048", &["-newkey", "rsa:2048"]),
    ("rsa3072", &["-newkey", "rsa:3072"]),
    ("p256", P256),
    ("p384", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ("ed25519", &["-newkey", "ed25519"]),
];

/// What the client offers: the version, ciphers, groups. In TLS 1.2 the curve of the key has to be one of the groups.
const OFFERS: [[&str; 4]; 8] = [
    ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256", "X25519"],
    ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256", "P-256"],
    ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256", "P-384"],
    ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384", "X25519"],
    ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256", "X25519"],
    ["-tls1_2", "-cipher", "ECDHE+AES128+AESGCM", "X25519:P-256:P-384"],
    ["-tls1_2", "-cipher", "ECDHE+AES256+AESGCM", "P-256:P-384"],
    ["-tls1_2", "-cipher", "ECDHE+CHACHA20", "P-384:P-256"],
];

/// What the library is told that the processor lacks, in the form of its variable `OPENSSL_ia32cap`: bits of CPUID's leaf 1
/// (ECX above EDX), then of leaf 7 (ECX above EBX).
const PROCESSORS: [(&str, &str); 4] = [
    ("this processor", "~0:~0"),
    ("without AVX-512", "~0:~0x600c0230000"),
    ("without ADX and BMI2", "~0:~0x600c02b0100"),
    ("without AVX and AES", "~0x1200000200000000:~0x600e02b0128"),
];

/// The length of the page: many records, the last of which isn't full.
const PAGE: usize = 300_001;

/// Asks the program for a page in all these ways, and fails with the first that brings another one.
pub(super) fn check(program: &Path) -> Outcome {
    let folder = tools::folder("handshakes")?;
    let folder = folder.path();
    let page: Vec<u8> = (0..PAGE as u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    fs::write(folder.join("page"), &page).map_err(|error| error.to_string())?;
    let ports = measure::free_ports(KEYS.len())?;
    let mut servers = String::new();
    for ((key, kind), port) in KEYS.iter().zip(&ports) {
        measure::certificate(folder, key, kind)?;
        servers += &format!(
            "server {{ listen 127.0.0.1:{port} ssl; root {}; ssl_certificate {key}.crt; ssl_certificate_key {key}.key; }}\n",
            folder.display()
        );
    }
    let conf = format!(
        "daemon off; master_process off; pid pid; events {{}}\nhttp {{ access_log off; ssl_protocols TLSv1.2 TLSv1.3;\n{servers}}}\n"
    );
    tools::write(&folder.join("measured.conf"), &conf)?;
    let first = *ports.first().ok_or("no ports")?;
    for (processor, lacks) in PROCESSORS {
        let before = ["env".to_string(), format!("OPENSSL_ia32cap={lacks}")];
        let server = Server::start(folder, "measured", &before, program, first)?;
        for ((key, _), port) in KEYS.iter().zip(&ports) {
            for offer in OFFERS {
                let got = ask(*port, offer)?;
                if !got.ends_with(&page) {
                    return Err(format!("{key}, {}, {processor}: {} bytes came", offer.join(" "), got.len()));
                }
            }
        }
        server.quit()?;
    }
    Ok(())
}

/// What comes for the page, with its head.
fn ask(port: u16, [version, list, ciphers, groups]: [&str; 4]) -> Outcome<Vec<u8>> {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-quiet", "-no_ign_eof", "-connect", &format!("127.0.0.1:{port}")]);
    openssl
        .args([version, list, ciphers, "-groups", groups])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = openssl.spawn().map_err(|error| format!("openssl: {error}"))?;
    if let Some(stdin) = &mut child.stdin {
        // Who doesn't get as far as this has no answer either.
        let _ = stdin.write_all(b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    }
    let stdin = child.stdin.take();
    let out = child.wait_with_output().map_err(|error| format!("openssl: {error}"));
    drop(stdin);
    Ok(out?.stdout)
}
