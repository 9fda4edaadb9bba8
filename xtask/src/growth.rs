//! How the CPU time of a request grows with connections, locations, entries of a map and servers, beside nginx's.
//!
//! Requests follow one another, one at a time, so that each takes the same system calls however many connections there
//! are. They ask for everything in turn, in no order, as the requests of many clients do: what doesn't fit into the
//! processor's caches counts. A figure is the least of some rounds. The two programs take turns at each size: both at a
//! time would need twice the descriptors.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::growth_picture::{self as picture, Panel};
use crate::measure::{self, Process};
use crate::tools::{self, Options, Outcome};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask growth [AXIS ...] [options]

CPU time per request from 1 to 20,000 connections, 20,000 locations, 100,000 entries of a map, 5,000 servers; in one run
beside nginx's, if there is one. In about three minutes. It needs taskset, and 20,100 file descriptors: with fewer of them
the last row of connections has as many as there can be.

  --requests N    requests of a round (default 4000)
  --rounds N      rounds of each size, of which the best one counts (default 5)
  --nginx FILE    the nginx beside ours (default: the one that is installed, if any)
  --server FILE   our server (default: TIDEGATE_BINARY, else the release build)
  --cpu N         the CPU of the servers (default 0)
  --write         writes docs/growth.svg, and the figures into docs/performance.md
  --list          names the axes
";

/// Where the picture and the figures stand.
const PICTURE: &str = "docs/growth.svg";
const PAGE: &str = "docs/performance.md";

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axis {
    Connections,
    Locations,
    Map,
    Servers,
}

const AXES: [Axis; 4] = [Axis::Connections, Axis::Locations, Axis::Map, Axis::Servers];

impl Axis {
    fn name(self) -> &'static str {
        match self {
            Axis::Connections => "connections",
            Axis::Locations => "locations",
            Axis::Map => "map",
            Axis::Servers => "servers",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Axis::Connections => "open connections",
            Axis::Locations => "locations of a server",
            Axis::Map => "entries of a map",
            Axis::Servers => "servers of an address",
        }
    }

    fn sizes(self) -> &'static [usize] {
        match self {
            Axis::Connections | Axis::Locations => &[1, 10, 100, 1000, 5000, 20_000],
            Axis::Map => &[1, 10, 100, 1000, 10_000, 100_000],
            Axis::Servers => &[1, 10, 100, 1000, 5000],
        }
    }

    /// What stands in `http`; the answer to the request for the n-th thing is n.
    fn blocks(self, size: usize, listen: &str) -> String {
        let all = |line: fn(usize) -> String| (0..size).map(line).collect::<String>();
        match self {
            Axis::Connections => format!("server {{ {listen} location / {{ return 200 0; }} }}\n"),
            Axis::Locations => {
                let locations = all(|n| format!("location /part{n}/ {{ return 200 {n}; }}\n"));
                format!("server {{ {listen}\n{locations}}}\n")
            }
            Axis::Map => {
                let entries = all(|n| format!("/key/number{n} {n};\n"));
                format!("map $uri $value {{\n{entries}}}\nserver {{ {listen} location / {{ return 200 $value; }} }}\n")
            }
            Axis::Servers => {
                let server = |n| format!("server {{ {listen} server_name site{n}.example; return 200 {n}; }}\n");
                (0..size).map(server).collect()
            }
        }
    }

    /// The request for the n-th thing.
    fn request(self, n: usize) -> String {
        let (path, host) = match self {
            Axis::Connections => ("/".to_string(), "localhost".to_string()),
            Axis::Locations => (format!("/part{n}/page"), "localhost".to_string()),
            Axis::Map => (format!("/key/number{n}"), "localhost".to_string()),
            Axis::Servers => ("/".to_string(), format!("site{n}.example")),
        };
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    }

    /// How many connections there are, and how many things to ask for.
    fn counts(self, size: usize) -> (usize, usize) {
        if self == Axis::Connections { (size, 1) } else { (1, size) }
    }
}

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let valued = ["--requests", "--rounds", "--nginx", "--server", "--cpu"];
    let options = Options::parse(arguments, &["--write", "--list"], &valued)?;
    if options.has("--list") {
        AXES.iter().for_each(|axis| println!("{:12}{}", axis.name(), axis.title()));
        return Ok(());
    }
    if let Some(name) = options.rest.iter().find(|name| !AXES.iter().any(|axis| axis.name() == **name)) {
        return Err(format!("no axis is called {name}; --list names them"));
    }
    if options.has("--write") && !options.rest.is_empty() {
        return Err("--write needs all axes".to_string());
    }
    tools::find("taskset").ok_or("taskset isn't installed")?;
    let folder = tools::folder("growth")?;
    Growth::new(&options, folder.path())?.all(&options)
}

