//! The tests of the packages inside a Debian system, in a network of its own: port 80 is theirs.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::instructions_cases::{self as cases, CASES, Case};
use crate::instructions_client::Client;
use crate::tools::{self, Outcome};

/// A test: its name, what it is, what it does.
pub(crate) type Scenario = (&'static str, &'static str, fn(&Guest) -> Outcome);

/// All of them.
pub(crate) const SCENARIOS: [Scenario; 5] = [
    ("fresh", "Debian package: installed, upgraded, removed, purged", fresh),
    ("nginx", "Debian package: in a running nginx's place, and back", over_nginx),
    ("refused", "Debian package: nginx stays if its configuration is refused", refused),
    ("systemd", "Debian package: as services of systemd", under_systemd),
    ("tar", "tar file: installed, installed again, uninstalled", from_tar),
];

/// How long something that has been begun may take to show.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the test that is named, in a system whose root is this folder.
pub(crate) fn run(root: &Path, name: &str) -> Outcome {
    let (_, _, test) = SCENARIOS.iter().find(|(known, ..)| *known == name).ok_or_else(|| format!("no test {name}"))?;
    let mut up = Command::new("ip");
    up.args(["link", "set", "lo", "up"]);
    tools::run(up)?;
    let mut mount = Command::new("mount");
    mount.args(["-t", "proc", "proc"]).arg(root.join("proc"));
    tools::run(mount)?;
    test(&Guest { root: root.to_path_buf(), init: None })
}

fn fresh(guest: &Guest) -> Outcome {
    guest.run("dpkg -i /root/first/*.deb")?;
    guest.says("tidegate -v 2>&1", "tidegate version: tidegate/")?;
    guest.says("nginx -v 2>&1", "nginx version: nginx/")?;
    guest.says("ls /etc/systemd/system/multi-user.target.wants", "tidegate.service")?;
    guest.is_silent("dpkg --verify tidegate")?;
    guest.run("tidegate -t -q -c /etc/tidegate/nginx.conf && tidegate -c /etc/tidegate/nginx.conf")?;
    served_by("tidegate/")?;
    if !get("/")?.contains("Tidegate is running") {
        return Err("no welcome page".to_string());
    }
    guest.run("echo '# changed' >>/etc/tidegate/sites-available/default")?;
    guest.replaced("/run/tidegate.pid", "dpkg -i /root/second/*.deb")?;
    guest.says("dpkg-query --show --showformat '${Version}' tidegate", "+next")?;
    guest.says("tail -n 1 /etc/tidegate/sites-available/default", "# changed")?;
    guest.run("dpkg -r tidegate")?;
    within("nobody listens any more", || TcpStream::connect(HOST).is_err())?;
    guest.run("[ ! -e /usr/sbin/nginx ] && [ -z \"$(dpkg-divert --list | grep tidegate)\" ]")?;
    guest.run("[ -e /etc/tidegate/nginx.conf ]")?;
    guest.run("dpkg -i /root/first/*.deb && dpkg -P tidegate")?;
    guest.leaves_nothing()?;
    // As by a person who has followed docs/migrate.md.
    guest.run("dpkg-divert --local --divert /usr/sbin/nginx.debian --rename --add /usr/sbin/nginx")?;
    guest.says("dpkg -i /root/first/*.deb 2>&1", "/usr/sbin/nginx is diverted already")?;
    guest.run("dpkg -P tidegate && dpkg-divert --list | grep 'local diversion of /usr/sbin/nginx '")?;
    guest.leaves_nothing()
}

fn over_nginx(guest: &Guest) -> Outcome {
    guest.nginx()?;
    let files = guest.run(FILES)?;
    let is_kept = || if guest.run(FILES)? == files { Ok(()) } else { Err("files of nginx have changed".to_string()) };
    guest.replaced(NGINX, "dpkg -i /root/first/*.deb")?;
    served_by(OURS)?;
    is_kept()?;
    guest.says("nginx -v 2>&1", "tidegate/")?;
    guest.says("nginx.debian -v 2>&1", DEBIANS)?;
    guest.run("[ ! -e /etc/systemd/system/multi-user.target.wants/tidegate.service ]")?;
    // What else finds the master by its pid file, its name and its program.
    under_load(|| guest.run("invoke-rc.d nginx reload && invoke-rc.d nginx status").map(drop))?;
    guest.replaced(NGINX, "invoke-rc.d nginx upgrade")?;
    // An update of nginx's package, which replaces the running program by what lies at its path.
    guest.replaced(NGINX, "dpkg -i /var/cache/apt/archives/nginx_*.deb")?;
    guest.replaced(NGINX, "dpkg -i /root/second/*.deb")?;
    served_by(OURS)?;
    guest.replaced(NGINX, "dpkg -r tidegate")?;
    served_by(DEBIANS)?;
    under_load(|| guest.run("dpkg -P tidegate").map(drop))?;
    guest.is_silent("dpkg --verify nginx nginx-common")?;
    is_kept()?;
    guest.leaves_nothing()
}

