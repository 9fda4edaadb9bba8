//! What a process gives up for good: files that it won't open (Landlock), system calls that it won't make (seccomp).
//!
//! Neither harms what is open already. Both need [`crate::capability::set_no_new_privileges`] before, and hold for the
//! calling thread and all that it starts.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Files and folders that stay within reach; of a folder all that is below it. What isn't there is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// To be read and listed.
    pub read: Vec<PathBuf>,
    /// Existing files to be written, not read.
    pub write: Vec<PathBuf>,
    /// To be read and written; files and folders to be made, renamed and removed.
    pub change: Vec<PathBuf>,
}

/// Whether the kernel can keep files out of reach.
pub fn has_landlock() -> bool {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call only tells the version; no memory is involved.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0usize, 0usize, VERSION) > 0 }
}

/// Puts all files but these out of reach, as far as the kernel's version knows how to.
pub fn restrict_files(files: &Files) -> io::Result<()> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::WriteFile | AccessFs::Truncate;
    let change = read
        | write
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::MakeSym
        | AccessFs::Refer;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    let all = [(&files.read, read), (&files.write, write), (&files.change, change)];
    for (path, access) in all.into_iter().flat_map(|(paths, access)| paths.iter().map(move |path| (path, access))) {
        let Ok(place) = PathFd::new(path) else { continue };
        let access: BitFlags<AccessFs> = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
        rules = rules.add_rule(PathBeneath::new(place, access)).map_err(io::Error::other)?;
    }
    rules.restrict_self().map(drop).map_err(io::Error::other)
}

/// The newest interface whose rights are all handled: what a later kernel knows besides stays allowed.
const KNOWN: ABI = ABI::V5;

/// Refuses (EPERM) every system call that a server's event loop, its files, sockets and threads don't need. `uring`: it
/// waits by io_uring.
pub fn restrict_calls(uring: bool) -> io::Result<()> {
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = CALLS.iter().map(|&call| (call, Vec::new())).collect();
    if uring {
        allowed.extend(URING_CALLS.iter().map(|&call| (call, Vec::new())));
    }
    allowed.extend(conditional().map_err(io::Error::other)?);
    // The flags of clone3 are out of a filter's sight; without it the C library makes its threads by clone. Of two
    // filters the stricter counts, of two errors the last one's: so the other one lets it pass.
    allowed.insert(libc::SYS_clone3, Vec::new());
    let filter = SeccompFilter::new(allowed, refuse, SeccompAction::Allow, arch).map_err(io::Error::other)?;
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let modern = [(libc::SYS_clone3, Vec::new())].into();
    let no_clone3 = SeccompFilter::new(modern, SeccompAction::Allow, unknown, arch).map_err(io::Error::other)?;
    for filter in [no_clone3, filter] {
        let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

type Rules = Vec<(i64, Vec<SeccompRule>)>;

/// Calls that are allowed with certain arguments only.
fn conditional() -> Result<Rules, seccompiler::BackendError> {
    let rule = |argument, operator, value: u64| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)?;
        Ok(vec![SeccompRule::new(vec![condition])?])
    };
    let not_executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
    let thread = libc::CLONE_THREAD as u64;
    Ok(vec![
        // Threads, but no processes.
        (libc::SYS_clone, rule(0, SeccompCmpOp::MaskedEq(thread), thread)?),
        // No new code.
        (libc::SYS_mmap, rule(2, not_executable.clone(), 0)?),
        (libc::SYS_mprotect, rule(2, not_executable, 0)?),
        // Only to ask whether a process lives.
        (libc::SYS_kill, rule(1, SeccompCmpOp::Eq, 0)?),
    ])
}

const CALLS: &[i64] = &[
    // Reading, writing, descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_copy_file_range,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_pipe2,
    libc::SYS_lseek,
    // Files.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_memfd_create,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_umask,
    // Sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_membarrier,
    // Threads, signals, what the process is.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

const URING_CALLS: &[i64] = &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::set_no_new_privileges;
    use crate::process::tests_fork;

    #[test]
    fn files_go_out_of_reach() {
        if !has_landlock() {
            return;
        }
        let folder = std::env::temp_dir().join(format!("tidegate-sandbox-{}", std::process::id()));
        let inside = |name: &str| folder.join(name);
        for name in ["read", "write", "change", "other"] {
            std::fs::create_dir_all(inside(name)).expect("a folder");
            std::fs::write(inside(name).join("f"), "x").expect("a file");
        }
        tests_fork(|| {
            set_no_new_privileges().expect("no new privileges");
            let files = Files {
                read: vec![inside("read"), inside("none")],
                write: vec![inside("write")],
                change: vec![inside("change")],
            };
            restrict_files(&files).expect("restricted");
            let open = |name: &str| std::fs::read(inside(name).join("f")).is_ok();
            assert_eq!(["read", "write", "change", "other"].map(open), [true, false, true, false]);
            let write = |name: &str| std::fs::write(inside(name).join("f"), "y").is_ok();
            assert_eq!(["read", "write", "change", "other"].map(write), [false, true, true, false]);
            let make = |name: &str| std::fs::write(inside(name).join("new"), "y").is_ok();
            assert_eq!(["read", "write", "change", "other"].map(make), [false, false, true, false]);
            assert!(std::fs::remove_file(inside("change").join("new")).is_ok());
            assert!(std::fs::read_dir("/").is_err());
        });
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn calls_are_refused() {
        tests_fork(|| {
            set_no_new_privileges().expect("no new privileges");
            restrict_calls(false).expect("restricted");
            assert!(crate::socket::socket(&crate::SockAddr::Unix([].into()), false).is_ok());
            assert!(std::fs::read_dir("/").is_ok());
            assert!(std::thread::Builder::new().spawn(|| ()).expect("a thread").join().is_ok());
            assert!(std::process::Command::new("/bin/true").spawn().is_err(), "no other program");
            assert!(crate::process::kill(crate::process::pid(), 0).is_ok());
            let refused = crate::process::kill(crate::process::pid(), libc::SIGTERM).expect_err("no signals");
            assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
            assert!(crate::uring::Ring::new(vec![Box::new([0; 64])]).is_err(), "no ring where none is used");
        });
    }
}