struct Growth {
    ours: PathBuf,
    nginx: Option<PathBuf>,
    cpu: String,
    requests: usize,
    rounds: usize,
    /// As many as there are descriptors for.
    most_connections: usize,
    folder: PathBuf,
}

/// Descriptors beside those of the connections.
const FILES: usize = 100;

impl Growth {
    fn new(options: &Options, folder: &Path) -> Outcome<Growth> {
        let most = Axis::Connections.sizes().iter().max().unwrap_or(&0);
        let files = measure::allow_files(most + FILES)?;
        Ok(Growth {
            ours: options.value("--server").map_or_else(tools::server, |path| Ok(PathBuf::from(path)))?,
            nginx: options.value("--nginx").map(PathBuf::from).or_else(|| tools::find("nginx")),
            cpu: options.value("--cpu").unwrap_or("0").to_string(),
            requests: options.number("--requests", 4000)?,
            rounds: options.number("--rounds", 5)?,
            most_connections: files - FILES,
            folder: folder.to_path_buf(),
        })
    }

    fn all(&self, options: &Options) -> Outcome {
        let chosen = |axis: &&Axis| options.rest.is_empty() || options.rest.iter().any(|name| name == axis.name());
        let mut panels = Vec::new();
        let mut table = "| | | ours µs | nginx µs |\n|---|---|---|---|".to_string();
        println!("{table}");
        for axis in AXES.iter().filter(chosen) {
            let mut panel = Panel { title: axis.title().to_string(), ours: Vec::new(), nginx: Vec::new() };
            for &size in axis.sizes() {
                let size = if *axis == Axis::Connections { size.min(self.most_connections) } else { size };
                let ours = self.point(&self.ours, *axis, size)?;
                let nginx = self.nginx.as_ref().map(|nginx| self.point(nginx, *axis, size)).transpose()?;
                panel.ours.push((size as f64, ours));
                panel.nginx.extend(nginx.map(|nginx| (size as f64, nginx)));
                let beside = nginx.map_or("–".to_string(), |nginx| format!("{nginx:.2}"));
                let line = format!("| {size} | {} | {ours:.2} | {beside} |", axis.title());
                println!("{line}");
                table += &format!("\n{line}");
            }
            panels.push(panel);
        }
        if options.has("--write") {
            tools::write(&tools::root().join(PICTURE), &picture::draw(&panels))?;
            let page = tools::root().join(PAGE);
            tools::write(&page, &tools::with_figures(&tools::read(&page)?, &table).ok_or("the page has no place")?)?;
        }
        Ok(())
    }

    /// Microseconds of CPU time for a request at this size.
    fn point(&self, binary: &Path, axis: Axis, size: usize) -> Outcome<f64> {
        let mut subject = self.start(binary, axis, size)?;
        // Every connection has its turn in a round.
        let requests = self.requests.max(axis.counts(size).0);
        subject.round(requests)?;
        let mut least = f64::INFINITY;
        for _ in 0..self.rounds.max(1) {
            least = least.min(subject.round(requests)?);
        }
        Ok(least)
    }

    fn start(&self, binary: &Path, axis: Axis, size: usize) -> Outcome<Subject> {
        // Others may take a port between the look and the start.
        let (server, port) = (0..TRIES)
            .find_map(|_| self.serve(binary, axis, size).ok())
            .map_or_else(|| self.serve(binary, axis, size), Ok)?;
        let (connections, things) = axis.counts(size);
        let opened = (0..connections).map(|n| connect(n, port)).collect::<io::Result<Vec<_>>>();
        let connections = opened.map_err(|error| format!("{size} {}: {error}", axis.name()))?;
        Ok(Subject { server, axis, connections, things, asked: 0, chance: 1 })
    }

