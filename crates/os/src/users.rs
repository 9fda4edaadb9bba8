//! Users and groups.

use std::ffi::{CStr, CString};
use std::io;

use crate::check;

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: CString,
    /// Its number.
    pub uid: u32,
    /// The number of its first group.
    pub gid: u32,
}

/// Looks a user up by name; `None` if there is none.
pub fn user(name: &str) -> io::Result<Option<User>> {
    let name = CString::new(name)?;
    // SAFETY: the name ends with a zero byte. The result is null or points to static memory that the next call of this
    // kind changes; it is copied before. Configuration is read by one thread.
    unsafe {
        let entry = libc::getpwnam(name.as_ptr());
        if entry.is_null() {
            return Ok(None);
        }
        let name = CStr::from_ptr((*entry).pw_name).to_owned();
        Ok(Some(User { name, uid: (*entry).pw_uid, gid: (*entry).pw_gid }))
    }
}

/// Looks a group up by name: its number; `None` if there is none.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    // SAFETY: as in `user`.
    unsafe {
        let entry = libc::getgrnam(name.as_ptr());
        Ok((!entry.is_null()).then(|| (*entry).gr_gid))
    }
}

/// The effective user's number.
pub fn effective_uid() -> u32 {
    // SAFETY: no memory is involved.
    unsafe { libc::geteuid() }
}

/// Becomes this group.
pub fn set_gid(gid: u32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setgid(gid) }).map(drop)
}

/// Takes on the further groups of a user.
pub fn init_groups(name: &CStr, gid: u32) -> io::Result<()> {
    // SAFETY: the name ends with a zero byte.
    check(unsafe { libc::initgroups(name.as_ptr(), gid) }).map(drop)
}

/// Becomes this user, for good.
pub fn set_uid(uid: u32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setuid(uid) }).map(drop)
}

/// Gives a file to a user; `None` leaves the group.
pub fn chown(path: &std::path::Path, uid: u32, gid: Option<u32>) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(uid), gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_root() {
        assert_eq!(user("root").expect("look-up").map(|u| (u.uid, u.gid)), Some((0, 0)));
        assert_eq!(user("no such user").expect("look-up"), None);
        assert_eq!((group("root").expect("look-up"), group("no such group").expect("look-up")), (Some(0), None));
        assert!(user("a\0b").is_err());
    }
}
