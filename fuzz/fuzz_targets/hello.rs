//! ClientHello: whatever the bytes, an answer; and a whole message stays one when more bytes follow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::hello::parse;

fuzz_target!(|data: &[u8]| {
    let Ok(Some(hello)) = parse(data) else { return };
    let _ = (hello.protocols().count(), hello.offers(0x0304));
    let mut longer = data.to_vec();
    longer.extend_from_slice(b"more");
    assert_eq!(parse(&longer), Ok(Some(hello)));
});
