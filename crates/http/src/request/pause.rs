//! Waiting on purpose.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::Request;
use crate::fault::Fault;

impl Request {
    /// Waits, unless the client leaves: then the fault has been logged.
    pub async fn pause(&mut self, ms: u64) -> Result<(), Fault> {
        self.unless_left(rt::sleep(ms)).await
    }

    /// Waits for something, unless the client leaves: then the fault has been logged.
    pub async fn unless_left<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, Fault> {
        let mut awaited = pin!(awaited);
        let client = self.client();
        let done = poll_fn(|cx| match awaited.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => client.map_or(Poll::Pending, |client| client.poll_hangup(cx)).map(|()| None),
        });
        done.await.ok_or_else(|| Fault::ClientLeft.log(self))
    }

    /// Waits for something, unless the client is gone: then the fault has been logged. One that has only closed its side
    /// may still read its response; `closed` is called when it has ([`rt::unless_gone`]).
    pub async fn unless_gone<T>(
        &mut self,
        awaited: impl Future<Output = T>,
        closed: impl FnOnce(),
    ) -> Result<T, Fault> {
        let done = rt::unless_gone(&self.client(), awaited, closed).await;
        done.ok_or_else(|| Fault::ClientLeft.log(self))
    }
}
