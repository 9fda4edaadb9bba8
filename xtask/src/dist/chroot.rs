//! Tests of the packages: they are installed in a Debian system of their own, by `guest.rs` inside of it.
//!
//! The system is a folder made by debootstrap once, and copied for each test. Its processes have a network without a way
//! out and process numbers of their own: what they start ends with the test.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::guest::SCENARIOS;
use super::{VERSION, package, pages};
use crate::steps::Steps;
use crate::test;
use crate::tools::{self, Outcome};

/// The release of Debian.
const SUITE: &str = "bookworm";

/// Packages that the system has at hand, without having installed them.
const AT_HAND: [&str; 3] = ["nginx", "systemd", "dbus"];

/// Programs of the host, and their packages.
const NEEDS: [(&str, &str); 3] =
    [("/usr/sbin/debootstrap", "debootstrap"), ("/usr/bin/unshare", "util-linux"), ("/usr/sbin/ip", "iproute2")];

/// Takes the steps, if that is possible.
pub(crate) fn steps(steps: &mut Steps, place: &Path, program: &Path) {
    test::install(&NEEDS);
    let missing = NEEDS.iter().find(|(file, _)| !Path::new(file).exists());
    if !rustix::process::geteuid().is_root() || missing.is_some() {
        let why = missing.map_or("that takes root".to_string(), |(file, _)| format!("there is no {file}"));
        println!("== installation in a Debian system: left out, {why}");
        return;
    }
    let base = place.join("debian");
    if !steps.step("a Debian system", || if base.exists() { Ok(()) } else { make(&base) }) {
        return;
    }
    let next = place.join("next");
    if steps.step("a Debian package of the next version", || {
        let pages = pages::all(program)?;
        package::deb(program, &pages, &next, &format!("{VERSION}+next"), package::FAST).map(drop)
    }) {
        for (name, title, _) in SCENARIOS {
            steps.step(title, || scenario(name, &base, place, &next));
        }
    }
}

/// Makes the system, from where this one's packages come from.
fn make(base: &Path) -> Outcome {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]);
    let said = tools::output(apt)?;
    let mirror = said.lines().find_map(|line| line.strip_suffix(&format!(" {SUITE} main")));
    let mirror = mirror.ok_or_else(|| format!("no source of packages has {SUITE}, main"))?;
    let new = base.with_extension("new");
    remove(&new)?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", SUITE]).arg(&new).arg(mirror).stdout(Stdio::null());
    tools::run(debootstrap)?;
    for arguments in
        [&["update"][..], &[&["install", "-y", "--no-install-recommends", "--download-only"][..], &AT_HAND].concat()]
    {
        let mut apt = Command::new("chroot");
        apt.arg(&new).args(["apt-get", "-qq"]).args(arguments).stdout(Stdio::null());
        tools::run(apt)?;
    }
    fs::rename(&new, base).map_err(|error| format!("{}: {error}", base.display()))
}

/// Runs a scenario in a copy of the system, with the packages in one folder and those of the next version in another.
fn scenario(name: &str, base: &Path, first: &Path, second: &Path) -> Outcome {
    let root = base.with_extension("guest");
    remove(&root)?;
    copy(base, &root)?;
    for (from, to) in [(first, "root/first"), (second, "root/second")] {
        let folder = root.join(to);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let files = fs::read_dir(from).into_iter().flatten().flatten().map(|entry| entry.path());
        for file in files.filter(|file| file.extension().is_some_and(|ending| ending == "deb" || ending == "gz")) {
            copy(&file, &folder)?;
        }
    }
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut guest = Command::new("unshare");
    guest.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // The first process must wait for those whose parents have ended.
    guest.args(["sh", "-c", "\"$@\" & wait $!", "sh"]).arg(this).args(["dist", "--guest"]).arg(&root).arg(name);
    tools::run(guest).map_err(|_| "failed, as it says above".to_string())?;
    remove(&root)
}

/// Copies a file, or a folder and what is below it.
fn copy(from: &Path, to: &Path) -> Outcome {
    let mut copy = Command::new("cp");
    copy.args(["-a", "--reflink=auto"]).arg(from).arg(to);
    tools::run(copy)
}

fn remove(path: &Path) -> Outcome {
    if !path.exists() {
        return Ok(());
    }
    fs::remove_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}
