//! Running out of descriptors: a process of its own, since the limit is the process's.

use std::cell::RefCell;
use std::rc::Rc;

use os::SockAddr;
use os::process::Limit;
use os::socket::{ListenOptions, listen};
use rt::*;

#[test]
fn accepting_pauses_and_goes_on() {
    for driver in [Driver::Epoll, Driver::Poll, Driver::Select, Driver::Uring] {
        let reports = Rc::new(RefCell::new(Vec::new()));
        let to = reports.clone();
        let hook: Hook = Rc::new(move |report| to.borrow_mut().push(format!("{report:?}")));
        let Ok(runtime) = Runtime::new(Options { driver, hook: Some(hook), ..Options::default() }) else { continue };
        runtime.block_on(async {
            let addr = SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
            let fd = listen(&addr, &ListenOptions::default()).expect("listen");
            let options = AcceptOptions { delay_ms: 50, ..AcceptOptions::default() };
            let listener = Listener::new(fd, options).expect("a listener");
            let SockAddr::V4(addr) = listener.local_addr().expect("an address") else { unreachable!() };
            let clients: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(addr).expect("connect")).collect();
            // Numbers up to the lowest free one: room for one more.
            let probe = std::fs::File::open("/dev/null").expect("open");
            let free = std::os::fd::AsRawFd::as_raw_fd(&probe) as u64;
            drop(probe);
            let (_, hard) = os::process::limit(Limit::Files).expect("a limit");
            os::process::set_soft_limit(Limit::Files, free + 1).expect("set");
            let first = listener.accept().await.expect("accept");
            // The pauses are counted from the loop's time: it must not be that of a turn long ago.
            update_clock();
            let start = now_ms();
            spawn(async move {
                sleep(70).await;
                os::process::set_soft_limit(Limit::Files, hard).expect("set");
            });
            let second = listener.accept().await.expect("accept");
            assert!((90..1000).contains(&(now_ms() - start)), "{driver:?}: {}", now_ms() - start);
            assert_eq!(reports.borrow().len(), 2, "{driver:?}: {:?}", reports.borrow());
            assert!(reports.borrow().iter().all(|r| r.contains("code: 24") && r.contains("paused: true")));
            drop((first, second, clients));
        });
    }
}
