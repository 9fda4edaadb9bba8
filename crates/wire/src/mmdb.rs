//! MaxMind's newer databases of places by address (`.mmdb`): fields of records by their path.

use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;

use maxminddb::{MaxMindDbError, PathElement, Reader};

/// A database.
pub struct Database(Reader<Vec<u8>>);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database")
    }
}

/// Why a file is no database.
#[derive(Debug)]
pub struct MmdbError(MaxMindDbError);

impl fmt::Display for MmdbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for MmdbError {}

/// A step in a record.
#[derive(Clone, Debug)]
pub enum Step {
    /// In a map.
    Key(String),
    /// In a list, from its beginning or, if it is negative, from its end.
    Index(isize),
}

impl Step {
    /// A number is an index, other words are keys.
    pub fn of(word: &str) -> Step {
        word.parse().map_or_else(|_| Step::Key(word.to_owned()), Step::Index)
    }

    fn element(&self) -> PathElement<'_> {
        match self {
            Step::Key(key) => PathElement::Key(key),
            Step::Index(at @ 0..) => PathElement::Index(at.unsigned_abs()),
            Step::Index(at) => PathElement::IndexFromEnd(at.unsigned_abs() - 1),
        }
    }
}

impl Database {
    /// Takes a file for a database.
    pub fn new(file: Vec<u8>) -> Result<Database, MmdbError> {
        Reader::from_source(file).map(Database).map_err(MmdbError)
    }

    /// When it was made, in seconds since 1970.
    pub fn build_epoch(&self) -> u64 {
        self.0.metadata().build_epoch
    }

    /// Appends what the record of an address has at a path; false if there is nothing, or something other than a text or a
    /// number.
    pub fn field(&self, address: IpAddr, path: &[Step], out: &mut Vec<u8>) -> bool {
        let Ok(record) = self.0.lookup(address.to_canonical()) else { return false };
        let path: Vec<PathElement<'_>> = path.iter().map(Step::element).collect();
        // Each asks for one type: most fields are text. Writing into a Vec can't fail.
        if let Ok(text) = record.decode_path::<&str>(&path) {
            out.extend_from_slice(text.unwrap_or_default().as_bytes());
            return text.is_some();
        }
        if let Ok(Some(value)) = record.decode_path::<u128>(&path) {
            return write!(out, "{value}").is_ok();
        }
        if let Ok(Some(value)) = record.decode_path::<i64>(&path) {
            return write!(out, "{value}").is_ok();
        }
        if let Ok(Some(value)) = record.decode_path::<f64>(&path) {
            return write!(out, "{value:.5}").is_ok();
        }
        match record.decode_path::<bool>(&path) {
            Ok(Some(value)) => write!(out, "{}", u8::from(value)).is_ok(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps() {
        for (word, expect) in [("iso_code", "Key(\"iso_code\")"), ("0", "Index(0)"), ("-1", "Index(-1)")] {
            assert_eq!(format!("{:?}", Step::of(word)), expect);
        }
    }

    #[test]
    fn what_is_no_database() {
        for file in [&b""[..], b"nothing", b"\xab\xcd\xefMaxMind.com"] {
            assert!(Database::new(file.to_vec()).is_err());
        }
    }
}
