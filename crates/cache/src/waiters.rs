//! Requests that wait until another one has fetched a response.
//!
//! Whoever fetches in the same process wakes them at once. One in another process sends a message to all the others, if
//! the zone says that somebody waits. A process that has been killed sends nothing: so of those who wait for the same
//! response one also looks from time to time, and tells the others if there is something to be done.
//!
//! Those who are woken together share what was fetched: in a process its file is opened once, and read once if it is
//! small, however many wait.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

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
    /// Who waits, and since when; the first one first. Who has left holds its place no longer.
    places: RefCell<VecDeque<(u64, Weak<Place>)>>,
    news: Rc<News>,
    /// When one of them has looked last.
    looked_ms: Cell<u64>,
}

/// The place of one that waits.
#[derive(Default)]
struct Place {
    call: Cell<Option<Call>>,
    waker: Cell<Option<Waker>>,
}

/// Why one that waits is woken.
#[derive(Clone, Copy)]
enum Call {
    /// There is news.
    News,
    /// It is to look.
    Look,
}

impl Place {
    fn call(&self, call: Call) {
        self.call.set(Some(call));
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Call> {
        if let Some(call) = self.call.take() {
            return Poll::Ready(call);
        }
        self.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Wait {
    /// The place of one that waits since then: who has looked in vain is where it was.
    fn add(&self, since_ms: u64) -> Rc<Place> {
        let place = Rc::<Place>::default();
        let mut places = self.places.borrow_mut();
        let at = places.partition_point(|(since, _)| *since <= since_ms);
        places.insert(at, (since_ms, Rc::downgrade(&place)));
        place
    }

    /// Has the one look that waits for longest, but for those who are about to.
    fn call_one(&self) {
        let places = self.places.borrow();
        let mut all = places.iter().filter_map(|(_, place)| place.upgrade());
        let first = all.find(|place| place.call.get().is_none());
        first.into_iter().for_each(|place| place.call(Call::Look));
    }

    /// Removes the places at the front that nobody holds.
    fn clear(&self) {
        let mut places = self.places.borrow_mut();
        while places.front().is_some_and(|(_, place)| place.strong_count() == 0) {
            places.pop_front();
        }
    }
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
    /// something to be done then, the others are to be woken. Its turn comes before that of those who have begun to wait
    /// after `since_ms`.
    pub async fn wait(&self, key: &Key, since_ms: u64, most_ms: u64) -> Option<Rc<News>> {
        let wait = self.find_or_begin(key);
        let waiting = Waiting { waiters: self, key, place: wait.add(since_ms), wait };
        let end = rt::now_ms().saturating_add(most_ms);
        loop {
            let left = end.saturating_sub(rt::now_ms());
            let wait = &*waiting.wait;
            match rt::timeout(left.min(LOOK_MS), poll_fn(|cx| waiting.place.poll(cx))).await {
                Some(Call::News) => return Some(wait.news.clone()),
                Some(Call::Look) => return None,
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
            let places = wait.places.take();
            places.iter().filter_map(|(_, place)| place.upgrade()).for_each(|place| place.call(Call::News));
        }
    }

    /// There may be news of a key: of those who wait the first one is to look.
    pub fn wake_one(&self, key: &Key) {
        let wait = self.waits.borrow().get(key).and_then(Weak::upgrade);
        if let Some(wait) = wait {
            wait.call_one();
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
    place: Rc<Place>,
    wait: Rc<Wait>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Who leaves before it has looked passes that on.
        if let Some(Call::Look) = self.place.call.get() {
            self.wait.call_one();
        }
        self.wait.clear();
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
    use std::pin::pin;

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
            let both = rt::join(waiters.wait(&key, 0, 1000), waiters.wait(&key, 0, 1000));
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
                while waiters.wait(&key, 0, 10_000).await.is_none() {
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
            assert!(rt::join(waiters.wait(&key, 0, 700), waiters.wait(&key, 0, 700)).await.0.is_none());
            let (one, other) = rt::join(waiters.wait(&key, 0, 700), waiters.wait(&key, 0, 700)).await;
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
                while waiters.wait(&key, 0, 10_000).await.is_none() {
                    woken.set(woken.get() + 1);
                }
            };
            let gone = rt::timeout(10, waiters.wait(&key, 0, 10_000));
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
    fn who_has_left_keeps_nobody_waiting() {
        run(async {
            let (key, waiters) = (Key::of(b"a"), Rc::<Waiters>::default());
            let begin = rt::now_ms();
            let order = Rc::<RefCell<Vec<u32>>>::default();
            // Each in a task of its own: the second leaves before it is called, the third when it is.
            let leave = Rc::<rt::Event>::default();
            for n in 1..=4 {
                let (waiters, order, leave) = (waiters.clone(), order.clone(), leave.clone());
                rt::spawn(async move {
                    let seen = leave.count();
                    let mut wait = pin!(waiters.wait(&key, 0, 10_000));
                    let looks = poll_fn(|cx| match n {
                        3 if leave.poll_since(cx, seen).is_ready() => Poll::Ready(false),
                        _ => wait.as_mut().poll(cx).map(|news| news.is_none()),
                    });
                    if rt::timeout(if n == 2 { 10 } else { 10_000 }, looks).await == Some(true) {
                        order.borrow_mut().push(n);
                    }
                });
            }
            rt::sleep(20).await;
            waiters.wake_one(&key);
            rt::sleep(1).await;
            assert_eq!(*order.borrow(), [1], "it has waited for longest");
            waiters.wake_one(&key);
            leave.notify();
            rt::sleep(1).await;
            assert_eq!(*order.borrow(), [1, 4]);
            assert!(rt::now_ms() < begin + LOOK_MS && waiters.waits.borrow().is_empty());
        });
    }

    #[test]
    fn a_wait_leaves_nothing_behind() {
        run(async {
            let key = Key::of(b"a");
            let waiters = Waiters::default();
            assert!(waiters.wait(&key, 0, 10).await.is_none(), "it was in vain");
            assert!(waiters.waits.borrow().is_empty());
            // Two, of which one gives up.
            let patient = waiters.wait(&key, 0, 400);
            let hasty = rt::timeout(10, waiters.wait(&key, 0, 400));
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

    #[test]
    fn who_looks_in_vain_keeps_its_place() {
        run(async {
            let key = Key::of(b"a");
            let waiters = Rc::<Waiters>::default();
            let order = Rc::new(RefCell::new(Vec::new()));
            for n in 0..3 {
                let (waiters, order) = (waiters.clone(), order.clone());
                rt::spawn(async move {
                    rt::sleep(10 * n).await;
                    let since = rt::now_ms();
                    while waiters.wait(&key, since, 60_000).await.is_none() {
                        order.borrow_mut().push(n);
                    }
                });
            }
            // All have looked because nothing was heard, the last one last.
            rt::sleep(5 * LOOK_MS + LOOK_MS / 2).await;
            order.borrow_mut().clear();
            waiters.wake_one(&key);
            rt::yield_now().await;
            rt::yield_now().await;
            assert_eq!(*order.borrow(), [0]);
            waiters.wake(&key, None);
        });
    }
}