fn refused(guest: &Guest) -> Outcome {
    guest.nginx()?;
    guest.run("echo 'nonsense on;' >/etc/nginx/conf.d/nonsense.conf")?;
    under_load(|| guest.says("dpkg -i /root/first/*.deb 2>&1", "unknown directive \"nonsense\"").map(drop))?;
    served_by(DEBIANS)?;
    guest.run("[ ! -L /usr/sbin/nginx ] && rm /etc/nginx/conf.d/nonsense.conf")?;
    guest.replaced(NGINX, "/usr/lib/tidegate/replace take")?;
    served_by(OURS)?;
    // As above; then it is nginx that doesn't take the configuration.
    guest.run("echo 'small_file_cache 1m;' >/etc/nginx/conf.d/ours.conf")?;
    under_load(|| guest.says("dpkg -P tidegate 2>&1", "Tidegate serves until it is stopped").map(drop))?;
    served_by(OURS)?;
    guest.run("rm /etc/nginx/conf.d/ours.conf")?;
    guest.replaced(NGINX, "invoke-rc.d nginx upgrade")?;
    served_by(DEBIANS)
}

fn under_systemd(guest: &Guest) -> Outcome {
    if !tools::read(Path::new("/proc/filesystems"))?.contains("cgroup2") {
        println!("left out: there is no cgroup2, which systemd needs");
        return Ok(());
    }
    guest.run("apt-get install -y -qq --no-install-recommends --no-download systemd dbus")?;
    let guest = guest.boot()?;
    guest.run(
        "dpkg -i /root/first/*.deb && systemctl --quiet is-enabled tidegate && systemctl --quiet is-active tidegate",
    )?;
    served_by("tidegate/")?;
    guest.run("systemctl reload tidegate")?;
    guest.replaced("/run/tidegate.pid", "dpkg -i /root/second/*.deb")?;
    guest.run("[ \"$(systemctl show -P MainPID tidegate)\" = \"$(cat /run/tidegate.pid)\" ]")?;
    // What takes system calls that others don't.
    guest.run(
        "sed -i 's/^events {/sandbox on; & use io_uring;/' /etc/tidegate/nginx.conf && systemctl restart tidegate",
    )?;
    served_by("tidegate/")?;
    guest.run("dpkg -P tidegate && ! systemctl --quiet is-active tidegate")?;
    guest.nginx()?;
    guest.replaced(NGINX, "dpkg -i /root/first/*.deb")?;
    served_by(OURS)?;
    guest.run(
        "systemctl --quiet is-active nginx && ! systemctl --quiet is-enabled tidegate && systemctl reload nginx",
    )?;
    guest.run("[ \"$(systemctl show -P MainPID nginx)\" = \"$(cat /run/nginx.pid)\" ]")?;
    guest.replaced(NGINX, "dpkg -P tidegate")?;
    served_by(DEBIANS)?;
    guest.run("systemctl --quiet is-active nginx")?;
    guest.leaves_nothing()
}

fn from_tar(guest: &Guest) -> Outcome {
    guest.run("tar -xzf /root/first/*.tar.gz -C /root --strip-components=1")?;
    guest.run("/root/install.sh --prefix /opt/tidegate")?;
    guest.run("mkdir -p /var/www/html && echo page >/var/www/html/index.html")?;
    guest.large()?;
    guest.run("/opt/tidegate/sbin/tidegate -c /opt/tidegate/etc/tidegate/nginx.conf")?;
    served_by("tidegate/")?;
    guest
        .run("[ -s /opt/tidegate/var/log/tidegate/access.log ] && [ -e /opt/tidegate/share/man/man8/tidegate.8.gz ]")?;
    guest.run("echo '# changed' >>/opt/tidegate/etc/tidegate/nginx.conf")?;
    under_load(|| guest.run("/root/install.sh --prefix /opt/tidegate").map(drop))?;
    guest.says("tail -n 1 /opt/tidegate/etc/tidegate/nginx.conf", "# changed")?;
    guest.run("/opt/tidegate/sbin/tidegate -s quit -c /opt/tidegate/etc/tidegate/nginx.conf")?;
    within("nobody listens any more", || TcpStream::connect(HOST).is_err())?;
    guest.run("rm -r /opt/tidegate/var && /root/install.sh --prefix /opt/tidegate --uninstall")?;
    let left = guest.run("find /opt/tidegate -type f -o -type l")?;
    if left.trim() == "/opt/tidegate/etc/tidegate/nginx.conf" { Ok(()) } else { Err(format!("left:\n{left}")) }
}

