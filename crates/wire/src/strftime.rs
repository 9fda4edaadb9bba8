//! Times in the form that a format of `strftime` asks for (POSIX, with the GNU library's further letters, flags and
//! widths), in the locale `C`.

use crate::date::{MONTHS as SHORT_MONTHS, WEEKDAYS as SHORT_WEEKDAYS, civil, is_leap};

/// The longest result; what follows it is left out.
const MAX_LENGTH: usize = 4096;
/// The widest field.
const MAX_WIDTH: usize = 255;

/// A time in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<'a> {
    /// Seconds since 1970, in UTC.
    pub seconds: i64,
    /// How many seconds the zone is ahead of UTC.
    pub offset_s: i32,
    /// The zone's name, such as `GMT`.
    pub zone: &'a str,
}

/// Appends the time to `out`. What the format has that is no conversion is copied.
pub fn format(format: &[u8], time: Time<'_>, out: &mut Vec<u8>) {
    let broken = Broken::of(time);
    let mut written = Vec::new();
    broken.format(format, &mut written);
    written.truncate(MAX_LENGTH);
    out.append(&mut written);
}

/// A time, broken into its parts.
struct Broken<'a> {
    time: Time<'a>,
    year: i64,
    /// 1 to 12.
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    /// 0 is Sunday.
    weekday: i64,
    /// 0 is the first of January.
    yearday: i64,
}

/// How a field is padded and cased.
#[derive(Clone, Copy, Default)]
struct Flags {
    pad: Option<u8>,
    upper: bool,
    swap: bool,
    width: usize,
}

/// What a conversion gives.
enum Field {
    /// A number with so many digits at least, padded with this byte.
    Number(i64, usize, u8),
    /// A text; with the flag `#` its case becomes this one.
    Text(Vec<u8>, Swapped),
}

#[derive(Clone, Copy)]
enum Swapped {
    Upper,
    Lower,
}

