//! CPU time per request against nginx: same configuration, one worker on one core, alternating runs on one machine.
//!
//! Requests per second say who was saturated; CPU time per request is steady. Each ratio is taken inside one round (runs
//! next to each other in time), and the table shows the median of the rounds: ours / nginx, lower is better. Beside them
//! runs a loop that only receives and sends (`bench_floor.rs`): what the kernel takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bench_cases::{CASES, Case, Driver, FILES, KEYS, configuration, large_configuration};
use crate::bench_floor;
use crate::measure::{self, Load, Process};
use crate::tools::{self, Options, Outcome};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask bench [CASE ...] [options]

  --rounds N      rounds of each case: one run of each server (default 6)
  --duration N    seconds of a run (default 4)
  --warmup N      seconds before the first run (default 1)
  --use METHOD    event method of ours (default: its own choice); may be repeated
  --nginx FILE    the nginx to compare with (default /usr/sbin/nginx)
  --server FILE   our server (default: TIDEGATE_BINARY, else the release build); may be repeated, and be NAME=FILE
  --cpus S,C      the CPU of the servers, and that of load generator and backend (default 0,1)
  --idle N        also the memory of N idle keep-alive connections
  --large         also the start with 5,000 servers of 20,000 locations
  --nice N        niceness of servers and load generators (negative: before everything else)
  --out FILE      also writes the table to a file, as Markdown
  --readme        writes it into docs/benchmarks.md
  --list          names the cases
  --bare-loop PORT,WHAT    is the bare loop; the benchmark starts it itself
";

/// A server of the comparison.
struct Rival {
    /// What the table calls it.
    name: String,
    binary: PathBuf,
    /// For `use`; empty: its own choice.
    method: String,
}

struct Bench {
    nginx: Rival,
    ours: Vec<Rival>,
    server_cpu: String,
    client_cpu: String,
    rounds: usize,
    seconds: u64,
    warmup: u64,
    folder: PathBuf,
}

/// One run of one server.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    cpu_us: f64,
    rps: f64,
    p99_us: f64,
    errors: f64,
    steal: f64,
    foreign: f64,
}

/// What a case gave: each server's runs, round by round. The first one is nginx; the last one, if there is one for the
/// case, the bare loop.
struct Result {
    case: Case,
    runs: Vec<Vec<Run>>,
    has_loop: bool,
}

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let valued = [
        "--rounds",
        "--duration",
        "--warmup",
        "--use",
        "--nginx",
        "--server",
        "--cpus",
        "--idle",
        "--out",
        "--nice",
        "--bare-loop",
    ];
    let options = Options::parse(arguments, &["--list", "--large", "--readme"], &valued)?;
    if let Some(argument) = options.value("--bare-loop") {
        return bench_floor::run(argument);
    }
    if options.has("--list") {
        CASES.iter().for_each(|c| println!("{:16} {}", c.name, c.title));
        return Ok(());
    }
    let folder = tools::folder("bench")?;
    measure_all(&options, folder.path())
}

