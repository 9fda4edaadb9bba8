//! The bare loop: what the kernel alone takes for a case's requests. It waits, receives and sends, and looks at nothing.
//!
//! A server can't do with less CPU time, since these calls are the request; what a bar asks beyond this can't be had.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::bench_cases::{Case, Driver, FILES};
use crate::tools::Outcome;

/// What is done about a request.
enum Answer {
    /// The same bytes are sent.
    Bytes { close: bool },
    /// A head is sent, and a file.
    File(File, u64),
    /// It is passed on to this port of the loopback address, and what comes back to the client: each has a connection of
    /// its own there.
    Pass(u16),
}

/// One end of a connection.
struct End {
    stream: TcpStream,
    /// The other one, of a connection that is passed on.
    peer: usize,
    /// From where on the file is still to be sent.
    offset: Option<u64>,
}

struct Loop {
    epoll: OwnedFd,
    answer: Answer,
    response: Vec<u8>,
    buffer: Vec<u8>,
    /// By descriptor.
    ends: Vec<Option<End>>,
}

/// The command line after `bench --bare-loop` for a case, if there is a bare loop for it.
pub(crate) fn arguments(case: &Case, port: u16, backend: u16, folder: &str) -> Option<Vec<String>> {
    let size = FILES.iter().find(|(name, _)| case.path.strip_prefix('/') == Some(*name)).map_or(0, |file| file.1);
    let what = match () {
        () if case.tls.is_some() => return None,
        () if case.proxied => format!("pass:{backend}"),
        () if case.load == Driver::Ab => "close".to_string(),
        () if size > 64 << 10 => format!("file:{folder}/html{}", case.path),
        () => "bytes".to_string(),
    };
    Some(vec!["bench".to_string(), "--bare-loop".to_string(), format!("{port},{what}")])
}

/// Serves `PORT,WHAT` until it is ended.
pub(crate) fn run(argument: &str) -> Outcome {
    let fail = |error: std::io::Error| format!("the bare loop: {error}");
    let (port, what) = argument.split_once(',').ok_or("--bare-loop PORT,WHAT")?;
    let port: u16 = port.parse().map_err(|_| format!("no port: {port}"))?;
    let answer = match what.split_once(':') {
        Some(("file", path)) => {
            let file = File::open(path).map_err(fail)?;
            let length = file.metadata().map_err(fail)?.len();
            Answer::File(file, length)
        }
        Some(("pass", port)) => Answer::Pass(port.parse().map_err(|_| format!("no port: {port}"))?),
        _ => Answer::Bytes { close: what == "close" },
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(fail)?;
    serve(&listener, answer).map_err(|error| fail(error.into()))
}

fn serve(listener: &TcpListener, answer: Answer) -> Result<(), Errno> {
    let length = if let Answer::File(_, length) = answer { length } else { 1024 };
    let connection = if matches!(answer, Answer::Bytes { close: true }) { "close" } else { "keep-alive" };
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nServer: none\r\nDate: Mon, 30 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: {length}\r\nConnection: {connection}\r\n\r\n"
    )
    .into_bytes();
    if matches!(answer, Answer::Bytes { .. }) {
        response.resize(response.len() + 1024, b'x');
    }
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(0), EventFlags::IN)?;
    let mut state = Loop { epoll, answer, response, buffer: vec![0; 256 << 10], ends: Vec::new() };
    let mut events: Vec<Event> = Vec::with_capacity(512);
    loop {
        events.clear();
        epoll::wait(&state.epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            match event.data.u64() {
                0 => state.accept(listener)?,
                at => state.ready(at as usize, event.flags)?,
            }
        }
    }
}

impl Loop {
    fn accept(&mut self, listener: &TcpListener) -> Result<(), Errno> {
        let Ok((client, _)) = listener.accept() else { return Ok(()) };
        if matches!(self.answer, Answer::Bytes { close: true })
            && recv(&client, &mut self.buffer[..], RecvFlags::DONTWAIT).is_ok()
        {
            // The request came with the connection.
            let _ = send_all(&client, &self.response, SendFlags::NOSIGNAL);
            return Ok(());
        }
        let _ = client.set_nodelay(true);
        let peer = match &self.answer {
            Answer::Pass(port) => TcpStream::connect(("127.0.0.1", *port)).ok(),
            _ => None,
        };
        let (at, other) = (client.as_raw_fd() as usize, peer.as_ref().map_or(0, |peer| peer.as_raw_fd() as usize));
        self.add(client, other)?;
        peer.map_or(Ok(()), |peer| self.add(peer, at))
    }

