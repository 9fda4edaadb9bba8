//! What the sandbox refuses, tried one by one in a process below it, and what it lets pass.

use super::*;
use crate::capability::set_no_new_privileges;
use crate::process::tests_fork;

#[test]
fn files_go_out_of_reach() {
    if !has_landlock() {
        return;
    }
    let folder = tempfile::TempDir::with_prefix("tidegate-sandbox-").expect("a folder");
    let inside = |name: &str| folder.path().join(name);
    for name in ["read", "write", "change", "other"] {
        std::fs::create_dir(inside(name)).expect("a folder");
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
}

/// Runs `f` below the filter.
fn shut_in(uring: bool, f: impl FnOnce()) {
    tests_fork(|| {
        set_no_new_privileges().expect("no new privileges");
        restrict_calls(uring).expect("restricted");
        f();
    });
}

/// Makes a system call that has to fail, without any memory that it could change.
fn errno_of(call: i64, arguments: [i64; 6]) -> i32 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the arguments are numbers; where one would be a pointer it is null, or that of a value which lives on.
    let result = unsafe { libc::syscall(call, a, b, c, d, e, f) };
    if result >= 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) }
}

#[track_caller]
fn check(call: i64, arguments: &[i64], expect: i32) {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    assert_eq!(errno_of(call, all), expect, "call {call} {arguments:x?}");
}

/// What is refused whatever its arguments are.
const REFUSED: &[i64] = &[
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_ptrace,
    libc::SYS_kcmp,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_get_robust_list,
    libc::SYS_setrlimit,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_pkey_mprotect,
    libc::SYS_shmat,
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_personality,
    libc::SYS_listen,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_fanotify_init,
    libc::SYS_inotify_init1,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_mknodat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_capset,
    libc::SYS_setsid,
    libc::SYS_setpgid,
    libc::SYS_timer_create,
    libc::SYS_setitimer,
    libc::SYS_seccomp,
    libc::SYS_wait4,
    libc::SYS_chdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
];

#[test]
fn calls_are_refused() {
    shut_in(false, || {
        for call in REFUSED {
            check(*call, &[], libc::EPERM);
        }
        check(libc::SYS_clone3, &[], libc::ENOSYS);
        assert!(std::process::Command::new("/bin/true").spawn().is_err(), "no other program");
        assert!(crate::uring::Ring::new(vec![Box::new([0; 64])]).is_err(), "no ring where none is used");
    });
}

#[test]
fn nothing_is_done_to_other_processes() {
    shut_in(false, || {
        let (own, other) = (i64::from(crate::process::pid()), i64::from(crate::process::parent_pid()));
        let thread = i64::from(rustix::thread::gettid().as_raw_nonzero().get());
        check(libc::SYS_kill, &[other, 0], 0);
        check(libc::SYS_kill, &[other, libc::SIGCONT.into()], libc::EPERM);
        check(libc::SYS_kill, &[0, libc::SIGCONT.into()], libc::EPERM);
        check(libc::SYS_kill, &[own, libc::SIGCONT.into()], libc::EPERM);
        check(libc::SYS_tgkill, &[own, thread, 0], 0);
        check(libc::SYS_tgkill, &[other, other, 0], libc::EPERM);
        check(libc::SYS_tgkill, &[other, other, libc::SIGCONT.into()], libc::EPERM);
        let mut limits = [0_u64; 2];
        let place = limits.as_mut_ptr() as i64;
        check(libc::SYS_prlimit64, &[0, libc::RLIMIT_NOFILE.into(), 0, place], 0);
        check(libc::SYS_prlimit64, &[other, libc::RLIMIT_NOFILE.into(), 0, place], libc::EPERM);
        check(libc::SYS_prlimit64, &[other, libc::RLIMIT_NOFILE.into(), place, 0], libc::EPERM);
        check(libc::SYS_prlimit64, &[0, libc::RLIMIT_NOFILE.into(), place, 0], libc::EPERM);
        check(libc::SYS_sched_getaffinity, &[other, 8, place], libc::EPERM);
        // Nor are processes made, or other names for the world.
        check(libc::SYS_clone, &[libc::SIGCHLD.into()], libc::EPERM);
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWPID, libc::CLONE_NEWNS, libc::CLONE_PARENT]
        {
            check(libc::SYS_clone, &[flag.into()], libc::EPERM);
            check(libc::SYS_clone, &[i64::from(flag | libc::CLONE_THREAD)], libc::EPERM);
        }
    });
}

