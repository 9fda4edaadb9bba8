//! Dates of HTTP (RFC 9110 §5.6.7), read as leniently as nginx reads them.

/// Reads a date: `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT` or `Sun Nov  6 08:49:37 1994`.
///
/// Seconds since 1970. The day of the week and what follows the time aren't looked at.
pub fn parse_http_time(text: &[u8]) -> Option<i64> {
    match text.iter().position(|&b| b == b',') {
        Some(comma) => {
            let mut reader = Reader { text, at: comma + 1 };
            reader.spaces();
            reader.day_first()
        }
        None => {
            let space = text.iter().position(|&b| b == b' ')?;
            let mut reader = Reader { text, at: space };
            reader.spaces();
            reader.month_first()
        }
    }
}

/// Reads a date only if it is written to the byte as [`format_http_time`] writes it.
pub fn parse_canonical_time(text: &[u8]) -> Option<i64> {
    let text: [u8; 29] = text.try_into().ok()?;
    let [w0, w1, w2, b',', b' ', d0, d1, b' ', m0, m1, m2, b' ', y0, y1, y2, y3, b' ', clock @ ..] = text else {
        return None;
    };
    let [h0, h1, b':', i0, i1, b':', s0, s1, b' ', b'G', b'M', b'T'] = clock else { return None };
    let year = pair(y0, y1)? * 100 + pair(y2, y3)?;
    let (hour, minute, second) = (pair(h0, h1)?, pair(i0, i1)?, pair(s0, s1)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let time = combine(year, month([m0, m1, m2])?, pair(d0, d1)?, (hour * 60 + minute) * 60 + second)?;
    let weekday = WEEKDAYS[time.div_euclid(86400).rem_euclid(7) as usize];
    (*weekday == [w0, w1, w2]).then_some(time)
}

#[inline(always)]
fn pair(tens: u8, ones: u8) -> Option<i64> {
    let digits = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (digits.0 < 10 && digits.1 < 10).then(|| i64::from(digits.0) * 10 + i64::from(digits.1))
}

fn month(name: [u8; 3]) -> Option<i64> {
    Some(match &name {
        b"Jan" => 1,
        b"Feb" => 2,
        b"Mar" => 3,
        b"Apr" => 4,
        b"May" => 5,
        b"Jun" => 6,
        b"Jul" => 7,
        b"Aug" => 8,
        b"Sep" => 9,
        b"Oct" => 10,
        b"Nov" => 11,
        b"Dec" => 12,
        _ => return None,
    })
}

/// Writes a date as `Sun, 06 Nov 1994 08:49:37 GMT`; years beyond 9999 are cut to their last four digits.
pub fn format_http_time(seconds: i64) -> [u8; 29] {
    let (days, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400) as u32);
    let (year, month, day) = civil(days);
    let year = year.rem_euclid(10000) as u32;
    let [w0, w1, w2] = *WEEKDAYS[days.rem_euclid(7) as usize];
    let [m0, m1, m2] = *MONTHS[month as usize - 1];
    let ([d0, d1], [y0, y1], [y2, y3]) = (two(day), two(year / 100), two(year % 100));
    let ([h0, h1], [i0, i1], [s0, s1]) = (two(second / 3600), two(second / 60 % 60), two(second % 60));
    [
        w0, w1, w2, b',', b' ', d0, d1, b' ', m0, m1, m2, b' ', y0, y1, y2, y3, b' ', //
        h0, h1, b':', i0, i1, b':', s0, s1, b' ', b'G', b'M', b'T',
    ]
}

/// Writes a date as cookies of old have it: `Sun, 06-Nov-94 08:49:37 GMT`.
pub fn format_cookie_time(seconds: i64) -> Vec<u8> {
    let time = format_http_time(seconds);
    [&time[..7], b"-", &time[8..11], b"-", &time[14..16], &time[16..]].concat()
}

