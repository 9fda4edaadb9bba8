//! Modules that look at a client's first bytes, before the session has a backend.

pub mod mqtt_preread;
pub mod rdp_preread;
pub mod ssl_preread;

use std::any::Any;

use common::Session;

use crate::session::StreamSession;

/// Keeps what was found with the session.
fn keep<T: Any + Default>(s: &mut StreamSession, found: T) {
    *s.store_mut().slots.entry() = found;
}

/// Appends a part of what was kept, as the value of a variable; false if there is none.
fn kept<T: Any>(s: &StreamSession, out: &mut Vec<u8>, part: impl Fn(&T) -> Option<&[u8]>) -> bool {
    let value = s.store().slots.find().and_then(part);
    value.inspect(|value| out.extend_from_slice(value)).is_some()
}