#[test]
fn memory_never_becomes_code() {
    shut_in(false, || {
        let (read_write, code) = (i64::from(libc::PROT_READ | libc::PROT_WRITE), i64::from(libc::PROT_EXEC));
        let private = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        check(libc::SYS_mmap, &[0, 4096, read_write | code, private, -1, 0], libc::EPERM);
        check(libc::SYS_mmap, &[0, 4096, code, private, -1, 0], libc::EPERM);
        check(libc::SYS_mmap, &[0, 4096, read_write, private, -1, 0], 0);
        check(libc::SYS_mprotect, &[0, 4096, code], libc::EPERM);
        for advice in [libc::MADV_HWPOISON, libc::MADV_MERGEABLE, libc::MADV_REMOVE, libc::MADV_DOFORK] {
            check(libc::SYS_madvise, &[0, 0, advice.into()], libc::EPERM);
        }
        check(libc::SYS_madvise, &[0, 0, libc::MADV_DONTNEED.into()], 0);
    });
}

#[test]
fn of_the_process_only_names_are_changed() {
    shut_in(false, || {
        for option in [
            libc::PR_SET_DUMPABLE,
            libc::PR_SET_PDEATHSIG,
            libc::PR_SET_SECCOMP,
            libc::PR_SET_MM,
            libc::PR_SET_PTRACER,
            libc::PR_SET_KEEPCAPS,
            libc::PR_CAP_AMBIENT,
            libc::PR_CAPBSET_DROP,
            libc::PR_SET_CHILD_SUBREAPER,
            libc::PR_SET_SECUREBITS,
            libc::PR_SET_NO_NEW_PRIVS,
        ] {
            check(libc::SYS_prctl, &[option.into(), 1], libc::EPERM);
        }
        let name = c"worker".as_ptr() as i64;
        check(libc::SYS_prctl, &[libc::PR_SET_NAME.into(), name], 0);
    });
}

#[test]
fn descriptors_do_what_sockets_and_files_need() {
    let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let fd = i64::from(std::os::fd::AsRawFd::as_raw_fd(&one));
    shut_in(false, || {
        let mut number = [0_i32; 4];
        let place = number.as_mut_ptr() as i64;
        for request in [libc::TIOCSTI, libc::TIOCSCTTY, libc::TCGETS, libc::FIOASYNC, libc::SIOCGIFCONF, FIFREEZE] {
            check(libc::SYS_ioctl, &[fd, request as i64, place], libc::EPERM);
        }
        check(libc::SYS_ioctl, &[fd, libc::FIONREAD as i64, place], 0);
        for command in [
            libc::F_SETOWN,
            F_SETSIG,
            F_SETOWN_EX,
            libc::F_SETLEASE,
            libc::F_NOTIFY,
            libc::F_SETPIPE_SZ,
            libc::F_ADD_SEALS,
            libc::F_OFD_SETLK,
            libc::F_SETLKW,
        ] {
            check(libc::SYS_fcntl, &[fd, command.into(), 1], libc::EPERM);
        }
        check(libc::SYS_fcntl, &[fd, libc::F_GETFL.into()], 0);
        check(libc::SYS_fcntl, &[fd, libc::F_DUPFD_CLOEXEC.into(), 3], 0);
    });
}

