//! What the engine asks of a module and of the application that a module builds.

use std::rc::Rc;

use conf::{Loader, Registry};

use crate::cycle::Cycle;
use crate::handover::{Handover, Parcel};
use crate::log::Log;
use crate::worker::helpers::CacheKeeper;

/// A part of the program: it describes its directives and builds what serves connections.
pub trait Module {
    /// Registers the module's directive tables.
    fn tables(&self, registry: &mut Registry);

    /// Called before the configuration is read.
    fn begin(&self, _loader: &mut Loader<'_>) {}

    /// Builds the application from what was read. Called after the whole file has been read without an error. The
    /// default is for modules that only configure.
    fn build(&self, _loader: &mut Loader<'_>, _cx: &BuildContext<'_>) -> conf::Result<Option<Rc<dyn App>>> {
        Ok(None)
    }

    /// Its variables, for the manual.
    fn variables(&self) -> Vec<Variable> {
        Vec::new()
    }
}

/// A variable in the manual.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variable {
    /// The module that defines it.
    pub module: &'static str,
    /// Its name, with a `*` at the end of a prefix.
    pub name: String,
    /// What it holds, and when it is empty.
    pub text: String,
}

/// What a module may ask while it builds.
pub struct BuildContext<'a> {
    /// The cycle that this one replaces, on a reload.
    pub old: Option<&'a Cycle>,
    /// The outermost error log, for what has none of its own. Its files are opened later: report what happens
    /// meanwhile as errors or the loader's warnings.
    pub log: Log,
    /// The number of workers that will run.
    pub workers: usize,
    /// `worker_connections`.
    pub worker_connections: usize,
    /// The user and group of workers, if the process can change to them: temporary folders belong to them.
    pub owner: Option<(u32, u32)>,
}

/// A socket that an application asks for, of connections or datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Its address.
    pub addr: os::SockAddr,
    /// How it is made.
    pub options: os::socket::ListenOptions,
}

/// What serves connections: built in the master, run in each worker.
pub trait App {
    /// The sockets it listens on. Asked once, before the fork.
    fn listens(&self) -> Vec<Listen>;

    /// Called in the worker before anything is accepted.
    fn start_worker(self: Rc<Self>, worker: &WorkerContext);

    /// A new connection on the socket with this index of [`App::listens`]. Must not block.
    fn accept(self: Rc<Self>, listen: usize, stream: rt::Stream, peer: os::SockAddr);

    /// A datagram socket with this index of [`App::listens`], after [`App::start_worker`]; of one with `reuseport` there
    /// may be several. The application receives from it and sends on it. Receiving begins once older workers have left the
    /// socket and handed over the sessions that belong to it ([`Handover::give_to_heir`]). `group`: how many sockets of all
    /// workers the kernel shares clients out to as [`os::steering`] says; `None`: to one, or in another way.
    ///
    /// When the worker is to finish, the application gets what still waits in the socket, and then `recv` fails with an
    /// error that [`rt::is_closing`] knows. It may go on to send there for as long as it is [`App::busy`]. What it has
    /// received and not yet answered counts as busy.
    fn datagrams(self: Rc<Self>, _listen: usize, _socket: Rc<rt::UdpSocket>, _group: Option<usize>) {}

    /// Whether sessions that belong to datagram sockets are about to be handed over: successors wait for that before they
    /// receive.
    fn holds_datagrams(&self) -> bool {
        false
    }

    /// How many connections are still being served: a worker that quits waits until there are none.
    fn busy(&self) -> usize;

    /// The worker quits gracefully: idle connections are to be closed, those that run to be finished.
    fn quit(&self) {}

    /// Called before [`App::quit`] if successors are there to serve on: from now on the application gives them
    /// ([`Handover::give`]) what it can, at once or as soon as it can be parted with. All tasks that wait for a connection
    /// are polled afterwards.
    fn hand_over(&self, _to: &Rc<Handover>) {}

    /// Serves on what another worker gives away; `back`: what this one gave away and nobody took, to be served to its
    /// end here. `Err`: it is not of a kind that this application knows, or can't be served here and now.
    fn adopt(self: Rc<Self>, parcel: Parcel, _back: bool) -> Result<(), Parcel> {
        Err(parcel)
    }

    /// In how many milliseconds [`App::look`] is to be called next; `None`: never. Asked at the start and after each look.
    fn looks_in_ms(&self) -> Option<u64> {
        None
    }

    /// Looks for files that have changed. Called in the process that reads the configuration: the master, or the only one.
    /// True: something of it was taken, and workers that run have what was before.
    fn look(&self) -> bool {
        false
    }

    /// Log files are about to be reopened: what is buffered elsewhere than in [`crate::log::LogFile`] is to be written.
    fn reopen(&self) {}

    /// Another worker tells of something ([`crate::notices`]).
    fn notice(&self, _kind: u8, _payload: &[u8]) {}

    /// What the cache processes do for it. With one application that has caches these processes are started.
    fn cache_keeper(self: Rc<Self>) -> Option<Rc<dyn CacheKeeper>> {
        None
    }

    /// For tests and later modules that find each other by type.
    fn as_any(&self) -> Option<&dyn std::any::Any> {
        None
    }
}

/// What a worker tells its applications when it starts.
pub struct WorkerContext {
    /// The worker's number, counted from 0.
    pub number: usize,
    /// The log of the cycle.
    pub log: Log,
    /// The cycle.
    pub cycle: Rc<Cycle>,
}

impl WorkerContext {
    /// The thread pool of that name, started when it is first asked for.
    pub fn thread_pool(&self, name: &str) -> Option<Rc<rt::ThreadPool>> {
        crate::cycle::thread_pool::get(self.cycle.thread_pools(), name)
    }
}