pub(crate) const WEEKDAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
pub(crate) const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The digits of a number below 100.
#[inline(always)]
fn two(n: u32) -> [u8; 2] {
    [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8]
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn spaces(&mut self) {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
    }

    fn byte(&mut self, expect: u8) -> Option<()> {
        (self.text.get(self.at) == Some(&expect)).then(|| self.at += 1)
    }

    #[inline(always)]
    fn digits(&mut self, count: usize) -> Option<i64> {
        let digits = self.text.get(self.at..self.at + count)?;
        self.at += count;
        digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    }

    fn month(&mut self) -> Option<i64> {
        let name = *self.text.get(self.at..)?.first_chunk()?;
        self.at += 3;
        month(name)
    }

    fn time(&mut self) -> Option<i64> {
        let hour = self.digits(2)?;
        self.byte(b':')?;
        let minute = self.digits(2)?;
        self.byte(b':')?;
        let second = self.digits(2)?;
        (hour < 24 && minute < 60 && second < 60).then_some((hour * 60 + minute) * 60 + second)
    }

    /// RFC 1123 and RFC 850.
    fn day_first(&mut self) -> Option<i64> {
        let day = self.digits(2)?;
        let dashed = self.text.get(self.at) == Some(&b'-');
        let separator = if dashed { b'-' } else { b' ' };
        self.byte(separator)?;
        let month = self.month()?;
        self.byte(separator)?;
        let year = if dashed { self.short_year()? } else { self.digits(4)? };
        self.byte(b' ')?;
        self.spaces();
        combine(year, month, day, self.time()?)
    }

    fn short_year(&mut self) -> Option<i64> {
        let year = self.digits(2)?;
        Some(if year < 70 { 2000 + year } else { 1900 + year })
    }

    /// `asctime`.
    fn month_first(&mut self) -> Option<i64> {
        let month = self.month()?;
        self.byte(b' ')?;
        let day = if self.byte(b' ').is_some() { self.digits(1)? } else { self.digits(2)? };
        self.byte(b' ')?;
        let time = self.time()?;
        self.byte(b' ')?;
        combine(self.digits(4)?, month, day, time)
    }
}

fn combine(year: i64, month: i64, day: i64, time: i64) -> Option<i64> {
    let last = match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (day >= 1 && day <= last).then(|| days(year, month, day) * 86400 + time)
}

pub(crate) fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days since 1970 of a date of the Gregorian calendar; years begin in March here, so that leap days come last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days`].
pub(crate) fn civil(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097) as u32;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + i64::from(year_of_era) + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_nginx_reads_them() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994",
            "Xxx, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 +0100",
            "Sun,06 Nov 1994 08:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37",
            "Sun Nov  6 08:49:37 1994 GMT",
        ] {
            assert_eq!(parse_http_time(text.as_bytes()), Some(784_111_777), "{text}");
        }
        for text in [
            "",
            ",",
            "sun, 06 nov 1994 08:49:37 GMT",
            "06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "784111777",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 1900 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:60 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_http_time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn round_trip() {
        assert_eq!(&format_http_time(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&format_http_time(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&format_http_time(951_782_400), b"Tue, 29 Feb 2000 00:00:00 GMT");
        let mut seconds = -2_000_000_000;
        while seconds < 200_000_000_000 {
            assert_eq!(parse_http_time(&format_http_time(seconds)), Some(seconds));
            assert_eq!(parse_canonical_time(&format_http_time(seconds)), Some(seconds));
            seconds += 86_400 * 97 + 12_345;
        }
        assert_eq!(parse_canonical_time(b"Mon, 06 Nov 1994 08:49:37 GMT"), None, "it was a Sunday");
        for at in 0..29 {
            for byte in 0..=255 {
                let mut text = *b"Sun, 06 Nov 1994 08:49:37 GMT";
                text[at] = byte;
                let expect = parse_http_time(&text).filter(|time| format_http_time(*time) == text);
                assert_eq!(parse_canonical_time(&text), expect, "{}", text.escape_ascii());
            }
        }
        for extreme in [i64::MIN, i64::MAX] {
            format_http_time(extreme);
        }
    }

    #[test]
    fn times_of_cookies() {
        assert_eq!(format_cookie_time(2_145_916_555), b"Thu, 31-Dec-37 23:55:55 GMT");
    }
}