    fn serve(&self, binary: &Path, axis: Axis, size: usize) -> Outcome<(Process, u16)> {
        let port = *measure::free_ports(1)?.first().ok_or("no port")?;
        let name = format!("server-{port}.conf");
        tools::write(&self.folder.join(&name), &configuration(axis, size, port))?;
        let (binary, folder) = (binary.display().to_string(), self.folder.display().to_string());
        let mut server = Process::start(&self.cpu, &[&binary, "-p", &folder, "-c", &name, "-e", "error.log"])?;
        server.wait_port(port)?;
        Ok((server, port))
    }
}

/// How often a server is started anew that finds its port taken.
const TRIES: usize = 3;

/// The addresses at which a server listens: the ports of a client are too few for 20,000 connections to one.
const ADDRESSES: [&str; 2] = ["127.0.0.1", "127.0.0.2"];

fn connect(n: usize, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((ADDRESSES[n % ADDRESSES.len()], port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

fn configuration(axis: Axis, size: usize, port: u16) -> String {
    let listen: String = ADDRESSES.iter().map(|address| format!("listen {address}:{port} backlog=1024; ")).collect();
    let more: String = ADDRESSES.iter().map(|address| format!("listen {address}:{port}; ")).collect();
    // The settings of a socket stand once.
    let blocks = axis.blocks(size, &more).replacen(&more, &listen, 1);
    format!(
        "daemon off;\npid server-{port}.pid;\nworker_processes 1;\nerror_log error.log error;\n\
         events {{ worker_connections 25000; }}\nhttp {{\n    access_log off; keepalive_timeout 600s; keepalive_requests 1000000000;\n    \
         client_body_temp_path body-{port}; proxy_temp_path proxy-{port}; map_hash_max_size 262144; map_hash_bucket_size 128;\n    \
         server_names_hash_max_size 65536; server_names_hash_bucket_size 128;\n{blocks}}}\n"
    )
}

/// A running server and its clients.
struct Subject {
    server: Process,
    axis: Axis,
    connections: Vec<TcpStream>,
    things: usize,
    asked: usize,
    chance: u64,
}

impl Subject {
    /// Sends requests, and says how many microseconds of CPU time each has taken.
    fn round(&mut self, requests: usize) -> Outcome<f64> {
        let before = self.server.cpu();
        for _ in 0..requests {
            self.ask().map_err(|error| format!("{}: {error}", self.axis.name()))?;
        }
        Ok((self.server.cpu() - before) / requests as f64 * 1e6)
    }

    fn ask(&mut self) -> io::Result<()> {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let thing = (self.chance >> 33) as usize % self.things;
        let at = self.asked % self.connections.len();
        self.asked += 1;
        let connection = &mut self.connections[at];
        connection.write_all(self.axis.request(thing).as_bytes())?;
        let (mut answer, mut length) = ([0; 1024], 0);
        while !is_answer(&answer[..length], thing) {
            match connection.read(&mut answer[length..])? {
                0 => return Err(io::Error::other(format!("not the answer: {}", answer[..length].escape_ascii()))),
                count => length += count,
            }
        }
        Ok(())
    }
}

/// Whether this is the whole answer to the request for the n-th thing.
fn is_answer(text: &[u8], n: usize) -> bool {
    text.starts_with(b"HTTP/1.1 200 ") && text.ends_with(format!("\r\n\r\n{n}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations() {
        for axis in AXES {
            assert!(axis.sizes().is_sorted() && axis.sizes().first() == Some(&1), "{axis:?}");
            let text = configuration(axis, 3, 8080);
            assert_eq!(text.matches("backlog").count(), ADDRESSES.len(), "{axis:?}");
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{axis:?}");
            let (connections, things) = axis.counts(7);
            assert_eq!(connections * things, 7, "{axis:?}");
            if things > 1 {
                // Whatever is asked for is there.
                let request = axis.request(2);
                let word = if axis == Axis::Servers { "site2.example" } else { "2" };
                assert!(request.contains(word) && text.contains(word), "{axis:?}");
            }
        }
    }

    #[test]
    fn answers() {
        for (text, expect) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n12", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n112", false),
            ("HTTP/1.1 404 Not Found\r\n\r\n12", false),
            ("", false),
        ] {
            assert_eq!(is_answer(text.as_bytes(), 12), expect, "{text}");
        }
    }
}
