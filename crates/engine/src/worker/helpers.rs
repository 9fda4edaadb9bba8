//! The processes beside the workers: the cache manager and the cache loader.
//!
//! They run only if an application has caches ([`crate::App::cache_keeper`]). Each is a process like a worker, with its
//! privileges, its channel and an event loop of its own, but it accepts nothing. The manager calls its applications
//! whenever they want to be called and is replaced if it dies; the loader begins a minute after its start, so that the
//! start of the service isn't disturbed, and ends when it has done. Told to quit, both end at once.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::cycle::Cycle;
use crate::log::{self, Errno};
use crate::master::process_table::Kind;
use crate::module::App;
use crate::signals::{self, Action};
use crate::worker::inbox::{Inbox, Told, first_of};
use crate::worker::{Birth, End};

/// What an application leaves to the cache processes.
pub trait CacheKeeper {
    /// In the cache manager: does a portion of what is due, and says after how many milliseconds it wants to be called
    /// again. While it runs the process hears no signal.
    fn manage(&self) -> u64;

    /// In the cache loader: fills the memory from the disk.
    fn load(self: Rc<Self>) -> Pin<Box<dyn Future<Output = ()>>>;

    /// How long the loader waits before it begins, in milliseconds.
    fn load_after_ms(&self) -> u64 {
        60_000
    }
}

/// The helpers that a cycle needs.
pub(crate) fn wanted(cycle: &Cycle) -> &'static [Kind] {
    if keepers(cycle).is_empty() { &[] } else { &[Kind::CacheManager, Kind::CacheLoader] }
}

/// The life of a helper, inside its event loop.
pub(crate) async fn main_task(birth: Birth) -> Result<End, String> {
    let Birth { kind, cycle, daemon, channel, peers, .. } = birth;
    cycle.close_listening();
    let inbox = Inbox::new(channel, peers).map_err(|error| format!("signalfd() failed{}", Errno(&error)))?;
    let keepers = keepers(&cycle);
    inbox.say_ready();
    let work = async {
        match kind {
            Kind::CacheLoader => load(&keepers).await,
            _ => manage(&keepers).await,
        }
    };
    first_of(work, obey(&inbox, &cycle, daemon)).await;
    cycle.log_files.flush_all();
    Ok(End::Done)
}

fn keepers(cycle: &Cycle) -> Vec<Rc<dyn CacheKeeper>> {
    cycle.apps.iter().filter_map(|app: &Rc<dyn App>| app.clone().cache_keeper()).collect()
}

async fn manage(keepers: &[Rc<dyn CacheKeeper>]) {
    loop {
        let wait = keepers.iter().map(|keeper| keeper.manage()).min();
        // Each portion is followed by a look at what the process is told.
        rt::sleep(wait.unwrap_or(LONGEST_WAIT_MS).clamp(1, LONGEST_WAIT_MS)).await;
    }
}

async fn load(keepers: &[Rc<dyn CacheKeeper>]) {
    rt::sleep(keepers.iter().map(|keeper| keeper.load_after_ms()).min().unwrap_or(0)).await;
    for keeper in keepers {
        keeper.clone().load().await;
    }
}

/// Does what master and signals say, until that is to end.
async fn obey(inbox: &Inbox, cycle: &Cycle, daemon: bool) {
    while let Ok(told) = inbox.next().await {
        let action = match told {
            Told::Signal(signal) => {
                let action = signals::of_worker(signal.number, daemon);
                signals::note(signal, action);
                action
            }
            Told::Command(action) => action,
            // Nobody hands anything to a helper; what comes all the same is closed.
            _ => Action::Ignore,
        };
        match action {
            Action::Terminate | Action::Quit => {
                crate::log!(log::current(), Notice, "exiting");
                return;
            }
            Action::Reopen => {
                crate::log!(log::current(), Notice, "reopening logs");
                cycle.reopen_logs(None);
            }
            _ => {}
        }
    }
}

/// The manager looks again after this time at the latest.
const LONGEST_WAIT_MS: u64 = 60 * 60 * 1000;
