//! Names of servers that are looked up while the server runs: asked for again when their time is over, for all workers by
//! one of them if the group has a zone.

use std::rc::{Rc, Weak};

use engine::log;

use crate::group::Group;
use crate::resolver::{ResolveError, Resolver};
use crate::roster::Found;
use crate::spec::Lookup;

/// How often a worker looks whether it is the one that leads, in milliseconds.
const BEAT_MS: u64 = 1000;
/// The longest pause after a question in vain, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 5000;
/// The shortest pause, whatever name servers say, in milliseconds.
const SHORTEST_PAUSE_MS: u64 = 1000;

/// Begins what a worker does for a group as long as its configuration lives: it follows the names of servers, asking the
/// group's own resolver or this one, and takes part in the choice of the worker that asks and checks for all.
pub fn start(group: &Rc<Group>, resolver: &Rc<Resolver>, timeout_ms: u64) {
    let lookups = group.lookups();
    if lookups.is_empty() && !group.is_checked() {
        return;
    }
    group.lead();
    if group.is_shared() {
        rt::spawn(keep_leading(Rc::downgrade(group)));
    }
    for lookup in lookups {
        let task = Follow {
            group: Rc::downgrade(group),
            lookup,
            resolver: group.names.resolver.as_ref().unwrap_or(resolver).clone(),
            timeout_ms: group.names.timeout_ms.unwrap_or(timeout_ms),
            failure: None,
        };
        rt::spawn(task.run());
    }
}

async fn keep_leading(group: Weak<Group>) {
    loop {
        rt::sleep(BEAT_MS).await;
        let Some(group) = group.upgrade() else { return };
        group.lead();
    }
}

struct Follow {
    group: Weak<Group>,
    lookup: Lookup,
    resolver: Rc<Resolver>,
    timeout_ms: u64,
    /// Why the last question was in vain.
    failure: Option<ResolveError>,
}

impl Follow {
    async fn run(mut self) {
        while let Some(group) = self.group.upgrade() {
            let leads = group.leads();
            drop(group);
            let pause_ms = if leads { self.ask().await } else { BEAT_MS };
            rt::sleep(pause_ms).await;
        }
    }

    /// Asks once; in how many milliseconds to ask again.
    async fn ask(&mut self) -> u64 {
        let answer = self.find().await;
        let Some(group) = self.group.upgrade() else { return 0 };
        let name = buf::text::encode(&self.lookup.name);
        let of = &group.name;
        let pause_ms = match answer {
            Ok((found, until_ms)) => {
                self.failure = None;
                self.learn(&group, found);
                until_ms.saturating_sub(rt::now_ms())
            }
            Err(error) => {
                if self.failure.replace(error) != Some(error) {
                    engine::log!(log::current(), Error, "{name} could not be resolved ({error}) in upstream \"{of}\"");
                }
                match error {
                    // It has no addresses any more. Any other error says nothing of them.
                    ResolveError::NOT_FOUND => {
                        self.learn(&group, Vec::new());
                        self.resolver.valid_ms().unwrap_or(LONGEST_PAUSE_MS)
                    }
                    _ => self.timeout_ms.min(LONGEST_PAUSE_MS),
                }
            }
        };
        pause_ms.max(SHORTEST_PAUSE_MS)
    }

    async fn find(&self) -> Result<(Vec<Found>, u64), ResolveError> {
        let name = &self.lookup.name;
        if !self.lookup.is_service {
            let (addresses, until_ms) = self.resolver.addresses(name, self.timeout_ms).await?;
            return Ok((addresses.into_iter().map(Found::address).collect(), until_ms));
        }
        let (services, until_ms) = self.resolver.services(name, self.timeout_ms).await?;
        let each = services.into_iter().flat_map(|(service, addresses)| {
            addresses.into_iter().map(move |ip| Found {
                priority: service.priority,
                ip,
                port: service.port,
                weight: service.weight,
            })
        });
        Ok((each.collect(), until_ms))
    }

    fn learn(&self, group: &Group, found: Vec<Found>) {
        if !group.learn(&self.lookup.name, found) {
            engine::log!(log::current(), Error, "no memory in the zone of upstream \"{}\" for its servers", group.name);
        }
    }
}
