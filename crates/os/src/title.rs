//! The process's title, as `ps` shows it.
//!
//! The kernel shows the memory in which it once put the arguments. So the title is written there, over the arguments
//! and the environment behind them, which has moved elsewhere before.

use std::ffi::CStr;
use std::sync::OnceLock;

/// Where the arguments and the environment lie.
struct Room {
    start: usize,
    len: usize,
}

static ROOM: OnceLock<Option<Room>> = OnceLock::new();

unsafe extern "C" {
    static mut environ: *mut *mut libc::c_char;
}

/// Prepares for [`set`]: to be called once, early, while there is one thread and after the arguments have been read
/// (`std::env::args` yields nonsense once a title is set).
pub fn init() {
    ROOM.get_or_init(|| {
        let room = find()?;
        move_environment();
        Some(room)
    });
}

/// Sets the title, cut to the room there is; nothing happens before [`init`].
pub fn set(title: &str) {
    let Some(Some(room)) = ROOM.get() else { return };
    let title = title.as_bytes();
    let n = title.len().min(room.len - 1);
    let start = room.start as *mut u8;
    // SAFETY: the kernel made these `len` bytes readable and writable for the process's whole life; the environment has
    // been moved away, and by the contract of `init` nobody reads the arguments any more.
    unsafe {
        std::ptr::copy_nonoverlapping(title.as_ptr(), start, n);
        std::ptr::write_bytes(start.add(n), 0, room.len - n);
    }
}

/// Asks the kernel where it put arguments and environment (`arg_start` and `env_end`, proc(5)).
fn find() -> Option<Room> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // The first field after the name is the third of the line.
    let field = |n: usize| fields.get(n - 3)?.parse::<usize>().ok();
    let (arg_start, arg_end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
    let end = if env_start == arg_end { env_end } else { arg_end };
    (arg_start != 0 && end > arg_start + 1).then(|| Room { start: arg_start, len: end - arg_start })
}

/// Copies the environment to memory of its own, which lives as long as the process.
fn move_environment() {
    // SAFETY: there is one thread (contract of `init`); `environ` is null or a list of C strings that ends with null.
    unsafe {
        let list = environ;
        if list.is_null() {
            return;
        }
        let mut copy: Vec<*mut libc::c_char> = Vec::new();
        let mut at = list;
        while !(*at).is_null() {
            copy.push(CStr::from_ptr(*at).to_owned().into_raw());
            at = at.add(1);
        }
        copy.push(std::ptr::null_mut());
        environ = Box::leak(copy.into_boxed_slice()).as_mut_ptr();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_and_keeps_the_environment() {
        let path = std::env::var_os("PATH");
        init();
        set("tidegate: a title");
        let shown = std::fs::read("/proc/self/cmdline").expect("cmdline");
        assert!(shown.starts_with(b"tidegate: a title\0"), "{}", shown.escape_ascii());
        assert_eq!(std::env::var_os("PATH"), path);
    }
}
