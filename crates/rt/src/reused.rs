//! Futures whose memory is used for one piece of work after the other.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A future that does one piece of work after the other: the same function of different inputs. What the function has to
/// remember while it waits is allocated once.
pub struct Reused<I, O> {
    place: Rc<Place<I, O>>,
    future: Pin<Box<dyn Future<Output = Infallible>>>,
}

/// Where inputs are given to the future, and outputs come back.
struct Place<I, O> {
    input: Cell<Option<I>>,
    output: Cell<Option<O>>,
}

impl<I: 'static, O: 'static> Reused<I, O> {
    /// One that does `work`, and has nothing to do yet.
    pub fn new(work: impl AsyncFn(I) -> O + 'static) -> Reused<I, O> {
        let place = Rc::new(Place { input: Cell::new(None), output: Cell::new(None) });
        let own = place.clone();
        let future = Box::pin(async move {
            loop {
                let input = poll_fn(|_| own.input.take().map_or(Poll::Pending, Poll::Ready)).await;
                let output = work(input).await;
                own.output.set(Some(output));
            }
        });
        Reused { place, future }
    }

    /// Begins the next piece of work; the one before has to be over.
    pub fn begin(&self, input: I) {
        self.place.input.set(Some(input));
    }

    /// Goes on with it; ready once it is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<O> {
        let Poll::Pending = self.future.as_mut().poll(cx);
        self.place.output.take().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn one_after_the_other() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut doubled = Reused::new(async |n: u32| {
            for _ in 0..n {
                crate::yield_now().await;
            }
            2 * n
        });
        assert!(doubled.poll(&mut cx).is_pending(), "nothing to do yet");
        for n in [0, 3, 1] {
            doubled.begin(n);
            for _ in 0..n {
                assert!(doubled.poll(&mut cx).is_pending());
            }
            assert_eq!(doubled.poll(&mut cx), Poll::Ready(2 * n));
            assert!(doubled.poll(&mut cx).is_pending(), "it is over");
        }
    }

    #[test]
    fn what_has_begun_goes_with_it() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut waits = Reused::new(async |_: Rc<()>| std::future::pending::<()>().await);
        let input = Rc::new(());
        waits.begin(input.clone());
        assert!(waits.poll(&mut cx).is_pending());
        assert_eq!(Rc::strong_count(&input), 2);
        drop(waits);
        assert_eq!(Rc::strong_count(&input), 1);
    }
}
