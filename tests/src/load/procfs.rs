//! What can be seen of a process from outside: its state, children, memory, descriptors, connections.

use std::collections::HashSet;
use std::fs;

/// Whether the process exists and hasn't ended (one that waits to be reaped has).
pub fn alive(pid: u32) -> bool {
    stat(pid).first().is_some_and(|state| state != "Z" && state != "X")
}

/// Whether the process has been stopped by a signal.
pub(super) fn stopped(pid: u32) -> bool {
    stat(pid).first().is_some_and(|state| state == "T")
}

/// The children that haven't ended.
pub fn children(pid: u32) -> Vec<u32> {
    all_children(pid).into_iter().filter(|p| alive(*p)).collect()
}

/// Children that have ended and wait to be reaped.
pub(super) fn zombies(pid: u32) -> usize {
    all_children(pid).into_iter().filter(|p| stat(*p).first().is_some_and(|state| state == "Z")).count()
}

/// Resident memory in KiB.
pub fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most resident memory since the start, or since [`forget_peak`], in KiB.
pub fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Begins [`peak`] anew.
pub fn forget_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

fn status(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The CPU time that the process has used, in milliseconds.
pub fn cpu_ms(pid: u32) -> u64 {
    let ticks: u64 = stat(pid).iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * 10
}

/// How many descriptors are open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// How many lines the process's memory map has: shared zones that nobody unmaps show here.
pub(super) fn mappings(pid: u32) -> usize {
    fs::read_to_string(format!("/proc/{pid}/maps")).map_or(0, |t| t.lines().count())
}

/// How many clients' connections a process holds: established TCP sockets whose local port is one of these, and sockets
/// accepted from this unix path.
pub fn held(pid: u32, ports: &[u16], unix: &str) -> usize {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let names = links.filter_map(|f| fs::read_link(f.path()).ok()?.into_os_string().into_string().ok());
    let own: HashSet<u64> = names.filter_map(|n| n.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect();
    tcp_inodes(ports).chain(unix_inodes(unix)).filter(|inode| own.contains(inode)).count()
}

/// Inodes of TCP sockets with these local ports that aren't listening; see proc(5), `/proc/net/tcp`.
fn tcp_inodes(ports: &[u16]) -> impl Iterator<Item = u64> {
    let lines = lines_of("/proc/net/tcp").filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        let listening = *fields.get(3)? == "0A";
        Some((port, listening, fields.get(9)?.parse().ok()?))
    });
    let found: Vec<u64> =
        lines.filter(|(port, listening, _)| !listening && ports.contains(port)).map(|(_, _, inode)| inode).collect();
    found.into_iter()
}

/// Inodes of connected sockets that bear a unix path: the server's ends.
fn unix_inodes(path: &str) -> impl Iterator<Item = u64> {
    let lines = lines_of("/proc/net/unix").filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let connected = *fields.get(5)? == "03";
        Some((connected, *fields.get(7)? == path, fields.get(6)?.parse().ok()?))
    });
    let path_is_set = !path.is_empty();
    let found: Vec<u64> =
        lines.filter(|(connected, same, _)| path_is_set && *connected && *same).map(|(_, _, inode)| inode).collect();
    found.into_iter()
}

fn lines_of(file: &str) -> impl Iterator<Item = String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().skip(1).map(str::to_string).collect::<Vec<_>>().into_iter()
}

fn all_children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|p| p.parse().ok()).collect()
}

/// The fields of `/proc/PID/stat` after the name: state, parent, …
fn stat(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process() {
        let pid = std::process::id();
        assert!(alive(pid) && resident(pid) > 100 && descriptors(pid) > 2 && mappings(pid) > 5);
        assert!(!alive(0));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(held(pid, &[port], ""), 0);
        let _client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _server = listener.accept().unwrap();
        assert_eq!(held(pid, &[port], ""), 1);
    }
}
