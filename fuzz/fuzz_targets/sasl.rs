//! Responses of SASL: what is taken of one can stand in a line, and is read again from what is written of it.
#![cfg_attr(fuzzing, no_main)]

use wire::mail::is_clean;
use wire::mail::sasl::{cram_md5, decode, encode, plain};

tidegate_fuzz::target!(|data: &[u8]| {
    let mut line = Vec::new();
    encode(data, &mut line);
    assert!(is_clean(&line));
    assert_eq!(decode(&line).as_deref(), Ok(data));
    let _ = decode(data);
    if let Ok((user, password)) = plain(data) {
        assert!(is_clean(user) && is_clean(password));
        let again = [b"\0", user, b"\0", password].concat();
        assert_eq!(plain(&again), Ok((user, password)));
    }
    if let Ok((user, digest)) = cram_md5(data) {
        assert!(is_clean(user) && digest.len() == 32 && is_clean(digest));
    }
});
