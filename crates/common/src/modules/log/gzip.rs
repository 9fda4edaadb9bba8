//! Compressed logs: each buffer becomes a gzip member of its own, so that the file can be read at any time.

use std::rc::Rc;

use engine::log::Encoder;
use zlib_rs::{DeflateConfig, ReturnCode, compress_bound, compress_slice};

/// An encoder of that level, 1 to 9.
pub(super) fn encoder(level: u8) -> Encoder {
    Rc::new(move |bytes| gzip(bytes, level))
}

/// One gzip member. What can't be compressed (which doesn't happen: the room suffices) is lost.
fn gzip(bytes: &[u8], level: u8) -> Vec<u8> {
    // The library's level 1 compresses far less than zlib's; its level 2 is what zlib calls 1.
    let config = DeflateConfig { window_bits: GZIP_WINDOW, ..DeflateConfig::new(i32::from(level.clamp(2, 9))) };
    let mut out = vec![0; compress_bound(bytes.len()) + WRAPPER];
    let (written, code) = compress_slice(&mut out, bytes, config);
    let length = if code == ReturnCode::Ok { written.len() } else { 0 };
    out.truncate(length);
    out
}

/// zlib's word for the largest window with gzip's header and trailer.
const GZIP_WINDOW: i32 = 15 + 16;
/// gzip's header and trailer.
const WRAPPER: usize = 18;

#[cfg(test)]
mod tests {
    use zlib_rs::{InflateConfig, decompress_slice};

    use super::*;

    #[test]
    fn round_trip() {
        for (bytes, level) in [(&b""[..], 1), (b"a", 9), (&b"line\n".repeat(20_000)[..], 1)] {
            let packed = gzip(bytes, level);
            assert!(packed.starts_with(&[0x1f, 0x8b, 8]), "{level}");
            let mut out = vec![0; bytes.len() + 1];
            let (unpacked, code) = decompress_slice(&mut out, &packed, InflateConfig { window_bits: GZIP_WINDOW });
            assert!(code == ReturnCode::Ok && *unpacked == *bytes);
        }
    }
}
