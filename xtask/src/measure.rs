//! CPU time, memory and load: what the benchmark measures with.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::tools::{self, Outcome};

/// Clock ticks per second in `/proc`.
const HZ: f64 = 100.0;

/// A process that was started for the benchmark, with whatever it started; ended when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a command pinned to these CPUs (as `taskset -c` takes them).
    pub(crate) fn start(cpus: &str, command: &[&str]) -> Outcome<Process> {
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", cpus]).args(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        Ok(Process { child: pinned.spawn().map_err(|e| format!("taskset {command:?}: {e}"))? })
    }

    /// Waits until it listens on a port.
    pub(crate) fn wait_port(&mut self, port: u16) -> Outcome {
        wait_port(&mut self.child, port, Duration::from_secs(20))
    }

    /// CPU seconds that it and its descendants have used.
    pub(crate) fn cpu(&self) -> f64 {
        tree(self.child.id()).into_iter().map(cpu_of).sum()
    }

    /// Private memory of it and its descendants, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        tree(self.child.id()).into_iter().map(|p| memory_of(p, &["Private_Clean:", "Private_Dirty:"])).sum()
    }

    /// All memory of it and its descendants, what they share counted once, in bytes.
    pub(crate) fn whole_memory(&self) -> u64 {
        tree(self.child.id()).into_iter().map(|p| memory_of(p, &["Pss:"])).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pids = tree(self.child.id());
        pids.iter().for_each(|p| signal(*p, Signal::TERM));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        pids.iter().for_each(|p| signal(*p, Signal::KILL));
        let _ = self.child.wait();
    }
}

/// Waits until a child listens on a port.
pub(crate) fn wait_port(child: &mut Child, port: u16, most: Duration) -> Outcome {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("a server for port {port} ended at once: {status}"));
        }
        if begun.elapsed() > most {
            return Err(format!("nothing listens on port {port}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// So many ports that are free now.
pub(crate) fn free_ports(count: usize) -> Outcome<Vec<u16>> {
    let bind = |_| std::net::TcpListener::bind("127.0.0.1:0");
    let listeners = (0..count).map(bind).collect::<Result<Vec<_>, _>>();
    let ports = listeners.and_then(|all| all.iter().map(|one| Ok(one.local_addr()?.port())).collect());
    ports.map_err(|error: std::io::Error| error.to_string())
}

/// How `openssl req` makes a key on the curve that most servers use.
pub(crate) const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// Makes a key of this kind and its certificate in a folder, as `name.key` and `name.crt`.
pub(crate) fn certificate(folder: &Path, name: &str, kind: &[&str]) -> Outcome {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(folder).args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost"]).args(kind);
    openssl.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]).stderr(Stdio::null());
    tools::run(openssl)
}

/// Whether all threads of a process wait.
pub(crate) fn is_asleep(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let states = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let mut states = states.map(|text| text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')));
    states.all(|asleep| asleep)
}

/// Sends a signal to a process, which may have ended.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if let Some(parent) = stat(pid).get(1).and_then(|f| f.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![root]);
    while let Some(pid) = next.pop() {
        found.push(pid);
        next.extend(children.remove(&pid).unwrap_or_default());
    }
    found
}

/// The fields of `/proc/PID/stat` after the name: state, parent, …
fn stat(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().map(str::to_string).collect())
}

/// CPU seconds of one process: the scheduler's nanoseconds of its threads.
fn cpu_of(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|t| fs::read_to_string(t.path().join("schedstat")).ok());
    nanoseconds.filter_map(|s| s.split(' ').next().and_then(|n| n.parse::<f64>().ok())).sum::<f64>() / 1e9
}

/// The sum of these fields of a process's memory.
fn memory_of(pid: u32, fields: &[&str]) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = text.lines().filter(|l| fields.iter().any(|f| l.starts_with(f)));
    kib.filter_map(|l| l.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok())).sum::<u64>() * 1024
}

/// CPU seconds of ended children of this program (the load generators).
pub(crate) fn children_cpu() -> f64 {
    let fields = stat(std::process::id());
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(13) + ticks(14)) / HZ
}

