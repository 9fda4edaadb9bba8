//! Everything that must hold before a change goes in: format, lints, house checks, unit tests, end-to-end tests.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::steps::{Beside, Steps};
use crate::tiers::{TIERS, Tier};
use crate::tools::{self, Options, Outcome, cargo};

/// Debian packages of the programs that tests meet: a file that shows it is there, and its package.
const NEEDS: [(&str, &str); 29] = [
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/chromium", "chromium"),
    ("/usr/bin/python3", "python3"),
    ("/usr/lib/python3/dist-packages/aiohttp/__init__.py", "python3-aiohttp"),
    ("/usr/lib/python3/dist-packages/h2/__init__.py", "python3-h2"),
    ("/usr/lib/python3/dist-packages/grpc/__init__.py", "python3-grpcio"),
    ("/usr/bin/h2load", "nghttp2-client"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/gzip", "gzip"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/certbot", "certbot"),
    ("/usr/lib/python3/dist-packages/certbot_nginx/__init__.py", "python3-certbot-nginx"),
    ("/usr/bin/pebble", "pebble"),
    ("/usr/share/doc/php-fpm", "php-fpm"),
    ("/usr/bin/uwsgi", "uwsgi-core"),
    ("/usr/lib/uwsgi/plugins/python3_plugin.so", "uwsgi-plugin-python3"),
    ("/usr/bin/memcached", "memcached"),
    ("/usr/bin/cadaver", "cadaver"),
    ("/usr/bin/rclone", "rclone"),
    ("/usr/lib/dovecot/imap", "dovecot-imapd"),
    ("/usr/lib/dovecot/pop3", "dovecot-pop3d"),
    ("/usr/bin/swaks", "swaks"),
    ("/usr/lib/python3/dist-packages/aiosmtpd/__init__.py", "python3-aiosmtpd"),
    ("/usr/bin/psql", "postgresql"),
    ("/usr/bin/redis-server", "redis-server"),
    ("/usr/sbin/dnsmasq", "dnsmasq-base"),
    ("/usr/bin/logger", "bsdutils"),
    ("/usr/bin/ffmpeg", "ffmpeg"),
    ("/usr/bin/valgrind", "valgrind"),
];

/// Debian packages that nginx's test suite needs beside: a file that shows it is there, and its package.
const SUITE_NEEDS: [(&str, &str); 8] = [
    ("/usr/bin/perl", "perl"),
    ("/usr/share/perl5/IO/Socket/SSL.pm", "libio-socket-ssl-perl"),
    ("/usr/share/perl5/Protocol/WebSocket.pm", "libprotocol-websocket-perl"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/share/doc/libfcgi-perl", "libfcgi-perl"),
    ("/usr/share/perl5/SCGI.pm", "libscgi-perl"),
    ("/usr/share/perl5/Cache/Memcached.pm", "libcache-memcached-perl"),
    ("/usr/share/doc/libcache-memcached-fast-perl", "libcache-memcached-fast-perl"),
];

/// Names the folder with a checkout of nginx's test suite.
pub(crate) const SUITE: &str = "TIDEGATE_NGINX_TESTS";

/// Files of that suite that must pass.
const REQUIRED: &str = "xtask/reference/nginx-tests-required.txt";

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask test [--fast] [--tier NAME]

All that must hold before a change goes in: format, lints, house checks, crates of others, unit and property tests, corpora
of the fuzz targets, ten thousand seeds of the simulation, documentation, a release build, the manual, the instructions that
requests take, and the end-to-end tests in three tiers: `modules` and `system` once, `event_loop` once for each event method. What was slow is told at the end;
the last line counts what passed and failed. docs/testing.md tells more.

  --fast        runs `event_loop` with the default event method only, and leaves out the models of the zones' lock
  --tier NAME   only the end-to-end tests of a tier; may be repeated

As root on a system with apt-get it first installs what is missing of the programs that the tests meet: curl, chromium,
python3 with aiohttp, h2, grpcio and aiosmtpd, h2load, openssl, gzip, util-linux, certbot with its plugin for nginx, pebble, php-fpm,
uWSGI with Python, memcached, cadaver, rclone, dovecot, swaks, PostgreSQL, Redis, valgrind. With TIDEGATE_SKIP_MISSING=1 tests that miss one are left
out. Where TIDEGATE_NGINX_TESTS names a checkout of nginx's test suite, the files in xtask/reference/nginx-tests-required.txt must pass.
";

/// Runs the task. Its last line is the number of tests that passed and failed; steps count as one test each.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--fast"], &["--tier"])?;
    let chosen: Vec<&str> = options.values("--tier").collect();
    if let Some(name) = chosen.iter().find(|name| !TIERS.iter().any(|tier| tier.name == **name)) {
        return Err(format!("no tier is called {name}"));
    }
    let fast = options.has("--fast");
    install(&NEEDS);
    let mut steps = Steps::new();
    // Its last part keeps one processor busy, while other builds can use the rest.
    let release = Beside::begin("release build", || tools::server().map(|_| ()));
    if chosen.is_empty() {
        without_server(&mut steps, fast);
    }
    if steps.join(release) {
        if chosen.is_empty() {
            steps.step("docs", || crate::docs::run(&["--check".to_string()]));
            steps.step("compat", || crate::compat::run(&[]));
            steps.step("packaging", crate::dist::check);
            if crate::instructions::is_possible() {
                steps.step("instructions of a request", || crate::instructions::run(&[]));
            } else {
                println!("== instructions of a request: left out, valgrind isn't there");
            }
        }
        if chosen != ["event_loop"] {
            steps.step("a program that panics when asked to", hooks);
        }
        for tier in TIERS.iter().filter(|tier| chosen.is_empty() || chosen.contains(&tier.name)) {
            end_to_end(&mut steps, tier, fast);
        }
        if chosen.is_empty() {
            suite(&mut steps);
        }
    }
    steps.end()
}

