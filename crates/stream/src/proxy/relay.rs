//! A session under way: bytes both ways between the client and the server.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use buf::Chain;
use common::pump::{Pump, Turn};
use common::vars;
use engine::log::{Errno, Level, TIMED_OUT};
use expr::vars::Template;
use upstream::{Moment, Outcome};

use super::Backend;
use super::reach::{Reached, end_attempt};
use crate::session::{Link, StreamSession};

/// Which side has ended first, or why it is over otherwise.
enum End {
    Client,
    Server,
    TimedOut,
    Failed(io::Error, &'static str),
}

/// Passes bytes both ways until the end, and gives the session back.
pub(super) async fn run(b: &Backend, mut s: Box<StreamSession>, reached: Reached) -> Option<Box<StreamSession>> {
    let Reached { mut choice, backend, began_ms, header } = reached;
    let upload = rate(&mut s, b.conf.proxy_upload_rate.as_deref());
    let download = rate(&mut s, b.conf.proxy_download_rate.as_deref());
    let first = s.take_first();
    let Link::Stream(client) = &s.link else { return Some(s) };
    if !s.peer.is_unix() && s.server.core.shared.tcp_nodelay {
        let _ = client.set_nodelay(true);
    }
    let size = b.conf.proxy_buffer_size;
    let mut down = Pump::new(&backend, client, buf::Bytes::default(), size).at_rate(download);
    let mut up = Pump::new(client, &backend, first, size).at_rate(upload);
    if !header.is_empty() {
        let rest = std::mem::replace(&mut up.chain, Chain::from(header));
        up.chain.append(&mut { rest });
    }
    let timeout_ms = b.conf.proxy_timeout;
    for side in [client, &backend] {
        side.set_send_timeout(Some(timeout_ms));
        side.set_recv_timeout(None);
    }
    backend.set_recv_timeout(Some(timeout_ms));
    let mut first_byte_ms = None;
    let (mut up_ended, mut down_ended) = (false, false);
    let end = poll_fn(|cx| {
        let mut moved = false;
        if !down_ended {
            match down.turn(cx) {
                Turn::Waits(some) => moved |= some,
                Turn::Ended if !b.conf.proxy_half_close || up_ended => return Poll::Ready(End::Server),
                Turn::Ended => {
                    (down_ended, moved) = (true, true);
                    let _ = client.shutdown_write();
                }
                Turn::Failed(error, call) => return Poll::Ready(failed(error, call)),
            }
            if first_byte_ms.is_none() && down.moved > 0 {
                first_byte_ms = Some(rt::now_ms().saturating_sub(began_ms));
                choice.reached(Moment::FirstByte);
            }
        }
        if !up_ended {
            match up.turn(cx) {
                Turn::Waits(some) => moved |= some,
                Turn::Ended if !b.conf.proxy_half_close || down_ended => return Poll::Ready(End::Client),
                Turn::Ended => {
                    up_ended = true;
                    let _ = backend.shutdown_write();
                }
                Turn::Failed(error, call) => return Poll::Ready(failed(error, call)),
            }
        }
        if moved {
            // What is read from last keeps the time.
            let watched = if down_ended { client } else { &backend };
            watched.set_recv_timeout(Some(timeout_ms));
        }
        Poll::Pending
    })
    .await;
    if let Some(attempt) = s.attempts.last_mut() {
        (attempt.sent, attempt.received) = (backend.sent(), backend.received());
        attempt.header_ms = first_byte_ms;
    }
    choice.completed();
    choice.release(Outcome::Good);
    end_attempt(&mut s, began_ms);
    log_end(&s, &end);
    Some(s)
}

fn failed(error: io::Error, call: &'static str) -> End {
    match error.kind() {
        io::ErrorKind::TimedOut => End::TimedOut,
        _ => End::Failed(error, call),
    }
}

fn log_end(s: &StreamSession, end: &End) {
    let counts = || s.counts();
    match end {
        End::Client => s.log_plain(format_args!("client disconnected, {}", counts())),
        End::Server => s.log_plain(format_args!("upstream disconnected, {}", counts())),
        End::TimedOut => {
            s.log_at(Level::Info, format_args!("connection timed out{TIMED_OUT} while proxying connection"));
        }
        End::Failed(error, call) => {
            s.log_at(Level::Info, format_args!("{call}() failed{} while proxying connection", Errno(error)));
        }
    }
}

/// The limit that a template says, in bytes a second; 0 for none.
pub(super) fn rate(s: &mut StreamSession, template: Option<&Template>) -> u64 {
    template.and_then(|template| buf::parse::parse_size(&vars::render(s, template))).unwrap_or(0)
}
