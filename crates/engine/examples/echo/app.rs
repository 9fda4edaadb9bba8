//! The smallest application.

use std::cell::Cell;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;

use buf::Chain;
use engine::worker::helpers::CacheKeeper;
use engine::{App, Listen, WorkerContext};
use rt::Transmit;

/// Sends back what it receives, over connections after the worker's process id, of datagrams each with that before it.
pub(crate) struct Echo {
    listens: Vec<Listen>,
    busy: Cell<usize>,
    cache: bool,
    files: Files,
    master: u32,
}

/// Files that make trouble while they are there.
#[derive(Default)]
pub(crate) struct Files {
    /// A worker that finds it at its start is killed.
    pub dies: Option<PathBuf>,
    /// A worker that finds it at its start stops until it is told to continue; a cache manager is killed.
    pub stops: Option<PathBuf>,
}

impl Echo {
    /// One for these sockets; with `cache`, there is something to be kept on disk.
    pub(crate) fn new(listens: Vec<Listen>, cache: bool, files: Files) -> Echo {
        Echo { listens, busy: Cell::new(0), cache, files, master: std::process::id() }
    }
}

/// Sends this process a signal if the file is there.
fn signal_if(file: &Option<PathBuf>, signal: i32) {
    if file.as_ref().is_some_and(|file| file.exists()) {
        let _ = os::process::kill(os::process::pid(), signal);
    }
}

/// Counts a connection, or a batch of datagrams, while it is served.
struct Serving(Rc<Echo>);

impl Serving {
    fn new(echo: Rc<Echo>) -> Serving {
        echo.busy.set(echo.busy.get() + 1);
        Serving(echo)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}

impl App for Echo {
    fn listens(&self) -> Vec<Listen> {
        self.listens.clone()
    }

    fn start_worker(self: Rc<Self>, _: &WorkerContext) {
        signal_if(&self.files.dies, os::signal::SIGKILL);
        signal_if(&self.files.stops, os::signal::SIGSTOP);
    }

    fn accept(self: Rc<Self>, _: usize, stream: rt::Stream, _: os::SockAddr) {
        let serving = Serving::new(self);
        rt::spawn(async move {
            let _serving = serving;
            let mut chain = Chain::new();
            chain.push_bytes(format!("{}\n", std::process::id()).into_bytes());
            let _ = stream.send(&mut chain).await;
            loop {
                stream.set_idle(true);
                let received = stream.recv(1000).await;
                stream.set_idle(false);
                match received {
                    Ok(bytes) if !bytes.is_empty() => {
                        assert!(bytes.as_ref() != b"panic\n", "asked for");
                        let mut chain = Chain::new();
                        chain.push_bytes(bytes);
                        if stream.send(&mut chain).await.is_err() {
                            break;
                        }
                    }
                    _ => break,
                }
            }
        });
    }

    fn datagrams(self: Rc<Self>, _: usize, socket: Rc<rt::UdpSocket>, _: Option<usize>) {
        rt::spawn(async move {
            let mut batch = Vec::new();
            while socket.recv(&mut batch).await.is_ok() {
                let _serving = Serving::new(self.clone());
                let name = format!("{} ", std::process::id());
                let texts: Vec<Vec<u8>> = batch.iter().map(|one| [name.as_bytes(), &one.bytes].concat()).collect();
                let mut answers: Vec<Transmit<'_>> =
                    batch.iter().zip(&texts).map(|(one, text)| one.reply(text)).collect();
                let mut rest = &mut answers[..];
                while !rest.is_empty() {
                    // One that can't be sent is skipped.
                    let sent = socket.send(rest).await.unwrap_or(1);
                    rest = &mut rest[sent..];
                }
                batch.clear();
            }
        });
    }

    fn busy(&self) -> usize {
        self.busy.get()
    }

    fn cache_keeper(self: Rc<Self>) -> Option<Rc<dyn CacheKeeper>> {
        if std::process::id() != self.master {
            signal_if(&self.files.stops, os::signal::SIGKILL);
        }
        self.cache.then_some(self as Rc<dyn CacheKeeper>)
    }
}

impl CacheKeeper for Echo {
    fn manage(&self) -> u64 {
        engine::log!(engine::log::current(), Notice, "managed by {}", std::process::id());
        50
    }

    fn load(self: Rc<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async { engine::log!(engine::log::current(), Notice, "loaded by {}", std::process::id()) })
    }

    fn load_after_ms(&self) -> u64 {
        200
    }
}
