//! Clocks.

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid place for the answer. The clocks used here exist on every Linux, so the call can't fail.
    unsafe { libc::clock_gettime(clock, &mut t) };
    t
}

fn millis(t: libc::timespec) -> u64 {
    t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000
}

/// Milliseconds of the monotonic clock.
pub fn monotonic_ms() -> u64 {
    millis(read(libc::CLOCK_MONOTONIC))
}

/// Nanoseconds of the monotonic clock.
pub fn monotonic_ns() -> u64 {
    let t = read(libc::CLOCK_MONOTONIC);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// The same as [`monotonic_ms`], cheaper, but only as exact as the kernel's tick (1 to 10 ms).
pub fn monotonic_coarse_ms() -> u64 {
    millis(read(libc::CLOCK_MONOTONIC_COARSE))
}

/// Seconds since 1970 and the milliseconds in the second.
pub fn wall() -> (i64, u32) {
    let t = read(libc::CLOCK_REALTIME);
    (t.tv_sec, (t.tv_nsec / 1_000_000) as u32)
}

/// The same as [`wall`], as exact as the kernel's tick.
pub fn wall_coarse() -> (i64, u32) {
    let t = read(libc::CLOCK_REALTIME_COARSE);
    (t.tv_sec, (t.tv_nsec / 1_000_000) as u32)
}