/// Seconds that the whole machine was busy, and that its hypervisor took away.
pub(crate) fn machine() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let at = |n: usize| ticks.get(n).copied().unwrap_or(0.0);
    ((at(0) + at(1) + at(2) + at(5) + at(6)) / HZ, at(7) / HZ)
}

/// What a load generator counted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Load {
    /// Requests that were answered.
    pub requests: f64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Answers that were wrong or didn't come.
    pub errors: f64,
    /// The 99th percentile of the latency, in microseconds.
    pub p99_us: f64,
}

/// Runs wrk: keep-alive connections.
pub(crate) fn wrk(cpus: &str, url: &str, conns: usize, seconds: u64) -> Outcome<Load> {
    let out = Command::new("taskset")
        .args(["-c", cpus, "wrk", "-t", "1", "--latency", "-c", &conns.to_string(), "-d", &format!("{seconds}s"), url])
        .output()
        .map_err(|e| format!("wrk: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    parse_wrk(&text).ok_or_else(|| format!("wrk gave no figures:\n{text}{}", String::from_utf8_lossy(&out.stderr)))
}

fn parse_wrk(text: &str) -> Option<Load> {
    let (head, tail) = text.split_once(" requests in ")?;
    let mut load = Load {
        requests: head.rsplit(char::is_whitespace).next()?.parse().ok()?,
        seconds: microseconds(tail.split(',').next()?)? / 1e6,
        ..Load::default()
    };
    for line in text.lines() {
        if let Some(rest) = line.trim().strip_prefix("99%") {
            load.p99_us = microseconds(rest.trim())?;
        } else if let Some(rest) = line.trim().strip_prefix("Socket errors:") {
            load.errors += rest.split([' ', ',']).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>();
        } else if let Some(rest) = line.trim().strip_prefix("Non-2xx or 3xx responses:") {
            load.errors += rest.trim().parse::<f64>().ok()?;
        }
    }
    Some(load)
}

fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7), ("h", 3.6e9)];
    units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

