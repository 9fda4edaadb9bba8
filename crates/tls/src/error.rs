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

/// How OpenSSL tells that a file can't be opened (`mode`: `r` for texts, `rb` for others), as nginx shows it.
pub fn cannot_open(name: &str, mode: &str, error: &std::io::Error) -> String {
    let Some(code) = error.raw_os_error() else { return error.to_string() };
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let why = match error.kind() {
        std::io::ErrorKind::NotFound => "error:10000080:BIO routines::no such file",
        _ => "error:10080002:BIO routines::system lib",
    };
    format!("SSL: error:8{code:07X}:system library::{text}:calling fopen({name}, {mode}) {why}")
}
