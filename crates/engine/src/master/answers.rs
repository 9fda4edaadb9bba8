//! What came of a reload, for the person who asked for it.
//!
//! nginx's `-s reload` sends a signal and says nothing of what follows. Here the master listens on an abstract unix
//! socket named after its process id. `-s reload` connects to it before it sends the signal; the master answers whoever
//! is connected with what came of the first reload that begins afterwards. A master that doesn't listen, such as nginx,
//! gets the signal all the same, and then nothing is said.
//!
//! Only the superuser and the master's own user get answers. Who asks trusts only a socket that the process of the pid
//! file listens on. The answer is text to the end of the connection: a line `ok` or `failed`, then the messages.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use os::SockAddr;
use os::poll::PollFd;
use os::socket::{self, ListenOptions};

/// Those who wait for the next reload's outcome, and where more of them arrive.
pub struct Answers {
    socket: OwnedFd,
    waiting: RefCell<Vec<OwnedFd>>,
}

impl Answers {
    /// Listens. In a daemon to be called by the process that stays: its id is the name.
    pub fn new() -> io::Result<Answers> {
        let options = ListenOptions { backlog: MAX_WAITING as i32, ..ListenOptions::default() };
        let socket = socket::listen(&address(os::process::pid())?, &options).map_err(|error| error.error)?;
        Ok(Answers { socket, waiting: RefCell::default() })
    }

    /// Readable when somebody has come: then call [`Answers::collect`].
    pub fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Lets in who has come; to be called before a reload begins. Who may not ask, or is one too many, is sent away.
    pub fn collect(&self) {
        let mut waiting = self.waiting.borrow_mut();
        for _ in 0..MAX_WAITING {
            let Ok((fd, _)) = socket::accept(self.socket.as_raw_fd()) else { break };
            let may_ask = socket::peer_credentials(fd.as_raw_fd())
                .is_ok_and(|(uid, _)| uid == 0 || uid == os::users::effective_uid());
            if may_ask && waiting.len() < MAX_WAITING {
                waiting.push(fd);
            }
        }
    }

    /// Tells all that wait what came of the reload: nothing to say, or messages.
    pub fn answer(&self, outcome: Result<(), &str>) {
        let text = match outcome {
            Ok(()) => format!("{TAKEN}\n"),
            Err(messages) => format!("{FAILED}\n{messages}"),
        };
        for fd in self.waiting.take() {
            // It fits into the socket's buffer; who doesn't listen any more doesn't need it.
            let _ = os::io::send(fd.as_raw_fd(), text.as_bytes(), false);
        }
    }
}

/// The side of `-s reload`.
pub struct Question(OwnedFd);

impl Question {
    /// Asks the process what will come of its next reload. `None`: it is not one that answers.
    pub fn ask(pid: i32) -> Option<Question> {
        let address = address(pid).ok()?;
        let fd = socket::socket(&address, socket::Kind::Stream).ok()?;
        let connected = socket::connect(fd.as_raw_fd(), &address).ok()?;
        let (_, peer) = socket::peer_credentials(fd.as_raw_fd()).ok()?;
        (connected && peer == pid).then_some(Question(fd))
    }

    /// Waits for the answer, the messages if the reload failed. `None`: none has come in time, or the process has ended.
    pub fn wait(self, patience: Duration) -> Option<Result<(), String>> {
        let end = Instant::now() + patience;
        let mut text = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let timeout = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
            let _ = os::poll::poll(&mut [PollFd::new(self.0.as_raw_fd(), os::poll::IN)], timeout);
            let mut part = [0; 4096];
            match os::io::read(self.0.as_raw_fd(), &mut part) {
                Ok(0) => return understand(&text),
                Ok(_) if text.len() > MAX_ANSWER => return None,
                Ok(n) => text.extend(part.iter().take(n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }
}

fn understand(text: &[u8]) -> Option<Result<(), String>> {
    let text = String::from_utf8_lossy(text);
    let (word, messages) = text.split_once('\n')?;
    match word {
        TAKEN => Some(Ok(())),
        // The master may be another user's: nothing of it is to steer a terminal.
        FAILED => Some(Err(messages.chars().filter(|&char| char == '\n' || !char.is_control()).collect())),
        _ => None,
    }
}

fn address(pid: i32) -> io::Result<SockAddr> {
    SockAddr::unix(format!("\0tidegate/reload/{pid}").as_bytes())
}

const TAKEN: &str = "ok";
const FAILED: &str = "failed";
/// The longest answer in bytes; nobody sends more than [`crate::log::report::MAX_HEARD`] and a few words.
const MAX_ANSWER: usize = 2 * crate::log::report::MAX_HEARD;
/// How many may wait for one reload.
const MAX_WAITING: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_and_answers() {
        let pid = os::process::pid();
        assert!(Question::ask(pid).is_none(), "nobody listens");
        let answers = Answers::new().expect("listens");
        let patience = Duration::from_secs(10);
        for (outcome, expect) in
            [(Ok(()), Some(Ok(()))), (Err("nginx: [emerg] x\n"), Some(Err("nginx: [emerg] x\n".to_string())))]
        {
            let questions = [Question::ask(pid), Question::ask(pid)];
            answers.collect();
            answers.answer(outcome);
            for question in questions {
                assert_eq!(question.expect("connects").wait(patience), expect);
            }
        }
        let early = Question::ask(pid).expect("connects");
        assert_eq!(early.wait(Duration::from_millis(1)), None);
        let left = Question::ask(pid).expect("connects");
        drop(answers);
        assert_eq!(left.wait(patience), None);
    }

    #[test]
    fn understands_only_its_words() {
        for (text, expect) in [("", None), ("ok", None), ("ok\n", Some(Ok(()))), ("maybe\n", None)] {
            assert_eq!(understand(text.as_bytes()), expect);
        }
        assert_eq!(understand(b"failed\na\x1b[2Jb\nc\n"), Some(Err("a[2Jb\nc\n".to_string())));
    }
}
