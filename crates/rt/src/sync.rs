//! Waiting for other tasks of the same thread.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, RawWakerVTable, Waker};

/// Lets everything else that is ready run first.
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// See [`yield_now`].
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Waits for two futures, which run side by side.
pub async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(move |cx| {
        if first.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            halves => {
                (first, second) = halves;
                Poll::Pending
            }
        }
    })
    .await
}

/// Something that happens, again and again, and for which tasks wait.
///
/// [`Event::notify`] ends all waits that have begun. It isn't kept for waits that begin later.
#[derive(Default)]
pub struct Event {
    count: Cell<u64>,
    waiting: RefCell<Waiting>,
}

/// Who waits for an event, each once.
#[derive(Default)]
struct Waiting {
    list: Vec<Waker>,
    /// Once they are too many to be looked through.
    index: Option<Box<Index>>,
}

/// Who is in the list. Apart from it, since few events have so many waiters.
struct Index(HashSet<Identity>);

/// What makes a waker equal to another one.
type Identity = (*const (), *const RawWakerVTable);

/// So many are looked through without an index.
const FEW: usize = 16;

impl Waiting {
    const fn new() -> Waiting {
        Waiting { list: Vec::new(), index: None }
    }

    fn add(&mut self, waker: &Waker) {
        let is_new = match &mut self.index {
            Some(index) => index.0.insert(identity(waker)),
            None => !self.list.iter().any(|other| other.will_wake(waker)),
        };
        if is_new {
            self.list.push(waker.clone());
            if self.index.is_none() && self.list.len() > FEW {
                self.index = Some(Box::new(Index(self.list.iter().map(identity).collect())));
            }
        }
    }
}

fn identity(waker: &Waker) -> Identity {
    (waker.data(), std::ptr::from_ref(waker.vtable()))
}

impl Event {
    /// One that nobody waits for.
    pub const fn new() -> Event {
        Event { count: Cell::new(0), waiting: RefCell::new(Waiting::new()) }
    }

    /// Ends all waits.
    pub fn notify(&self) {
        self.count.set(self.count.get() + 1);
        self.waiting.take().list.into_iter().for_each(Waker::wake);
    }

    /// Waits for the next [`Event::notify`] after this call.
    pub fn wait(&self) -> impl Future<Output = ()> + '_ {
        let seen = self.count.get();
        poll_fn(move |cx| self.poll_since(cx, seen))
    }

    /// How often it has happened, for [`Event::poll_since`].
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// Ready if it has happened since it had happened `seen` times.
    pub fn poll_since(&self, cx: &mut Context<'_>, seen: u64) -> Poll<()> {
        if self.count.get() != seen {
            return Poll::Ready(());
        }
        self.waiting.borrow_mut().add(cx.waker());
        Poll::Pending
    }
}

/// Lets a number of tasks in at a time; the others wait for their turn.
pub struct Gate {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<(Waker, Rc<Cell<bool>>)>>,
}

/// The place of one that a [`Gate`] has let in, until it is dropped.
pub struct Pass<'a>(&'a Gate);

impl Gate {
    /// A gate for so many.
    pub fn new(free: usize) -> Gate {
        Gate { free: Cell::new(free), waiting: RefCell::default() }
    }

    /// Waits for a place.
    pub async fn enter(&self) -> Pass<'_> {
        let mut entering = Entering { gate: self, queued: None };
        poll_fn(|cx| entering.poll(cx)).await
    }

    /// A place has become free: it goes to the next one that waits. Nobody who comes meanwhile gets it.
    fn leave(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some((waker, queued)) = waiting.pop_front() {
            // Who has given up holds its mark no longer.
            if Rc::strong_count(&queued) > 1 {
                queued.set(false);
                drop(waiting);
                return waker.wake();
            }
        }
        self.free.set(self.free.get() + 1);
    }
}

/// Somebody before the gate, and whether they are in the queue; false after they were, if a place is theirs.
struct Entering<'a> {
    gate: &'a Gate,
    queued: Option<Rc<Cell<bool>>>,
}

