//! A client that has logged in: bytes both ways between it and the server that has its mail.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use buf::{Bytes, Chain};
use common::pump::{Pump, Turn};
use engine::handover::Handover;
use engine::log::{Errno, Level, TIMED_OUT};

use crate::handover;
use crate::session::MailSession;

/// Both connections of a client that has logged in.
pub struct Tunnel {
    /// What is known of the client, with its connection.
    pub session: MailSession,
    /// The connection to the server.
    pub backend: rt::Stream,
    /// How long nothing may pass.
    pub timeout_ms: u64,
    /// The first such wait, if another process began it.
    pub first_wait_ms: Option<u64>,
    /// What the client is to get first.
    down: Bytes,
    /// What the server is to get first.
    up: Bytes,
}

/// Why passing bytes on is over.
enum End {
    /// One side has ended.
    Over,
    /// One side has failed, in this call.
    Failed(io::Error, &'static str),
    /// It goes on in another process; these bytes, down and up, have been read and not sent.
    Leaves(Box<(Rc<Handover>, Chain, Chain)>),
}

impl Tunnel {
    /// Begins with bytes that have been read already.
    pub fn new(session: MailSession, backend: rt::Stream, down: Bytes, up: Bytes) -> Tunnel {
        let timeout_ms = session.server.proxy.proxy_timeout;
        Tunnel { session, backend, timeout_ms, first_wait_ms: None, down, up }
    }

    /// Passes bytes both ways until the end. As in nginx, either side's end is the end, once what that side had sent is
    /// passed on.
    pub async fn run(mut self: Box<Self>) {
        let _ = self.session.stream.set_nodelay(true);
        match self.pass().await {
            End::Leaves(parts) => {
                let (to, down, up) = *parts;
                handover::give(&to, *self, down, up);
            }
            End::Over => self.session.log_at(Level::Info, format_args!("proxied session done")),
            End::Failed(error, _) if error.kind() == io::ErrorKind::TimedOut => {
                self.session.log_at(Level::Info, format_args!("client timed out{TIMED_OUT} while proxying"));
            }
            End::Failed(error, call) => {
                self.session.log_at(Level::Info, format_args!("{call}() failed{} while proxying", Errno(&error)));
                self.session.log_at(Level::Info, format_args!("proxied session done"));
            }
        }
    }

    async fn pass(&mut self) -> End {
        let (down, up) = (std::mem::take(&mut self.down), std::mem::take(&mut self.up));
        let (session, backend, timeout_ms) = (&self.session, &self.backend, self.timeout_ms);
        let (client, size) = (&session.stream, session.server.proxy.proxy_buffer.max(1));
        for side in [client, backend] {
            side.set_send_timeout(Some(timeout_ms));
            side.set_recv_timeout(None);
        }
        backend.set_recv_timeout(Some(self.first_wait_ms.unwrap_or(timeout_ms)));
        let mut down = Pump::new(backend, client, down, size);
        let mut up = Pump::new(client, backend, up, size);
        let end = poll_fn(|cx| {
            if !session.stays
                && let Some(to) = session.mail.worker.successors.get()
                && client.can_leave()
            {
                return Poll::Ready(Ok(Some(to)));
            }
            match down.turn(cx).and(up.turn(cx)) {
                Turn::Waits(true) => backend.set_recv_timeout(Some(timeout_ms)),
                Turn::Waits(false) => {}
                Turn::Ended => return Poll::Ready(Ok(None)),
                Turn::Failed(error, call) => return Poll::Ready(Err((error, call))),
            }
            Poll::Pending
        })
        .await;
        match end {
            Ok(None) => End::Over,
            Ok(Some(to)) => End::Leaves(Box::new((to, down.chain, up.chain))),
            Err((error, call)) => End::Failed(error, call),
        }
    }
}
