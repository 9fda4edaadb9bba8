//! Instructions and system calls of a request, counted by valgrind: figures that don't swing with the machine's load.
//!
//! All cases stand in one configuration, so that the slow start under valgrind happens once. A case is warmed up, then
//! counted in rounds of which the best one counts: what differs between rounds is what happened to be in time for one
//! wake-up. Where nginx is named, it gets the same configuration and the same requests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::instructions_cases::{self, CASES, Case};
use crate::instructions_client::Client;
use crate::measure;
use crate::tools::{self, Options, Outcome};
use crate::tsv::Table;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask instructions [CASE ...] [options]

User instructions and system calls of a request in each case, counted by valgrind's callgrind on one connection. No case
may take 3 % more of either than xtask/instructions.tsv says of a machine like this one: with the same compiler, C library,
valgrind and extensions of the processor. Where it knows none, the figures are only printed. Copying and clearing of memory is counted as the vector
instructions that do it. In about a minute. It needs valgrind and openssl.

  --write         writes the figures that are better than those in the file, and those of new cases; of a machine that it
                  doesn't know all of them
  --nginx FILE    the same of an nginx, and the ratio
  --server FILE   our server (default: TIDEGATE_BINARY, else the release build)
  --list          names the cases
";

/// Where the figures stand that must not become worse.
const FIGURES: &str = "xtask/instructions.tsv";
/// How much worse they may be: compilers place things anew with each change.
const TOLERANCE: f64 = 1.03;
/// A fault of less than this isn't one, of instructions and of calls: how many of these a connection's begin and end take
/// depends on what comes in one piece.
const SLACK: (f64, f64) = (30.0, 0.8);
/// How often the requests of a case are counted.
const ROUNDS: usize = 3;
/// The least number of requests before the counting.
const WARM_UP: usize = 30;
/// glibc copies and clears by `rep` instructions from these sizes on, which valgrind would count byte by byte.
const TUNABLES: &str = "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000";

/// What a request takes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    instructions: f64,
    calls: f64,
}

/// Whether what it needs is installed.
pub(crate) fn is_possible() -> bool {
    cfg!(target_arch = "x86_64") && ["valgrind", "vgdb", "openssl"].iter().all(|program| tools::find(program).is_some())
}

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--write", "--list"], &["--nginx", "--server"])?;
    if options.has("--list") {
        CASES.iter().for_each(|case| println!("{:16}{}", case.name, case.title));
        return Ok(());
    }
    if let Some(name) = options.rest.iter().find(|name| !CASES.iter().any(|case| case.name == **name)) {
        return Err(format!("no case is called {name}; --list names them"));
    }
    if !is_possible() {
        return Err("valgrind or openssl isn't installed (Debian: apt-get install valgrind openssl)".to_string());
    }
    let chosen: Vec<usize> = (0..CASES.len())
        .filter(|at| options.rest.is_empty() || options.rest.iter().any(|name| name == CASES[*at].name))
        .collect();
    let ours = options.value("--server").map_or_else(tools::server, |path| Ok(PathBuf::from(path)))?;
    let ours = fs::canonicalize(&ours).map_err(|error| format!("{}: {error}", ours.display()))?;
    let text = tools::read(&tools::root().join(FIGURES)).unwrap_or_default();
    let machine = machine()?;
    let mut sections = sections(&text);
    let known = sections.get(&*machine).map(|table| known(table));
    let is_known = known.is_some();
    let known = known.unwrap_or_else(|| vec![None; CASES.len()]);
    let mut found = count(&ours, &ours, &chosen)?;
    count_again(&ours, &chosen, &mut found, &known)?;
    let theirs = options.value("--nginx").map(|nginx| count(Path::new(nginx), &ours, &chosen)).transpose()?;
    print(&chosen, &found, theirs.as_deref());
    if options.has("--write") {
        let table = best(&chosen, &found, &known);
        sections.insert(&machine, &table);
        let all: Vec<_> = sections.into_iter().map(|(machine, table)| format!("{machine}\n{table}")).collect();
        return tools::write(&tools::root().join(FIGURES), &all.concat());
    }
    if !is_known {
        println!("not compared with {FIGURES}, which has no figures of such a machine: {machine}");
        return Ok(());
    }
    let faults = faults(&chosen, &found, &known);
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    if faults.is_empty() { Ok(()) } else { Err(format!("{} cases take more than they may", faults.len())) }
}