/// Where the servers listen.
const HOST: (&str, u16) = ("127.0.0.1", 80);
const NGINX: &str = "/run/nginx.pid";
/// Of nginx's version whose behaviour we follow, and of Debian's.
const OURS: &str = "nginx/1.3";
const DEBIANS: &str = "nginx/1.22";
/// Lists the files of nginx's configuration with their sums.
const FILES: &str = "find /etc/nginx /etc/default/nginx /etc/logrotate.d/nginx -type f | sort | xargs md5sum";

/// Mounts what systemd needs below a folder, and becomes it.
const BOOT: &str = "mount --make-rprivate / && mount --bind $0 $0 && mount -t proc proc $0/proc && mount -t sysfs sysfs $0/sys \
                    && mount -t tmpfs tmpfs $0/sys/fs/cgroup && mount -t cgroup2 none $0/sys/fs/cgroup \
                    && mount -t tmpfs tmpfs $0/run && exec chroot $0 env -i container=lxc PATH=/usr/sbin:/usr/bin \
                    /lib/systemd/systemd --unit=multi-user.target";

/// A system below a folder.
pub(crate) struct Guest {
    root: PathBuf,
    /// The program that started its systemd, and the process of that, if it has one.
    init: Option<(Child, u32)>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some((unshare, _)) = &mut self.init {
            let _ = unshare.kill();
            let _ = unshare.wait();
        }
    }
}

impl Guest {
    /// Runs a line of shell in it, which must succeed: what it printed.
    fn run(&self, line: &str) -> Outcome<String> {
        let mut command = match &self.init {
            None => Command::new("chroot"),
            Some((_, pid)) => {
                let mut enter = Command::new("nsenter");
                enter.args(["-t", &pid.to_string(), "-m", "-p", "-u", "-i", "chroot"]);
                enter
            }
        };
        command.arg(&self.root).args(["sh", "-c", line]).stdin(Stdio::null());
        let path = "/usr/sbin:/usr/bin:/sbin:/bin";
        command.env_clear().envs([
            ("PATH", path),
            ("LC_ALL", "C"),
            ("HOME", "/root"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ]);
        // Into files: servers that are started here keep what they are given open.
        let (out, err) = (self.root.join("out"), self.root.join("err"));
        let create = |path: &Path| fs::File::create(path).map_err(|error| error.to_string());
        let status = command.stdout(create(&out)?).stderr(create(&err)?).status().map_err(|error| error.to_string())?;
        let said = tools::read(&out)?;
        if status.success() { Ok(said) } else { Err(format!("{line}: {status}\n{said}{}", tools::read(&err)?)) }
    }

    /// Starts its systemd, in a mount and process namespace of its own.
    fn boot(&self) -> Outcome<Guest> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-c", BOOT]);
        let child = unshare.arg(&self.root).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("unshare: {error}"))?;
        let first = format!("/proc/{0}/task/{0}/children", child.id());
        let mut guest = Guest { root: self.root.clone(), init: Some((child, 0)) };
        within("a systemd that is up", || {
            let pid = fs::read_to_string(&first).ok().and_then(|text| text.trim().parse().ok());
            guest.init.iter_mut().for_each(|(_, init)| *init = pid.unwrap_or_default());
            pid.is_some() && guest.run("systemctl --quiet is-active multi-user.target").is_ok()
        })?;
        Ok(guest)
    }

    fn says(&self, line: &str, what: &str) -> Outcome {
        let said = self.run(line)?;
        if said.contains(what) { Ok(()) } else { Err(format!("{line}: no {what:?} in {said:?}")) }
    }

    fn is_silent(&self, line: &str) -> Outcome {
        let said = self.run(line)?;
        if said.is_empty() { Ok(()) } else { Err(format!("{line}: {said}")) }
    }

    /// Installs Debian's nginx, which starts it: without an init system only where a policy says that it may.
    fn nginx(&self) -> Outcome {
        self.run("printf '#!/bin/sh\nexit 104\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d")?;
        self.run("apt-get install -y -qq --no-install-recommends --no-download nginx")?;
        self.large()?;
        served_by(DEBIANS)
    }

    /// A file that takes long to send.
    fn large(&self) -> Outcome {
        let path = self.root.join("var/www/html/large.bin");
        fs::write(&path, vec![b'x'; LARGE]).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Runs a line by which another program takes the place of that of a pid file, under load.
    fn replaced(&self, pid_file: &str, line: &str) -> Outcome {
        self.large()?;
        let master = || self.run(&format!("cat {pid_file}"));
        let before = master()?;
        under_load(|| self.run(line).map(drop))?;
        within(&format!("{line}: another program"), || master().is_ok_and(|now| now != before))
    }

    /// Nothing of the package is left.
    fn leaves_nothing(&self) -> Outcome {
        let left =
            self.run("find / -xdev -iname '*tidegate*' ! -path '/root/*'; dpkg-divert --list | grep tidegate || true")?;
        if left.is_empty() { Ok(()) } else { Err(format!("left:\n{left}")) }
    }
}

