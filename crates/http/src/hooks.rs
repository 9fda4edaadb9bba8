//! Panics on demand where there is no request yet, for tests of what a panic costs. Built with the feature `test-hooks`
//! only, which no shipped program has.

/// Panics if the bytes ask for it: in a handshake the server's name, otherwise what was received.
pub fn accident(bytes: &[u8]) {
    assert!(!bytes.windows(ASKED.len()).any(|word| word == ASKED), "test hook");
}

/// What asks for it.
const ASKED: &[u8] = b"panic.test";