/// The tables of the file, each below the machine that its figures are of.
fn sections(text: &str) -> BTreeMap<&str, &str> {
    let mut sections = BTreeMap::new();
    let mut rest = text;
    while let Some((machine, after)) = rest.split_once('\n') {
        let end = after.find("\n#").map_or(after.len(), |at| at + 1);
        let (table, next) = after.split_at(end);
        sections.insert(machine, table);
        rest = next;
    }
    sections
}

/// What figures depend on besides the program: the line before a table of the file.
fn machine() -> Outcome<String> {
    let word = |program: &str, argument: &str| {
        let out = Command::new(program).arg(argument).output().map_err(|error| format!("{program}: {error}"))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        Ok::<_, String>(text.lines().next().unwrap_or_default().trim().to_string())
    };
    let processor = tools::read(Path::new("/proc/cpuinfo"))?;
    let flags = processor.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let extensions: Vec<_> =
        EXTENSIONS.into_iter().filter(|name| flags.split_whitespace().any(|flag| flag == *name)).collect();
    let libraries = [word("rustc", "--version")?, word("getconf", "GNU_LIBC_VERSION")?, word("valgrind", "--version")?];
    Ok(format!("# {}, {}", libraries.join(", "), extensions.join(" ")))
}

/// Extensions of the processor by which libraries choose their code.
const EXTENSIONS: [&str; 12] =
    ["adx", "aes", "avx", "avx2", "avx512f", "bmi2", "erms", "fsrm", "pclmulqdq", "sha_ni", "sse4_2", "vaes"];

/// Counts the cases again that take more than they may: a busy machine may have been to blame.
fn count_again(ours: &Path, chosen: &[usize], found: &mut [Figures], known: &[Option<Figures>]) -> Outcome {
    let is_fault = |at: usize, own: Figures| known[at].is_some() && !faults(&[at], &[own], known).is_empty();
    let again = |(at, own): &(&usize, &mut Figures)| is_fault(**at, **own);
    let (places, again): (Vec<_>, Vec<_>) = chosen.iter().zip(found).filter(again).map(|(at, own)| (own, *at)).unzip();
    if again.is_empty() {
        return Ok(());
    }
    for (own, figures) in places.into_iter().zip(count(ours, ours, &again)?) {
        *own = least(*own, figures);
    }
    Ok(())
}

/// Counts the chosen cases with one server; another one, which isn't measured, is the backend.
fn count(binary: &Path, backend: &Path, chosen: &[usize]) -> Outcome<Vec<Figures>> {
    let folder = tools::folder("instructions")?;
    let folder = folder.path();
    let (backend_port, ports) = prepare(folder, &CASES)?;
    let _backend = Server::start(folder, "backend", &[], backend, backend_port)?;
    let first = *ports.first().ok_or("no ports")?;
    let server = Server::start(folder, "measured", &valgrind(folder), binary, first)?;
    let mut counter = Counter { server: &server, folder, dumps: 0 };
    chosen.iter().map(|at| counter.case(CASES[*at], ports[*at])).collect()
}

/// Writes into a folder what the servers `measured` and `backend` need; the backend's port, and those of the cases.
pub(crate) fn prepare(folder: &Path, cases: &[Case]) -> Outcome<(u16, Vec<u16>)> {
    for (name, text) in instructions_cases::files() {
        tools::write(&folder.join("www").join(name), &text)?;
    }
    measure::certificate(folder, "site", measure::P256)?;
    let mut ports = measure::free_ports(cases.len() + 1)?;
    let backend = ports.pop().ok_or("no ports")?;
    tools::write(&folder.join("backend.conf"), &instructions_cases::backend(backend))?;
    tools::write(&folder.join("measured.conf"), &instructions_cases::configuration(cases, &ports, backend))?;
    Ok((backend, ports))
}

fn valgrind(folder: &Path) -> Vec<String> {
    let at = |name: &str| folder.join(name).display().to_string();
    vec![
        "valgrind".to_string(),
        "--quiet".to_string(),
        "--tool=callgrind".to_string(),
        "--vgdb=yes".to_string(),
        "--trace-syscalls=yes".to_string(),
        format!("--vgdb-prefix={}", at("vgdb")),
        format!("--log-file={}", at("calls.log")),
        format!("--callgrind-out-file={}", at("callgrind")),
    ]
}

/// A server; ended when dropped.
pub(crate) struct Server(Child);

