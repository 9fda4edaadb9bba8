//! CPU time per request against nginx: same configuration, one worker on one core, alternating runs on one machine.
//!
//! Requests per second say who was saturated; CPU time per request is steady. Each ratio is taken inside one round (two
//! runs next to each other in time), and the table shows the median of the rounds: ours / nginx, lower is better.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bench_cases::{CASES, Case, Driver, FILES, KEYS, configuration, large_configuration};
use crate::measure::{self, Load, Process};
use crate::tools::{self, Options, Outcome};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask bench [CASE ...] [options]

  --rounds N      pairs of runs for each case (default 6)
  --duration N    seconds of a run (default 4)
  --warmup N      seconds before the first run (default 1)
  --use METHOD    event method of ours (default: its own choice)
  --nginx FILE    the nginx to compare with (default /usr/sbin/nginx)
  --server FILE   our server (default: TIDEGATE_BINARY, else the release build)
  --cpus S,C      the CPU of the servers, and that of load generator and backend (default 0,1)
  --idle N        also the memory of N idle keep-alive connections
  --large         also the start with 5,000 servers of 20,000 locations
  --nice N        niceness of servers and load generators (negative: before everything else)
  --out FILE      also writes the table to a file, as Markdown
  --readme        writes it into docs/benchmarks.md
  --list          names the cases
";

struct Bench {
    nginx: PathBuf,
    ours: PathBuf,
    method: String,
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
    busy: f64,
    p99_us: f64,
    errors: f64,
    steal: f64,
    foreign: f64,
}

