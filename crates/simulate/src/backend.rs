//! A backend: reads requests, checks that their bodies are those of their clients, and answers well or badly.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use buf::{Buf, Bytes, Chain};
use tls::First;

use crate::ask::How;
use crate::content::Key;
use crate::dice::Dice;
use crate::http1::{Reader, chunks};
use crate::world::{World, addr};

/// One backend.
pub struct Backend {
    world: Rc<World>,
    dice: RefCell<Dice>,
    /// How it speaks TLS, if it does.
    tls: Option<tls::Server>,
    died: rt::Event,
    dead: Cell<bool>,
}

/// A request as a backend reads it.
struct Asked {
    id: u64,
    how: How,
    length: u64,
    method: String,
    has_body: bool,
    keeps_alive: bool,
}

impl Asked {
    /// The body of a whole answer.
    fn content(&self) -> Vec<u8> {
        if self.method == "HEAD" { Vec::new() } else { Key::Response(self.id).bytes(0, self.length) }
    }

    /// The head of an answer with a length.
    fn head(&self, status: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nX-Backend: 1\r\n\r\n", self.length)
    }
}

impl Backend {
    /// Listens at an address.
    pub fn start(world: &Rc<World>, at: &str, tls: Option<tls::Server>, dice: Dice) -> Rc<Backend> {
        let (world, dice) = (world.clone(), RefCell::new(dice));
        let backend = Rc::new(Backend { world, dice, tls, died: rt::Event::new(), dead: Cell::new(false) });
        let (listener, this) = (rt::sim::listen(addr(at)), backend.clone());
        rt::spawn(async move {
            let accept = async {
                while let Ok((stream, _)) = listener.accept().await {
                    let this = this.clone();
                    rt::spawn(async move {
                        stream.set_send_timeout(Some(PATIENCE));
                        crate::either(this.greet(&stream), this.end()).await;
                    });
                }
            };
            crate::either(accept, this.end()).await;
        });
        backend
    }

    /// It dies, with all its connections.
    pub fn die(&self) {
        self.dead.set(true);
        self.died.notify();
    }

    async fn end(&self) {
        std::future::poll_fn(|cx| match self.dead.get() {
            true => std::task::Poll::Ready(()),
            false => self.died.poll_since(cx, 0),
        })
        .await;
    }

    /// Brings the handshake of TLS to its end, if there is one, and serves.
    async fn greet(&self, stream: &rt::Stream) {
        if let Some(tls) = &self.tls {
            stream.set_recv_timeout(Some(PATIENCE));
            let Ok(First::Hello(hello, input)) = tls::first_bytes(stream, Buf::empty()).await else { return };
            if let Err(error) = tls::accept(stream, tls, None, *hello, input, Rc::new(())).await {
                return self.world.failed(format!("the handshake with a backend failed: {error:?}"));
            }
        }
        self.serve(stream).await;
    }

    async fn serve(&self, stream: &rt::Stream) {
        let mut reader = Reader::new(stream);
        loop {
            stream.set_recv_timeout(Some(PATIENCE));
            let Some(head) = reader.until(b"\r\n\r\n").await else { return };
            let Some((asked, length, chunked)) = self.parse(&head) else { return };
            let before = self.attempt(&asked);
            if asked.how == How::Halfway && !self.begin_answer(stream, &asked).await {
                return;
            }
            if (asked.how != How::Early || !asked.has_body)
                && !self.read_body(&mut reader, &asked, length, chunked).await
            {
                return;
            }
            if !self.answer(stream, &asked, before).await || !asked.keeps_alive {
                return;
            }
            if !reader.is_empty() {
                self.world.found("a request to a backend before the last one was answered");
            }
        }
    }

    /// Reads a request's body; false if it doesn't come whole.
    async fn read_body(&self, reader: &mut Reader<'_>, asked: &Asked, length: usize, chunked: bool) -> bool {
        let mut body = Vec::new();
        let whole = match chunked {
            true => reader.chunks(&mut body).await.unwrap_or_else(|what| {
                self.world.found(format!("the body of request {} to a backend: {what}", asked.id));
                false
            }),
            false => reader.take(length, &mut body).await,
        };
        if let Some(at) = Key::Request(asked.id).difference(0, &body) {
            self.world.found(format!("the body of request {} has the wrong byte at {at}", asked.id));
        }
        whole
    }

