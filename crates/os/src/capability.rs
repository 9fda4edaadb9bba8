//! The privileges of a process: capabilities, and the right to gain new ones.

use std::io;

use crate::check;

/// A privilege, by its number in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// To send from addresses that aren't the machine's own (`transparent`).
    NetRaw = 13,
}

impl Capability {
    fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// Takes all capabilities but these out of what any later program of this process could get. It needs CAP_SETPCAP: to be
/// called before the user changes.
pub fn bound(keep: &[Capability]) -> io::Result<()> {
    let kept = keep.iter().fold(0, |all, one| all | one.bit());
    for number in 0..64u64 {
        // SAFETY: no memory is involved.
        let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) };
        if known < 0 {
            break;
        }
        if known == 1 && kept & (1 << number) == 0 {
            // SAFETY: no memory is involved.
            check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) })?;
        }
    }
    Ok(())
}

/// Leaves the calling thread, and those it starts, these capabilities alone; none of them is passed to other programs.
/// An error if it doesn't have them.
pub fn keep_only(keep: &[Capability]) -> io::Result<()> {
    let kept = keep.iter().fold(0, |all, one| all | one.bit());
    // SAFETY: no memory is involved. An old kernel without ambient capabilities refuses, and has none.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |bits: u64| Data { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
    let data = [half(kept), half(kept >> 32)];
    // SAFETY: both structures have the kernel's layout (two halves for this version) and live over the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const data) }).map(drop)
}

/// The capabilities in effect, one bit each.
pub fn effective() -> io::Result<u64> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: as in `keep_only`; the kernel fills both halves.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, &raw mut data) })?;
    let [low, high] = data;
    Ok(u64::from(low.effective) | u64::from(high.effective) << 32)
}

/// From now on no program that this process starts gains privileges by its file, and filters of system calls may be set.
pub fn set_no_new_privileges() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}

/// capset(2)'s header.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Half of capset(2)'s data: 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// _LINUX_CAPABILITY_VERSION_3.
const VERSION_3: u32 = 0x2008_0522;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_go() {
        let before = effective().expect("readable");
        crate::process::tests_fork(|| {
            let keep: &[Capability] = if before & Capability::NetRaw.bit() == 0 { &[] } else { &[Capability::NetRaw] };
            if crate::users::effective_uid() == 0 {
                bound(keep).expect("bounded");
            }
            keep_only(keep).expect("kept");
            let kept = if keep.is_empty() { 0 } else { Capability::NetRaw.bit() };
            assert_eq!(effective().expect("readable"), kept);
            keep_only(&[]).expect("kept");
            assert!(keep_only(&[Capability::NetRaw]).is_err(), "it is gone for good");
            set_no_new_privileges().expect("no new privileges");
        });
        assert_eq!(effective().expect("readable"), before);
    }
}
