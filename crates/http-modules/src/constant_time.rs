//! Comparing secrets.

/// Compares in a time that depends on nothing but the lengths, so that it doesn't tell how much of a secret was guessed.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_or_not() {
        for (a, b, expect) in
            [("", "", true), ("a", "a", true), ("a", "b", false), ("a", "ab", false), ("", "a", false)]
        {
            assert_eq!(equal(a.as_bytes(), b.as_bytes()), expect, "{a} {b}");
        }
    }
}
