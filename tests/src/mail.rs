//! Mail: clients that speak in lines, servers that have mail, and one that says who may log in.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::{Backend, Connection, Received, Setup};

/// A configuration with this `mail` block.
pub fn setup(mail: &str) -> Setup {
    Setup::whole(&format!(
        "daemon off;\npid nginx.pid;\nworker_processes 1;\nerror_log %%DIR%%/error.log info;\n\
         events {{ worker_connections 1024; %%USE%% }}\nmail {{\nserver_name mx.test;\n{mail}\n}}\n"
    ))
}

/// The server of `auth_http`, which answers with these fields.
pub fn auth(answer: impl Fn(&Received) -> String + Send + Sync + 'static) -> Backend {
    Backend::start(move |request| format!("HTTP/1.0 200 OK\r\n{}\r\n\r\n", answer(request)).into_bytes())
}

/// The fields that let a client in, to a server on this port.
pub fn allowed(port: u16) -> String {
    format!("Auth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: {port}")
}

/// A server of `auth_http` that lets everybody in, to a server on this port.
pub fn allow(port: u16) -> Backend {
    auth(move |_| allowed(port))
}

/// A server that has mail: it greets, and answers each line; an empty answer ends the connection. [`heard`] has its lines.
pub fn backend(greeting: &'static str, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Backend {
    Backend::sockets(move |mut stream, heard| {
        let lines = BufReader::new(stream.try_clone().expect("a socket can be copied")).lines();
        let _ = stream.write_all(greeting.as_bytes());
        for line in lines.map_while(Result::ok) {
            heard.lock().expect("no test panics here").push(Received { head: line.clone(), body: Vec::new() });
            let answer = answer(&line);
            if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// What IMAP's server answers to a login and to what follows it.
pub fn imap() -> Backend {
    backend("* OK ready\r\n", |line| match line.split(' ').collect::<Vec<_>>()[..] {
        _ if line.ends_with('}') => "+ go on\r\n".to_owned(),
        [tag, "LOGOUT"] => format!("* BYE\r\n{tag} OK gone\r\n"),
        [tag, ..] if tag.starts_with('b') => format!("{tag} OK done: {line}\r\n"),
        _ => "a OK in\r\n".to_owned(),
    })
}

/// What POP3's server answers.
pub fn pop3() -> Backend {
    backend("+OK ready\r\n", |line| format!("+OK {line}\r\n"))
}

/// What SMTP's server answers.
pub fn smtp() -> Backend {
    backend("220 ready\r\n", |line| match line.split(' ').next() {
        Some("XCLIENT") => "220 again\r\n".to_owned(),
        Some("AUTH") => "235 in\r\n".to_owned(),
        Some("EHLO") => "250-hello\r\n250 X\r\n".to_owned(),
        _ => format!("250 {line}\r\n"),
    })
}

/// A server that sends back whatever comes once a client of IMAP has logged in.
pub fn echo() -> Backend {
    Backend::sockets(|stream: TcpStream, _| {
        let mut to = stream.try_clone().expect("a socket can be copied");
        let mut from = BufReader::new(stream);
        let (mut line, mut said) = (String::new(), ["+ go on\r\n", "+ go on\r\n", "a OK in\r\n"].iter());
        let _ = to.write_all(b"* OK ready\r\n");
        while let Some(answer) = said.next()
            && from.read_line(&mut line).is_ok()
        {
            let _ = to.write_all(answer.as_bytes());
        }
        let _ = std::io::copy(&mut from, &mut to);
    })
}

/// The lines that a server has heard.
pub fn heard(backend: &Backend) -> Vec<String> {
    backend.requests().into_iter().map(|line| line.head).collect()
}

/// A client that speaks in lines.
#[derive(Debug)]
pub struct Talk(pub Connection);

impl Talk {
    /// Connects to a port of 127.0.0.1.
    pub fn open(port: u16) -> Talk {
        Talk(Connection::open(port))
    }

    /// The next line without its end.
    pub fn hear(&mut self) -> String {
        String::from_utf8_lossy(&self.0.line_or_end()).trim_end_matches(['\r', '\n']).to_owned()
    }

    /// Hears these lines, of which a `*` at the end stands for anything.
    #[track_caller]
    pub fn expect(&mut self, lines: &[&str]) -> &mut Talk {
        for line in lines {
            let heard = self.hear();
            let same = match line.strip_suffix('*') {
                Some(start) => heard.starts_with(start),
                None => heard == *line,
            };
            assert!(same, "heard {heard:?} instead of {line:?}");
        }
        self
    }

    /// Says a line, and hears these.
    #[track_caller]
    pub fn say(&mut self, line: &str, lines: &[&str]) -> &mut Talk {
        self.0.send(format!("{line}\r\n"));
        self.expect(lines)
    }

    /// The server closes the connection without another word.
    #[track_caller]
    pub fn end(&mut self) {
        let rest = self.0.rest();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }
}

/// Base64, as clients send it.
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