/// Steps that need no program.
fn without_server(steps: &mut Steps, fast: bool) {
    steps.step("format", || tools::run(cargo(["fmt", "--all", "--check"])));
    steps.step("tidy", || crate::tidy::run(&[]));
    steps.step("crates of others", || crate::crates::run(&[]));
    steps.step("lints", || {
        tools::run(cargo(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    });
    steps.tests("unit and property tests, corpora of the fuzz targets", units());
    if has_nextest() {
        // nextest leaves out the examples in documentation.
        steps.tests("examples in documentation", cargo(["test", "--doc", "--workspace", "--no-fail-fast"]));
    }
    steps.step("ten thousand seeds of the simulation", simulation);
    steps.step("documentation", documentation);
    if !fast {
        steps.step("models of the zones' lock", models);
    }
}

/// All tests but those of the tiers.
fn units() -> Command {
    let mut command = tests_command(&STATUS);
    if has_nextest() {
        command.args(["--workspace", "-E", "not (package(e2e) & kind(test))"]);
    } else {
        command.args(["--workspace", "--exclude", "e2e"]);
    }
    command
}

/// What nextest tells: the time of each test.
const STATUS: [&str; 2] = ["--status-level", "pass"];

fn end_to_end(steps: &mut Steps, tier: &Tier, fast: bool) {
    if fast || tier.methods.is_empty() {
        steps.tests(&format!("end-to-end tests, {}", tier.name), tier_command(tier));
        return;
    }
    for method in tier.methods {
        let mut command = tier_command(tier);
        command.env("TIDEGATE_USE", method);
        steps.tests(&format!("end-to-end tests, {}, use {method}", tier.name), command);
    }
}

/// The tests of a tier. They mostly wait, so there are more at a time than processors. All packages are chosen, here and
/// elsewhere, because the features of dependencies follow from that choice: with another one they would be built again.
fn tier_command(tier: &Tier) -> Command {
    let jobs = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = tests_command(&STATUS);
    command.args(["--workspace", "--test", tier.name]);
    if !has_nextest() {
        command.arg("--");
    }
    command.args(["--test-threads", &jobs.to_string()]);
    command
}

/// The files of nginx's test suite that must pass, where there is a checkout.
fn suite(steps: &mut Steps) {
    if std::env::var_os(SUITE).is_none() {
        println!("== nginx's test suite: left out, {SUITE} names no checkout of it");
        return;
    }
    install(&SUITE_NEEDS);
    let list = tools::root().join(REQUIRED).display().to_string();
    steps.step("nginx's test suite", || crate::nginx_tests::run(&["--list".to_string(), list, "--quiet".to_string()]));
}

/// The documentation of all crates, without a warning.
fn documentation() -> Outcome {
    let mut command = cargo(["doc", "--workspace", "--no-deps", "--quiet"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    tools::run(command)
}

/// Builds the program of `tests/src/hooks.rs`, so that no test waits for a compiler. The command is the one that stands
/// there: it shares all but the crates that the hooks change with the other tests. The program is moved away, so that no
/// test takes it for the newest build.
fn hooks() -> Outcome {
    let form = ["build", "--quiet", "--workspace", "--features", "tidegate/test-hooks"];
    tools::run(cargo([&form[..], &["--bin", "tidegate", "--test", "system"]].concat()))?;
    let target = tools::target()?;
    let (built, place) = (target.join("debug/tidegate"), target.join("test-hooks"));
    let moved = std::fs::create_dir_all(&place).and_then(|()| std::fs::rename(&built, place.join("tidegate")));
    moved.map_err(|e| format!("{}: {e}", built.display()))
}

/// With the checks of a debug build, whose crates the unit tests have left.
fn simulation() -> Outcome {
    crate::simulate::seeds(&tools::build(&["--workspace", "--bin", "simulate"])?, 0, 10_000, false)
}

/// Every order in which a few processes can come together over the zones' lock: the tests by loom, which needs its own
/// build of them.
fn models() -> Outcome {
    let mut command = cargo(["test", "--quiet", "-p", "shm", "--lib", "models"]);
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", tools::target()?.join("loom"));
    tools::run(command)
}

/// Installs what the end-to-end tests need.
pub(crate) fn prepare() {
    install(&NEEDS);
}

/// Installs what is missing, where that is possible; tests that miss a program say so themselves.
pub(crate) fn install(needs: &[(&str, &str)]) {
    let missing: Vec<_> = needs.iter().filter(|(f, _)| !Path::new(f).exists()).map(|(_, p)| *p).collect();
    if missing.is_empty() || tools::find("apt-get").is_none() || !rustix::process::geteuid().is_root() {
        return;
    }
    println!("== installing {}", missing.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    };
    let install = [&["install", "-y", "-qq", "--no-install-recommends"], missing.as_slice()].concat();
    if !(apt(&install) || apt(&["update", "-qq"]) && apt(&install)) {
        println!("not all of them could be installed");
    }
}

/// A command that runs tests: nextest with these options, or cargo itself.
pub(crate) fn tests_command(nextest: &[&str]) -> Command {
    if has_nextest() {
        cargo([&["nextest", "run", "--no-fail-fast", "--no-tests", "pass"], nextest].concat())
    } else {
        cargo(["test", "--no-fail-fast"])
    }
}

fn has_nextest() -> bool {
    tools::find("cargo-nextest").is_some() || tools::find_in_cargo_home("cargo-nextest")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test that misses a program fails, or leaves: so each program that a test names has its package.
    #[test]
    fn all_programs_of_the_tests_are_installed() {
        // Of packages that every Debian has, and that others need.
        let others = ["sh", "cp", "timeout", "sha256sum", "unshare", "nginx", "ffprobe"];
        let known = |program: &str| {
            others.contains(&program)
                || NEEDS.iter().any(|(file, package)| Path::new(file).ends_with(program) || *package == program)
                || NEEDS
                    .iter()
                    .any(|(_, package)| program.starts_with(package) || package.starts_with(&format!("{program}-")))
        };
        let mut seen = 0;
        for file in
            tools::files(&tools::root().join("tests")).iter().filter(|f| f.extension().is_some_and(|e| e == "rs"))
        {
            let text = tools::read(file).expect("a file of the tests");
            for call in ["tool(&[\"", "Command::new(\""] {
                for rest in text.split(call).skip(1) {
                    let program = rest.split('"').next().unwrap_or_default();
                    assert!(known(program), "{}: {program} isn't among those that are installed", file.display());
                    seen += 1;
                }
            }
        }
        assert!(seen > 20, "{seen}");
    }
}
