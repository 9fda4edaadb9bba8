//! What only Tidegate has: a welcome page without a configuration, a folder served by name, `--explain`, the personality.
//!
//! All of it is about a command line that nginx doesn't have: against nginx these tests have nothing to say.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use e2e::{Connection, Folder, Picture, Setup, binary, chromium, picture};
use rustix::process::{Pid, Signal, kill_process};

struct Foreground {
    child: Child,
    address: SocketAddr,
    said: String,
    /// What it says after that, each time up to how to stop it.
    later: mpsc::Receiver<String>,
}

impl Foreground {
    /// Starts the program and waits for the address it says, and for the end of what it has to say at the start.
    fn start(arguments: &[&str], folder: &Folder) -> Foreground {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        Foreground::start_in(&arguments, folder.path())
    }

    fn start_in(arguments: &[&OsStr], folder: &Path) -> Foreground {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(binary()).args(arguments).current_dir(folder);
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        let copy = writer.try_clone().expect("a pipe can be doubled");
        let child = command.stdin(Stdio::null()).stdout(writer).stderr(copy).spawn().expect("the program starts");
        drop(command);
        let (sender, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let mut told = String::new();
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                told += &line;
                told.push('\n');
                if told.contains("Ctrl-C") {
                    let _ = sender.send(std::mem::take(&mut told));
                }
            }
        });
        let said = heard.recv_timeout(Duration::from_secs(10)).expect("the program says how to stop it");
        let address = address_in(&said).expect("the program says http://ADDRESS:PORT/");
        Foreground { child, address, said, later: heard }
    }

    /// The address that a program says which takes this one's place.
    fn next_address(&self) -> SocketAddr {
        let said = self.later.recv_timeout(Duration::from_secs(20)).expect("the new program says how to stop it");
        address_in(&said).expect("it says http://ADDRESS:PORT/")
    }

    /// The process of the program that takes this one's place: of its children the one that has children.
    fn newer_master(&self) -> Pid {
        let children = |pid: u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let has_workers = |pid: &u32| !children(*pid).is_empty();
        let mut own = children(self.child.id());
        while !own.split_whitespace().filter_map(|pid| pid.parse().ok()).any(|pid| has_workers(&pid)) {
            std::thread::yield_now();
            own = children(self.child.id());
        }
        let found = own.split_whitespace().filter_map(|pid| pid.parse().ok()).find(has_workers).expect("it was there");
        i32::try_from(found).ok().and_then(Pid::from_raw).expect("a process id")
    }

    fn get(&self, target: &str) -> e2e::Response {
        Connection::open(self.address.port()).get(target, "Connection: close\r\n")
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "{status}");
    }
}

fn address_in(text: &str) -> Option<SocketAddr> {
    text.split_once("http://")?.1.split('/').next()?.parse().ok()
}

