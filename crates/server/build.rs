//! Tells the program which compiler built it, for `-V`.

use std::process::Command;

fn main() {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(compiler).arg("--version").output().map(|out| out.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&version);
    let version = version.trim();
    println!("cargo::rustc-env=RUSTC_VERSION={}", if version.is_empty() { "rustc" } else { version });
    println!("cargo::rerun-if-changed=build.rs");
}