/// Runs ab: a connection for each request.
pub(crate) fn ab(cpus: &str, url: &str, conns: usize, seconds: u64) -> Outcome<Load> {
    let (conns, seconds) = (conns.to_string(), seconds.to_string());
    let out = Command::new("taskset")
        .args(["-c", cpus, "ab", "-q", "-r", "-c", &conns, "-t", &seconds, "-n", "100000000", url])
        .output()
        .map_err(|e| format!("ab: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    parse_ab(&text).ok_or_else(|| format!("ab gave no figures:\n{text}{}", String::from_utf8_lossy(&out.stderr)))
}

fn parse_ab(text: &str) -> Option<Load> {
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.trim().strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some(Load {
        requests: field("Complete requests:")?,
        seconds: field("Time taken for tests:")?,
        errors: field("Failed requests:").unwrap_or(0.0) + field("Non-2xx responses:").unwrap_or(0.0),
        p99_us: field("99%").unwrap_or(0.0) * 1e3,
    })
}

/// Runs `openssl s_time`: a connection for each request, all with the session of the first.
pub(crate) fn resume(cpus: &str, port: u16, path: &str, seconds: u64) -> Outcome<Load> {
    let (server, seconds) = (format!("127.0.0.1:{port}"), seconds.to_string());
    let out = Command::new("taskset")
        .args([
            "-c", cpus, "openssl", "s_time", "-reuse", "-tls1_2", "-connect", &server, "-www", path, "-time", &seconds,
        ])
        .output()
        .map_err(|e| format!("openssl: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    parse_s_time(&text).ok_or_else(|| format!("openssl gave no figures:\n{text}"))
}

/// `r` stands for a connection that was resumed, a star for one that was not.
fn parse_s_time(text: &str) -> Option<Load> {
    let line = text.lines().find(|line| line.contains(" real seconds"))?;
    let mut words = line.split_whitespace();
    let requests = words.next()?.parse().ok()?;
    let seconds = words.find_map(|word| word.parse().ok())?;
    let whole = text.lines().find(|line| line.starts_with('r')).map_or(0, |line| line.matches('*').count());
    Some(Load { requests, seconds, errors: whole as f64, ..Load::default() })
}

/// Runs h2load: HTTP/2 with a hundred streams at a time on each connection.
pub(crate) fn h2load(cpus: &str, url: &str, conns: usize, seconds: u64) -> Outcome<Load> {
    let (conns, seconds) = (conns.to_string(), seconds.to_string());
    let out = Command::new("taskset")
        .args(["-c", cpus, "h2load", "-t", "1", "-c", &conns, "-m", "100", "-D", &seconds, url])
        .output()
        .map_err(|e| format!("h2load: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    parse_h2load(&text).ok_or_else(|| format!("h2load gave no figures:\n{text}"))
}

fn parse_h2load(text: &str) -> Option<Load> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let count = |name: &str| {
        let part = line("requests:")?.split(',').find_map(|part| part.trim().strip_suffix(name))?;
        part.trim().parse::<f64>().ok()
    };
    Some(Load {
        requests: count("succeeded")?,
        seconds: microseconds(line("finished in ")?.split(',').next()?)? / 1e6,
        errors: count("failed")? + count("errored")?,
        p99_us: 0.0,
    })
}

/// Lets this program and its children have so many files open, or as many as the system allows; how many that are.
pub(crate) fn allow_files(count: usize) -> Outcome<usize> {
    let (wanted, most) = (count as u64, getrlimit(Resource::Nofile).maximum);
    let set = |current, maximum| setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum });
    // Only a privileged user may raise the second one.
    if set(wanted, most.map(|most| most.max(wanted))).is_ok() {
        return Ok(count);
    }
    let allowed = most.map_or(wanted, |most| most.min(wanted));
    set(allowed, most).map_err(|error| format!("{allowed} open files: {error}"))?;
    Ok(allowed as usize)
}

/// Private bytes that each of `count` idle keep-alive connections costs a server.
pub(crate) fn idle(server: &Process, port: u16, count: usize) -> Outcome<f64> {
    let needed = count + 1000;
    if allow_files(needed)? < needed {
        return Err(format!("the system doesn't allow {needed} open files"));
    }
    let before = server.memory();
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
        let request = b"GET /1k.bin HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).map_err(|e| e.to_string())?;
        let (mut got, mut buffer) = (0, [0; 4096]);
        while got < 1024 {
            match stream.read(&mut buffer) {
                Ok(n @ 1..) => got += n,
                _ => return Err("the server closed a connection that should idle".to_string()),
            }
        }
        stream.set_read_timeout(Some(Duration::from_millis(1))).map_err(|e| e.to_string())?;
        open.push(stream);
    }
    std::thread::sleep(Duration::from_secs(1));
    let after = server.memory();
    Ok(after.saturating_sub(before) as f64 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_generators() {
        let wrk = "  Latency Distribution\n     50%    1.00ms\n     99%  900.00us\n  1000 requests in 2.00s, 1.2MB read\n  \
                   Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 5\n";
        assert_eq!(parse_wrk(wrk), Some(Load { requests: 1000.0, seconds: 2.0, errors: 9.0, p99_us: 900.0 }));
        let ab = "Complete requests:      500\nFailed requests:        2\nTime taken for tests:   1.500 seconds\n  99%      7\n";
        assert_eq!(parse_ab(ab), Some(Load { requests: 500.0, seconds: 1.5, errors: 2.0, p99_us: 7000.0 }));
        let s_time = "Collecting connection statistics for 1 seconds\nrrr*r\n\n\n5 connections in 0.04s; 125.00 connections/user \
                      sec, bytes read 600\n5 connections in 2 real seconds, 120 bytes read per connection\n";
        assert_eq!(parse_s_time(s_time), Some(Load { requests: 5.0, seconds: 2.0, errors: 1.0, p99_us: 0.0 }));
        let h2load = "finished in 1.50s, 2000.00 req/s, 2MB/s\nrequests: 3300 total, 3400 started, 3200 done, 3000 succeeded, \
                      200 failed, 1 errored, 0 timeout\n";
        assert_eq!(parse_h2load(h2load), Some(Load { requests: 3000.0, seconds: 1.5, errors: 201.0, p99_us: 0.0 }));
        assert_eq!(parse_wrk("nothing"), None);
    }

    #[test]
    fn own_figures() {
        let own = std::process::id();
        assert!(tree(own).contains(&own) && cpu_of(own) > 0.0 && memory_of(own, &["Pss:"]) > 0);
        assert!(machine().0 > 0.0);
    }
}
