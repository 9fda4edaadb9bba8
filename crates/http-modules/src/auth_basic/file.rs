//! The file of users and passwords: a line for each, `name:password`, of which a second colon ends the password.
//!
//! Lines that begin with `#` are comments. A name counts where it stands first. The file may have any size: it is read
//! in parts, of which nothing but the password found is kept.

use std::fs::File;
use std::io::{self, Read};

use buf::Secret;
use os::file::{Open, openat};

/// How much of the file is read in one go. The memory is cleared before and after.
const PART: usize = 4 << 10;

/// The stored password of a user; `None` if the file doesn't have the user. The error says which call failed.
pub fn find(path: &[u8], user: &[u8]) -> Result<Option<Secret>, (&'static str, io::Error)> {
    // A pipe without a writer must not block the worker.
    let how = Open { nonblocking: true, ..Open::default() };
    let mut file = File::from(openat(None, path, how).map_err(|error| ("open()", error))?);
    let mut part = Secret::from(vec![0; PART]);
    let mut search = Search::new(user);
    loop {
        let read = match file.read(part.bytes_mut()) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(("read()", error)),
        };
        if read == 0 || search.feed(&part[..read]) {
            return Ok(search.end());
        }
    }
}

/// Looks for a user's line in the parts of a file.
pub struct Search<'u> {
    user: &'u [u8],
    state: State,
    password: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a name, of which so many bytes are those of the user's.
    Name(usize),
    /// In a comment, or in the line of another user.
    Other,
    /// In the user's password.
    Password,
    /// After it.
    Found,
}

impl<'u> Search<'u> {
    /// Begins at the start of a file.
    pub fn new(user: &'u [u8]) -> Search<'u> {
        Search { user, state: State::Name(0), password: Secret::default() }
    }

    /// Takes the next part; true if the rest isn't needed.
    pub fn feed(&mut self, mut part: &[u8]) -> bool {
        while let Some((&byte, rest)) = part.split_first() {
            self.state = match self.state {
                State::Found => return true,
                State::Password => {
                    let end = part.iter().position(|byte| matches!(byte, b':' | b'\r' | b'\n'));
                    self.password.extend_from_slice(&part[..end.unwrap_or(part.len())]);
                    if end.is_none() {
                        return false;
                    }
                    State::Found
                }
                State::Other => {
                    let Some(end) = memchr::memchr(b'\n', part) else { return false };
                    part = &part[end + 1..];
                    self.state = State::Name(0);
                    continue;
                }
                State::Name(0) if matches!(byte, b'#' | b'\r') => State::Other,
                State::Name(_) if byte == b'\n' => State::Name(0),
                State::Name(at) if at == self.user.len() && byte == b':' => State::Password,
                State::Name(at) if self.user.get(at) == Some(&byte) => State::Name(at + 1),
                State::Name(_) => State::Other,
            };
            part = rest;
        }
        self.state == State::Found
    }

    /// The password, after the last part.
    pub fn end(self) -> Option<Secret> {
        matches!(self.state, State::Password | State::Found).then_some(self.password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = b"#comment:c\n\nnocolon\n\r\nuser:{PLAIN}pass word:a comment:x\nuse:short\r\nuser:again\n\
                          users:longer\n sp:space\nempty:\nlast:z";

    fn look(user: &str, split: usize) -> Option<Vec<u8>> {
        let mut search = Search::new(user.as_bytes());
        let (first, second) = FILE.split_at(split);
        if !search.feed(first) {
            search.feed(second);
        }
        search.end().map(|password| password.to_vec())
    }

    #[test]
    fn lines() {
        for (user, expect) in [
            ("user", Some("{PLAIN}pass word")),
            ("use", Some("short")),
            ("users", Some("longer")),
            (" sp", Some("space")),
            ("sp", None),
            ("empty", Some("")),
            ("last", Some("z")),
            ("#comment", None),
            ("comment", None),
            ("nocolon", None),
            ("nobody", None),
            ("", None),
        ] {
            for split in 0..=FILE.len() {
                assert_eq!(look(user, split).as_deref(), expect.map(str::as_bytes), "{user} {split}");
            }
        }
    }

    #[test]
    fn files() {
        let folder = tempfile::TempDir::with_prefix("tidegate-passwords-").expect("a folder");
        let path = folder.path().join("users");
        let mut text = vec![b'x'; 3 * PART];
        text.extend_from_slice(b"\nuser:stored\n");
        std::fs::write(&path, text).expect("the folder is there");
        let name = path.as_os_str().as_encoded_bytes();
        let found = |user: &str| find(name, user.as_bytes()).expect("it is there").map(|stored| stored.to_vec());
        assert_eq!((found("user"), found("other")), (Some(b"stored".to_vec()), None));
        std::fs::remove_file(&path).expect("it is there");
        assert_eq!(
            find(name, b"user").err().map(|(call, error)| (call, error.kind())),
            Some(("open()", io::ErrorKind::NotFound))
        );
    }
}
