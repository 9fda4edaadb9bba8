//! Waiting on purpose.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::Request;
use crate::fault::Fault;

impl Request {
    /// Waits, unless the client leaves: then the fault has been logged.
    pub async fn pause(&mut self, ms: u64) -> Result<(), Fault> {
        let mut sleep = pin!(rt::sleep(ms));
        let client = self.client();
        let stayed = poll_fn(|cx| match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => client.map_or(Poll::Pending, |client| client.poll_hangup(cx)).map(|()| false),
        });
        if stayed.await { Ok(()) } else { Err(Fault::ClientLeft.log(self)) }
    }
}