    /// Reads a head: the request, the length of its body, whether that is in chunks.
    fn parse(&self, head: &[u8]) -> Option<(Asked, usize, bool)> {
        let text = String::from_utf8_lossy(head);
        let bad = || {
            self.world.found(format!("a backend got {text:?}"));
            None::<()>
        };
        let mut lines = text.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let fields: Vec<(String, &str)> =
            lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_ascii_lowercase(), v)).collect();
        let field = |name: &str| fields.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        let argument = |name: &str| {
            let arguments = target.split_once('?').map_or("", |(_, arguments)| arguments).split('&');
            arguments
                .filter_map(|pair| pair.split_once('='))
                .find(|(n, _)| *n == name)
                .and_then(|(_, v)| v.parse().ok())
        };
        let Some(id) = field("x-id").and_then(|id| id.parse().ok()) else {
            bad()?;
            return None;
        };
        let chunked = field("transfer-encoding").is_some();
        let length = field("content-length").map_or(Ok(0), str::parse);
        let Ok(length) = length else {
            bad()?;
            return None;
        };
        let how = How::ALL[argument("how").unwrap_or(0) as usize];
        let has_body = chunked || length > 0;
        let keeps_alive = field("connection").is_none_or(|value| value != "close");
        let asked = Asked {
            id,
            how,
            length: argument("length").unwrap_or(10),
            method: method.to_owned(),
            has_body,
            keeps_alive,
        };
        Some((asked, length, chunked))
    }

    /// Notes that a request has come; how often it had before.
    fn attempt(&self, asked: &Asked) -> u64 {
        self.world.tell(&format!("a backend got request {}: {:?}", asked.id, asked.how));
        let mut attempts = self.world.attempts.borrow_mut();
        let count = attempts.entry(asked.id).or_default();
        *count += 1;
        *count - 1
    }

    /// Answers; whether the connection may serve more.
    async fn answer(&self, stream: &rt::Stream, asked: &Asked, before: u64) -> bool {
        let head_only = asked.method == "HEAD";
        let whole = asked.content();
        let with_length = |status: &str| [asked.head(status).as_bytes(), &whole].concat();
        match asked.how {
            How::Well => send(stream, with_length("200 OK")).await,
            How::Early => {
                let _ = send(stream, with_length("200 OK\r\nConnection: close")).await;
                false
            }
            How::Halfway => send(stream, whole[whole.len() / 2..].to_vec()).await,
            How::Late => {
                let pause = self.dice.borrow_mut().below(80);
                rt::sleep(pause).await;
                send(stream, with_length("200 OK")).await
            }
            How::NotFound => send(stream, with_length("404 Not Found")).await,
            How::Failed => send(stream, with_length("500 Internal Server Error")).await,
            How::Interim => {
                let first = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_vec();
                send(stream, first).await && send(stream, with_length("200 OK")).await
            }
            How::Slowly => {
                let bytes = with_length("200 OK");
                for part in bytes.chunks((bytes.len() / 6).max(1)) {
                    if !send(stream, part.to_vec()).await {
                        return false;
                    }
                    let pause = self.dice.borrow_mut().below(30);
                    rt::sleep(pause).await;
                }
                true
            }
            How::Chunked => {
                let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                if !head_only {
                    bytes.extend(chunks(&whole, &mut self.dice.borrow_mut()));
                }
                send(stream, bytes).await
            }
            How::ToTheEnd => {
                let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
                let _ = send(stream, [&head[..], &whole].concat()).await;
                false
            }
            How::Switch => self.echo(stream, asked).await,
            _ => self.answer_badly(stream, asked, before, with_length("200 OK"), whole.len()).await,
        }
    }

    /// Sends the head of an answer and the first half of its body.
    async fn begin_answer(&self, stream: &rt::Stream, asked: &Asked) -> bool {
        let content = asked.content();
        send(stream, [asked.head("200 OK").as_bytes(), &content[..content.len() / 2]].concat()).await
    }

    /// Changes the protocol, and sends back what comes.
    async fn echo(&self, stream: &rt::Stream, asked: &Asked) -> bool {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".to_vec();
        let mut good = send(stream, head).await;
        let mut at = 0;
        while good
            && let Ok(bytes) = stream.recv(4096).await
            && !bytes.is_empty()
        {
            if let Some(at) = Key::Request(asked.id).difference(at, &bytes) {
                self.world.found(format!("the tunnel of request {} has the wrong byte at {at}", asked.id));
            }
            at += bytes.len() as u64;
            good = send(stream, bytes.to_vec()).await;
        }
        false
    }

    /// Answers in a way that isn't right; `good` is what would be, with a body of so many bytes.
    async fn answer_badly(&self, stream: &rt::Stream, asked: &Asked, before: u64, good: Vec<u8>, body: usize) -> bool {
        let half = self.dice.borrow_mut().below(asked.length + 1);
        match asked.how {
            How::SecondTime => before > 0 && send(stream, good).await,
            How::TooMuch => {
                let surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nwrong!";
                send(stream, [&good, &surplus[..]].concat()).await
            }
            How::HalfBody | How::ResetBody => {
                let missing = (asked.length - half).min(body as u64) as usize;
                let _ = send(stream, good[..good.len() - missing].to_vec()).await;
                if asked.how == How::ResetBody {
                    stream.linger_reset();
                }
                false
            }
            How::Nonsense => {
                let _ = send(stream, b"HTTP/1.1 200 OK\r\nthis is no field\r\n\r\n".to_vec()).await;
                false
            }
            How::HalfHead => {
                let _ = send(stream, b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()).await;
                false
            }
            _ => {
                stream.set_recv_timeout(Some(PATIENCE));
                let _ = stream.recv(100).await;
                false
            }
        }
    }
}

async fn send(stream: &rt::Stream, bytes: Vec<u8>) -> bool {
    stream.send_all(Chain::from(Bytes::from(bytes))).await.is_ok()
}

/// How long a backend waits for anything.
const PATIENCE: u64 = 100_000;
