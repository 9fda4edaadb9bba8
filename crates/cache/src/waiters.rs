//! Requests that wait until another one has fetched a response.
//!
//! Whoever fetches in the same process wakes them at once. One in another process sends a message to all the others, if
//! the zone says that somebody waits. A process that has been killed sends nothing: so whoever waits also looks from
//! time to time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use crate::key::Key;

/// The requests of this process that wait.
#[derive(Default)]
pub struct Waiters {
    events: RefCell<HashMap<Key, Weak<rt::Event>>>,
}

/// How long a wait without news lasts.
const LOOK_MS: u64 = 500;

impl Waiters {
    /// Waits until there is news of a key, or for `most_ms`, or for a while.
    pub async fn wait(&self, key: &Key, most_ms: u64) {
        let event = self.event(key);
        let _ = rt::timeout(most_ms.min(LOOK_MS), event.wait()).await;
        drop(event);
        let mut events = self.events.borrow_mut();
        if events.get(key).is_some_and(|event| event.strong_count() == 0) {
            events.remove(key);
        }
    }

    /// There is news of a key.
    pub fn wake(&self, key: &Key) {
        let event = self.events.borrow().get(key).and_then(Weak::upgrade);
        if let Some(event) = event {
            event.notify();
        }
    }

    fn event(&self, key: &Key) -> Rc<rt::Event> {
        let mut events = self.events.borrow_mut();
        if let Some(event) = events.get(key).and_then(Weak::upgrade) {
            return event;
        }
        let event = Rc::new(rt::Event::new());
        events.insert(*key, Rc::downgrade(&event));
        event
    }
}