    fn add(&mut self, stream: TcpStream, peer: usize) -> Result<(), Errno> {
        let at = stream.as_raw_fd() as usize;
        let mut flags = EventFlags::IN;
        if matches!(self.answer, Answer::File(..)) {
            flags |= EventFlags::OUT | EventFlags::ET;
            let _ = stream.set_nonblocking(true);
        }
        epoll::add(&self.epoll, &stream, EventData::new_u64(at as u64), flags)?;
        if self.ends.len() <= at {
            self.ends.resize_with(at + 1, || None);
        }
        self.ends[at] = Some(End { stream, peer, offset: None });
        Ok(())
    }

    fn ready(&mut self, at: usize, flags: EventFlags) -> Result<(), Errno> {
        // It may have been closed in this turn.
        let Some(Some(end)) = self.ends.get(at) else { return Ok(()) };
        if flags.contains(EventFlags::OUT) && end.offset.is_some() {
            self.send_file(at)?;
        }
        let Some(Some(end)) = self.ends.get(at) else { return Ok(()) };
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return Ok(());
        }
        let received = match recv(&end.stream, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((received @ 1.., _)) => received,
            Err(Errno::AGAIN) => return Ok(()),
            Ok(_) | Err(_) => {
                self.close(at);
                return Ok(());
            }
        };
        let peer = end.peer;
        match &self.answer {
            Answer::Pass(_) => {
                let part = &self.buffer[..received];
                if let Some(Some(peer)) = self.ends.get(peer) {
                    let _ = send_all(&peer.stream, part, SendFlags::NOSIGNAL);
                }
            }
            Answer::Bytes { close } => {
                let _ = send_all(&end.stream, &self.response, SendFlags::NOSIGNAL);
                if *close {
                    self.close(at);
                }
            }
            Answer::File(..) => {
                let _ = send_all(&end.stream, &self.response, SendFlags::NOSIGNAL | SendFlags::MORE);
                if let Some(Some(end)) = self.ends.get_mut(at) {
                    end.offset = Some(0);
                }
                self.send_file(at)?;
            }
        }
        Ok(())
    }

    fn send_file(&mut self, at: usize) -> Result<(), Errno> {
        let (Answer::File(file, length), Some(Some(end))) = (&self.answer, self.ends.get_mut(at)) else {
            return Ok(());
        };
        while let Some(offset) = &mut end.offset {
            let rest = *length - *offset;
            match sendfile(&end.stream, file.as_fd(), Some(offset), rest as usize) {
                Ok(_) if *offset >= *length => end.offset = None,
                Ok(1..) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Ok(0) | Err(_) => {
                    self.close(at);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, at: usize) {
        if let Some(end) = self.ends.get_mut(at).and_then(Option::take)
            && end.peer != 0
            && let Some(peer) = self.ends.get_mut(end.peer)
        {
            *peer = None;
        }
    }
}

fn send_all(stream: &TcpStream, mut bytes: &[u8], flags: SendFlags) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let sent = send(stream, bytes, flags)?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::bench_cases::CASES;
    use crate::measure::free_ports;

    fn ask(port: u16, length: usize) -> String {
        let mut stream = (0..100)
            .find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                TcpStream::connect(("127.0.0.1", port)).ok()
            })
            .expect("it listens");
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        let mut text = String::new();
        while text.len() < length {
            let mut part = [0; 65_536];
            let n = stream.read(&mut part).expect("received");
            assert!(n > 0, "it ends after {}", text.len());
            text += &String::from_utf8_lossy(&part[..n]);
        }
        text
    }

    #[test]
    fn every_kind_answers() {
        let ports = free_ports(3).expect("ports");
        let folder = crate::tools::folder("bare-loop").expect("a folder");
        let file = folder.path().join("f");
        std::fs::write(&file, "f".repeat(1 << 20)).expect("written");
        for (port, what) in [(ports[0], "bytes".to_string()), (ports[1], format!("file:{}", file.display()))] {
            std::thread::spawn(move || run(&format!("{port},{what}")));
        }
        let to = ports[0];
        let passing = ports[2];
        std::thread::spawn(move || run(&format!("{passing},pass:{to}")));
        assert!(ask(ports[0], 1100).ends_with(&"x".repeat(1024)));
        assert!(ask(ports[2], 1100).ends_with(&"x".repeat(1024)));
        assert!(ask(ports[1], 1 << 20).ends_with(&"f".repeat(1000)));
    }

    #[test]
    fn what_there_is_a_loop_for() {
        let kinds = CASES.map(|case| arguments(&case, 1, 2, "/f").map(|words| words[2].clone()));
        assert_eq!(kinds.iter().filter(|kind| kind.is_none()).count(), 6, "those with TLS");
        assert_eq!(kinds[0].as_deref(), Some("1,bytes"));
        assert_eq!(kinds[5].as_deref(), Some("1,file:/f/html/100k.bin"));
        assert_eq!(kinds[7].as_deref(), Some("1,close"));
        assert_eq!(kinds[8].as_deref(), Some("1,pass:2"));
    }
}