impl Server {
    /// Starts one in a folder with its configuration; `before` is the command in whose argument it stands.
    pub(crate) fn start(folder: &Path, name: &str, before: &[String], binary: &Path, port: u16) -> Outcome<Server> {
        let own = [binary.display().to_string(), "-p".to_string(), folder.display().to_string(), "-c".to_string()];
        let words = [before, &own, &[format!("{name}.conf"), "-e".to_string(), format!("{name}.log")]].concat();
        let (program, arguments) = words.split_first().ok_or("no program")?;
        let mut command = Command::new(program);
        command.args(arguments).env("GLIBC_TUNABLES", TUNABLES).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        let mut server = Server(child);
        measure::wait_port(&mut server.0, port, Duration::from_secs(60))?;
        Ok(server)
    }

    /// Tells it to quit, and waits until it has ended.
    pub(crate) fn quit(mut self) -> Outcome {
        measure::signal(self.0.id(), Signal::QUIT);
        let status = self.0.wait().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("the server ended with {status}")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads what valgrind counts.
struct Counter<'s> {
    server: &'s Server,
    folder: &'s Path,
    /// How many files with counts it has written.
    dumps: usize,
}

impl Counter<'_> {
    fn case(&mut self, case: Case, port: u16) -> Outcome<Figures> {
        let mut client = Client::new(case, port);
        client.send(WARM_UP.max(case.requests / 5))?;
        if case.makes_file {
            std::thread::sleep(Duration::from_secs(4));
            client.send(WARM_UP)?;
        }
        self.settle()?;
        self.tell("zero")?;
        let mut best = Figures { instructions: f64::INFINITY, calls: f64::INFINITY };
        for _ in 0..ROUNDS {
            let before = self.calls()?;
            client.send(case.requests)?;
            self.settle()?;
            let calls = self.calls()? - before;
            let requests = case.requests as f64;
            best.instructions = best.instructions.min(self.dump()? as f64 / requests);
            best.calls = best.calls.min(calls as f64 / requests);
        }
        Ok(best)
    }

