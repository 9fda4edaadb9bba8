//! A client before it has logged in: its lines, and what it is told.

use std::future::Future;
use std::io;

use buf::{Buf, Bytes, Chain, Secret};
use engine::log::{Errno, Level, TIMED_OUT};
use wire::mail::{Line, LineEnd, text};

use super::{Gone, MailSession};
use crate::proto::Protocol;

/// How long a client that was told goodbye may take to hear it, in milliseconds.
const LINGER_MS: u64 = 1000;
/// How much it may still send meanwhile.
const MOST_LINGERING: usize = 64 << 10;
/// How much may wait to be sent before nothing more is read.
const MOST_UNSENT: usize = 4096;

/// A client that is to log in. Answers are gathered, and sent before something is waited for.
pub struct Client {
    /// What is known of it.
    pub session: MailSession,
    /// What it has sent, and nobody has taken.
    pub input: Buf,
    /// The tag of its command, in IMAP.
    pub tag: Vec<u8>,
    /// How often it has tried to log in.
    pub attempts: u32,
    /// Its host's name, as `auth_http` and XCLIENT have it; SMTP only.
    pub host: Option<Box<str>>,
    end: LineEnd,
    output: Vec<u8>,
    errors: u32,
    salt: Option<Box<str>>,
}

impl Client {
    /// A client that has just connected.
    pub fn new(session: MailSession) -> Client {
        Client {
            session,
            input: Buf::empty(),
            tag: Vec::new(),
            attempts: 0,
            host: None,
            end: LineEnd::default(),
            output: Vec::new(),
            errors: 0,
            salt: None,
        }
    }

    /// Tells the client something, in a line.
    pub fn say(&mut self, line: &[&[u8]]) {
        line.iter().for_each(|part| self.output.extend_from_slice(part));
        self.output.extend_from_slice(b"\r\n");
    }

    /// What of an exchange digests are made of: the same for the whole session.
    pub fn salt(&mut self) -> &str {
        let name = &self.session.server.name;
        self.salt.get_or_insert_with(|| {
            let random = u64::from_be_bytes(rt::random_bytes().first_chunk().copied().unwrap_or_default());
            format!("<{random}.{}@{name}>", rt::wall().secs).into()
        })
    }

    /// Gives the client the whole time to log in, from now on.
    pub fn renew_timeout(&self) {
        let timeout_ms = self.session.server.core.timeout;
        self.session.stream.set_recv_timeout(Some(timeout_ms));
        self.session.stream.set_send_timeout(Some(timeout_ms));
    }

    /// Sends what the client is to be told.
    pub async fn flush(&mut self) -> Result<(), Gone> {
        if self.output.is_empty() {
            return Ok(());
        }
        let sent = self.session.stream.send_all(Chain::from(Bytes::from(std::mem::take(&mut self.output)))).await;
        sent.map_err(|error| self.lost(&error, "send"))
    }

    /// Sends what the client is to be told, then receives more from it, up to about `size` bytes.
    pub async fn receive(&mut self, size: usize) -> Result<(), Gone> {
        self.flush().await?;
        // Those who haven't logged in go first if connections run out.
        let silent = self.session.stream.silent();
        let received = self.session.stream.recv(size.max(1)).await;
        drop(silent);
        let more = received.map_err(|error| self.lost(&error, "recv"))?;
        match (more.is_empty(), self.input.is_empty()) {
            (true, _) => return Err(Gone),
            (false, true) => self.input = more,
            (false, false) => self.input.extend_from_slice(&more),
        }
        Ok(())
    }

    /// So many bytes of the input are done with. They may be a password: they are overwritten. An idle client holds no
    /// memory for more.
    pub fn consume(&mut self, bytes: usize) {
        if let Some(done) = self.input.as_mut_slice().get_mut(..bytes) {
            buf::wipe(done);
        }
        self.input.consume(bytes);
        if self.input.is_empty() {
            self.input = Buf::empty();
        }
    }

