//! A cycle that is served in an event loop of the caller's: without processes, signals and sockets of the system. For
//! simulations, where listeners and connections are rt's simulated ones ([`rt::sim`]).

use std::cell::RefCell;
use std::rc::Rc;

use os::socket::Kind;

use crate::cycle::{Cycle, Program, Purpose};
use crate::handover::Handover;
use crate::handover::peers::Peers;
use crate::log;
use crate::log::report::Reporter;
use crate::worker::{self, Accepting};

/// Reads the program's configuration as at a start, or as at a reload of the cycle that runs, but opens no listening
/// sockets. The error is what a person would read at the terminal.
pub fn load(program: &Program, running: Option<&Cycle>) -> Result<Rc<Cycle>, String> {
    let reporter = Reporter::running(program.first_log());
    let cycle = Cycle::load(program, Purpose::Embed, running, &reporter).ok_or_else(|| reporter.heard())?;
    log::set_current(cycle.log.clone());
    Ok(cycle)
}

/// The event loop that the cycle asks for, with this driver. The thread's log lines and variables take its time.
pub fn runtime(cycle: &Cycle, driver: rt::Driver) -> std::io::Result<rt::Runtime> {
    let runtime = worker::runtime_of(cycle, driver)?;
    crate::clock::set_source(|| {
        let wall = rt::wall();
        (wall.secs, wall.msec)
    });
    Ok(runtime)
}

/// A cycle that is being served.
pub struct Embedded {
    cycle: Rc<Cycle>,
    accepting: Rc<Accepting>,
    handover: Rc<Handover>,
}

impl Embedded {
    /// Starts the cycle's applications in the current event loop, with a simulated listener or datagram socket for each
    /// of the sockets that they ask for.
    pub fn start(cycle: Rc<Cycle>) -> Embedded {
        worker::start_apps(&cycle, 0);
        let accepting = Rc::<Accepting>::default();
        for app in &cycle.apps {
            for (index, listen) in app.listens().into_iter().enumerate() {
                match listen.options.kind {
                    Kind::Stream => {
                        let listener = rt::sim::listen(listen.addr);
                        rt::spawn(accepting.clone().run(listener, None, app.clone(), index));
                    }
                    Kind::Datagram => {
                        let socket = Rc::new(rt::sim::bind(listen.addr));
                        rt::spawn(accepting.clone().stop_later(Rc::downgrade(&socket)));
                        app.clone().datagrams(index, socket, None);
                    }
                }
            }
        }
        let peers = Rc::new(RefCell::new(Peers::new()));
        let handover = Handover::new(peers, (0, 0), cycle.apps.clone(), false);
        Embedded { cycle, accepting, handover }
    }

    /// Starts the next cycle in place of this one, as a process without a master does after a reload: connections of this
    /// one are served to their end beside it.
    pub fn replace(&self, next: Rc<Cycle>) -> Embedded {
        self.cycle.replaced_by(&next, &|_| true);
        worker::leave(&self.cycle, &self.accepting);
        Embedded::start(next)
    }

    /// How many connections are being served.
    pub fn busy(&self) -> usize {
        self.cycle.apps.iter().map(|app| app.busy()).sum()
    }

    /// Ends as a worker does that is told to quit: accepts no more, and returns when all connections have been served,
    /// or `worker_shutdown_timeout` is over.
    pub async fn quit(&self) {
        self.accepting.stop.notify();
        let timeout = self.cycle.core().worker_shutdown_timeout_ms;
        let deadline = (timeout > 0).then(|| rt::now_ms() + timeout);
        let late = || deadline.is_some_and(|deadline| rt::now_ms() >= deadline);
        worker::empty(&self.cycle, &self.handover, &self.accepting, false, &late).await;
        worker::end_connections(&self.cycle).await;
    }
}
