//! Runs a checkout of nginx's public test suite (<https://github.com/nginx/nginx-tests>) against the server.
//!
//! As root each file gets, by `unshare` and `setpriv`, a network and a process namespace and the user nobody: files that
//! run side by side share no port, and what a file leaves running ends with its namespace. Otherwise files run one
//! after another, as they are.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::tap::{self, Result as Ended, Verdict};
use crate::tools::{self, Options, Outcome};
use crate::tsv::Table;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask nginx-tests [DIR] [FILE.t | PREFIX ...] [options]

DIR is the folder of the checkout; without it TIDEGATE_NGINX_TESTS names one.

  -j N             files at a time (default: the processors)
  --timeout N      seconds for each file (default 120)
  --out FILE       writes the results as a table
  --baseline FILE  compares with an earlier table (default: that of nginx 1.31.5)
  --list FILE      names of files, one per line
  --globals TEXT   directives for the main context
  --events TEXT    directives for the events block of files that have one empty, for example 'use poll;'
  --unsafe         sets TEST_NGINX_UNSAFE
  --keep DIR       keeps the folder of each file that fails
  --quiet          no line for each file

TIDEGATE_BINARY names another server. The binary is run under the name nginx, as the suite expects.
";

/// A file's result.
struct Row {
    file: String,
    verdict: Verdict,
    seconds: f64,
}

struct Runner {
    tests: PathBuf,
    binary: PathBuf,
    work: PathBuf,
    timeout: Duration,
    isolated: bool,
    unsafe_tests: bool,
    globals: String,
    keep: Option<PathBuf>,
}

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let valued = ["-j", "--timeout", "--out", "--baseline", "--list", "--globals", "--events", "--keep"];
    let options = Options::parse(arguments, &["--unsafe", "--quiet"], &valued)?;
    let Some((folder, names)) = checkout(&options.rest) else {
        print!("{HELP}");
        return Err("which checkout?".to_string());
    };
    let work = tools::folder("nginx-tests")?;
    let runner = prepare(&options, &folder, work.path())?;
    whole(&options, &runner, names)
}

/// The folder of the checkout, and the arguments that are left.
fn checkout(arguments: &[String]) -> Option<(PathBuf, &[String])> {
    match arguments.split_first() {
        Some((folder, names)) if Path::new(folder).is_dir() => Some((PathBuf::from(folder), names)),
        _ => std::env::var_os(crate::test::SUITE).map(|folder| (PathBuf::from(folder), arguments)),
    }
}

fn prepare(options: &Options, folder: &Path, work: &Path) -> Outcome<Runner> {
    let tests = fs::canonicalize(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    if !tests.join("lib/Test/Nginx.pm").is_file() {
        return Err(format!("{} is no checkout of nginx-tests", tests.display()));
    }
    let root = rustix::process::geteuid().is_root();
    let isolated = root && probe();
    // Under the name nginx the server answers as nginx; a copy, because the tests' user may not enter our folder.
    let binary = work.join("bin/nginx");
    tools::write(&binary, "")?;
    let server = tools::server()?;
    fs::copy(&server, &binary).map_err(|e| format!("{}: {e}", server.display()))?;
    let tests = if options.value("--events").is_some() { copy_with_events(options, &tests, work)? } else { tests };
    Ok(Runner {
        tests,
        binary,
        work: work.to_path_buf(),
        timeout: Duration::from_secs(options.number("--timeout", 120)?),
        isolated,
        unsafe_tests: options.has("--unsafe"),
        globals: options.value("--globals").unwrap_or_default().to_string(),
        keep: options.value("--keep").map(PathBuf::from),
    })
}

/// Whether namespaces can be had here.
fn probe() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "true"]).stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success()) && tools::find("setpriv").is_some()
}

/// A copy of the suite in which the `events` blocks hold the given directives.
fn copy_with_events(options: &Options, tests: &Path, work: &Path) -> Outcome<PathBuf> {
    let copy = work.join("tests");
    let mut command = Command::new("cp");
    command.arg("-r").arg(tests).arg(&copy);
    tools::run(command)?;
    let directives = options.value("--events").unwrap_or_default();
    for path in tools::files(&copy).into_iter().filter(|p| p.extension().is_some_and(|e| e == "t")) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        tools::write(&path, &text.replace("events {\n}", &format!("events {{ {directives}\n}}")))?;
    }
    Ok(copy)
}