/// Waits until something is so.
fn within(what: &str, mut is_so: impl FnMut() -> bool) -> Outcome {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > PATIENCE {
            return Err(format!("not seen in time: {what}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until new connections are served by whom the `Server` field calls so: workers of an old program accept until
/// they have heard that they are to leave.
fn served_by(name: &str) -> Outcome {
    let field = format!("\r\nServer: {name}");
    let is_so = within(&field, || get("/").is_ok_and(|answer| answer.contains(&field)));
    is_so.map_err(|error| {
        format!("{error}; the last answer: {:?}", get("/").map(|answer| answer.chars().take(300).collect::<String>()))
    })
}

/// An answer, head and body.
fn get(path: &str) -> Outcome<String> {
    let asked = || {
        let mut stream = TcpStream::connect(HOST)?;
        stream.set_read_timeout(Some(PATIENCE / 3))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    asked().map_err(|error: std::io::Error| format!("{path}: {error}"))
}

// -- load

/// The length of the file that is downloaded meanwhile.
const LARGE: usize = 32 << 20;

/// Clients that ask until they are told to stop: with a connection for each request, with one for many, and for a file
/// that is read slowly meanwhile. A request without its answer is an error.
fn under_load(action: impl FnOnce() -> Outcome) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let asks: [fn(&AtomicBool) -> Outcome<usize>; 3] = [each_anew, kept, slowly];
    let clients = asks.map(|ask| {
        let stop = stop.clone();
        std::thread::spawn(move || ask(&stop))
    });
    std::thread::sleep(Duration::from_millis(200));
    let done = action();
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let told =
        |client: JoinHandle<Outcome<usize>>| client.join().unwrap_or_else(|_| Err("a client panicked".to_string()));
    let counts = clients.map(told).into_iter().collect::<Outcome<Vec<usize>>>();
    done?;
    let answered: usize = counts?.iter().sum();
    if answered < 100 { Err(format!("only {answered} requests were answered")) } else { Ok(()) }
}

fn each_anew(stop: &AtomicBool) -> Outcome<usize> {
    let case = Case { load: cases::Load::Close, fields: "Connection: close\r\n", path: "/", tls: false, ..CASES[0] };
    let (mut client, mut count) = (Client::new(case, HOST.1), 0);
    while !stop.load(Ordering::Relaxed) {
        client.send(1)?;
        count += 1;
    }
    Ok(count)
}

/// A connection may be closed between two requests: then the request is sent once more, on a new one (RFC 9112 §9.3.1).
fn kept(stop: &AtomicBool) -> Outcome<usize> {
    let case = Case { load: cases::Load::Keep, fields: "", path: "/", tls: false, ..CASES[0] };
    let (mut client, mut count) = (Client::new(case, HOST.1), 0);
    while !stop.load(Ordering::Relaxed) {
        client.send(1).or_else(|_| client.send(1))?;
        count += 1;
    }
    Ok(count)
}

fn slowly(stop: &AtomicBool) -> Outcome<usize> {
    let read = || {
        let mut stream = TcpStream::connect(HOST)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let (mut part, mut length) = (vec![0; 4096], 0);
        loop {
            match stream.read(&mut part)? {
                0 => return Ok(length),
                count => length += count,
            }
            if !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    };
    let length = read().map_err(|error: std::io::Error| format!("/large.bin: {error}"))?;
    if length > LARGE { Ok(1) } else { Err(format!("/large.bin: {length} bytes with the head, of {LARGE}")) }
}
