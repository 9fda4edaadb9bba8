//! Requests that wait until another one has fetched a response.
//!
//! Whoever fetches in the same process wakes them at once. One in another process sends a message to all the others, if
//! the zone says that somebody waits. A process that has been killed sends nothing: so of those who wait for the same
//! response one also looks from time to time, and tells the others if there is something to be done.
//!
//! Those who are woken together share what was fetched: in a process its file is opened once, and read once if it is
//! small, however many wait.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::Poll;

use crate::key::Key;
use crate::stored::Stored;

/// The requests of this process that wait.
#[derive(Default)]
pub struct Waiters {
    waits: RefCell<HashMap<Key, Weak<Wait>>>,
}

/// What those wait for who wait for the same key.
#[derive(Default)]
struct Wait {
    event: rt::Event,
    news: Rc<News>,
    /// When one of them has looked last.
    looked_ms: Cell<u64>,
    /// One of them is to look now.
    turn: Cell<bool>,
}

/// What those share who were woken together.
#[derive(Debug, Default)]
pub struct News {
    /// The response, and the one under the main key if it is a variant.
    opened: RefCell<Vec<Rc<Stored>>>,
}

impl News {
    /// The response with this key, if it is open.
    pub fn find(&self, key: &Key) -> Option<Rc<Stored>> {
        self.opened.borrow().iter().find(|stored| stored.key == *key).cloned()
    }

    /// One of them has opened a response.
    pub fn share(&self, stored: Rc<Stored>) {
        self.opened.borrow_mut().push(stored);
    }
}

/// How long all wait without news before one looks.
const LOOK_MS: u64 = 500;

impl Waiters {
    /// Waits until there is news of a key, or for `most_ms`, or until it is this one's turn to look (`None`). If there is
    /// something to be done then, the others are to be woken.
    pub async fn wait(&self, key: &Key, most_ms: u64) -> Option<Rc<News>> {
        let waiting = Waiting { waiters: self, key, wait: self.find_or_begin(key) };
        let end = rt::now_ms().saturating_add(most_ms);
        loop {
            let left = end.saturating_sub(rt::now_ms());
            let wait = &*waiting.wait;
            let seen = wait.event.count();
            let heard = poll_fn(|cx| match wait.event.poll_since(cx, seen) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending if wait.turn.take() => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            });
            match rt::timeout(left.min(LOOK_MS), heard).await {
                Some(true) => return Some(wait.news.clone()),
                Some(false) => return None,
                None => {}
            }
            let now = rt::now_ms();
            if now >= end || now >= wait.looked_ms.get() + LOOK_MS {
                wait.looked_ms.set(now);
                return None;
            }
        }
    }

    /// Whether somebody waits for news of a key.
    pub fn awaits(&self, key: &Key) -> bool {
        self.waits.borrow().get(key).is_some_and(|wait| wait.strong_count() > 0)
    }

    /// There is news of a key, and maybe the response.
    pub fn wake(&self, key: &Key, stored: Option<Rc<Stored>>) {
        // Who waits from now on waits for other news.
        let wait = self.waits.borrow_mut().remove(key);
        if let Some(wait) = wait.as_ref().and_then(Weak::upgrade) {
            stored.into_iter().for_each(|stored| wait.news.share(stored));
            wait.event.notify();
        }
    }

    /// There may be news of a key: one of those who wait is to look.
    pub fn wake_one(&self, key: &Key) {
        let wait = self.waits.borrow().get(key).and_then(Weak::upgrade);
        if let Some(wait) = wait {
            wait.turn.set(true);
            wait.event.wake_one();
        }
    }

    fn find_or_begin(&self, key: &Key) -> Rc<Wait> {
        let mut waits = self.waits.borrow_mut();
        if let Some(wait) = waits.get(key).and_then(Weak::upgrade) {
            return wait;
        }
        let wait = Rc::new(Wait::default());
        waits.insert(*key, Rc::downgrade(&wait));
        wait
    }
}

