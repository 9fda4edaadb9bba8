//! Modules that look at a client's first bytes, before the session has a backend.

pub mod mqtt_preread;
pub mod rdp_preread;
pub mod ssl_preread;

use std::any::Any;

use common::Session;
use common::handover::format::Pairs;
use wire::tagged::{Reader, Writer};

use self::mqtt_preread::Client;
use self::rdp_preread::Cookie;
use self::ssl_preread::Offer;
use crate::session::StreamSession;

/// What a module has found.
trait Found: Any + Default {
    /// The module.
    const MODULE: &'static [u8];

    /// Writes it, for another worker.
    fn encode(&self, out: &mut Writer);

    /// What was written.
    fn decode(fields: Reader<'_>) -> Option<Self>;
}

/// Keeps what was found with the session.
fn keep<T: Found>(s: &mut StreamSession, found: T) {
    *s.store_mut().slots.entry() = found;
}

/// Appends a part of what was kept, as the value of a variable; false if there is none.
fn kept<T: Found>(s: &StreamSession, out: &mut Vec<u8>, part: impl Fn(&T) -> Option<&[u8]>) -> bool {
    let value = s.store().slots.find().and_then(part);
    value.inspect(|value| out.extend_from_slice(value)).is_some()
}

/// All that was found of a session, for another worker: the modules and what they have found.
pub(crate) fn found(s: &StreamSession) -> Pairs {
    fn pair<T: Found>(s: &StreamSession) -> Option<(Vec<u8>, Vec<u8>)> {
        let found = s.store().slots.find::<T>()?;
        Some((T::MODULE.to_vec(), encode(found)))
    }
    [pair::<Offer>(s), pair::<Client>(s), pair::<Cookie>(s)].into_iter().flatten().collect()
}

/// Keeps what was found in another worker.
pub(crate) fn keep_again(s: &mut StreamSession, pairs: &Pairs) {
    fn take<T: Found>(s: &mut StreamSession, module: &[u8], bytes: &[u8]) {
        if module == T::MODULE
            && let Some(found) = Reader::new(VERSION, bytes).and_then(T::decode)
        {
            keep(s, found);
        }
    }
    for (module, bytes) in pairs {
        take::<Offer>(s, module, bytes);
        take::<Client>(s, module, bytes);
        take::<Cookie>(s, module, bytes);
    }
}

fn encode<T: Found>(found: &T) -> Vec<u8> {
    let mut out = Writer::new(VERSION);
    found.encode(&mut out);
    out.finish().to_vec()
}

/// The version of the messages.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_travels() {
        fn check<T: Found + PartialEq + std::fmt::Debug>(found: T) {
            let bytes = encode(&found);
            let decode = |bytes| Reader::new(VERSION, bytes).and_then(T::decode);
            assert_eq!(decode(&bytes), Some(found));
            assert!((0..bytes.len()).all(|cut| decode(&bytes[..cut]).is_none()));
        }
        check(Offer { name: (*b"a.example").into(), protocols: b"h2,http/1.1".to_vec(), version: 0x0304 });
        check(Client { id: (*b"one").into(), username: (*b"alice").into() });
        check(Cookie((*b"mstshash=alice").into()));
    }
}