    /// Waits until the server waits: a client has its answer before the request is over.
    fn settle(&self) -> Outcome {
        let begun = Instant::now();
        let mut asleep = 0;
        while asleep < 3 {
            asleep = if measure::is_asleep(self.server.0.id()) { asleep + 1 } else { 0 };
            if begun.elapsed() > Duration::from_secs(30) {
                return Err("the server doesn't come to rest".to_string());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn tell(&self, word: &str) -> Outcome {
        let mut vgdb = Command::new("vgdb");
        let prefix = format!("--vgdb-prefix={}", self.folder.join("vgdb").display());
        vgdb.args([&format!("--pid={}", self.server.0.id()), &prefix, word]);
        vgdb.stdout(Stdio::null()).stderr(Stdio::null());
        tools::run(vgdb)
    }

    /// The instructions since the last time.
    fn dump(&mut self) -> Outcome<u64> {
        self.tell("dump")?;
        self.dumps += 1;
        let path = self.folder.join(format!("callgrind.{}", self.dumps));
        total(&tools::read(&path)?).ok_or_else(|| format!("{}: no total", path.display()))
    }

    /// The system calls so far.
    fn calls(&self) -> Outcome<usize> {
        Ok(calls(&String::from_utf8_lossy(&fs::read(self.folder.join("calls.log")).map_err(|e| e.to_string())?)))
    }
}

/// What a file of callgrind's counts altogether.
fn total(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
}

/// The system calls in valgrind's trace. One that waits has a second line, without its name. Those for the time are none
/// but under valgrind, which hides the page by which the kernel tells it.
fn calls(trace: &str) -> usize {
    let calls = trace.lines().filter(|line| line.starts_with("SYSCALL["));
    calls.filter(|line| line.contains(" sys_") && !TIME.iter().any(|name| line.contains(name))).count()
}

const TIME: [&str; 3] = [" sys_clock_gettime", " sys_gettimeofday", " sys_time "];

fn print(chosen: &[usize], found: &[Figures], theirs: Option<&[Figures]>) {
    let beside = if theirs.is_some() { "       nginx  ratio   calls" } else { "" };
    println!("{:16}{:40}{:>12}{:>8}{beside}", "case", "", "instructions", "calls");
    for (n, (at, own)) in chosen.iter().zip(found).enumerate() {
        let Case { name, title, .. } = CASES[*at];
        let beside = theirs.and_then(|theirs| theirs.get(n)).map_or(String::new(), |nginx| {
            let ratio = own.instructions / nginx.instructions;
            format!("{:12.0}{ratio:7.2}{:8.2}", nginx.instructions, nginx.calls)
        });
        println!("{name:16}{title:40}{:12.0}{:8.2}{beside}", own.instructions, own.calls);
    }
}

/// The figures in a table of the file, in the order of the cases.
fn known(table: &str) -> Vec<Option<Figures>> {
    let table = Table::parse(table);
    let of = |name: &str| {
        let row = table.rows().find(|row| row.get("case") == name)?;
        Some(Figures { instructions: row.get("instructions").parse().ok()?, calls: row.get("calls").parse().ok()? })
    };
    CASES.iter().map(|case| of(case.name)).collect()
}

/// What takes more than it may.
fn faults(chosen: &[usize], found: &[Figures], known: &[Option<Figures>]) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, own) in chosen.iter().zip(found) {
        let name = CASES[*at].name;
        let Some(most) = known[*at] else {
            faults.push(format!("{name}: not in {FIGURES}; --write adds it"));
            continue;
        };
        for (what, own, most, slack) in [
            ("instructions", own.instructions, most.instructions, SLACK.0),
            ("system calls", own.calls, most.calls, SLACK.1),
        ] {
            if own > most * TOLERANCE && own > most + slack {
                faults.push(format!("{name}: {own:.1} {what} a request, at most {:.1}", most * TOLERANCE));
            }
        }
    }
    faults
}

/// The table with the better ones of both.
fn best(chosen: &[usize], found: &[Figures], known: &[Option<Figures>]) -> String {
    let mut text = "case\tinstructions\tcalls\n".to_string();
    for (at, case) in CASES.iter().enumerate() {
        let own = chosen.iter().position(|chosen| *chosen == at).map(|n| found[n]);
        let Some(best) = own.into_iter().chain(known[at]).reduce(least) else { continue };
        text += &format!("{}\t{:.0}\t{:.2}\n", case.name, best.instructions, best.calls);
    }
    text
}

fn least(one: Figures, other: Figures) -> Figures {
    Figures { instructions: one.instructions.min(other.instructions), calls: one.calls.min(other.calls) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_valgrind_writes() {
        assert_eq!(total("version: 1\nevents: Ir\nfn=(1)\n1 5\n\ntotals: 12345\n"), Some(12345));
        assert_eq!(total("fn=(1)\n"), None);
        let trace = "SYSCALL[7,1](0) sys_read ( 4, 0x1, 832 ) --> [async] ... \n\
                     SYSCALL[7,1](0) ... [async] --> Success(0x340) \n\
                     SYSCALL[7,1](228) sys_clock_gettime( 1, 0x1 )[sync] --> Success(0x0) \n\
                     SYSCALL[7,1](3) sys_close ( 4 )[sync] --> Success(0x0) \n";
        assert_eq!(calls(trace), 2);
    }

    #[test]
    fn what_may_be_taken() {
        let figures = |instructions, calls| Figures { instructions, calls };
        let text = format!("# a machine\ncase\tinstructions\tcalls\n{}\t10000\t3.00\n", CASES[1].name);
        let text = format!("{text}# another\ncase\tinstructions\tcalls\n{}\t9\t4.00\n", CASES[0].name);
        let sections = sections(&text);
        assert_eq!(sections.keys().copied().collect::<Vec<_>>(), ["# a machine", "# another"]);
        assert_eq!(known(sections["# another"])[0], Some(figures(9.0, 4.0)));
        let known = known(sections["# a machine"]);
        assert_eq!((known[0], known[1]), (None, Some(figures(10000.0, 3.0))));
        let check = |own| faults(&[1], &[own], &known).len();
        assert_eq!(check(figures(10300.0, 3.09)), 0);
        assert_eq!(check(figures(5000.0, 2.0)), 0);
        assert_eq!(check(figures(10301.0, 3.0)), 1);
        assert_eq!(check(figures(10000.0, 3.7)), 0);
        assert_eq!(check(figures(10301.0, 4.0)), 2);
        assert_eq!(faults(&[0], &[figures(1.0, 1.0)], &known).len(), 1);
        assert_eq!(least(figures(1.0, 4.0), figures(2.0, 3.0)), figures(1.0, 3.0));
        let written = best(&[0, 1], &[figures(7.0, 1.0), figures(10001.0, 2.0)], &known);
        let rows: Vec<_> = written.lines().skip(1).filter_map(|line| line.split_once('\t')).collect();
        assert_eq!(rows, [(CASES[0].name, "7\t1.00"), (CASES[1].name, "10000\t2.00")]);
    }
}
