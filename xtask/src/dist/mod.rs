//! The release: the program built with profiles, and its packages, in `target/dist`.

mod build;
mod check;
mod chroot;
mod guest;
mod handshakes;
mod package;
mod pages;
mod train;

use std::fs;
use std::path::{Path, PathBuf};

use package::Packing;

use crate::steps::Steps;
use crate::tools::{self, Options, Outcome};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask dist [options]

Builds the release into target/dist: the program, a Debian package, a tar file with an install script, a Dockerfile.
The program is compiled with a profile of itself under load (PGO), and its code is then laid out by another one (BOLT). It
needs llvm-profdata of the compiler's version (rustup component add llvm-tools) and llvm-bolt (Debian: bolt-19); as root on
a system with apt-get they are installed. What is missing is left out, and said. Then openssl asks the program for a page,
by each kind of key, version, cipher and group, and by the cryptography for several kinds of processors.

  --profile FOLDER   takes the profiles of an earlier run, which are in target/dist/profile, instead of training: the same
                     profiles make the same bytes
  --fast             hardly compresses the packages, for work on them
  --program FILE     packages this program instead of building one
  --check            only checks the packaging: scripts, configuration, unit, pages (part of cargo xtask test)
  --test             tests the result: in a Debian system of its own (debootstrap, as root) it is installed, put in a
                     running nginx's place, upgraded, removed and purged, while a client asks all the time; then the program
                     is built once more from its profiles, and compared
";

/// Of the packages.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Checks the packaging.
pub(crate) fn check() -> Outcome {
    check::run()
}

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--check", "--fast", "--test"], &["--profile", "--program", "--guest"])?;
    if let Some(root) = options.value("--guest") {
        return guest::run(Path::new(root), options.rest.first().map_or("", |name| name));
    }
    if let Some(extra) = options.rest.first() {
        return Err(format!("{extra:?} is no option\n{HELP}"));
    }
    if options.has("--check") {
        return check();
    }
    let place = tools::target()?.join("dist");
    let (program, is_built) = match options.value("--program") {
        Some(path) => (PathBuf::from(path), false),
        None => (build::release(&place, options.value("--profile").map(Path::new))?, true),
    };
    println!("== its TLS");
    handshakes::check(&program)?;
    let packing = if options.has("--fast") { package::FAST } else { package::SMALL };
    for file in package::all(&program, &place, VERSION, packing)? {
        println!("{}: {} KiB", file.display(), size(&file)? >> 10);
    }
    if options.has("--test") { test(&place, &program, packing, is_built) } else { Ok(()) }
}

fn size(file: &Path) -> Outcome<u64> {
    fs::metadata(file).map(|meta| meta.len()).map_err(|error| format!("{}: {error}", file.display()))
}

fn test(place: &Path, program: &Path, packing: Packing, is_built: bool) -> Outcome {
    let mut steps = Steps::new();
    steps.step("packages are reproducible", || {
        let again = place.join("again");
        let files = package::all(program, &again, VERSION, packing)?;
        let same = files.iter().map(|file| same(file, &place.join(file.file_name().unwrap_or_default())));
        same.collect::<Outcome>().and_then(|()| fs::remove_dir_all(&again).map_err(|error| error.to_string()))
    });
    chroot::steps(&mut steps, place, program);
    if is_built {
        steps.step("the program is reproducible", || {
            let again = place.join("again");
            same(&build::again(place, &again)?, program)?;
            fs::remove_dir_all(&again).map_err(|error| error.to_string())
        });
    }
    steps.end()
}

/// Fails unless two files have the same bytes.
fn same(one: &Path, other: &Path) -> Outcome {
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    if read(one)? == read(other)? {
        return Ok(());
    }
    Err(format!("{} differs from {}", one.display(), other.display()))
}
