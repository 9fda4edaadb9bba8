//! A session of datagrams under way: those of the client go to the server, and the other way round.
//!
//! The client's are passed on by the task that receives them ([`crate::udp`]); here is what the server says, what has to wait,
//! and how the session ends.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use engine::log::{Errno, Level, TIMED_OUT};
use rt::{Datagram, UdpSocket};
use upstream::{Choice, Moment, Outcome};

use super::reach::{Reached, end_attempt};
use super::relay::rates;
use super::{Backend, Headed};
use crate::session::StreamSession;
use crate::udp::{self, Client, Expected, Tally};

/// A session with its server.
pub(crate) struct Relay {
    pub(crate) client: Rc<Client>,
    pub(crate) choice: Choice,
    /// When the attempt began.
    pub(crate) began_ms: u64,
    /// Bytes a second from the client and to it; 0 for any number.
    pub(crate) rates: [u64; 2],
    /// Bytes received from the server.
    pub(crate) received: Cell<u64>,
    /// Milliseconds until the server's first datagram, 49 days at most.
    pub(crate) first_ms: Cell<Option<u32>>,
    /// The server has failed.
    pub(crate) failed: bool,
}

/// Why passing datagrams on has stopped.
enum End {
    /// Nothing more is expected.
    Done,
    /// Nothing has passed for too long; whether answers are owed.
    TimedOut {
        owes: bool,
    },
    /// So many datagrams couldn't be sent, and it isn't the server's fault; the call. The session goes on.
    Lost(io::Error, &'static str, u64),
    /// The server stops.
    Closing,
    /// The session goes on in another worker.
    Leaves,
    /// The server's socket has said so; the call.
    Server(io::Error, &'static str),
    Client(io::Error),
}

/// Begins to pass datagrams on to a server that was chosen, the first one with a header of the PROXY protocol.
pub(super) fn run(
    b: &Backend,
    mut s: Box<StreamSession>,
    client: Rc<Client>,
    reached: Reached<UdpSocket>,
) -> impl Future<Output = Option<Box<StreamSession>>> + use<> {
    let Reached { choice, backend: socket, began_ms, header } = reached;
    let conf = &b.conf;
    let rates = rates(&mut s, conf);
    let each = conf.proxy_protocol_datagrams == Headed::Each && !header.is_empty();
    let backend = client.pass_to(udp::Backend {
        socket: Rc::new(socket),
        timeout_ms: conf.proxy_timeout,
        header: each.then(|| (&*header).into()),
        delays: rates[0] > 0,
        sent: Cell::new(0),
        error: RefCell::default(),
        lost: RefCell::default(),
    });
    let first = s.take_first();
    if each || header.is_empty() {
        backend.send(&first);
    } else {
        backend.send(&[&*header, &*first].concat());
    }
    client.expect(Expected {
        requests: conf.proxy_requests as u64,
        responses: conf.proxy_responses.map(|number| number as u64),
    });
    udp::handover::follow(&client);
    let relay =
        Relay { choice, began_ms, rates, received: Cell::new(0), first_ms: Cell::new(None), failed: false, client };
    relay.run(s, Vec::new())
}

impl Relay {
    /// Passes datagrams on until the end, and gives the session back, unless another worker goes on with it. `batch` has been
    /// received from the server, and not sent to the client yet.
    ///
    /// What is prepared outside of the future isn't in it twice: it lasts as long as the session.
    pub(crate) fn run(
        mut self,
        mut s: Box<StreamSession>,
        mut batch: Vec<Datagram>,
    ) -> impl Future<Output = Option<Box<StreamSession>>> {
        let client = self.client.clone();
        async move {
            let Some(backend) = client.backend() else { return Some(s) };
            let end = loop {
                match self.pass(backend, &mut batch).await {
                    End::Server(error, call) => {
                        self.fail(&mut s, backend, &error, call);
                        break End::Server(error, call);
                    }
                    End::Lost(error, call, datagrams) => {
                        self.note(&mut s, backend);
                        s.log_at(Level::Info, format_args!("{}", failed(&error, call)));
                        self.client.lost(datagrams);
                    }
                    End::Leaves => {
                        self.note(&mut s, backend);
                        match udp::handover::give(self, s, &batch) {
                            Some((relay, session)) => (self, s) = (relay, session),
                            None => return None,
                        }
                    }
                    end => break end,
                }
            };
            self.note(&mut s, backend);
            self.end(&mut s, &end);
            Some(s)
        }
    }

    /// Passes datagrams on both ways. The server's stop ends that whatever it waits for.
    async fn pass(&self, backend: &udp::Backend, batch: &mut Vec<Datagram>) -> End {
        let mut uploads = pin!(self.uploads(backend));
        let mut downloads = pin!(self.downloads(backend, batch));
        poll_fn(|cx| {
            if let Poll::Ready(end) = uploads.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            if let Poll::Ready(end) = downloads.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            backend.socket.poll_ended(cx).map(|()| End::Closing)
        })
        .await
    }

    /// The server has failed at a call.
    fn fail(&mut self, s: &mut StreamSession, backend: &udp::Backend, error: &io::Error, call: &str) {
        self.note(s, backend);
        s.log_error(format_args!("{}", failed(error, call)));
        self.failed = true;
        self.client.answered(1);
        self.first_byte();
    }

    /// Passes on what couldn't be passed on at once.
    async fn uploads(&self, backend: &udp::Backend) -> End {
        let client = &self.client;
        loop {
            poll_fn(|cx| {
                client.poll_wake(cx, |client| {
                    client.has_queued() || client.leaves() || client.tally().is_done() || backend.has_failed()
                })
            })
            .await;
            if let Some(error) = backend.error.take() {
                return End::Server(error, "send");
            }
            if let Some((error, datagrams)) = backend.lost.take() {
                return End::Lost(error, "send", datagrams);
            }
            if client.tally().is_done() && !client.has_queued() {
                return End::Done;
            }
            if client.leaves() {
                return End::Leaves;
            }
            self.wait(backend.sent.get(), self.rates[0]).await;
            if !client.leaves() && !client.send_first(backend) {
                // Its buffer is full: it is tried again when that may have emptied.
                rt::sleep(ROOM_MS).await;
            }
        }
    }

    /// Passes on what the server says.
    async fn downloads(&self, backend: &udp::Backend, batch: &mut Vec<Datagram>) -> End {
        loop {
            if batch.is_empty() {
                match backend.socket.recv(batch).await {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        let held_back = self.held_back(backend);
                        let owes = self.client.tally().owes(held_back);
                        if owes || held_back == 0 {
                            return End::TimedOut { owes };
                        }
                        // The server can't answer what it hasn't got.
                        backend.socket.set_recv_timeout(Some(backend.timeout_ms));
                        continue;
                    }
                    // A router has said that one was too long for what lies behind it.
                    Err(error) if error.raw_os_error() == Some(udp::TOO_LONG) => return End::Lost(error, "recv", 1),
                    Err(error) if rt::is_closing(&error) => return End::Closing,
                    Err(error) => return End::Server(error, "recv"),
                }
                self.count(batch);
                backend.socket.set_recv_timeout(Some(backend.timeout_ms));
            }
            self.wait(self.client.sent(), self.rates[1]).await;
            let mut sent = self.client.try_send(batch);
            if sent.is_ok() && !batch.is_empty() {
                // Rarely there is no room: what waits for it is made then.
                sent = Box::pin(self.client.send(batch)).await;
            }
            if let Err(error) = sent {
                return End::Client(error);
            }
            batch.shrink_to(FEW);
            if self.client.tally().is_done() {
                return End::Done;
            }
        }
    }

    fn count(&self, batch: &[Datagram]) {
        let bytes: usize = batch.iter().map(|datagram| datagram.bytes.len()).sum();
        self.received.set(self.received.get() + bytes as u64);
        self.first_byte();
    }

    fn first_byte(&self) {
        if self.first_ms.get().is_none() {
            let ms = rt::now_ms().saturating_sub(self.began_ms);
            self.first_ms.set(Some(u32::try_from(ms).unwrap_or(u32::MAX)));
            self.choice.reached(Moment::FirstByte);
        }
    }

    /// When more may pass, of which so many bytes have; `None`: now.
    fn due_ms(&self, passed: u64, rate: u64) -> Option<u64> {
        // As much as passes in a second may pass at the start.
        let is_limited = rate > 0 && passed >= rate;
        is_limited.then(|| self.began_ms + (passed.saturating_mul(1000) / rate).saturating_sub(1000) + 1)
    }

    /// How many of the client's datagrams wait because of the rate.
    fn held_back(&self, backend: &udp::Backend) -> u64 {
        let due_ms = self.due_ms(backend.sent.get(), self.rates[0]);
        if due_ms.is_some_and(|due_ms| rt::now_ms() < due_ms) { self.client.waiting() } else { 0 }
    }

    /// Waits until more may pass, of which so many bytes have; no longer than until the session is to leave.
    async fn wait(&self, passed: u64, rate: u64) {
        let Some(due_ms) = self.due_ms(passed, rate) else { return };
        let mut pause = pin!(rt::sleep_until(due_ms));
        poll_fn(|cx| match self.client.poll_wake(cx, Client::leaves) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => pause.as_mut().poll(cx),
        })
        .await;
    }