fn measure_all(options: &Options, folder: &Path) -> Outcome {
    let nice: i32 = options.number("--nice", 0)?;
    if nice != 0 {
        // Where the kernel groups sessions, niceness only counts inside a session: the group's is set as well.
        rustix::process::nice(nice).map_err(|e| format!("--nice: {e}"))?;
        let _ = fs::write("/proc/self/autogroup", nice.to_string());
    }
    let bench = Bench::new(options, folder)?;
    let unknown: Vec<_> = options.rest.iter().filter(|n| !CASES.iter().any(|c| c.name == **n)).collect();
    if !unknown.is_empty() {
        return Err(format!("unknown cases {unknown:?}; bench --list names them"));
    }
    let chosen = CASES.iter().filter(|c| options.rest.is_empty() || options.rest.iter().any(|n| n == c.name));
    let mut table = bench.header();
    println!("{table}");
    for case in chosen {
        let line = bench.case(case)?.line();
        println!("{line}");
        table += &format!("\n{line}");
    }
    let idle: usize = options.number("--idle", 0)?;
    if idle > 0 {
        let (nginx, ours) = (bench.idle(&bench.nginx, idle)?, bench.idle(bench.first()?, idle)?);
        let line =
            format!("\n{idle} idle keep-alive connections, private bytes each: nginx {nginx:.0}, ours {ours:.0}");
        println!("{line}");
        table += &format!("\n{line}");
    }
    if options.has("--large") {
        let (nginx, ours) = (bench.large(&bench.nginx.binary)?, bench.large(&bench.first()?.binary)?);
        let line = format!(
            "\n5,000 servers, 20,000 locations: until it listens nginx {:.2} s, ours {:.2} s; \
             memory nginx {} MiB, ours {} MiB",
            nginx.0, ours.0, nginx.1, ours.1
        );
        println!("{line}");
        table += &format!("\n{line}");
    }
    if options.has("--readme") {
        let path = tools::root().join("docs/benchmarks.md");
        let page =
            tools::with_figures(&tools::read(&path)?, &table).ok_or("docs/benchmarks.md has no place for figures")?;
        tools::write(&path, &page)?;
    }
    options.value("--out").map_or(Ok(()), |out| tools::write(Path::new(out), &(table + "\n")))
}

impl Bench {
    fn new(options: &Options, folder: &Path) -> Outcome<Bench> {
        for program in ["taskset", "wrk", "ab", "openssl", "h2load"] {
            tools::find(program).ok_or_else(|| format!("{program} isn't installed"))?;
        }
        let (server_cpu, client_cpu) = options.value("--cpus").unwrap_or("0,1").split_once(',').ok_or("--cpus S,C")?;
        let nginx = PathBuf::from(options.value("--nginx").unwrap_or("/usr/sbin/nginx"));
        let bench = Bench {
            nginx: Rival { name: "nginx".to_string(), binary: nginx, method: String::new() },
            ours: rivals(options)?,
            server_cpu: server_cpu.to_string(),
            client_cpu: client_cpu.to_string(),
            rounds: options.number("--rounds", 6)?,
            seconds: options.number("--duration", 4)?,
            warmup: options.number("--warmup", 1)?,
            folder: folder.to_path_buf(),
        };
        for (name, size) in FILES {
            let path = folder.join("html").join(name);
            tools::write(&path, &"0123456789abcdef".repeat(size / 16))?;
        }
        for (name, kind) in KEYS {
            measure::certificate(folder, name, kind)?;
        }
        Ok(bench)
    }

    /// What the table's columns are.
    fn header(&self) -> String {
        let names: Vec<&str> = self.ours.iter().map(|rival| &*rival.name).collect();
        let names = names.join(" | ");
        format!(
            "| case | nginx µs | bar | bare loop | {names} | req/s | p99 µs | errors | noise % |\n|---|---|---|---|{}---|---|---|---|",
            "---|".repeat(self.ours.len())
        )
    }

    /// The first of our servers.
    fn first(&self) -> Outcome<&Rival> {
        self.ours.first().ok_or_else(|| "no server".to_string())
    }

    /// Starts a server for a case.
    fn start(&self, rival: &Rival, case: &Case, port: u16, backend: u16) -> Outcome<Process> {
        let folder = self.folder.display().to_string();
        let name = format!("server-{port}.conf");
        tools::write(&self.folder.join(&name), &configuration(case, port, backend, &folder, &rival.method))?;
        let binary = rival.binary.display().to_string();
        self.listening(port, &[&binary, "-p", &folder, "-c", &name, "-e", "error.log"])
    }

    /// Starts a command on the servers' CPU that listens on a port.
    fn listening(&self, port: u16, command: &[&str]) -> Outcome<Process> {
        let mut server = Process::start(&self.server_cpu, command)?;
        server.wait_port(port)?;
        Ok(server)
    }