/// What a case gave: the runs of nginx and ours, round by round.
struct Result {
    case: Case,
    nginx: Vec<Run>,
    ours: Vec<Run>,
}

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let valued =
        ["--rounds", "--duration", "--warmup", "--use", "--nginx", "--server", "--cpus", "--idle", "--out", "--nice"];
    let options = Options::parse(arguments, &["--list", "--large", "--readme"], &valued)?;
    if options.has("--list") {
        CASES.iter().for_each(|c| println!("{:16} {}", c.name, c.title));
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("tidegate-bench-{}", std::process::id()));
    let outcome = measure_all(&options, &folder);
    let _ = fs::remove_dir_all(&folder);
    outcome
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
    let mut table = header();
    println!("{table}");
    for case in chosen {
        let line = bench.case(case)?.line();
        println!("{line}");
        table += &format!("\n{line}");
    }
    let idle: usize = options.number("--idle", 0)?;
    if idle > 0 {
        let (nginx, ours) = (bench.idle(&bench.nginx, "", idle)?, bench.idle(&bench.ours, &bench.method, idle)?);
        let line =
            format!("\n{idle} idle keep-alive connections, private bytes each: nginx {nginx:.0}, ours {ours:.0}");
        println!("{line}");
        table += &format!("\n{line}");
    }
    if options.has("--large") {
        let (nginx, ours) = (bench.large(&bench.nginx)?, bench.large(&bench.ours)?);
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

fn header() -> String {
    "| case | nginx µs | ours µs | ratio (quartiles) | bar | best/best | req/s | busy % | p99 | errors | noise % |\n\
     |---|---|---|---|---|---|---|---|---|---|---|"
        .to_string()
}

impl Bench {
    fn new(options: &Options, folder: &Path) -> Outcome<Bench> {
        for program in ["taskset", "wrk", "ab", "openssl", "h2load"] {
            tools::find(program).ok_or_else(|| format!("{program} isn't installed"))?;
        }
        let (server_cpu, client_cpu) = options.value("--cpus").unwrap_or("0,1").split_once(',').ok_or("--cpus S,C")?;
        let ours = options.value("--server").map_or_else(tools::server, |p| Ok(PathBuf::from(p)))?;
        let bench = Bench {
            nginx: PathBuf::from(options.value("--nginx").unwrap_or("/usr/sbin/nginx")),
            ours,
            method: options.value("--use").unwrap_or_default().to_string(),
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
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
        Ok(bench)
    }

    /// Starts a server for a case.
    fn start(&self, binary: &Path, case: &Case, port: u16, backend: u16, method: &str) -> Outcome<Process> {
        let folder = self.folder.display().to_string();
        let name = format!("server-{port}.conf");
        tools::write(&self.folder.join(&name), &configuration(case, port, backend, &folder, method))?;
        let binary = binary.display().to_string();
        let mut server = Process::start(&self.server_cpu, &[&binary, "-p", &folder, "-c", &name, "-e", "error.log"])?;
        server.wait_port(port)?;
        Ok(server)
    }

    fn case(&self, case: &Case) -> Outcome<Result> {
        let (port_nginx, port_ours, port_backend) = ports()?;
        let backend = if case.proxied { Some(self.backend(port_backend)?) } else { None };
        let nginx = self.start(&self.nginx, case, port_nginx, port_backend, "")?;
        let ours = self.start(&self.ours, case, port_ours, port_backend, &self.method)?;
        let mut result = Result { case: *case, nginx: Vec::new(), ours: Vec::new() };
        for port in [port_nginx, port_ours] {
            self.load(case, port, self.warmup.max(1))?;
        }
        for round in 0..self.rounds {
            let pair = [(&nginx, port_nginx), (&ours, port_ours)];
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for which in order {
                let (server, port) = pair[which];
                let run = self.one(case, server, port, backend.as_ref())?;
                if which == 0 {
                    result.nginx.push(run)
                } else {
                    result.ours.push(run)
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(result)
    }

    /// The backend is nginx for both, on the load generator's CPU.
    fn backend(&self, port: u16) -> Outcome<Process> {
        let case = Case { directives: "open_file_cache max=100;", ..CASES[0] };
        let folder = self.folder.display().to_string();
        let name = format!("server-{port}.conf");
        tools::write(&self.folder.join(&name), &configuration(&case, port, port, &folder, ""))?;
        let nginx = self.nginx.display().to_string();
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
            busy: used / wall * 100.0,
            p99_us: done.p99_us,
            errors: done.errors,
            steal: (steal_after - steal) / wall * 100.0,
            foreign: (busy_after - busy - known).max(0.0) / wall * 100.0,
        })
    }

    /// Seconds that a start with a large configuration takes, and the MiB it costs.
    fn large(&self, binary: &Path) -> Outcome<(f64, u64)> {
        let (port, _, _) = ports()?;
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

    fn idle(&self, binary: &Path, method: &str, count: usize) -> Outcome<f64> {
        let (port, _, backend) = ports()?;
        let server = self.start(binary, &CASES[3], port, backend, method)?;
        self.load(&CASES[3], port, 1)?;
        measure::idle(&server, port, count)
    }
}

/// Three ports that are free now.
fn ports() -> Outcome<(u16, u16, u16)> {
    match measure::free_ports(3)?[..] {
        [one, two, three] => Ok((one, two, three)),
        _ => Err("no ports".to_string()),
    }
}

impl Result {
    fn line(&self) -> String {
        let of = |runs: &[Run], field: fn(&Run) -> f64| runs.iter().map(field).collect::<Vec<_>>();
        let (nginx, ours) = (of(&self.nginx, |r| r.cpu_us), of(&self.ours, |r| r.cpu_us));
        let ratios: Vec<f64> = ours.iter().zip(&nginx).map(|(o, n)| o / n).collect();
        let rates: Vec<f64> = self.ours.iter().zip(&self.nginx).map(|(o, n)| o.rps / n.rps).collect();
        let both: Vec<Run> = self.nginx.iter().chain(&self.ours).copied().collect();
        let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
        format!(
            "| {} | {:.2} | {:.2} | **{:.2}** ({:.2}–{:.2}) | {:.2} | {:.2} | ×{:.2} | {:.0}, {:.0} | {:.0}, {:.0} | {:.0} | {:.0} |",
            self.case.title,
            quantile(&nginx, 0.5),
            quantile(&ours, 0.5),
            quantile(&ratios, 0.5),
            quantile(&ratios, 0.25),
            quantile(&ratios, 0.75),
            self.case.bar,
            least(&ours) / least(&nginx),
            quantile(&rates, 0.5),
            quantile(&of(&self.nginx, |r| r.busy), 0.5),
            quantile(&of(&self.ours, |r| r.busy), 0.5),
            quantile(&of(&self.nginx, |r| r.p99_us), 0.5),
            quantile(&of(&self.ours, |r| r.p99_us), 0.5),
            both.iter().map(|r| r.errors).sum::<f64>(),
            quantile(&of(&both, |r| r.steal + r.foreign), 0.5),
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