/// Runs the program to its end, which must come by itself.
fn refused(arguments: &[&str], folder: &Folder) -> String {
    let mut command = Command::new("timeout");
    let out = command.arg("20").arg(binary()).args(arguments).current_dir(folder.path()).output();
    let out = out.expect("timeout is installed");
    assert_eq!(out.status.code(), Some(1), "{arguments:?}: {out:?}");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// A folder that other users may enter.
fn open_folder() -> Folder {
    let folder = Folder::new();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    folder
}

/// Not in nginx: without one it serves a welcome page
#[test]
fn welcome_and_folder() {
    let folder = open_folder();
    let welcome = Foreground::start(&[], &folder);
    let page = welcome.get("/");
    assert_eq!((page.status, page.field("Content-Type")), (200, Some("text/html; charset=utf-8")));
    for step in ["tidegate ./public", "tidegate -t -c /etc/nginx/nginx.conf", "--explain", "docs/directives"] {
        assert!(page.text().contains(step), "{step}: {}", page.text());
    }
    assert_eq!(welcome.get("/favicon.ico").status, 404);
    welcome.stop();
    assert_eq!(fs::read_dir(folder.path()).expect("it is ours").count(), 0, "nothing is left where it was started");

    folder.write("site/index.html", "my site");
    folder.write("site/style.css", "p {}");
    folder.write("site/notes/ünïcode.md", "ü");
    folder.write("site/notes/A.txt", "a");
    folder.write("site/notes/.hidden", "x");
    for name in [".env", ".git/config", "notes/.git/HEAD", ".well-known/.secret", ".well-known-not/x"] {
        folder.write(&format!("site/{name}"), "secret");
    }
    folder.write("site/.well-known/acme-challenge/token", "token");
    let site = Foreground::start(&["site"], &folder);
    assert!(site.address.ip().is_loopback(), "{}", site.said);
    assert_eq!(site.get("/").text(), "my site");
    assert_eq!(site.get("/style.css").field("Content-Type"), Some("text/css"));
    assert_eq!(site.get("/notes/%C3%BCn%C3%AFcode.md").field("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(site.get("/notes").field("Location"), Some("/notes/"));
    for name in [
        "/.env",
        "/%2eenv",
        "//.git/config",
        "/notes/../.git/config",
        "/.git/",
        "/notes/.git/HEAD",
        "/.well-known/.secret",
        "/.well-known-not/x",
    ] {
        assert_eq!(site.get(name).status, 404, "{name}");
    }
    assert_eq!(site.get("/.well-known/acme-challenge/token").text(), "token");
    let list = site.get("/notes/");
    assert_eq!((list.status, list.field("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert!(list.text().contains("ünïcode.md") && !list.text().contains("hidden"), "{}", list.text());
    site.stop();
}

/// Not in nginx: without one it serves a welcome page
#[test]
fn where_it_listens() {
    let folder = open_folder();
    folder.write("index.html", "here");
    let (port, reserved) = e2e::free_port();
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("0.0.0.0:{port}")] {
        let site = Foreground::start(&["-a", &address, "."], &folder);
        assert_eq!(site.address.to_string(), address, "{}", site.said);
        // A second socket on the very address shows that it is the one that is listened on, and no wider one.
        assert!(TcpListener::bind(site.address).is_err(), "{address}");
        if site.address.is_ipv4() {
            let elsewhere = TcpListener::bind(("127.0.0.2", port));
            assert_eq!(elsewhere.is_err(), site.address.ip().is_unspecified(), "{address}");
        }
        assert_eq!(String::from_utf8_lossy(&e2e::curl(&[&site.url("/")])), "here", "{address}");
        let said = refused(&["-a", &address, "."], &folder);
        assert!(said.contains(&format!("bind() to {address} failed (98: Address already in use)")), "{said}");
        site.stop();
    }
    drop(reserved);

    // Ports that nobody has named: each takes one of its own.
    let sites: Vec<Foreground> = (0..3).map(|_| Foreground::start(&["."], &folder)).collect();
    let mut ports: Vec<u16> = sites.iter().map(|site| site.address.port()).collect();
    assert!(sites.iter().all(|site| site.get("/").text() == "here"));
    assert!(sites[2].said.contains("Port 8080 is in use."), "{}", sites[2].said);
    ports.dedup();
    assert_eq!(ports.len(), 3, "{ports:?}");
    sites.into_iter().for_each(Foreground::stop);
}

/// Not in nginx: without one it serves a welcome page
/// The new program listens where the old one does, also on a port that was found free; and a reload changes nothing.
#[test]
fn another_program_takes_over() {
    let folder = open_folder();
    fs::create_dir(folder.path().join("site")).expect("it is new");
    fs::write(folder.path().join("site/a.txt"), "a file").expect("it can be written");
    for arguments in [&["site"][..], &[]] {
        let mut server = Foreground::start(arguments, &folder);
        let old = i32::try_from(server.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(old, Signal::HUP).expect("it runs");
        kill_process(old, Signal::USR2).expect("it runs");
        assert_eq!(server.next_address(), server.address, "{arguments:?}");
        let new = server.newer_master();
        kill_process(old, Signal::QUIT).expect("it runs");
        let status = server.child.wait().expect("it is our child");
        assert!(status.success(), "{status}");
        let status = if arguments.is_empty() { server.get("/").status } else { server.get("/a.txt").status };
        assert_eq!(status, 200, "{arguments:?}");
        kill_process(new, Signal::TERM).expect("it runs");
    }
}

/// No byte of a folder's name has a meaning.
///
/// Not in nginx: without one it serves a welcome page
#[test]
fn odd_names() {
    let folder = open_folder();
    let names: [&[u8]; 6] = [b"$var", b"od\"d", b"q'uote", b"semi;colon {}", b"back\\slash", b"byte\xe9"];
    for name in names {
        let path = folder.path().join(OsStr::from_bytes(name));
        fs::create_dir(&path).expect("it is new");
        fs::write(path.join("a.txt"), "a file").expect("it can be written");
        for (word, from) in [(path.file_name().expect("a name"), folder.path()), (OsStr::new("."), &path)] {
            let server = Foreground::start_in(&[word], from);
            assert_eq!(server.get("/a.txt").status, 200, "{}", path.display());
            server.stop();
        }
    }
}

/// Not in nginx: without one it serves a welcome page
#[test]
fn words_that_are_no_folder() {
    let folder = open_folder();
    folder.write("nginx.conf", "events { }");
    folder.write("public/index.html", "x");
    for (arguments, part) in [
        (&["nothing"][..], "tidegate: \"nothing\" isn't a folder"),
        (&["reload"], "tidegate -s reload"),
        (&["nginx.conf"], "tidegate -c nginx.conf"),
        (&["public", "-c", "nginx.conf"], "\"public\" can't be served beside option \"-c\""),
        (&["-p", ".", "public"], "beside option \"-p\""),
        (&["-a", "80", "-c", "nginx.conf"], "\"listen\""),
        (&["-a", "nowhere:80", "public"], "invalid address \"nowhere:80\""),
    ] {
        let said = refused(arguments, &folder);
        assert!(said.contains(part) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
}

/// Not in nginx: without one it serves a welcome page
#[test]
fn workers_of_root_are_nobody() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = open_folder();
    folder.write("public/index.html", "x");
    let site = Foreground::start(&["public"], &folder);
    assert_eq!(site.get("/").text(), "x", "a worker is ready");
    let pid = site.child.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    let worker = children.split_whitespace().next().expect("a worker");
    let status = fs::read_to_string(format!("/proc/{worker}/status")).expect("it runs");
    assert!(status.lines().any(|line| line.starts_with("Uid:\t65534\t")), "{status}");
    site.stop();

    let public = folder.path().join("public");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("it is ours");
    let path = public.display().to_string();
    let said = refused(&[&path], &folder);
    assert!(said.contains(&format!("the folder \"{path}\" can't be read by \"nobody\"")), "{said}");
    let site = Foreground::start(&[&path, "-g", "user root;"], &folder);
    assert_eq!(site.get("/").text(), "x");
    site.stop();
}

/// A machine on which nothing ran before: namespaces of mounts, processes and the network, with nothing in `/var` and
/// `/tmp`. The program and its folder are in `/mnt`. `prepare` runs before it, `ask` beside it.
fn fresh_machine(user: &str, prepare: &str, arguments: &str, ask: &str) -> Output {
    let folder = open_folder();
    folder.write("site/hello.txt", "hello");
    fs::copy(binary(), folder.path().join("tidegate")).expect("a program can be copied");
    let script = format!(
        "set -e
         mount --bind {} /mnt; mount -t tmpfs none /var; mount -t tmpfs -o mode=1777 none /tmp
         mount -t tmpfs none /run; unset TMPDIR; cd /; {prepare}
         setpriv --reuid={user} --regid={user} --clear-groups /mnt/tidegate {arguments} & program=$!
         {ask}
         wait $program",
        folder.path().display()
    );
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "-m", "-p", "-n", "-f", "--kill-child", "--mount-proc", "sh", "-c", &script]);
    command.stdin(Stdio::null()).output().expect("timeout is installed")
}

/// Not in nginx: without one it serves a welcome page
#[test]
fn first_start_on_a_fresh_machine() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let ask = "ip link set lo up
        for i in $(seq 500); do curl -s http://127.0.0.1:8080/ > /mnt/page && break; sleep 0.02; done
        cat /mnt/page; kill $program";
    for user in ["0", "65534"] {
        for (arguments, page) in [("", "Tidegate is running"), ("/mnt/site", "hello.txt")] {
            let out = fresh_machine(user, "", arguments, ask);
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            assert!(out.status.success() && out.stderr.is_empty(), "{user} {arguments}: {out:?}");
            assert!(said.contains("http://127.0.0.1:8080/") && said.contains(page), "{user} {arguments}: {said}");
        }
    }
}

/// Not in nginx: without one it serves a welcome page
#[test]
fn folders_that_others_have_put_there() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = "/tmp/tidegate-65534";
    for prepare in [
        format!("mkdir {folder}"),
        format!("mkdir /var/theirs; chown 65534 /var/theirs; ln -s /var/theirs {folder}"),
        format!("mkdir {folder}; chown 65534 {folder}; chmod 777 {folder}"),
    ] {
        for arguments in ["", "/mnt/site", "-t -c /mnt/nginx.conf"] {
            let out = fresh_machine("65534", &prepare, arguments, "");
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert_eq!(out.status.code(), Some(1), "{prepare}: {out:?}");
            assert!(said.contains(&format!("\"{folder}\" isn't a folder that belongs to you alone")), "{said}");
        }
    }
}

/// The two pages as a browser shows them, on a narrow and on a wide screen, light and dark.
/// Not in nginx: without one it serves a welcome page
#[test]
fn pictures() {
    let folder = open_folder();
    for name in ["public/docs/a.txt", "public/photo.jpg", "public/readme.md"] {
        folder.write(name, "x".repeat(2345));
    }
    folder.write("public/a name that is long and goes on until it doesn't fit on any narrow screen.txt", "x");
    for (arguments, words) in [
        (&["public"][..], &["Index of", "3 files", "2.3 kB", "photo.jpg", "docs"][..]),
        (&[], &["Tidegate is running.", "Serve a folder", "Use your nginx.conf", "Look things up"]),
    ] {
        let site = Foreground::start(arguments, &folder);
        let Some(dom) = chromium(&site.url("/"), &[]) else { return };
        for word in words {
            assert!(dom.contains(word), "{word}: {dom}");
        }
        let shot = |size, options: &[&str]| picture(&site.url("/"), size, options).expect("Chromium is there");
        let light = shot((1100, 700), &[]);
        let dark = shot((1100, 700), &["--blink-settings=preferredColorScheme=0"]);
        let narrow = shot((420, 700), &[]);
        for (name, seen, size) in
            [("light", &light, (1100, 700)), ("dark", &dark, (1100, 700)), ("narrow", &narrow, (420, 700))]
        {
            let Picture { width, height, colours, share, .. } = *seen;
            assert_eq!((width, height), size, "{arguments:?} {name}");
            // Text on a plain ground: many shades, none of them everywhere.
            assert!(colours > 50 && (0.5..0.99).contains(&share), "{arguments:?} {name}: {seen:?}");
        }
        assert!(light.ground > 240 && dark.ground < 60, "{light:?} {dark:?}");
        // Nothing stands beyond a narrow screen's edge.
        assert!(narrow.margin, "{narrow:?}");
        site.stop();
    }
}

/// Not in nginx: --explain NAME
#[test]
fn explanations() {
    let run = |arguments: &[&str]| {
        let out = Command::new(binary()).args(arguments).output().expect("the program starts");
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    let (good, text) = run(&["--explain", "proxy_pass"]);
    assert!(good && text.contains("proxy_pass") && text.contains("location"), "{text}");
    let (good, text) = run(&["--explain", "proxy_pas"]);
    assert!(!good && text.contains("proxy_pass"), "a hint: {text}");
    let (good, text) = run(&["--explain", "$http_accept"]);
    assert!(good && text.starts_with("Variable: $http_*\n"), "{text}");
    let (good, text) = run(&["--explain", "$hots"]);
    assert!(!good && text.contains("no variable \"$hots\" (did you mean \"$host\"?)"), "{text}");
    let (good, text) = run(&["--dump-variables"]);
    assert!(good && text.lines().all(|line| line.split('\t').count() == 3 && !line.ends_with('\t')), "{text}");
    let (good, text) = run(&["--dump-directives"]);
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    assert!(good && rows.len() > 100, "{} rows", rows.len());
    for row in &rows {
        assert_eq!(row.len(), 8, "{row:?}");
        assert!(!row[7].is_empty(), "undocumented: {row:?}");
    }
}

/// Differs from nginx: reports all, each with the source line
#[test]
fn every_fault_at_once_with_its_place() {
    let folder = Folder::new();
    let text =
        "events { }\nhttp {\n    server {\n        lisen 80;\n        sendfile maybe;\n        root;\n    }\n}\n";
    let file = folder.write("nginx.conf", text);
    let out = Command::new(binary()).args(["-t", "-c"]).arg(&file).output().expect("the program starts");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success());
    for part in [
        "unknown directive \"lisen\" in ",
        "nginx.conf:4",
        "listen",
        "invalid value \"maybe\"",
        "nginx.conf:5",
        "nginx.conf:6",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

/// What is taken without an effect that somebody could miss says so, once for each name; what has nothing to set, old
/// protocols beside newer ones (Debian's own file has them) and who sends a signal hear nothing.
///
/// Not in nginx: what is accepted without an effect that somebody could miss warns
#[test]
fn warnings() {
    let http =
        "ssl_protocols SSLv3 TLSv1 TLSv1.1 TLSv1.2 TLSv1.3; types_hash_max_size 2048; ssl_prefer_server_ciphers on;
        aio on; directio off;
        server { listen 127.0.0.1:%%PORT%%; aio threads; directio 4m; aio_write on;
            resolver 127.0.0.1 status_zone=z;
            location / { directio 8m; post_action /after; return 200 one; }
            location /after { return 204; } }";
    let mut server = Setup::http(http).main("debug_points abort; pcre_jit on;").start();
    let test = server.command(&["-t"]);
    let said = String::from_utf8_lossy(&test.stderr).into_owned();
    let warned: Vec<&str> = said.lines().filter(|line| line.contains("[warn]")).collect();
    let names = ["debug_points", "aio", "directio", "aio_write", "status_zone"];
    assert_eq!(warned.len(), names.len(), "{said}");
    for name in names {
        let start = format!("tidegate: [warn] \"{name}\" has no effect: ");
        let line = warned.iter().find(|line| line.starts_with(&start));
        assert!(line.is_some_and(|line| line.contains("nginx.conf:")), "{name}: {said}");
    }
    for word in ["reopen", "reload", "stop"] {
        let out = server.command(&["-s", word]);
        assert!(out.status.success() && out.stderr.is_empty(), "{word}: {out:?}");
    }
    server.wait_end();
    let log = server.read("error.log");
    assert!(log.contains("[warn]") && !log.contains("TLSv1"), "the start and the reload warn too: {log}");
}

/// Not in nginx: called `nginx` it is nginx in name and paths
#[test]
fn personality() {
    let folder = Folder::new();
    let name = folder.path().join("nginx");
    fs::copy(binary(), &name).expect("a program can be copied");
    let said = |program: &Path, option: &str| {
        let out = Command::new(program).arg(option).output().expect("the program starts");
        assert!(out.status.success(), "{out:?}");
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    assert!(said(&name, "-v").starts_with("nginx version: nginx/1."), "{}", said(&name, "-v"));
    let long = said(&name, "-V");
    assert!(long.contains("(tidegate/") && long.contains("configure arguments:"), "{long}");
    assert!(said(&binary(), "-v").contains("tidegate/"), "{}", said(&binary(), "-v"));
    // Certbot takes the word between the blanks for OpenSSL's version, and nginx's test suite looks for libraries' names.
    assert!(long.contains("\nbuilt with OpenSSL 1.1.1 (compatible; AWS-LC "), "{long}");
    assert!(long.contains("\nbuilt by rustc 1.") && !long.contains("or newer"), "{long}");
}