impl<'a> Entering<'a> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pass<'a>> {
        let gate = self.gate;
        match &self.queued {
            Some(queued) if queued.get() => return Poll::Pending,
            Some(_) => self.queued = None,
            None if gate.free.get() > 0 => gate.free.set(gate.free.get() - 1),
            None => {
                let queued = self.queued.insert(Rc::new(Cell::new(true)));
                gate.waiting.borrow_mut().push_back((cx.waker().clone(), queued.clone()));
                return Poll::Pending;
            }
        }
        Poll::Ready(Pass(gate))
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        // Who gives up when it is their turn passes it on.
        if self.queued.take().is_some_and(|queued| !queued.get()) {
            self.gate.leave();
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A queue between tasks of one thread, for one reader. It has no bound of its own: who fills it sees to that with
/// [`Queue::len`].
pub struct Queue<T> {
    items: RefCell<VecDeque<T>>,
    reader: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { items: RefCell::default(), reader: RefCell::default(), closed: Cell::new(false) }
    }
}

impl<T> Queue<T> {
    /// An empty one.
    pub fn new() -> Queue<T> {
        Queue::default()
    }

    /// Adds an item.
    pub fn push(&self, item: T) {
        self.items.borrow_mut().push_back(item);
        self.wake();
    }

    /// No more items will come.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.borrow().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.items.borrow().is_empty()
    }

    /// The next item; `None` after the last one of a closed queue.
    pub fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(item) = self.items.borrow_mut().pop_front() {
            return Poll::Ready(Some(item));
        }
        if self.closed.get() {
            return Poll::Ready(None);
        }
        self.reader.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// See [`Queue::poll_pop`].
    pub async fn pop(&self) -> Option<T> {
        poll_fn(|cx| self.poll_pop(cx)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn poll<'a>(entering: &mut Pin<Box<impl Future<Output = Pass<'a>>>>) -> Option<Pass<'a>> {
        match entering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(pass) => Some(pass),
            Poll::Pending => None,
        }
    }

    /// A waker that counts.
    struct Counts(AtomicUsize);

    impl std::task::Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_is_woken_once() {
        for tasks in [1, FEW, FEW + 1, 5 * FEW] {
            let event = Event::new();
            let counts: Vec<_> = (0..tasks).map(|_| Arc::new(Counts(AtomicUsize::new(0)))).collect();
            let wakers: Vec<Waker> = counts.iter().map(|count| Waker::from(count.clone())).collect();
            for _ in 0..3 {
                for waker in &wakers {
                    assert!(event.poll_since(&mut Context::from_waker(waker), 0).is_pending());
                }
            }
            event.notify();
            event.notify();
            assert!(counts.iter().all(|count| count.0.load(Ordering::Relaxed) == 1), "{tasks}");
            assert!(event.poll_since(&mut Context::from_waker(&wakers[0]), 0).is_ready());
        }
    }

    #[test]
    fn a_gate_lets_in_so_many() {
        let gate = Gate::new(1);
        let pass = poll(&mut Box::pin(gate.enter())).expect("nobody is in");
        let (mut gone, mut waits) = (Box::pin(gate.enter()), Box::pin(gate.enter()));
        assert!(poll(&mut gone).is_none() && poll(&mut gone).is_none() && poll(&mut waits).is_none());
        assert_eq!(gate.waiting.borrow().len(), 2);
        drop(gone);
        drop(pass);
        // The one that has given up is skipped.
        assert_eq!(gate.waiting.borrow().len(), 0);
        assert!(poll(&mut waits).is_some());
        assert_eq!(gate.free.get(), 1);
    }

    #[test]
    fn a_turn_that_is_not_taken_goes_to_the_next() {
        let gate = Gate::new(1);
        let pass = poll(&mut Box::pin(gate.enter())).expect("nobody is in");
        let (mut first, mut second) = (Box::pin(gate.enter()), Box::pin(gate.enter()));
        assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
        drop(pass);
        assert_eq!(gate.waiting.borrow().len(), 1, "the first has been woken");
        drop(first);
        assert_eq!(gate.waiting.borrow().len(), 0, "then the second");
        assert!(poll(&mut second).is_some());
        assert_eq!(gate.free.get(), 1);
    }

    #[test]
    fn nobody_overtakes_the_one_whose_turn_it_is() {
        let gate = Gate::new(1);
        let pass = poll(&mut Box::pin(gate.enter())).expect("nobody is in");
        let (mut waits, mut again) = (Box::pin(gate.enter()), Box::pin(gate.enter()));
        assert!(poll(&mut waits).is_none());
        drop(pass);
        assert!(poll(&mut again).is_none(), "it comes after the one that was woken");
        drop(poll(&mut waits).expect("its turn"));
        assert!(poll(&mut again).is_some());
    }
}
