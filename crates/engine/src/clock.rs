//! The forms in which logs and headers write the time, made once per second.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// One second, in every form that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// Seconds since 1970.
    pub secs: i64,
    /// `2026/11/22 02:04:36`, local time: the error log.
    pub error_log: Box<str>,
    /// `22/Nov/2026:02:04:36 +0000`, local time: `$time_local`.
    pub http_log: Box<str>,
    /// `2026-11-22T02:04:36+00:00`, local time: `$time_iso8601`.
    pub iso8601: Box<str>,
    /// `Sun, 22 Nov 2026 02:04:36 GMT`: the `Date` field.
    pub http_date: Box<str>,
    /// `Nov 22 02:04:36`, local time: syslog.
    pub syslog: Box<str>,
}

thread_local! {
    static SOURCE: Cell<fn() -> (i64, u32)> = const { Cell::new(system) };
    static TIMES: RefCell<Option<Rc<Times>>> = const { RefCell::new(None) };
    static ZONE: TimeZone = TimeZone::system();
}

/// Seconds since 1970, and milliseconds: the loop's cached time in a worker, the system's before.
pub fn now() -> (i64, u32) {
    SOURCE.get()()
}

/// Makes this thread take its time from `source`, which is cheaper than the system's.
pub fn set_source(source: fn() -> (i64, u32)) {
    SOURCE.set(source);
}

/// The current second's forms.
pub fn times() -> Rc<Times> {
    let (secs, _) = now();
    TIMES.with_borrow_mut(|cached| match cached {
        Some(times) if times.secs == secs => times.clone(),
        _ => cached.insert(Rc::new(ZONE.with(|zone| format(secs, zone)))).clone(),
    })
}

/// The system's time zone, as it was when it was first asked for.
pub fn zone() -> TimeZone {
    ZONE.with(TimeZone::clone)
}

/// The system's time.
pub fn system() -> (i64, u32) {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => (since.as_secs() as i64, since.subsec_millis()),
        Err(_) => (0, 0),
    }
}

fn format(secs: i64, zone: &TimeZone) -> Times {
    let stamp = Timestamp::from_second(secs).unwrap_or(Timestamp::UNIX_EPOCH);
    let local = stamp.to_zoned(zone.clone());
    let utc = stamp.to_zoned(TimeZone::UTC);
    let (year, month, day) = (local.year(), local.month(), local.day());
    let (name, clock, offset) = (month_name(&local), clock_text(&local), local.offset().seconds() / 60);
    let (sign, hours, minutes) = (if offset < 0 { '-' } else { '+' }, offset.abs() / 60, offset.abs() % 60);
    Times {
        secs,
        error_log: format!("{year:04}/{month:02}/{day:02} {clock}").into(),
        http_log: format!("{day:02}/{name}/{year:04}:{clock} {sign}{hours:02}{minutes:02}").into(),
        iso8601: format!("{year:04}-{month:02}-{day:02}T{clock}{sign}{hours:02}:{minutes:02}").into(),
        http_date: http_date(&utc).into(),
        syslog: format!("{name} {day:2} {clock}").into(),
    }
}

fn http_date(utc: &Zoned) -> String {
    let weekday = WEEKDAYS[utc.weekday().to_sunday_zero_offset().rem_euclid(7) as usize];
    format!("{weekday}, {:02} {} {:04} {} GMT", utc.day(), month_name(utc), utc.year(), clock_text(utc))
}

fn clock_text(time: &Zoned) -> String {
    format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

fn month_name(time: &Zoned) -> &'static str {
    MONTHS[(time.month() - 1).rem_euclid(12) as usize]
}

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let zone = TimeZone::fixed(jiff::tz::Offset::from_seconds(-(3 * 3600 + 1800)).expect("a small offset"));
        let times = format(1_793_930_676, &zone);
        assert_eq!(&*times.http_date, "Fri, 06 Nov 2026 02:04:36 GMT");
        assert_eq!(&*times.error_log, "2026/11/05 22:34:36");
        assert_eq!(&*times.http_log, "05/Nov/2026:22:34:36 -0330");
        assert_eq!(&*times.iso8601, "2026-11-05T22:34:36-03:30");
        assert_eq!(&*times.syslog, "Nov  5 22:34:36");
    }

    #[test]
    fn one_second_is_formatted_once() {
        set_source(|| (5, 0));
        assert!(Rc::ptr_eq(&times(), &times()));
        set_source(system);
    }
}