#[test]
fn sockets_are_plain() {
    shut_in(false, || {
        for family in [
            libc::AF_NETLINK,
            libc::AF_PACKET,
            libc::AF_ALG,
            libc::AF_VSOCK,
            libc::AF_KEY,
            libc::AF_BLUETOOTH,
            libc::AF_XDP,
        ] {
            for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW] {
                check(libc::SYS_socket, &[family.into(), kind.into()], libc::EPERM);
            }
        }
        for family in [libc::AF_INET, libc::AF_INET6] {
            check(libc::SYS_socket, &[family.into(), libc::SOCK_RAW.into(), libc::IPPROTO_ICMP.into()], libc::EPERM);
            check(libc::SYS_socket, &[family.into(), OLD_PACKET.into()], libc::EPERM);
            check(libc::SYS_socketpair, &[family.into(), libc::SOCK_STREAM.into()], libc::EPERM);
        }
        let flags = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        check(libc::SYS_socket, &[libc::AF_UNIX.into(), flags.into()], 0);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_nonblocking(true).expect("nonblocking");
        let fd = i64::from(std::os::fd::AsRawFd::as_raw_fd(&socket));
        let on = 1_i32;
        let place = (&raw const on) as i64;
        for (level, option) in [
            (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
            (libc::SOL_SOCKET, libc::SO_ATTACH_BPF),
            (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF),
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
            (libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX),
            (libc::SOL_SOCKET, libc::SO_MARK),
            (libc::SOL_SOCKET, libc::SO_PRIORITY),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT),
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE),
            (libc::IPPROTO_TCP, libc::TCP_ULP),
            (libc::IPPROTO_TCP, libc::TCP_REPAIR),
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION),
            (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
            (libc::IPPROTO_IP, libc::IP_HDRINCL),
            (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP),
        ] {
            check(libc::SYS_setsockopt, &[fd, level.into(), option.into(), place, 4], libc::EPERM);
        }
        check(libc::SYS_setsockopt, &[fd, libc::SOL_SOCKET.into(), libc::SO_RCVBUF.into(), place, 4], 0);
    });
}

#[test]
fn what_is_needed_works() {
    shut_in(false, || {
        assert!(std::fs::read_dir("/").is_ok());
        let thread = std::thread::Builder::new().name("helper".into()).spawn(|| vec![0_u8; 1 << 20].len());
        assert_eq!(thread.expect("a thread").join().ok(), Some(1 << 20));
        let (one, other) = crate::channel::pair().expect("a pair");
        let raw = |fd: &std::os::fd::OwnedFd| std::os::fd::AsRawFd::as_raw_fd(fd);
        crate::channel::send(raw(&one), b"x", &[std::os::fd::AsFd::as_fd(&other)]).expect("sent");
        assert_eq!(crate::channel::recv(raw(&other), &mut [0; 4]).expect("received").fds.len(), 1);
        assert!(crate::epoll::Epoll::new().is_ok());
        let datagrams = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let (fd, mut to) = (std::os::fd::AsRawFd::as_raw_fd(&datagrams), datagrams.local_addr().expect("an address"));
        crate::datagram::prepare(fd, &to.into());
        to.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        assert!(crate::datagram::set_gro(fd, true) == crate::datagram::can_segment(fd));
        datagrams.send_to(b"x", to).expect("sent");
        let mut batch = crate::datagram::Batch::new();
        assert_eq!(batch.recv(fd, 1).expect("received"), 1);
        assert!(batch.received().all(|received| received.to == Some(to.ip())));
        let file = std::fs::File::from(crate::file::anonymous(b"x").expect("a file"));
        assert!(crate::file::try_lock(&file).is_ok() && file.set_len(9).is_ok());
    });
}

#[test]
fn a_ring_takes_buffers_and_no_more() {
    if crate::uring::probe().is_err() {
        return;
    }
    shut_in(true, || {
        let ring = crate::uring::Ring::new(vec![Box::new([0; 64])]);
        drop(ring.expect("a ring"));
        // Files, restrictions, credentials, workers' processors: none of these.
        for operation in [0, 2, 4, 9, 11, 13, 17, 20] {
            check(libc::SYS_io_uring_register, &[-1, operation], libc::EPERM);
        }
    });
}

#[test]
fn aborting_ends_the_process() {
    let child = match crate::process::fork_unchecked().expect("a fork") {
        crate::process::Fork::Child => {
            let _ = crate::process::set_limit(crate::process::Limit::Core, 0);
            set_no_new_privileges().expect("no new privileges");
            restrict_calls(false).expect("restricted");
            std::process::abort()
        }
        crate::process::Fork::Parent(pid) => pid,
    };
    let exit = crate::process::wait_for(child).expect("a child");
    assert!(matches!(exit, crate::process::Exit::Signal(libc::SIGABRT, _)), "{exit:?}");
}

const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;
/// Freezes a file system.
const FIFREEZE: libc::Ioctl = 0xc004_5877u32 as libc::Ioctl;
/// SOCK_PACKET, which the library calls deprecated, and the kernel still takes.
const OLD_PACKET: i32 = 10;
