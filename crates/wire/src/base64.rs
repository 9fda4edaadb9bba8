//! Base64 as senders write it (RFC 4648 §4).

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Writes padding. Reads texts with and without it, and ignores the bits after the last byte, as nginx does.
pub const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn padding_and_the_bits_after_it_may_be_anything() {
        for text in ["YQ==", "YQ", "YR==", "YR"] {
            assert_eq!(LENIENT.decode(text).as_deref(), Ok(&b"a"[..]), "{text}");
        }
        assert!(LENIENT.decode("Y Q=").is_err());
        assert_eq!(LENIENT.encode("a"), "YQ==");
    }
}
