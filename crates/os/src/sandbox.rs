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

/// Files and folders that stay within reach; of a folder all that is below it. What isn't there is skipped.
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

/// Refuses (EPERM) every system call that a server's event loop, its files, sockets and threads don't need, and of those
/// that they do need what they don't need of them. For the process that calls it: a child of it may not even abort. `uring`:
/// it waits by io_uring.
pub fn restrict_calls(uring: bool) -> io::Result<()> {
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = CALLS.iter().map(|&call| (call, Vec::new())).collect();
    if uring {
        allowed.extend(URING_CALLS.iter().map(|&call| (call, Vec::new())));
    }
    allowed.extend(conditional(uring).map_err(io::Error::other)?);
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
type Made<T> = Result<T, seccompiler::BackendError>;

/// A condition on an argument that the kernel reads as 32 bits.
fn is(argument: u8, operator: SeccompCmpOp, value: impl Into<i64>) -> Made<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value.into() as u32))
}

/// Allows a call if all of these conditions hold.
fn all(conditions: impl IntoIterator<Item = Made<SeccompCondition>>) -> Made<Vec<SeccompRule>> {
    Ok(vec![SeccompRule::new(conditions.into_iter().collect::<Made<Vec<_>>>()?)?])
}

/// Allows a call if an argument has one of these values.
fn one_of(argument: u8, values: &[i32]) -> Made<Vec<SeccompRule>> {
    let rule = |value: &i32| SeccompRule::new(vec![is(argument, SeccompCmpOp::Eq, *value)?]);
    values.iter().map(rule).collect()
}

/// Calls that are allowed with certain arguments only.
fn conditional(uring: bool) -> Made<Rules> {
    let wide =
        |argument, operator, value: u64| SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value);
    let not_executable = || all([wide(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)]);
    let thread = libc::CLONE_THREAD as u64;
    let nobody_else = || is(0, SeccompCmpOp::Eq, 0);
    let mut rules = vec![
        // Threads, but no processes, and no namespaces of their own.
        (libc::SYS_clone, all([wide(0, SeccompCmpOp::MaskedEq(thread | NO_THREADS_FLAGS), thread)])?),
        // No new code.
        (libc::SYS_mmap, not_executable()?),
        (libc::SYS_mprotect, not_executable()?),
        (libc::SYS_madvise, one_of(2, ADVICE)?),
        // Only to ask whether a process lives.
        (libc::SYS_kill, all([is(1, SeccompCmpOp::Eq, 0)])?),
        // By its own process id, an abort.
        (libc::SYS_tgkill, all([is(0, SeccompCmpOp::Eq, crate::process::pid())])?),
        // To ask for the own limits, not to change any.
        (libc::SYS_prlimit64, all([nobody_else(), wide(2, SeccompCmpOp::Eq, 0)])?),
        (libc::SYS_sched_getaffinity, all([nobody_else()])?),
        (libc::SYS_prctl, one_of(0, &[libc::PR_SET_NAME, libc::PR_GET_NAME])?),
        (libc::SYS_ioctl, one_of(1, &[libc::FIONBIO as i32, libc::FIONREAD as i32, libc::FIOCLEX as i32])?),
        (libc::SYS_fcntl, one_of(1, DESCRIPTOR_COMMANDS)?),
        (libc::SYS_socket, sockets(&[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6])?),
        (libc::SYS_socketpair, sockets(&[libc::AF_UNIX])?),
        (libc::SYS_setsockopt, socket_options()?),
    ];
    if uring {
        rules.push((libc::SYS_io_uring_register, one_of(1, URING_REGISTRATIONS)?));
    }
    Ok(rules)
}

/// Sockets of these families that carry streams or messages: none that see packets.
fn sockets(families: &[i32]) -> Made<Vec<SeccompRule>> {
    let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET];
    let pairs = families.iter().flat_map(|family| kinds.map(|kind| (*family, kind)));
    let rule = |(family, kind)| {
        let kind = is(1, SeccompCmpOp::MaskedEq(KIND_OF_SOCKET), kind)?;
        SeccompRule::new(vec![is(0, SeccompCmpOp::Eq, family)?, kind])
    };
    pairs.map(rule).collect()
}

fn socket_options() -> Made<Vec<SeccompRule>> {
    let rule = |(level, option): &(i32, i32)| {
        SeccompRule::new(vec![is(1, SeccompCmpOp::Eq, *level)?, is(2, SeccompCmpOp::Eq, *option)?])
    };
    OPTIONS.iter().map(rule).collect()
}

/// The bits of a socket's type that aren't flags.
const KIND_OF_SOCKET: u64 = 0xf;

/// What clone may be asked for, but isn't for a thread.
const NO_THREADS_FLAGS: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_VFORK
    | libc::CLONE_PARENT
    | libc::CLONE_PTRACE
    | libc::CLONE_PIDFD) as u64;

/// What allocators and the C library tell the kernel of their memory.
const ADVICE: &[i32] = &[
    libc::MADV_NORMAL,
    libc::MADV_RANDOM,
    libc::MADV_SEQUENTIAL,
    libc::MADV_WILLNEED,
    libc::MADV_DONTNEED,
    libc::MADV_FREE,
    libc::MADV_HUGEPAGE,
    libc::MADV_NOHUGEPAGE,
    libc::MADV_DONTDUMP,
    // How a random generator notices a fork.
    libc::MADV_WIPEONFORK,
    // MADV_GUARD_INSTALL and MADV_GUARD_REMOVE: the guards of threads' stacks.
    102,
    103,
];

/// Duplicates, flags and locks: no signals about a descriptor, no leases, no sizes of pipes.
const DESCRIPTOR_COMMANDS: &[i32] =
    &[libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_SETLK];

/// What workers set of sockets: no filters, no interfaces, no marks, no protocols on top.
const OPTIONS: &[(i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_RCVBUF),
    (libc::SOL_SOCKET, libc::SO_SNDBUF),
    (libc::SOL_SOCKET, libc::SO_SNDLOWAT),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_LINGER),
    (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_CORK),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT),
    // What the kernel tells of datagrams.
    (libc::IPPROTO_IP, libc::IP_PKTINFO),
    (libc::IPPROTO_IP, libc::IP_RECVTOS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
    (crate::datagram::SOL_UDP, crate::datagram::UDP_GRO),
    // For `proxy_bind … transparent`; it takes a capability besides.
    (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
    (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
];

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
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_umask,
    // Sockets.
    libc::SYS_bind,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
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
    // Threads, signals, what the process is.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
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
    libc::SYS_dup2,
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
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

const URING_CALLS: &[i64] = &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter];

/// To ask what the ring can do, to lend it buffers and to take them back.
const URING_REGISTRATIONS: &[i32] = &[REGISTER_PROBE, REGISTER_BUFFERS, UNREGISTER_BUFFERS];
const REGISTER_PROBE: i32 = 8;
const REGISTER_BUFFERS: i32 = 22;
const UNREGISTER_BUFFERS: i32 = 23;

#[cfg(test)]
#[path = "sandbox_tests.rs"]
mod tests;