fn whole(options: &Options, runner: &Runner, names: &[String]) -> Outcome {
    let default = tools::root().join("xtask/reference/nginx-tests-1.31.5.tsv");
    let baseline = read_baseline(options.value("--baseline").map_or(default.as_path(), Path::new))?;
    let mut names = names.to_vec();
    if let Some(list) = options.value("--list") {
        let text = tools::read(Path::new(list))?;
        names.extend(text.lines().map(|l| l.split('#').next().unwrap_or_default().trim().to_string()));
        names.retain(|n| !n.is_empty());
    }
    let mut files = select(&runner.tests, &names)?;
    files.sort_by(|a, b| {
        let seconds = |f: &String| baseline.get(f).map_or(0.0, |b| b.seconds);
        seconds(b).total_cmp(&seconds(a))
    });
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = if runner.isolated { options.number("-j", jobs)?.max(1) } else { 1 };
    let begun = Instant::now();
    let rows = all(runner, files, jobs, options.has("--quiet"));
    if let Some(out) = options.value("--out") {
        tools::write(Path::new(out), &table(&rows))?;
    }
    summary(&rows, &baseline, begun.elapsed())
}

/// What the baseline says of a file.
struct Before {
    good: bool,
    ok: usize,
    seconds: f64,
}

fn read_baseline(path: &Path) -> Outcome<BTreeMap<String, Before>> {
    let table = Table::parse(&tools::read(path)?);
    let before = |r: crate::tsv::Row| Before {
        good: matches!(r.get("result"), "pass" | "todo"),
        ok: r.get("ok").parse().unwrap_or(0),
        seconds: r.get("seconds").parse().unwrap_or(0.0),
    };
    Ok(table.rows().map(|r| (r.get("file").to_string(), before(r))).collect())
}

/// The files named: exactly, without their ending, or by a prefix; all where nothing is named.
fn select(tests: &Path, names: &[String]) -> Outcome<Vec<String>> {
    let mut all: Vec<String> = fs::read_dir(tests)
        .map_err(|e| e.to_string())?
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| n.ends_with(".t"))
        .collect();
    all.sort();
    if names.is_empty() {
        return Ok(all);
    }
    let mut chosen = Vec::new();
    for name in names {
        let exact = format!("{}.t", name.trim_end_matches(".t"));
        let hits: Vec<_> = all.iter().filter(|f| **f == exact).cloned().collect();
        let prefix = name.trim_end_matches('*');
        let hits = if hits.is_empty() { all.iter().filter(|f| f.starts_with(prefix)).cloned().collect() } else { hits };
        if hits.is_empty() {
            return Err(format!("no test file is called {name}"));
        }
        chosen.extend(hits);
    }
    chosen.sort();
    chosen.dedup();
    Ok(chosen)
}

fn all(runner: &Runner, files: Vec<String>, jobs: usize, quiet: bool) -> Vec<Row> {
    let queue = Mutex::new(VecDeque::from(files));
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no job panics").pop_front();
                    let Some(file) = next else { return };
                    let row = one(runner, &file);
                    if !quiet {
                        let v = &row.verdict;
                        let note: String = v.note.chars().take(110).collect();
                        println!(
                            "{} {:>4}/{:<4} {:>7.2}s {file} {note}",
                            v.result.name(),
                            v.ok,
                            v.planned,
                            row.seconds
                        );
                    }
                    rows.lock().expect("no job panics").push(row);
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("no job panics");
    rows.sort_by(|a, b| a.file.cmp(&b.file));
    rows
}

fn one(runner: &Runner, file: &str) -> Row {
    let work = runner.work.join(file.trim_end_matches(".t"));
    let begun = Instant::now();
    let verdict = match attend(runner, file, &work) {
        Ok(verdict) => verdict,
        Err(why) => Verdict { note: why, ..tap::judge("", None) },
    };
    let seconds = begun.elapsed().as_secs_f64();
    if let (Some(keep), Ended::Fail) = (&runner.keep, verdict.result) {
        let target = keep.join(file.trim_end_matches(".t"));
        let _ = fs::remove_dir_all(&target);
        let _ = fs::create_dir_all(keep);
        let _ = Command::new("cp").arg("-r").arg(&work).arg(target).stderr(Stdio::null()).status();
    }
    let _ = fs::remove_dir_all(&work);
    Row { file: file.to_string(), verdict, seconds }
}