impl<'a> Broken<'a> {
    fn of(time: Time<'a>) -> Broken<'a> {
        let local = time.seconds.saturating_add(time.offset_s.into());
        let (days, second) = (local.div_euclid(86400), local.rem_euclid(86400));
        let (year, month, day) = civil(days);
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let yearday = before[month as usize - 1] + i64::from(day) - 1 + i64::from(is_leap(year) && month > 2);
        Broken {
            time,
            year,
            month: month.into(),
            day: day.into(),
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
            weekday: (days + 4).rem_euclid(7),
            yearday,
        }
    }

    fn format(&self, format: &[u8], out: &mut Vec<u8>) {
        let mut rest = format;
        while let Some(at) = memchr::memchr(b'%', rest)
            && out.len() < MAX_LENGTH
        {
            out.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            match self.conversion(&rest[1..], out) {
                Some(used) => rest = &rest[1 + used..],
                None => {
                    out.push(b'%');
                    rest = &rest[1..];
                }
            }
        }
        out.extend_from_slice(rest);
    }

    /// Appends what follows a percent sign; how long that is in the format, or `None` if it is no conversion.
    fn conversion(&self, text: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let mut flags = Flags::default();
        let mut at = 0;
        loop {
            match text.get(at)? {
                b'_' => flags.pad = Some(b' '),
                b'-' => flags.pad = Some(b'-'),
                b'0' => flags.pad = Some(b'0'),
                b'^' => flags.upper = true,
                b'#' => flags.swap = true,
                _ => break,
            }
            at += 1;
        }
        while let Some(digit) = text.get(at).filter(|byte| byte.is_ascii_digit()) {
            flags.width = (flags.width * 10 + usize::from(digit - b'0')).min(MAX_WIDTH);
            at += 1;
        }
        // Modifiers for other locales.
        at += usize::from(matches!(text.get(at), Some(b'E' | b'O')));
        let field = self.field(*text.get(at)?)?;
        field.write(flags, out);
        Some(at + 1)
    }

    fn field(&self, letter: u8) -> Option<Field> {
        let number = |value, digits| Some(Field::Number(value, digits, b'0'));
        let spaced = |value| Some(Field::Number(value, 2, b' '));
        let twelve = if self.hour % 12 == 0 { 12 } else { self.hour % 12 };
        match letter {
            b'C' => number(self.year.div_euclid(100), 2),
            b'd' => number(self.day, 2),
            b'e' => spaced(self.day),
            b'g' => number(self.iso_week().0.rem_euclid(100), 2),
            b'G' => number(self.iso_week().0, 1),
            b'H' => number(self.hour, 2),
            b'I' => number(twelve, 2),
            b'j' => number(self.yearday + 1, 3),
            b'k' => spaced(self.hour),
            b'l' => spaced(twelve),
            b'm' => number(self.month, 2),
            b'M' => number(self.minute, 2),
            b's' => number(self.time.seconds, 1),
            b'S' => number(self.second, 2),
            b'u' => number((self.weekday + 6) % 7 + 1, 1),
            b'U' => number((self.yearday + 7 - self.weekday) / 7, 2),
            b'V' => number(self.iso_week().1, 2),
            b'w' => number(self.weekday, 1),
            b'W' => number((self.yearday + 7 - (self.weekday + 6) % 7) / 7, 2),
            b'y' => number(self.year.rem_euclid(100), 2),
            b'Y' => number(self.year, 1),
            letter => self.text(letter),
        }
    }

    fn text(&self, letter: u8) -> Option<Field> {
        let text = |text: &[u8]| Some(Field::Text(text.to_vec(), Swapped::Upper));
        let half = if self.hour < 12 { (&b"AM"[..], &b"am"[..]) } else { (&b"PM"[..], &b"pm"[..]) };
        match letter {
            // The table begins with the weekday of the first day of 1970.
            b'a' => text(SHORT_WEEKDAYS[(self.weekday as usize + 3) % 7]),
            b'A' => text(WEEKDAYS[self.weekday as usize]),
            b'b' | b'h' => text(SHORT_MONTHS[self.month as usize - 1]),
            b'B' => text(MONTHS[self.month as usize - 1]),
            b'c' => self.composed(b"%a %b %e %H:%M:%S %Y"),
            b'D' | b'x' => self.composed(b"%m/%d/%y"),
            b'F' => self.composed(b"%Y-%m-%d"),
            b'n' => text(b"\n"),
            b'p' => Some(Field::Text(half.0.to_vec(), Swapped::Lower)),
            b'P' => text(half.1),
            b'r' => self.composed(b"%I:%M:%S %p"),
            b'R' => self.composed(b"%H:%M"),
            b't' => text(b"\t"),
            b'T' | b'X' => self.composed(b"%H:%M:%S"),
            b'z' => {
                let (sign, minutes) = (if self.time.offset_s < 0 { '-' } else { '+' }, self.time.offset_s.abs() / 60);
                text(format!("{sign}{:02}{:02}", minutes / 60, minutes % 60).as_bytes())
            }
            b'Z' => Some(Field::Text(self.time.zone.as_bytes().to_vec(), Swapped::Lower)),
            b'%' => text(b"%"),
            _ => None,
        }
    }

    fn composed(&self, format: &[u8]) -> Option<Field> {
        let mut text = Vec::new();
        self.format(format, &mut text);
        Some(Field::Text(text, Swapped::Upper))
    }

    /// The year and the week of ISO 8601: weeks begin on Monday, and the first one has the year's first Thursday.
    fn iso_week(&self) -> (i64, i64) {
        let thursday = self.yearday + 3 - (self.weekday + 6) % 7;
        if thursday < 0 {
            return (self.year - 1, (thursday + days_of(self.year - 1)) / 7 + 1);
        }
        match thursday - days_of(self.year) {
            next @ 0.. => (self.year + 1, next / 7 + 1),
            _ => (self.year, thursday / 7 + 1),
        }
    }
}

impl Field {
    fn write(self, flags: Flags, out: &mut Vec<u8>) {
        let (text, pad, least) = match self {
            Field::Number(value, digits, pad) => {
                (value.to_string().into_bytes(), flags.pad.unwrap_or(pad), digits.max(flags.width))
            }
            Field::Text(mut text, swapped) => {
                match (flags.swap, flags.upper, swapped) {
                    (true, _, Swapped::Lower) => text.make_ascii_lowercase(),
                    (true, _, Swapped::Upper) | (false, true, _) => text.make_ascii_uppercase(),
                    _ => {}
                }
                (text, flags.pad.unwrap_or(b' '), flags.width)
            }
        };
        if pad != b'-' {
            out.resize(out.len() + least.saturating_sub(text.len()), pad);
        }
        out.extend_from_slice(&text);
    }
}

fn days_of(year: i64) -> i64 {
    365 + i64::from(is_leap(year))
}

const WEEKDAYS: [&[u8]; 7] = [b"Sunday", b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday"];
const MONTHS: [&[u8]; 12] = [
    b"January",
    b"February",
    b"March",
    b"April",
    b"May",
    b"June",
    b"July",
    b"August",
    b"September",
    b"October",
    b"November",
    b"December",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, text: &str) -> String {
        let mut out = Vec::new();
        format(text.as_bytes(), Time { seconds, offset_s: 0, zone: "GMT" }, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn conversions() {
        // Monday, 30 November 2026, 04:04:48.
        let now = 1_796_011_488;
        for (text, expect) in [
            ("%A, %d-%b-%Y %H:%M:%S %Z", "Monday, 30-Nov-2026 04:04:48 GMT"),
            ("%a %A %b %B %h", "Mon Monday Nov November Nov"),
            ("%c|%x|%X|%D|%F", "Mon Nov 30 04:04:48 2026|11/30/26|04:04:48|11/30/26|2026-11-30"),
            ("%C %y %Y %g %G", "20 26 2026 26 2026"),
            ("%d %e %j %m", "30 30 334 11"),
            ("%H %I %k %l %M %S %p %P %r %R %T", "04 04  4  4 04 48 AM am 04:04:48 AM 04:04 04:04:48"),
            ("%s", "1796011488"),
            ("%u %w %U %V %W", "1 1 48 49 48"),
            ("%z %Z %n%t%%", "+0000 GMT \n\t%"),
            ("%Ey %Od %5Y %-d %_d %^a %#Z %#p %010d", "26 30 02026 30 30 MON gmt am 0000000030"),
            ("%E %Q %+ %N %f %J %", "%E %Q %+ %N %f %J %"),
            ("", ""),
            ("plain", "plain"),
        ] {
            assert_eq!(at(now, text), expect, "{text}");
        }
        assert_eq!(at(0, "%999999999d%_3e").len(), MAX_WIDTH + 3);
        assert_eq!(at(0, &"%200Y".repeat(100)).len(), MAX_LENGTH);
    }

    #[test]
    fn zones() {
        let mut out = Vec::new();
        format(b"%F %T %z %Z %s", Time { seconds: 86399, offset_s: -12600, zone: "NST" }, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "1970-01-01 20:29:59 -0330 NST 86399");
    }

    #[test]
    fn weeks_of_iso_8601() {
        for (seconds, expect) in [
            (1_104_537_600, "2004-W53-6"), // 1 January 2005
            (1_230_508_800, "2009-W01-1"), // 29 December 2008
            (1_262_476_800, "2009-W53-7"), // 3 January 2010
            (1_199_059_200, "2008-W01-1"), // 31 December 2007
            (1_388_448_000, "2014-W01-2"), // 31 December 2013
        ] {
            assert_eq!(at(seconds, "%G-W%V-%u"), expect);
        }
    }
}