    /// The bare loop of a case, if it has one.
    fn bare_loop(&self, case: &Case, port: u16, backend: u16) -> Outcome<Option<Process>> {
        let Some(words) = bench_floor::arguments(case, port, backend, &self.folder.display().to_string()) else {
            return Ok(None);
        };
        let own = std::env::current_exe().map_err(|error| error.to_string())?.display().to_string();
        let command: Vec<&str> = std::iter::once(&*own).chain(words.iter().map(String::as_str)).collect();
        self.listening(port, &command).map(Some)
    }

    fn case(&self, case: &Case) -> Outcome<Result> {
        let mut ports = measure::free_ports(self.ours.len() + 3)?;
        let port_backend = ports.pop().ok_or("no ports")?;
        let backend = if case.proxied { Some(self.backend(port_backend)?) } else { None };
        let mut servers = Vec::new();
        for (rival, port) in std::iter::once(&self.nginx).chain(&self.ours).zip(&ports) {
            servers.push((self.start(rival, case, *port, port_backend)?, *port));
        }
        let port = ports.pop().ok_or("no ports")?;
        let bare_loop = self.bare_loop(case, port, port_backend)?;
        let has_loop = bare_loop.is_some();
        servers.extend(bare_loop.map(|process| (process, port)));
        for (_, port) in &servers {
            self.load(case, *port, self.warmup.max(1))?;
        }
        let mut runs = vec![Vec::new(); servers.len()];
        for round in 0..self.rounds {
            let mut order: Vec<_> = servers.iter().zip(&mut runs).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for ((server, port), runs) in order {
                runs.push(self.one(case, server, *port, backend.as_ref())?);
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(Result { case: *case, runs, has_loop })
    }

    /// The backend is nginx for all, on the load generator's CPU.
    fn backend(&self, port: u16) -> Outcome<Process> {
        let case = Case { directives: "open_file_cache max=100;", ..CASES[0] };
        let folder = self.folder.display().to_string();
        let name = format!("server-{port}.conf");
        tools::write(&self.folder.join(&name), &configuration(&case, port, port, &folder, ""))?;
        let nginx = self.nginx.binary.display().to_string();
        let mut backend = Process::start(&self.client_cpu, &[&nginx, "-p", &folder, "-c", &name, "-e", "error.log"])?;
        backend.wait_port(port)?;
        Ok(backend)
    }

    fn load(&self, case: &Case, port: u16, seconds: u64) -> Outcome<Load> {
        let scheme = if case.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{port}{}", case.path);
        match case.load {
            Driver::Wrk => measure::wrk(&self.client_cpu, &url, case.conns, seconds),
            Driver::Ab => measure::ab(&self.client_cpu, &url, case.conns, seconds),
            Driver::Resume => measure::resume(&self.client_cpu, port, case.path, seconds),
            Driver::H2load => measure::h2load(&self.client_cpu, &url, case.conns, seconds),
        }
    }

    fn one(&self, case: &Case, server: &Process, port: u16, backend: Option<&Process>) -> Outcome<Run> {
        let figures = || (server.cpu(), backend.map_or(0.0, Process::cpu), measure::children_cpu(), measure::machine());
        let (cpu, aux, load, (busy, steal)) = figures();
        let begun = Instant::now();
        let done = self.load(case, port, self.seconds)?;
        let wall = begun.elapsed().as_secs_f64();
        let (cpu_after, aux_after, load_after, (busy_after, steal_after)) = figures();
        let used = cpu_after - cpu;
        let known = used + (aux_after - aux) + (load_after - load);
        Ok(Run {
            cpu_us: used / done.requests.max(1.0) * 1e6,
            rps: done.requests / done.seconds.max(1e-9),
            p99_us: done.p99_us,
            errors: done.errors,
            steal: (steal_after - steal) / wall * 100.0,
            foreign: (busy_after - busy - known).max(0.0) / wall * 100.0,
        })
    }

    /// Seconds that a start with a large configuration takes, and the MiB it costs.
    fn large(&self, binary: &Path) -> Outcome<(f64, u64)> {
        let port = one_port()?;
        let folder = self.folder.display().to_string();
        tools::write(&self.folder.join("large.conf"), &large_configuration(port))?;
        let binary = binary.display().to_string();
        let begun = Instant::now();
        let command = [&binary, "-p", &folder, "-c", "large.conf", "-e", "error.log"];
        let mut server = Process::start(&self.server_cpu, &command)?;
        server.wait_port(port)?;
        let seconds = begun.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_millis(500));
        Ok((seconds, server.whole_memory() >> 20))
    }

    fn idle(&self, rival: &Rival, count: usize) -> Outcome<f64> {
        let (port, backend) = (one_port()?, one_port()?);
        let server = self.start(rival, &CASES[3], port, backend)?;
        self.load(&CASES[3], port, 1)?;
        measure::idle(&server, port, count)
    }
}

/// Our servers, each with each method.
fn rivals(options: &Options) -> Outcome<Vec<Rival>> {
    let mut servers: Vec<(String, PathBuf)> = options
        .values("--server")
        .map(|text| text.split_once('=').unwrap_or(("ours", text)))
        .map(|(name, file)| (name.to_string(), PathBuf::from(file)))
        .collect();
    if servers.is_empty() {
        servers.push(("ours".to_string(), tools::server()?));
    }
    let mut methods: Vec<&str> = options.values("--use").collect();
    if methods.is_empty() {
        methods.push("");
    }
    let both = |(name, binary): &(String, PathBuf), method: &str| Rival {
        name: if method.is_empty() { name.clone() } else { format!("{name}, {method}") },
        binary: binary.clone(),
        method: method.to_string(),
    };
    Ok(servers.iter().flat_map(|server| methods.iter().map(|method| both(server, method))).collect())
}

/// A port that is free now.
fn one_port() -> Outcome<u16> {
    measure::free_ports(1)?.pop().ok_or_else(|| "no ports".to_string())
}

impl Result {
    fn line(&self) -> String {
        let of = |runs: &[Run], field: fn(&Run) -> f64| runs.iter().map(field).collect::<Vec<_>>();
        let Some((nginx, others)) = self.runs.split_first() else { return String::new() };
        let ours = &others[..others.len() - usize::from(self.has_loop)];
        let ratios = |runs: &[Run], field: fn(&Run) -> f64| -> Vec<f64> {
            runs.iter().zip(nginx).map(|(run, nginx)| field(run) / field(nginx)).collect()
        };
        let cost = |runs: &[Run]| {
            let ratios = ratios(runs, |run| run.cpu_us);
            let [low, middle, high] = [0.25, 0.5, 0.75].map(|part| quantile(&ratios, part));
            format!("**{middle:.2}** ({low:.2}–{high:.2})")
        };
        let bare_loop = if self.has_loop { others.last().map(|runs| cost(runs)) } else { None };
        let costs: Vec<String> = ours.iter().map(|runs| cost(runs)).collect();
        let rates: Vec<String> =
            ours.iter().map(|runs| format!("×{:.2}", quantile(&ratios(runs, |run| run.rps), 0.5))).collect();
        let latencies = std::iter::once(nginx).chain(ours).map(|runs| quantile(&of(runs, |run| run.p99_us), 0.5));
        let latencies: Vec<String> = latencies.map(|p99| format!("{p99:.0}")).collect();
        let all: Vec<Run> = self.runs.iter().flatten().copied().collect();
        format!(
            "| {} | {:.2} | {:.2} | {} | {} | {} | {} | {:.0} | {:.0} |",
            self.case.title,
            quantile(&of(nginx, |run| run.cpu_us), 0.5),
            self.case.bar,
            bare_loop.unwrap_or_default(),
            costs.join(" | "),
            rates.join(", "),
            latencies.join(", "),
            all.iter().map(|run| run.errors).sum::<f64>(),
            quantile(&of(&all, |run| run.steal + run.foreign), 0.5),
        )
    }
}

/// The value below which this part of the values lies.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = part * sorted.len().saturating_sub(1) as f64;
    let (low, high) = (sorted.get(at.floor() as usize), sorted.get(at.ceil() as usize));
    match (low, high) {
        (Some(low), Some(high)) => low + (high - low) * at.fract(),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.5), 1.5);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
