//! The packages: the tree of files that both have, a Debian package and a tar file of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::pages::{self, Page};
use crate::crates;
use crate::tools::{self, Outcome};

/// Files of the source: where they stand there, where they go, and whether they are programs.
const FILES: [(&str, &str, bool); 11] = [
    ("packaging/conf/nginx.conf", "etc/tidegate/nginx.conf", false),
    ("packaging/conf/mime.types", "etc/tidegate/mime.types", false),
    ("packaging/conf/proxy_params", "etc/tidegate/proxy_params", false),
    ("packaging/conf/fastcgi_params", "etc/tidegate/fastcgi_params", false),
    ("packaging/conf/scgi_params", "etc/tidegate/scgi_params", false),
    ("packaging/conf/uwsgi_params", "etc/tidegate/uwsgi_params", false),
    ("packaging/conf/sites-available/default", "etc/tidegate/sites-available/default", false),
    ("packaging/logrotate", "etc/logrotate.d/tidegate", false),
    ("packaging/systemd/tidegate.service", "usr/lib/systemd/system/tidegate.service", false),
    ("packaging/systemd/tidegate.socket", "usr/lib/systemd/system/tidegate.socket", false),
    ("crates/server/src/welcome.html", "usr/share/tidegate/html/index.html", false),
];

/// Files of the Debian package alone.
const DEBIAN: [(&str, &str, bool); 5] = [
    ("packaging/debian/replace", "usr/lib/tidegate/replace", true),
    ("packaging/debian/postinst", "DEBIAN/postinst", true),
    ("packaging/debian/prerm", "DEBIAN/prerm", true),
    ("packaging/debian/postrm", "DEBIAN/postrm", true),
    ("docs/migrate.md", "usr/share/doc/tidegate/migrate.md", false),
];

/// How packages are compressed: `dpkg-deb`'s option, and gzip's command for the tar file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing(&'static str, &'static str);

/// As they are given away.
pub(crate) const SMALL: Packing = Packing("-Zxz", "gzip -9n");
/// For tests: not at all.
pub(crate) const FAST: Packing = Packing("-Znone", "gzip -1n");

/// Makes all packages of a program in a folder: their files.
pub(crate) fn all(program: &Path, place: &Path, version: &str, packing: Packing) -> Outcome<Vec<PathBuf>> {
    // Of earlier runs, perhaps with another version: there is one of each.
    for old in fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if old.extension().is_some_and(|ending| ending == "deb" || ending == "gz") {
            fs::remove_file(&old).map_err(failed(&old))?;
        }
    }
    let pages = pages::all(program)?;
    let mut made = vec![tar(program, &pages, place, version, packing)?];
    let dockerfile = place.join("Dockerfile");
    copy(&tools::root().join("packaging/Dockerfile"), &dockerfile, false)?;
    made.push(dockerfile);
    match ["dpkg-deb", "dpkg-shlibdeps"].iter().find(|name| tools::find(name).is_none()) {
        Some(name) => println!("left out: the Debian package, since there is no {name}"),
        None => made.push(deb(program, &pages, place, version, packing)?),
    }
    Ok(made)
}

/// A Debian package.
pub(crate) fn deb(program: &Path, pages: &[Page], place: &Path, version: &str, packing: Packing) -> Outcome<PathBuf> {
    let tree = place.join("tree-deb");
    stage(&tree, program, pages)?;
    for (from, to, is_program) in DEBIAN {
        copy(&tools::root().join(from), &tree.join(to), is_program)?;
    }
    for empty in ["etc/tidegate/conf.d", "etc/tidegate/sites-enabled", "var/log/tidegate"] {
        folder(&tree.join(empty))?;
    }
    let architecture = output("dpkg", &["--print-architecture"])?;
    let below = |name: &str| tools::files(&tree.join(name)).into_iter().filter(|path| !path.is_symlink());
    let size: u64 = below("").filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.len().div_ceil(1024)).sum();
    let control = tools::read(&tools::root().join("packaging/debian/control"))?;
    let control = control.replace("@VERSION@", version).replace("@ARCHITECTURE@", architecture.trim());
    let control = control
        .replace("@SIZE@", &size.to_string())
        .replace("@LIBRARIES@", &libraries(&tree.join("usr/sbin/tidegate"), place)?);
    put(&tree.join("DEBIAN/control"), control.as_bytes(), false)?;
    let name = |path: &Path| path.strip_prefix(&tree).unwrap_or(path).display().to_string();
    let conffiles: String = below("etc").map(|path| format!("/{}\n", name(&path))).collect();
    put(&tree.join("DEBIAN/conffiles"), conffiles.as_bytes(), false)?;
    let mut sums = Command::new("md5sum");
    sums.current_dir(&tree).args(below("usr").map(|path| name(&path)));
    put(&tree.join("DEBIAN/md5sums"), tools::output(sums)?.as_bytes(), false)?;
    let file = place.join(format!("tidegate_{version}_{}.deb", architecture.trim()));
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", packing.0, "--build"]).arg(&tree).arg(&file);
    build.env("SOURCE_DATE_EPOCH", epoch()).stdout(Stdio::null());
    tools::run(build)?;
    remove(&tree)?;
    Ok(file)
}