/// A request that waits.
struct Waiting<'a> {
    waiters: &'a Waiters,
    key: &'a Key,
    wait: Rc<Wait>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waits = self.waiters.waits.borrow_mut();
        // The last one removes what they have waited for, unless others wait for something later.
        if Rc::strong_count(&self.wait) == 1
            && waits.get(self.key).is_some_and(|wait| wait.ptr_eq(&Rc::downgrade(&self.wait)))
        {
            waits.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Contents;

    fn stored(key: Key) -> Rc<Stored> {
        let contents = Contents::Memory(buf::Bytes::default());
        Rc::new(Stored { key, entry: Rc::default(), start: 0, contents, identity: (0, 0) })
    }

    fn run(test: impl Future<Output = ()>) {
        let options = rt::Options { driver: rt::Driver::Sim(1), ..rt::Options::default() };
        rt::Runtime::new(options).expect("a runtime").block_on(test);
    }

    #[test]
    fn those_who_are_woken_together_share_what_was_fetched() {
        run(async {
            let (key, main) = (Key::of(b"a"), Key::of(b"b"));
            let waiters = Waiters::default();
            assert!(!waiters.awaits(&key));
            let both = rt::join(waiters.wait(&key, 1000), waiters.wait(&key, 1000));
            let (heard, ()) = rt::join(both, async {
                rt::yield_now().await;
                assert!(waiters.awaits(&key) && !waiters.awaits(&main));
                waiters.wake(&main, Some(stored(main)));
                waiters.wake(&key, Some(stored(key)));
                assert!(!waiters.awaits(&key), "who comes now waits for something later");
            })
            .await;
            let (Some(one), Some(other)) = heard else { panic!("both were woken") };
            let found = |news: &News, key| news.find(&key).is_some();
            assert!(found(&one, key) && found(&other, key) && !found(&one, main));
            other.share(stored(main));
            assert!(found(&one, main));
        });
    }

    #[test]
    fn one_of_many_looks() {
        run(async {
            let key = Key::of(b"a");
            let waiters = Waiters::default();
            let looks = Cell::new(0);
            let wait = async || {
                while waiters.wait(&key, 10_000).await.is_none() {
                    looks.set(looks.get() + 1);
                }
            };
            let many = rt::join(rt::join(wait(), wait()), rt::join(wait(), wait()));
            rt::join(many, async {
                rt::sleep(4 * LOOK_MS + LOOK_MS / 2).await;
                waiters.wake(&key, None);
            })
            .await;
            assert_eq!(looks.get(), 4);
            // Who may not wait longer doesn't.
            let begin = rt::now_ms();
            assert!(rt::join(waiters.wait(&key, 700), waiters.wait(&key, 700)).await.0.is_none());
            let (one, other) = rt::join(waiters.wait(&key, 700), waiters.wait(&key, 700)).await;
            assert!(one.is_none() && other.is_none() && rt::now_ms() - begin <= 1400);
        });
    }

    #[test]
    fn one_alone_is_woken() {
        run(async {
            let key = Key::of(b"a");
            let waiters = Waiters::default();
            let woken = Cell::new(0);
            let wait = async || {
                while waiters.wait(&key, 10_000).await.is_none() {
                    woken.set(woken.get() + 1);
                }
            };
            let gone = rt::timeout(10, waiters.wait(&key, 10_000));
            let many = rt::join(rt::join(wait(), wait()), rt::join(wait(), gone));
            rt::join(many, async {
                rt::sleep(20).await;
                for n in 1..=2 {
                    waiters.wake_one(&key);
                    rt::sleep(1).await;
                    assert_eq!(woken.get(), n);
                }
                waiters.wake_one(&Key::of(b"b"));
                waiters.wake(&key, None);
            })
            .await;
            assert_eq!(woken.get(), 2);
            waiters.wake_one(&key);
            assert!(waiters.waits.borrow().is_empty(), "nobody waits");
        });
    }

    #[test]
    fn a_wait_leaves_nothing_behind() {
        run(async {
            let key = Key::of(b"a");
            let waiters = Waiters::default();
            assert!(waiters.wait(&key, 10).await.is_none(), "it was in vain");
            assert!(waiters.waits.borrow().is_empty());
            // Two, of which one gives up.
            let patient = waiters.wait(&key, 400);
            let hasty = rt::timeout(10, waiters.wait(&key, 400));
            let (heard, ()) = rt::join(patient, async {
                assert!(hasty.await.is_none());
                assert!(waiters.awaits(&key));
                waiters.wake(&key, None);
            })
            .await;
            assert!(heard.is_some_and(|news| news.find(&key).is_none()));
            assert!(waiters.waits.borrow().is_empty());
        });
    }
}