    /// Waits for something else than the client's next bytes, as long as the client's connection lasts. Its place may be
    /// needed for others meanwhile. A client that has only closed its side still gets the answer.
    pub async fn watched<T>(&self, future: impl Future<Output = T>) -> Result<T, Gone> {
        let stream = &self.session.stream;
        let _silent = stream.silent();
        rt::unless_gone(stream, future, || ()).await.ok_or(Gone)
    }

    fn lost(&self, error: &io::Error, call: &str) -> Gone {
        let log = |message: std::fmt::Arguments<'_>| self.session.log_at(Level::Info, message);
        if error.kind() == io::ErrorKind::TimedOut {
            log(format_args!("client timed out{TIMED_OUT} while in auth state"));
        } else if !rt::is_closing(error) {
            log(format_args!("{call}() failed{} while in auth state", Errno(error)));
        }
        Gone
    }

    /// Has no more waiting to be sent than is sensible, of a client that asks much and reads nothing.
    pub async fn keep_up(&mut self) -> Result<(), Gone> {
        if self.output.len() > MOST_UNSENT { self.flush().await } else { Ok(()) }
    }

    /// The client's next line without its end, which has at most `limit` bytes with it.
    pub async fn line(&mut self, limit: usize) -> Result<Secret, Gone> {
        self.keep_up().await?;
        loop {
            match self.end.find(&self.input, limit) {
                Line::Whole(end) => {
                    let line = self.input.get(..end).map(text).unwrap_or_default().into();
                    self.consume(end);
                    self.end = LineEnd::default();
                    return Ok(line);
                }
                Line::TooLong => return Err(self.too_long().await),
                Line::More => self.receive(limit - self.input.len()).await?,
            }
        }
    }

    /// Asks for a response to a challenge.
    pub async fn challenge(&mut self, line: &[&[u8]], limit: usize) -> Result<Secret, Gone> {
        self.say(line);
        self.line(limit).await
    }

    /// Tells the client that its command can't be served now.
    pub async fn reject(&mut self) -> Result<(), Gone> {
        self.say_invalid();
        self.keep_up().await
    }

    /// Tells the client that its command isn't one; too many of them end the session.
    pub async fn invalid(&mut self) -> Result<(), Gone> {
        self.say_invalid();
        self.errors += 1;
        if self.errors < self.session.server.core.max_errors {
            return self.keep_up().await;
        }
        self.session.log_at(Level::Info, format_args!("client sent too many invalid commands while in auth state"));
        Err(self.dismiss().await)
    }

    /// Ends the session of a client whose command doesn't fit. What it was isn't logged: it may hold a password.
    pub async fn too_long(&mut self) -> Gone {
        self.session.log_at(Level::Info, format_args!("client sent too long command while in auth state"));
        self.say_invalid();
        self.dismiss().await
    }

    fn say_invalid(&mut self) {
        let tag = std::mem::take(&mut self.tag);
        match self.session.server.protocol {
            Protocol::Imap if tag.is_empty() => self.say(&[b"* BAD invalid command"]),
            Protocol::Imap => self.say(&[&tag, b" BAD invalid command"]),
            Protocol::Pop3 => self.say(&[b"-ERR invalid command"]),
            Protocol::Smtp => self.say(&[b"500 5.5.1 Invalid command"]),
        }
    }

    /// Ends the session because something is wrong here, which the log has been told.
    pub async fn fail(&mut self) -> Gone {
        let text = self.session.server.protocol.internal_error();
        self.say(&[text.as_bytes()]);
        self.dismiss().await
    }

    /// Ends the session with what the client is to be told, which it still gets if it has sent something meanwhile.
    pub async fn dismiss(&mut self) -> Gone {
        let stream = &self.session.stream;
        stream.set_send_timeout(Some(LINGER_MS));
        let sent = stream.send_all(Chain::from(Bytes::from(std::mem::take(&mut self.output)))).await;
        if sent.is_ok() && stream.shutdown_write().is_ok() {
            stream.set_recv_timeout(Some(LINGER_MS));
            let mut left = MOST_LINGERING;
            while left > 0
                && let Ok(more) = stream.recv(left).await
                && !more.is_empty()
            {
                left = left.saturating_sub(more.len());
            }
        }
        Gone
    }
}
