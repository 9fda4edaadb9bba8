//! Programs of other people that the tests use as peers: curl, Chromium, Python.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::Folder;

/// The first of these programs that is installed. A test that needs a missing one fails and says which, unless
/// `TIDEGATE_SKIP_MISSING` is set: then the answer is none, and the test leaves.
pub fn tool(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/bin:/sbin:/bin";
    let found = names.iter().find_map(|name| path.split(':').map(|d| Path::new(d).join(name)).find(|p| p.is_file()));
    if found.is_none() {
        assert!(std::env::var_os("TIDEGATE_SKIP_MISSING").is_some(), "none of {names:?} is installed");
        eprintln!("left out: none of {names:?} is installed");
    }
    found
}

/// The system's Python, where Debian's packages are found.
pub fn python() -> Option<PathBuf> {
    Some(PathBuf::from("/usr/bin/python3")).filter(|p| p.is_file()).or_else(|| tool(&["python3"]))
}

/// What a program prints on both streams; none if it isn't installed.
pub fn run(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(tool(&[program])?).args(args).stdin(Stdio::null()).output().expect("it is installed");
    Some(String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

/// Runs curl and returns what it wrote to standard output; it must succeed.
pub fn curl(args: &[&str]) -> Vec<u8> {
    let out = Command::new("curl").args(["-sS", "--max-time", "60"]).args(args).output().expect("curl is installed");
    assert!(out.status.success(), "curl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Lets headless Chromium open a page, run its scripts, and returns the document when it is loaded; none if the browser
/// isn't installed. Further options are the browser's, for example `--virtual-time-budget=8000` to wait for fetches.
pub fn chromium(url: &str, options: &[&str]) -> Option<String> {
    let out = browse(url, &[&["--dump-dom"], options].concat())?;
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn browse(url: &str, options: &[&str]) -> Option<Output> {
    let program = tool(&["chromium", "chromium-browser", "google-chrome"])?;
    let profile = Folder::new();
    let out = Command::new("timeout")
        .args(["-k", "5", "90"])
        .arg(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(options)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .env("HOME", profile.path())
        .stdin(Stdio::null())
        .output()
        .expect("timeout is installed");
    assert!(out.status.success(), "chromium: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    Some(out)
}

/// What there is to see on a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Its width in pixels.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// How many colours it has.
    pub colours: u32,
    /// How much of it has the most frequent colour, from 0 to 1.
    pub share: f64,
    /// How bright that colour is, from 0 to 255.
    pub ground: u32,
    /// Whether a strip at the right edge has that colour alone.
    pub margin: bool,
}

/// A page as Chromium draws it in a window of this size; none if the browser isn't installed.
pub fn picture(url: &str, (width, height): (u32, u32), options: &[&str]) -> Option<Picture> {
    let folder = Folder::new();
    let file = folder.path().join("page.png");
    let (size, to) = (format!("--window-size={width},{height}"), format!("--screenshot={}", file.display()));
    browse(url, &[&["--hide-scrollbars", &size, &to], options].concat())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("site/picture.py");
    let out = Command::new(python()?).arg(script).arg(file).output().expect("python starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut words = text.split_whitespace();
    let mut next = || words.next().unwrap_or_default();
    Some(Picture {
        width: next().parse().ok()?,
        height: next().parse().ok()?,
        colours: next().parse().ok()?,
        share: next().parse().ok()?,
        ground: next().parse().ok()?,
        margin: next() == "1",
    })
}

/// What `site/h2_client.py` prints: Python's h2 as a client over TLS. It must succeed; none if it isn't installed.
pub fn python_h2(port: u16, args: &[&str]) -> Option<String> {
    let python = python()?;
    let known = Command::new(&python).args(["-c", "import h2"]).stderr(Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("TIDEGATE_SKIP_MISSING").is_some(), "python3-h2 isn't installed");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("site/h2_client.py");
    let out = Command::new(python).arg(script).arg(port.to_string()).args(args).output().expect("python starts");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    Some(text)
}

/// The SHA-256 sum of a file, in hexadecimal.
pub fn sha256(path: &Path) -> String {
    let out = Command::new("sha256sum").arg(path).output().expect("sha256sum is installed");
    assert!(out.status.success(), "sha256sum {}", path.display());
    String::from_utf8_lossy(&out.stdout).split(' ').next().unwrap_or_default().to_string()
}

/// Runs openssl in a folder; it must succeed.
pub fn openssl(folder: &Path, args: &[&str]) {
    let out = Command::new("openssl").args(args).current_dir(folder).output().expect("openssl is installed");
    assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Makes a self-signed certificate `name.crt` with its key `name.key`, of a kind of key.
pub fn certificate(folder: &Folder, name: &str, kind: &[&str]) {
    let (key, crt) = (format!("{name}.key"), format!("{name}.crt"));
    let (subject, names) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
    let mut args = vec!["req", "-x509", "-nodes", "-days", "30", "-keyout", &key, "-out", &crt];
    args.extend(["-subj", &subject, "-addext", &names]);
    args.extend(kind);
    openssl(folder.path(), &args);
}

/// A key on P-256, for [`certificate`].
pub const EC: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
/// A key of RSA, for [`certificate`].
pub const RSA: &[&str] = &["-newkey", "rsa:2048"];
