//! A connection: what precedes it, checks, lines, and the log.

use std::fmt;
use std::fmt::Write as _;
use std::rc::Rc;

use buf::{Bytes, Chain};
use common::front::Visitor;
use common::front::proxy;
use common::front::tls::{Greeted, greet};
use common::modules::{Check, Verdict};
use common::vars;
use common::{Base, Based, Session as _};
use engine::log::{Level, Log};
use os::SockAddr;
use upstream::{Choice, Hints, Outcome};

use crate::proto::{Address, Backend, Lines, LinesServer, Variables};

/// A session.
pub(crate) struct LinesSession {
    /// The line that is being answered, or the last one.
    pub line: Vec<u8>,
    /// 200, or what a check has said.
    pub status: u16,
    server: Rc<LinesServer>,
    stream: rt::Stream,
    listen: SockAddr,
    base: Base<Lines>,
    log: Log,
}

/// A client or a backend has gone.
struct Gone;

impl LinesSession {
    /// For a connection that has just been accepted.
    pub(crate) fn new(
        variables: &Rc<Variables>,
        log: &Log,
        address: Rc<Address>,
        stream: rt::Stream,
        peer: SockAddr,
    ) -> LinesSession {
        LinesSession {
            line: Vec::new(),
            status: 200,
            server: address.default.clone(),
            base: Base::new(variables, stream.number(), peer),
            listen: address.addr.clone(),
            stream,
            log: log.clone(),
        }
    }

    /// Serves it to its end.
    pub(crate) async fn serve(mut self, address: &Address) {
        self.stream.set_recv_timeout(Some(TIMEOUT_MS));
        let Some(first) = self.prelude(address).await else { return };
        let server = self.server.clone();
        self.status = self.refusal(&server).unwrap_or(200);
        if self.status == 200 {
            let _ = self.lines(&server, first).await;
        }
        for log in &server.phases.log {
            log.log(&mut self);
        }
    }

    /// The PROXY protocol, then TLS; gives back what has been read of the first line.
    async fn prelude(&mut self, address: &Address) -> Option<Bytes> {
        let mut first = Bytes::default();
        if address.proxy_protocol {
            let (header, rest) = proxy::read(&self.stream, b"", || self.visitor(address)).await?;
            (self.base.proxy, first) = (header.map(Box::new), rest);
            self.stream.set_recv_timeout(Some(TIMEOUT_MS));
        }
        if !address.ssl {
            return Some(first);
        }
        let greeting = match greet(&self.stream, first, address, || self.visitor(address)).await? {
            Greeted::Hello(greeting) => greeting,
            Greeted::Plain(_) => return None,
        };
        self.server = greeting.chosen.server.clone();
        self.base.pending = Some(greeting.hello.server_name.clone().unwrap_or_default());
        let tls = greeting.tls.clone();
        let identity = tls.identity(self);
        self.base.pending = None;
        let log = self.log.clone();
        self.base.tls = Some(greeting.finish(&self.stream, identity, &log, || self.visitor(address)).await?);
        self.stream.set_recv_timeout(Some(TIMEOUT_MS));
        Some(Bytes::default())
    }

    fn visitor<'a>(&'a self, address: &'a Address) -> Visitor<'a> {
        Visitor {
            log: self.log.clone(),
            number: self.base.number,
            peer: &self.base.peer,
            server: &address.addr,
            starttls: false,
        }
    }

    /// The status with which a check refuses the session.
    fn refusal(&mut self, server: &LinesServer) -> Option<u16> {
        let phases = &server.phases;
        let checks = phases.post_read.iter().chain(&phases.preaccess).chain(&phases.access);
        for check in checks {
            let check: &dyn Check<Lines> = &**check;
            match check.check(self) {
                Verdict::Next => {}
                Verdict::Allow => return None,
                Verdict::Refuse(status) => return Some(status),
            }
        }
        None
    }

    async fn lines(&mut self, server: &LinesServer, first: Bytes) -> Result<(), Gone> {
        let mut read = first.to_vec();
        loop {
            let line = line(&self.stream, &mut read).await?;
            self.line = line;
            let mut answer = match &server.backend {
                Some(backend) => Box::pin(self.ask(backend)).await?,
                None => server.conf.reply.as_ref().map(|reply| vars::render(self, reply)).unwrap_or_default(),
            };
            answer.push(b'\n');
            send(&self.stream, answer).await?;
        }
    }

    /// What a backend answers to the line.
    async fn ask(&mut self, backend: &Backend) -> Result<Vec<u8>, Gone> {
        let key = backend.key.as_ref().map(|key| vars::render(self, key)).unwrap_or_default();
        let mut choice = Choice::new(backend.group.clone(), 0);
        if !choice.advance(&Hints { addr: Some(&self.base.peer), key: &key, ..Hints::default() }) {
            self.log_at(Level::Error, format_args!("no live upstreams while connecting to upstream"));
            return Err(Gone);
        }
        let peer = choice.peer().map(|peer| peer.addr.clone()).ok_or(Gone)?;
        let stream = rt::Stream::connect(&peer, &rt::ConnectOptions::default(), TIMEOUT_MS).await.map_err(|_| Gone)?;
        stream.set_recv_timeout(Some(TIMEOUT_MS));
        if let Some(tls) = &backend.tls {
            tls.connect(self, &stream, &backend.name, None).await.map_err(|_| Gone)?;
        }
        let mut asked = self.line.clone();
        asked.push(b'\n');
        send(&stream, asked).await?;
        let answer = line(&stream, &mut Vec::new()).await?;
        choice.release(Outcome::Good);
        Ok(answer)
    }
}

/// The next line, without its end; `read` has been read already, and is left with what follows it.
async fn line(stream: &rt::Stream, read: &mut Vec<u8>) -> Result<Vec<u8>, Gone> {
    loop {
        if let Some(at) = read.iter().position(|byte| *byte == b'\n') {
            let rest = read.split_off(at + 1);
            let mut line = std::mem::replace(read, rest);
            line.pop();
            return Ok(line);
        }
        let more = stream.recv(1000).await.map_err(|_| Gone)?;
        if more.is_empty() || read.len() > LONGEST {
            return Err(Gone);
        }
        read.extend_from_slice(&more);
    }
}

async fn send(stream: &rt::Stream, bytes: Vec<u8>) -> Result<(), Gone> {
    let mut chain = Chain::new();
    chain.push_bytes(bytes);
    stream.send(&mut chain).await.map_err(|_| Gone)
}

/// The longest time without a byte.
const TIMEOUT_MS: u64 = 10_000;
/// The longest line.
const LONGEST: usize = 4096;

impl Based for LinesSession {
    type Proto = Lines;

    fn base(&self) -> &Base<Lines> {
        &self.base
    }

    fn base_mut(&mut self) -> &mut Base<Lines> {
        &mut self.base
    }

    fn find_local(&self) -> SockAddr {
        self.stream.local_addr().unwrap_or_else(|_| self.listen.clone())
    }

    fn log_details(&self, level: Level, message: fmt::Arguments<'_>) {
        let details = |line: &mut String| _ = write!(line, ", client: {}", self.base.peer.text());
        self.log.write_with(level, Some(self.base.number), message, Some(&details));
    }
}

common::render_templates!(LinesSession);
