//! What zones know outlives the program: limits, servers, sessions, keys of a cache; over upgrades there and back, and
//! whatever dies meanwhile.

use std::cell::OnceCell;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::{Backend, Connection, Response, binary, free_port, use_directive};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType};
use rustix::process::Signal;

use crate::upgrade::{Site, children, lives, signal};

/// A site whose configuration uses every kind of zone, and the servers behind it.
struct Stateful {
    site: Site,
    /// Answers `/slow` once it may.
    open: Arc<AtomicBool>,
    slow: Backend,
    _servers: Vec<Backend>,
}

impl Stateful {
    fn new() -> Stateful {
        let mut site = Site::new();
        // Two workers, a cache manager, a cache loader.
        site.children = 4;
        let open = Arc::new(AtomicBool::new(false));
        let may = open.clone();
        let slow = Backend::start(move |_| {
            while !may.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            Backend::ok("late")
        });
        let servers: Vec<Backend> = ["a", "b"]
            .map(|name| {
                Backend::start(move |_| {
                    format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nSet-Cookie: id=of-{name}\r\n\r\n{name}")
                        .into_bytes()
                })
            })
            .into();
        let (dead, _kept) = free_port();
        let (method, port, slow_port) = (use_directive(), site.port, slow.port);
        let (a, b) = (servers[0].port, servers[1].port);
        let text = format!(
            "worker_processes 2; pid nginx.pid; error_log error.log notice; events {{ {method} }}
             http {{ access_log off; client_body_temp_path ta; proxy_temp_path tb; keepalive_timeout 0;
             limit_req_zone $arg_a zone=req:64k rate=1r/m; limit_conn_zone $arg_a zone=conn:64k;
             proxy_cache_path cache keys_zone=keys:64k;
             upstream failed {{ zone failed 64k; server 127.0.0.1:{dead} fail_timeout=1h; server 127.0.0.1:{a}; }}
             upstream sessions {{ zone sessions 64k; server 127.0.0.1:{a}; server 127.0.0.1:{b};
               sticky learn create=$upstream_cookie_id lookup=$cookie_id zone=learned:64k; }}
             server {{ listen 127.0.0.1:{port}; add_header X-Addr $upstream_addr; add_header X-Cache $upstream_cache_status;
             location /limited {{ limit_req zone=req burst=4 nodelay; root .; }}
             location /slow {{ limit_conn conn 1; proxy_pass http://127.0.0.1:{slow_port}; }}
             location /failed {{ proxy_pass http://failed; }}
             location /sessions {{ proxy_pass http://sessions; }}
             location /cached {{ proxy_cache keys; proxy_cache_valid 1h; proxy_cache_min_uses 3;
               proxy_ignore_headers Set-Cookie; proxy_pass http://127.0.0.1:{a}; }} }} }}"
        );
        site.folder.write("nginx.conf", text);
        site.folder.write("limited", "x");
        Stateful { site, open, slow, _servers: servers }
    }

    fn get(&self, target: &str, more: &str) -> Response {
        Connection::open(self.site.port).get(target, more)
    }

    /// Whether a request has been tried with the server that is dead.
    fn failed(&self) -> bool {
        self.get("/failed", "").field("X-Addr").is_some_and(|addr| addr.contains(','))
    }

    /// How many of seven requests are let through.
    fn admitted(&self, client: &str) -> usize {
        (0..7).filter(|_| self.get(&format!("/limited?a={client}"), "").status == 200).count()
    }

    /// Takes the one place that the limit of connections allows a client, from a worker that runs now.
    fn take_place(&self) -> Connection {
        let mut connection = Connection::open(self.site.port);
        let before = self.slow.connections();
        connection.send("GET /slow?a=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        self.site.wait("the backend to be asked", || self.slow.connections() > before);
        assert_eq!(self.get("/slow?a=1", "").status, 503);
        connection
    }

    /// WINCH: until none of its workers accepts any more.
    fn send_away(&self, master: u32) {
        let leaving = || self.site.log().matches("gracefully shutting down").count();
        let before = leaving();
        signal(master, Signal::WINCH);
        self.site.wait("the workers to leave", || leaving() == before + 2);
    }

    /// Nothing has gone wrong, and no zone was begun anew.
    fn all_is_well(&self) {
        let log = self.site.log();
        assert!(!log.contains("[alert]") && !log.contains("isn't taken"), "{log}");
    }
}

/// Not in nginx: zones survive an upgrade
#[test]
fn what_zones_know_survives_an_upgrade() {
    let stateful = Stateful::new();
    let old = stateful.site.start(&binary());
    stateful.site.wait("its workers", || children(old).len() == 4);
    assert_eq!(stateful.admitted("one"), 5);
    assert!((0..2).any(|_| stateful.failed()) && !stateful.failed());
    let first = stateful.get("/sessions", "");
    let cookie = format!("Cookie: id=of-{}\r\n", first.text());
    for _ in 0..2 {
        assert_eq!(stateful.get("/cached", "").field("X-Cache"), Some("MISS"));
    }
    let mut busy = stateful.take_place();

    let new = stateful.site.upgrade(old, &binary());
    stateful.send_away(old);
    assert_eq!(stateful.admitted("one"), 0, "what was counted counts on");
    assert!((0..10).all(|_| !stateful.failed()), "who has failed has failed");
    for _ in 0..6 {
        assert_eq!(stateful.get("/sessions", &cookie).text(), first.text());
    }
    assert_eq!(stateful.get("/cached", "").field("X-Cache"), Some("MISS"), "the third use");
    assert_eq!(stateful.get("/cached", "").field("X-Cache"), Some("HIT"));
    assert_eq!(stateful.get("/slow?a=1", "").status, 503, "the old worker has the place");
    stateful.open.store(true, Ordering::SeqCst);
    assert_eq!(busy.response().status, 200);
    stateful.site.wait("the place", || stateful.get("/slow?a=1", "").status == 200);
    stateful.site.end(old, Signal::QUIT);

    // And back: what the newer one has counted counts for the one before.
    let newest = stateful.site.upgrade(new, &binary());
    stateful.send_away(new);
    assert_eq!(stateful.admitted("two"), 5);
    signal(new, Signal::HUP);
    stateful.site.wait("the old workers again", || children(new).len() == 5);
    stateful.site.end(newest, Signal::QUIT);
    stateful.site.wait("the pid file's old name", || stateful.site.pid() == Some(new));
    assert_eq!((stateful.admitted("one"), stateful.admitted("two")), (0, 0));
    assert!((0..10).all(|_| !stateful.failed()));
    assert_eq!(stateful.get("/sessions", &cookie).text(), first.text());
    assert_eq!(stateful.get("/cached", "").field("X-Cache"), Some("HIT"));
    stateful.all_is_well();
    stateful.site.stop();
}

/// Whichever master is killed: what its workers hold counts as long as they live, and no longer.
/// Not in nginx: zones survive an upgrade
#[test]
fn what_orphans_hold_is_taken_back() {
    for kill_old in [true, false] {
        let stateful = Stateful::new();
        let old = stateful.site.start(&binary());
        stateful.site.wait("its workers", || children(old).len() == 4);
        let mut busy = None;
        if kill_old {
            busy = Some(stateful.take_place());
        }
        let new = stateful.site.upgrade(old, &binary());
        let (killed, survivor) = if kill_old { (old, new) } else { (new, old) };
        if !kill_old {
            stateful.send_away(old);
            busy = Some(stateful.take_place());
        }
        let orphans: Vec<u32> = children(killed).into_iter().filter(|pid| *pid != survivor).collect();
        signal(killed, Signal::KILL);
        stateful.site.wait("its end", || !lives(killed));
        assert_eq!(stateful.get("/slow?a=1", "").status, 503, "the orphan goes on");
        // Stopped first, so that none of them gets so far as to give its place back.
        orphans.iter().for_each(|pid| signal(*pid, Signal::STOP));
        stateful.open.store(true, Ordering::SeqCst);
        orphans.iter().for_each(|pid| signal(*pid, Signal::KILL));
        stateful.site.wait("the place", || stateful.get("/slow?a=1", "").status == 200);
        drop(busy);
        signal(survivor, Signal::KILL);
    }
}

/// A master whose zones nobody can use: another layout, a file that isn't what it should be, words that make no sense.
/// Not in nginx: zones survive an upgrade
#[test]
fn zones_of_another_layout_begin_anew() {
    let module = "ngx_http_limit_req_module";
    let layouts = [(1, 7), (99, 1)];
    let labels = layouts.map(|(layout, format)| label("one", 65536, layout, format, module, "$arg_a"));
    let other_size = label("one", 32768, 1, 1, module, "$arg_a");
    let other_use = label("one", 65536, 1, 1, "another_module", "$arg_a");
    for (label, why) in [
        (&labels[0][..], Some("it has another layout")),
        (&labels[1], Some("it has another layout")),
        (&other_size, Some("it has another size")),
        (&other_use, Some("it has another use")),
        (&labels[0][..20], None),
        (b"nonsense", None),
    ] {
        let mut site = Site::new();
        site.children = 2;
        let address = SocketAddr::from_abstract_name(format!("tidegate/link/{}", std::process::id()));
        let listener = UnixListener::bind_addr(&address.expect("a name")).expect("nobody else plays a master here");
        site.folder.write(
            "nginx.conf",
            format!(
                "worker_processes 2; pid nginx.pid; error_log error.log notice; events {{ {} }}
                 http {{ access_log off; limit_req_zone $arg_a zone=one:64k rate=1r/m; client_body_temp_path a;
                 server {{ listen 127.0.0.1:{}; location / {{ limit_req zone=one burst=4 nodelay; root .; }} }} }}",
                use_directive(),
                site.port
            ),
        );
        site.folder.write("limited", "x");
        site.put(&binary());
        let mut child = site.command(&[]).env("NGINX", "").stderr(Stdio::null()).spawn().expect("it starts");
        pass(&site, &listener, child.id(), label);
        site.wait("workers", || children(child.id()).len() == 2);
        let admitted = (0..7).filter(|_| Connection::open(site.port).get("/limited?a=1", "").status == 200);
        assert_eq!(admitted.count(), 5, "an empty zone");
        let log = site.log();
        let said =
            log.lines().find_map(|line| line.split_once("shared memory zone \"one\" of the old binary isn't taken, "));
        assert_eq!(said.map(|(_, why)| why), why, "{log}");
        signal(child.id(), Signal::QUIT);
        assert!(child.wait().expect("it ends").success());
    }
}

/// What a master says of a zone.
fn label(name: &str, size: u64, layout: u32, format: u32, owner: &str, meaning: &str) -> Vec<u8> {
    let mut label = [&size.to_le_bytes()[..], &layout.to_le_bytes(), &format.to_le_bytes()].concat();
    for text in [name, owner, meaning] {
        label.extend_from_slice(&(text.len() as u32).to_le_bytes());
        label.extend_from_slice(text.as_bytes());
    }
    label
}

/// Plays the master that has started the process `pid`: gives it a link, and a zone of this label.
fn pass(site: &Site, listener: &UnixListener, pid: u32, label: &[u8]) {
    let pair = || {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair")
    };
    // Other tests of this process have children that ask too.
    let asks = |caller: &UnixStream| {
        let peer = rustix::net::sockopt::socket_peercred(caller).expect("a peer");
        peer.pid.as_raw_nonzero().get() as u32 == pid
    };
    listener.set_nonblocking(true).expect("an option can be set");
    let caller = OnceCell::new();
    site.wait("its question", || {
        let asked = listener.accept().ok().map(|(caller, _)| caller).filter(asks);
        asked.is_some_and(|asked| caller.set(asked).is_ok())
    });
    let caller = caller.get().expect("it has asked");
    let file = zone_file();
    let ((_link, end), (writer, reader)) = (pair(), pair());
    send(writer.as_fd(), label, &[file.as_fd()]);
    drop(writer);
    send(caller.as_fd(), b"3", &[end.as_fd(), reader.as_fd()]);
}

/// A file like a zone's, without anything in it.
fn zone_file() -> OwnedFd {
    let file = rustix::fs::memfd_create("zone", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a file");
    let mut writer = std::fs::File::from(file.try_clone().expect("a descriptor"));
    writer.write_all(&[0; 65536]).expect("memory");
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).expect("seals");
    file
}

fn send(to: BorrowedFd<'_>, bytes: &[u8], files: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(files)));
    rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).expect("room");
}
