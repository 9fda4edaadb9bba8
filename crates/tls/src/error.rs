//! What can be wrong with certificates, keys and settings.

use std::fmt;

/// A message as nginx words it, without `[emerg]` and the place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(pub String);

/// A result with such a message.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Error {
        Error(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// `(2: No such file or directory)`: the system's error as nginx shows it.
pub(crate) fn system(error: &std::io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => format!("{code}: {}", text.split(" (os error").next().unwrap_or(&text)),
        None => text,
    }
}
