//! Numbers as text, without the machinery of `fmt`.

/// A number's digits.
pub fn digits(mut n: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    while n >= 100 {
        at -= 2;
        (digits[at], digits[at + 1]) = PAIRS[(n % 100) as usize];
        n /= 100;
    }
    let (tens, ones) = PAIRS[n as usize];
    at -= 1;
    digits[at] = ones;
    if n >= 10 {
        at -= 1;
        digits[at] = tens;
    }
    &digits[at..]
}

/// The digits of the numbers below 100.
static PAIRS: [(u8, u8); 100] = {
    let mut pairs = [(0, 0); 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = (b'0' + (n / 10) as u8, b'0' + (n % 10) as u8);
        n += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn numbers() {
        for n in [0, 7, 9, 10, 99, 100, 101, 999, 1000, 4096, 99_999, u64::MAX] {
            assert_eq!(digits(n, &mut [0; 20]), n.to_string().as_bytes());
        }
    }
}