fn attend(runner: &Runner, file: &str, work: &Path) -> Outcome<Verdict> {
    let tmp = work.join("t");
    fs::create_dir_all(&tmp).map_err(|e| e.to_string())?;
    let _ = fs::set_permissions(&tmp, fs::Permissions::from_mode(0o777));
    let open = |name: &str| fs::File::create(work.join(name)).map_err(|e| e.to_string());
    let mut command = command(runner, file);
    command.current_dir(&runner.tests).stdin(Stdio::null()).stdout(open("stdout")?).stderr(open("stderr")?);
    command.env("TEST_NGINX_BINARY", &runner.binary).env("TMPDIR", &tmp).env("HOME", &tmp).env("LC_ALL", "C");
    command.env("TEST_NGINX_LEAVE", "1").env("HARNESS_ACTIVE", "1");
    if !runner.globals.is_empty() {
        command.env("TEST_NGINX_GLOBALS", &runner.globals);
    }
    if runner.unsafe_tests {
        command.env("TEST_NGINX_UNSAFE", "1");
    }
    let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    let (code, late) = wait(&mut child, runner.timeout);
    let out = fs::read(work.join("stdout")).unwrap_or_default();
    let mut verdict = tap::judge(&String::from_utf8_lossy(&out), code);
    if late {
        verdict.result = Ended::Fail;
        verdict.note = format!("timeout after {} s; {}", runner.timeout.as_secs(), verdict.note);
    }
    if matches!(verdict.result, Ended::Skip | Ended::Fail) {
        let loud = emerg(&tmp);
        if !loud.is_empty() {
            verdict.note = format!("{}; {loud}", verdict.note);
        }
    }
    Ok(verdict)
}

fn command(runner: &Runner, file: &str) -> Command {
    if !runner.isolated {
        let mut command = Command::new("perl");
        command.arg(file);
        return command;
    }
    // The class E route: the suite uses an address there as one that connections time out to. The shell stays as the
    // namespace's first process, so that orphans find a parent.
    let script = "ip link set lo up; ip route add 240.0.0.0/4 dev lo 2>/dev/null; \
                  setpriv --reuid nobody --regid nogroup --clear-groups perl \"$1\"; exit $?";
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh", file]);
    command
}

/// How the child ended, and whether it had to be ended: with it goes its whole namespace.
fn wait(child: &mut Child, patience: Duration) -> (Option<i32>, bool) {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return (status.code(), false),
            Err(_) => return (None, false),
            Ok(None) if begun.elapsed() > patience => {
                let _ = child.kill();
                let _ = child.wait();
                return (None, true);
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Why the server would not start, if its error log says so.
fn emerg(folder: &Path) -> String {
    let logs = tools::files(folder).into_iter().filter(|p| p.file_name().is_some_and(|n| n == "error.log"));
    let text = logs.filter_map(|p| fs::read(p).ok()).map(|b| String::from_utf8_lossy(&b).into_owned());
    let line = text.flat_map(|t| t.lines().find(|l| l.contains("[emerg]")).map(str::to_string)).next();
    let line = line.unwrap_or_default().replace(&folder.display().to_string(), "TMP");
    line.find("[emerg]").map_or(String::new(), |at| line[at..].chars().take(200).collect())
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("file\tresult\tplanned\tok\tseconds\tnote\tskipped\ttodo\n");
    for row in rows {
        let v = &row.verdict;
        let note = v.note.replace('\t', " ");
        let (name, file) = (v.result.name(), &row.file);
        text += &format!(
            "{file}\t{name}\t{}\t{}\t{:.2}\t{note}\t{}\t{}\n",
            v.planned, v.ok, row.seconds, v.skipped, v.todo
        );
    }
    text
}

fn summary(rows: &[Row], baseline: &BTreeMap<String, Before>, wall: Duration) -> Outcome {
    let lost = |kind: Ended| {
        let files = rows.iter().filter(|r| r.verdict.result == kind && baseline.get(&r.file).is_some_and(|b| b.good));
        files.map(|r| r.file.as_str()).collect::<Vec<_>>()
    };
    for (title, files) in [("fail", lost(Ended::Fail)), ("skip", lost(Ended::Skip))] {
        if !files.is_empty() {
            println!("passed in the baseline, {title} here ({}): {}", files.len(), files.join(" "));
        }
    }
    let count = |kinds: &[Ended]| rows.iter().filter(|r| kinds.contains(&r.verdict.result)).count();
    // A file that dies early still has all its subtests to its debit.
    let wanted = |r: &Row| baseline.get(&r.file).map_or(r.verdict.planned, |b| b.ok);
    let ok: usize = rows.iter().map(|r| r.verdict.ok.min(wanted(r))).sum();
    println!(
        "{} files in {} s: {} pass, {} fail, {} skip; subtests ok {ok} of {}",
        rows.len(),
        wall.as_secs(),
        count(&[Ended::Pass, Ended::Todo]),
        count(&[Ended::Fail]),
        count(&[Ended::Skip]),
        rows.iter().map(wanted).sum::<usize>()
    );
    if lost(Ended::Fail).is_empty() && lost(Ended::Skip).is_empty() {
        Ok(())
    } else {
        Err("not as in the baseline".into())
    }
}
