//! Passwords of the forms `$1$` and `$apr1$`: a thousand rounds of MD5.

use md5::{Digest, Md5};

use super::hashes::DIGITS;
use crate::constant_time::equal;

const ROUNDS: usize = 1000;
/// The longest salt; what follows of a longer one is ignored.
const SALT: usize = 8;

/// Whether `stored` is made of the password; `magic` is the beginning of `stored`.
pub(super) fn verify(stored: &[u8], magic: &[u8], password: &[u8]) -> bool {
    let rest = stored.get(magic.len()..).unwrap_or_default();
    let end = rest.iter().position(|&byte| byte == b'$').unwrap_or(rest.len());
    let salt = rest.get(..end.min(SALT)).unwrap_or_default();
    let made = [magic, salt, b"$", &encode(&hash(magic, salt, password))].concat();
    equal(&made, stored)
}

fn hash(magic: &[u8], salt: &[u8], password: &[u8]) -> [u8; 16] {
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut outer = Md5::new().chain_update(password).chain_update(magic).chain_update(salt);
    for at in (0..password.len()).step_by(16) {
        outer.update(&inner[..(password.len() - at).min(16)]);
    }
    let mut bits = password.len();
    while bits > 0 {
        // The original means to add the first byte of the digest for set bits, and has overwritten it by then.
        outer.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut last: [u8; 16] = outer.finalize().into();
    for round in 0..ROUNDS {
        let mut next = Md5::new();
        next.update(if round % 2 == 1 { password } else { &last });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if round % 2 == 1 { &last } else { password });
        last = next.finalize().into();
    }
    last
}

/// The digest's text, whose digits stand in an order of their own.
fn encode(digest: &[u8; 16]) -> Vec<u8> {
    const ORDER: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
    let mut text = Vec::with_capacity(22);
    let mut put = |mut value: usize, digits: usize| {
        for _ in 0..digits {
            text.push(DIGITS[value & 63]);
            value >>= 6;
        }
    };
    for order in ORDER {
        put(order.iter().fold(0, |value, &at| value << 8 | usize::from(digest[at])), 4);
    }
    put(usize::from(digest[11]), 2);
    text
}
