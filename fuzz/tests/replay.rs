//! Every fuzz target builds, and takes each input of its corpus.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A test for each target.
macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), env!(concat!("CARGO_BIN_EXE_", stringify!($name))));
            }
        )*

        const TARGETS: &[&str] = &[$(stringify!($name)),*];
    };
}

targets!(
    accept,
    cache_control,
    certificate,
    charset,
    chunked,
    conf,
    date,
    dns,
    etag,
    fcgi,
    fields,
    geoip,
    h2_client,
    h2_connection,
    h2_frames,
    hello,
    host,
    hpack,
    imap,
    json,
    layer,
    mail_reply,
    memcached,
    mmdb,
    mp4,
    mqtt,
    ocsp,
    passwords,
    pop3,
    proxy_protocol,
    range,
    rdp,
    regex,
    replace,
    request,
    response,
    sasl,
    scgi,
    smtp,
    ssi,
    tagged,
    uri,
    uwsgi,
    values,
);

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn replay(name: &str, program: &str) {
    let out = Command::new(program).arg(here("corpus").join(name)).output().expect("cargo has built it");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name}: {} {said}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn no_target_is_left_out() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(here(folder)).expect("it is part of the source");
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.map(|name| name.trim_end_matches(".rs").to_string()).collect()
    };
    let all: BTreeSet<String> = TARGETS.iter().map(|name| name.to_string()).collect();
    assert_eq!(names("fuzz_targets"), all);
    assert_eq!(names("corpus"), all);
}
