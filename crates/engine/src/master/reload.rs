//! One generation of workers takes the place of another: with a new configuration, or with renewed files of the same.
//!
//! Until new workers have said that they accept, the old ones serve and the configuration before is kept. If no new one can
//! start, that is in force again: old workers that die are replaced from it.

use std::io::stderr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use os::signal::SIGQUIT;

use super::process_table::{Child, Kind};
use super::{Born, Master, systemd};
use crate::channel::Message;
use crate::cycle::watch::Watch;
use crate::cycle::{Cycle, Purpose};
use crate::log;
use crate::log::report::Reporter;

/// A change of generations that is under way.
pub(super) struct Change {
    /// When it is decided what comes of it, ready successors or not.
    pub(super) until: Instant,
    /// The number of the generation before.
    generation: u64,
    /// The configuration before, if it is another one.
    before: Option<Before>,
    /// How many workers of the new generation have died at their start.
    pub(super) deaths: usize,
}

impl Change {
    /// The cycle before, if it is another one.
    pub(super) fn before(&self) -> Option<&Rc<Cycle>> {
        self.before.as_ref().map(|before| &before.cycle)
    }
}

/// A configuration that may come into force again.
struct Before {
    cycle: Rc<Cycle>,
    watch: Watch,
    /// The standard error stream, which the next configuration may have sent elsewhere.
    stderr: Option<OwnedFd>,
}

impl Master<'_> {
    pub(super) fn reconfigure(&mut self) -> Born {
        crate::log!(log::current(), Notice, "reconfiguring");
        self.answers.iter().for_each(super::Answers::collect);
        systemd::reloading();
        let reporter = Reporter::running(self.cycle.log.clone());
        let Some(cycle) = Cycle::load(self.program, Purpose::Run, Some(&self.cycle), &reporter) else {
            self.answers.iter().for_each(|answers| answers.answer(Err(&reporter.heard())));
            systemd::ready("the last reload failed, the configuration before it is running");
            return None;
        };
        let watch = std::mem::replace(&mut self.watch, Watch::new(&cycle));
        let before = Before {
            cycle: std::mem::replace(&mut self.cycle, cycle),
            watch,
            stderr: stderr().as_fd().try_clone_to_owned().ok(),
        };
        log::set_current(self.cycle.log.clone());
        self.cycle.redirect_stderr();
        self.no_accepting = false;
        self.replace_workers(Some(before))
    }

    /// Files have changed that workers don't read themselves: others take over that were born with them.
    pub(super) fn look(&mut self) -> Born {
        self.watch.look(&self.cycle);
        // Without workers there is nobody to replace, and those that come know it.
        if self.change.is_some() || !self.watch.take_stale() || self.no_accepting {
            return None;
        }
        crate::log!(log::current(), Notice, "worker processes are replaced, the configuration is not read");
        self.replace_workers(None)
    }

    /// Starts a generation of workers; the one before leaves once that works.
    fn replace_workers(&mut self, before: Option<Before>) -> Born {
        self.change = Some(Change { until: Instant::now() + PATIENCE, generation: self.generation, before, deaths: 0 });
        self.newest += 1;
        self.generation = self.newest;
        self.start_workers()
    }

    /// Once all new workers accept (or have had time enough), the old ones are told to quit. If none can start, the old
    /// ones go on.
    pub(super) fn hand_over(&mut self) -> Born {
        let change = self.change.as_ref()?;
        let (is_late, deaths) = (Instant::now() >= change.until, change.deaths);
        let new: Vec<&Child> = self.table.iter().filter(|child| child.generation == self.generation).collect();
        let workers = || new.iter().filter(|child| matches!(child.kind, Kind::Worker(_)));
        let is_ready = workers().any(|child| child.ready);
        // One that died at its start, or couldn't be forked, is about to be started again.
        let is_due = self.respawns.iter().any(|(_, kind)| matches!(kind, Kind::Worker(_)));
        let is_none = workers().count() == 0 && (!is_due || is_late) && self.cycle.core().worker_processes > 0;
        // They may take long to start, but these keep dying: nobody leaves for them.
        let is_vain = is_late && !is_ready && deaths > 0;
        if is_none || is_vain {
            return self.give_up();
        }
        if !is_due && new.iter().all(|child| child.ready) || is_late {
            self.take_over(Ok(()));
        }
        None
    }

    /// Whether one generation takes the place of another at the moment.
    pub(crate) fn is_changing(&self) -> bool {
        self.change.is_some()
    }

    /// The new generation is the only one from now on, if one has been started.
    pub(super) fn take_over(&mut self, outcome: Result<(), &str>) {
        let Some(Change { before, .. }) = self.change.take() else { return };
        if let Some(before) = before {
            before.cycle.replaced_by(&self.cycle, &|file| self.keeps(file));
            drop(before);
            os::memory::trim();
        }
        self.give_up_retired();
        self.cycle.steer_datagrams();
        let generation = self.generation;
        self.tell(|child| child.generation < generation, &Message::Quit, SIGQUIT);
        self.answer(outcome);
    }

    /// No worker of the new generation can start: the one before is in force again, and gets the workers that it lacks by
    /// now.
    fn give_up(&mut self) -> Born {
        let Change { generation, before, .. } = self.change.take()?;
        let message = "no new worker process has started, the old ones go on";
        crate::log!(log::current(), Alert, "{message}");
        self.tell(|child| child.generation > generation, &Message::Quit, SIGQUIT);
        self.generation = generation;
        match before {
            Some(before) => self.restore(before),
            None => self.watch.put_off(),
        }
        self.answer(Err(message));
        // Not those that end once they have done their work.
        self.start_missing(Kind::respawns)
    }

    /// The configuration before comes into force again.
    fn restore(&mut self, Before { cycle, watch, stderr }: Before) {
        let failed = std::mem::replace(&mut self.cycle, cycle);
        self.watch = watch;
        log::set_current(self.cycle.log.clone());
        if let Some(stderr) = stderr {
            let _ = os::io::dup2(stderr.as_raw_fd(), 2);
        }
        // Its log may have been opened again meanwhile.
        self.cycle.redirect_stderr();
        failed.withdrawn(&self.cycle, &|file| self.keeps(file), &Reporter::running(self.cycle.log.clone()));
    }

    /// Sockets that only older workers had get no further connections, unless another master may listen on them too.
    fn give_up_retired(&self) {
        match self.program.inherited.parent_lives() {
            true => drop(self.cycle.retired.take()),
            false => self.cycle.give_up_retired(),
        }
    }
}

/// How long the old workers wait for their successors.
const PATIENCE: Duration = Duration::from_secs(5);