    /// Tells the session what has passed.
    fn note(&self, s: &mut StreamSession, backend: &udp::Backend) {
        if let Some(attempt) = s.attempts.last_mut() {
            (attempt.sent, attempt.received) = (backend.sent.get(), self.received.get());
            attempt.header_ms = self.first_ms.get().map(u64::from);
        }
    }

    /// The session is over.
    fn end(&mut self, s: &mut StreamSession, end: &End) {
        let tally = self.client.tally();
        match end {
            End::Done => self.log_end(s, "done"),
            End::TimedOut { owes: false } => self.log_end(s, "timed out"),
            End::TimedOut { owes: true } => {
                s.log_error(format_args!("upstream timed out{TIMED_OUT} while proxying connection"));
                s.status = BAD_GATEWAY;
                self.failed = true;
            }
            End::Server(..) if tally.is_done() => self.log_end(s, "done"),
            End::Server(..) | End::Lost(..) | End::Closing | End::Leaves => {}
            End::Client(error) => {
                s.log_at(
                    Level::Info,
                    format_args!("send() failed{} while proxying and sending to client", Errno(error)),
                );
            }
        }
        self.choice.completed();
        let outcome = if self.failed { Outcome::Failed } else { Outcome::Good };
        if self.choice.release(outcome) {
            let message = "upstream server temporarily disabled while proxying connection";
            s.log_at(Level::Warn, format_args!("{message}"));
        }
        end_attempt(s, self.began_ms);
    }

    fn log_end(&self, s: &StreamSession, how: &str) {
        if s.log().enabled(Level::Info) {
            let Tally { requests, responses, .. } = self.client.tally();
            let counts = s.counts();
            s.log_plain(format_args!("udp {how}, packets from/to client:{requests}/{responses}, {counts}"));
        }
    }
}

/// What the log says of a call that has failed.
fn failed(error: &io::Error, call: &str) -> String {
    let doing = if call == "recv" { "reading from upstream" } else { "sending to upstream" };
    format!("{call}() failed{} while proxying and {doing}", Errno(error))
}

/// The server has not answered.
const BAD_GATEWAY: u16 = 502;
/// Memory for how many datagrams a session keeps while it waits for the next ones.
const FEW: usize = 4;
/// How soon a full buffer is tried again.
const ROOM_MS: u64 = 1;