/// A tar file with an install script.
fn tar(program: &Path, pages: &[Page], place: &Path, version: &str, packing: Packing) -> Outcome<PathBuf> {
    let name = format!("tidegate-{version}-{}-linux", std::env::consts::ARCH);
    let tree = place.join("tree-tar");
    stage(&tree.join(&name).join("files"), program, pages)?;
    copy(&tools::root().join("packaging/install.sh"), &tree.join(&name).join("install.sh"), true)?;
    copy(&tools::root().join("LICENSE"), &tree.join(&name).join("LICENSE"), false)?;
    let file = place.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu", "-I", packing.1, "-cf"])
        .arg(&file);
    tar.arg(format!("--mtime=@{}", epoch())).arg("-C").arg(&tree).arg(&name);
    tools::run(tar)?;
    remove(&tree)?;
    Ok(file)
}

/// Puts the files of both into an empty folder.
fn stage(tree: &Path, program: &Path, pages: &[Page]) -> Outcome {
    if tree.exists() {
        remove(tree)?;
    }
    copy(program, &tree.join("usr/sbin/tidegate"), true)?;
    // Called by this name it is nginx, wherever an nginx is installed.
    let link = tree.join("usr/lib/tidegate/nginx");
    link.parent().map_or(Ok(()), folder)?;
    symlink("../../sbin/tidegate", &link).map_err(|error| format!("{}: {error}", link.display()))?;
    for (from, to, is_program) in FILES {
        copy(&tools::root().join(from), &tree.join(to), is_program)?;
    }
    for (to, text) in pages {
        let path = tree.join("usr").join(to);
        if to.contains("/man/") { packed(&path, text)? } else { put(&path, text.as_bytes(), false)? }
    }
    let docs = tree.join("usr/share/doc/tidegate");
    packed(&docs.join("changelog"), &tools::read(&tools::root().join("CHANGES.md"))?)?;
    packed(&docs.join("crates"), &licences()?)?;
    let licence = tools::read(&tools::root().join("LICENSE"))?;
    let indented: String = licence.lines().skip(4).map(|line| indented(line.trim_end())).collect();
    let head = tools::read(&tools::root().join("packaging/debian/copyright"))?;
    put(&docs.join("copyright"), (head + &indented).as_bytes(), false)
}

/// A line of a long field of Debian's.
fn indented(line: &str) -> String {
    if line.is_empty() { " .\n".to_string() } else { format!(" {line}\n") }
}

/// The licences of the crates of others in the program: each text once, with the crates that have it.
fn licences() -> Outcome<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let registries = fs::read_dir(home.unwrap_or_default().join("registry/src")).into_iter().flatten().flatten();
    let registries: Vec<PathBuf> = registries.map(|entry| entry.path()).collect();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version, licence) in crates::of_the_program()? {
        let folders = registries.iter().map(|registry| registry.join(format!("{name}-{version}")));
        let mut found = Vec::new();
        for path in folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten().map(|entry| entry.path())
        {
            let file = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
            if path.is_file() && ["LICENSE", "LICENCE", "COPYING", "NOTICE"].iter().any(|word| file.starts_with(word)) {
                found.push(String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).trim().to_string());
            }
        }
        if found.is_empty() {
            found.push(format!("(no text of its own: {licence})"));
        }
        for text in found {
            texts.entry(text).or_default().push(format!("{name} {version} ({licence})"));
        }
    }
    let mut parts: Vec<_> =
        texts.into_iter().map(|(text, names)| format!("{}\n\n{text}\n", names.join(", "))).collect();
    parts.sort();
    Ok(parts.join(&format!("\n{}\n\n", "=".repeat(78))))
}

/// The packages of the libraries that a program is linked to.
fn libraries(program: &Path, place: &Path) -> Outcome<String> {
    let folder = place.join("shlibdeps");
    tools::write(&folder.join("debian/control"), "Source: tidegate\n\nPackage: tidegate\nArchitecture: any\n")?;
    let program = fs::canonicalize(program).map_err(|error| format!("{}: {error}", program.display()))?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.current_dir(&folder).arg("-O").arg(program);
    let said = tools::output(command)?;
    remove(&folder)?;
    let found = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    found.map(str::to_string).ok_or_else(|| format!("dpkg-shlibdeps said {said:?}"))
}

/// The time of all files in packages: `SOURCE_DATE_EPOCH`, or that of the last commit.
fn epoch() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let commit = || output("git", &["log", "-1", "--format=%ct"]).ok();
    given.or_else(commit).map_or("0".to_string(), |time| time.trim().to_string())
}

fn output(program: &str, arguments: &[&str]) -> Outcome<String> {
    let mut command = Command::new(program);
    command.current_dir(tools::root()).args(arguments);
    tools::output(command)
}

// -- files

fn failed<'a>(path: &'a Path) -> impl Fn(std::io::Error) -> String + 'a {
    move |error| format!("{}: {error}", path.display())
}

/// Makes a folder and those above it, whatever the mask for new ones is.
fn folder(path: &Path) -> Outcome {
    if path.is_dir() {
        return Ok(());
    }
    path.parent().map_or(Ok(()), folder)?;
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(failed(path))
}

fn put(path: &Path, bytes: &[u8], is_program: bool) -> Outcome {
    path.parent().map_or(Ok(()), folder)?;
    let mode = if is_program { 0o755 } else { 0o644 };
    let written = fs::write(path, bytes);
    written.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode))).map_err(failed(path))
}

fn copy(from: &Path, to: &Path, is_program: bool) -> Outcome {
    put(to, &fs::read(from).map_err(failed(from))?, is_program)
}

/// Writes a text packed by gzip, without its time.
fn packed(path: &Path, text: &str) -> Outcome {
    put(path, text.as_bytes(), false)?;
    let mut gzip = Command::new("gzip");
    gzip.args(["-9nf"]).arg(path);
    tools::run(gzip)
}

fn remove(path: &Path) -> Outcome {
    fs::remove_dir_all(path).map_err(failed(path))
}
