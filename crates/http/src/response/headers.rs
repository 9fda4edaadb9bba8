//! Fields of a head.

use buf::Bytes;

/// Fields of a head.
#[derive(Default, Clone, Debug)]
pub struct Headers(pub Vec<Header>);

/// One field.
#[derive(Clone, Debug)]
pub struct Header {
    /// Its name as sent.
    pub name: Bytes,
    /// Its value.
    pub value: Bytes,
}

impl Headers {
    /// Adds a field.
    pub fn push(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.0.push(Header { name: name.into(), value: value.into() });
    }

    /// Adds a field of a name that is part of the program.
    pub fn push_static(&mut self, name: &'static str, value: impl Into<Bytes>) {
        self.push(Bytes::from_static(name.as_bytes()), value);
    }

    /// The first field of that name.
    pub fn find(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|header| header.name.eq_ignore_ascii_case(name.as_bytes())).map(|header| &header.value)
    }

    /// Removes all fields of that name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|header| !header.name.eq_ignore_ascii_case(name.as_bytes()));
    }

    /// Appends the values of all fields whose name fits a variable's, joined by `, `.
    pub fn variable(&self, name: &str, out: &mut Vec<u8>) -> bool {
        let mut found = false;
        for header in &self.0 {
            if same_name(&header.name, name) {
                if found {
                    out.extend_from_slice(b", ");
                }
                out.extend_from_slice(&header.value);
                found = true;
            }
        }
        found
    }
}

/// Whether a field's name is that of a variable: in lower case, with underscores for dashes.
pub fn same_name(field: &[u8], variable: &str) -> bool {
    field.len() == variable.len()
        && field
            .iter()
            .zip(variable.bytes())
            .all(|(&a, b)| (if a == b'-' { b'_' } else { a.to_ascii_lowercase() }) == b)
}
