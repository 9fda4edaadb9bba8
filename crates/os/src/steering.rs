//! Which of the datagram sockets that share an address (SO_REUSEPORT) receives from which client.
//!
//! The kernel's own choice changes for most clients with the number of sockets, and nobody else can make it. Here the group
//! has a program instead, in the language of classic BPF, and [`socket_of`] makes the same choice. It is that of a
//! consistent hash: if the group grows, clients go from the old sockets to the new ones only, so that each socket that is
//! received from meanwhile has no other clients than before.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use libc::{
    BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD,
    BPF_LDX, BPF_MEM, BPF_MISC, BPF_MSH, BPF_MUL, BPF_RET, BPF_RSH, BPF_ST, BPF_TAX, BPF_W, BPF_X, BPF_XOR,
    sock_filter,
};

use crate::check;

/// The largest group with a program: it has ten instructions for each socket, of 4096 that the kernel allows.
const MOST: usize = 256;

/// Lets a group of so many sockets receive as [`socket_of`] says; the descriptor is that of any of them. Sockets count in the
/// order in which they were bound. An error: the kernel can't do it, or there are too many; its own choice remains.
pub fn steer(fd: RawFd, sockets: usize) -> io::Result<()> {
    if !(1..=MOST).contains(&sockets) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut program = program(sockets);
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let value = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let len = mem::size_of_val(&value) as libc::socklen_t;
    let option = libc::SO_ATTACH_REUSEPORT_CBPF;
    // SAFETY: `value` is valid for its length, and its pointer for the program's; the kernel copies both.
    check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const value).cast(), len) }).map(drop)
}

/// Which of so many sockets receives from a client.
pub fn socket_of(client: &SocketAddr, sockets: usize) -> usize {
    let mut hash = match client.ip().to_canonical() {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(ip) => {
            let words = u128::from(ip);
            (0..4).fold(0, |hash, n| add(hash, (words >> (96 - 32 * n)) as u32))
        }
    };
    hash = add(hash, u32::from(client.port()));
    let mut chosen = 0;
    for n in 1..sockets.clamp(1, MOST) {
        hash = mix(hash);
        if hash >> 16 < share(n) {
            chosen = n;
        }
    }
    chosen
}

fn add(hash: u32, word: u32) -> u32 {
    hash.wrapping_mul(FACTOR).wrapping_add(word)
}

fn mix(hash: u32) -> u32 {
    (hash ^ (hash >> SHIFT)).wrapping_mul(MIXER)
}

/// The socket after the first `n` takes this many of 65,536 clients from them.
fn share(n: usize) -> u32 {
    65_536 / (n as u32 + 1)
}

const FACTOR: u32 = 0x9e37_79b1;
const MIXER: u32 = 0x2c1b_3c6d;
const SHIFT: u32 = 15;

/// Where the network's header is (SKF_NET_OFF).
const NETWORK: u32 = -0x0010_0000_i32 as u32;
/// The program's memory: the hash, and the socket chosen so far.
const HASH: u32 = 0;
const CHOSEN: u32 = 1;

/// [`socket_of`] in the kernel's language.
fn program(sockets: usize) -> Vec<sock_filter> {
    let load = |size: u32, at: u32| op(BPF_LD | size | BPF_ABS, NETWORK + at);
    let mut v4 = vec![
        load(BPF_W, 12),
        op(BPF_ST, HASH),
        // The length of the header, which may have options; the port comes after it.
        op(BPF_LDX | BPF_B | BPF_MSH, NETWORK),
        op(BPF_LD | BPF_H | BPF_IND, NETWORK),
    ];
    let mut v6 = vec![op(BPF_LD | BPF_IMM, 0), op(BPF_ST, HASH)];
    for word in 0..4 {
        v6.push(load(BPF_W, 8 + 4 * word));
        v6.extend(adding());
    }
    v6.push(load(BPF_H, 40));
    v4.push(op(BPF_JMP | BPF_JA, v6.len() as u32));
    let mut all = vec![
        op(BPF_LD | BPF_IMM, 0),
        op(BPF_ST, CHOSEN),
        load(BPF_B, 0),
        op(BPF_ALU | BPF_RSH | BPF_K, 4),
        jump(BPF_JEQ, 6, v4.len() as u8, 0),
    ];
    all.append(&mut v4);
    all.append(&mut v6);
    all.extend(adding());
    for n in 1..sockets {
        all.extend([
            op(BPF_LD | BPF_MEM, HASH),
            op(BPF_MISC | BPF_TAX, 0),
            op(BPF_ALU | BPF_RSH | BPF_K, SHIFT),
            op(BPF_ALU | BPF_XOR | BPF_X, 0),
            op(BPF_ALU | BPF_MUL | BPF_K, MIXER),
            op(BPF_ST, HASH),
            op(BPF_ALU | BPF_RSH | BPF_K, 16),
            jump(BPF_JGE, share(n), 2, 0),
            op(BPF_LD | BPF_IMM, n as u32),
            op(BPF_ST, CHOSEN),
        ]);
    }
    all.extend([op(BPF_LD | BPF_MEM, CHOSEN), op(BPF_RET | BPF_A, 0)]);
    all
}

/// Adds the accumulator to the hash.
fn adding() -> [sock_filter; 5] {
    [
        op(BPF_MISC | BPF_TAX, 0),
        op(BPF_LD | BPF_MEM, HASH),
        op(BPF_ALU | BPF_MUL | BPF_K, FACTOR),
        op(BPF_ALU | BPF_ADD | BPF_X, 0),
        op(BPF_ST, HASH),
    ]
}

fn op(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Passes over so many instructions if the comparison holds, or if it doesn't.
fn jump(comparison: u32, k: u32, holds: u8, fails: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | comparison | BPF_K) as u16, jt: holds, jf: fails, k }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::{AsRawFd, OwnedFd};

    use super::*;
    use crate::SockAddr;
    use crate::socket::{Kind, ListenOptions, listen, local_addr};

    /// So many sockets of one address.
    fn group(ip: IpAddr, count: usize) -> (Vec<OwnedFd>, u16) {
        let options =
            ListenOptions { kind: Kind::Datagram, reuseport: true, ipv6only: false, ..ListenOptions::default() };
        let first = listen(&SockAddr::from(SocketAddr::new(ip, 0)), &options).expect("bound");
        let address = local_addr(first.as_raw_fd()).expect("an address");
        let port = address.port();
        let others = (1..count).map(|_| listen(&address, &options).expect("bound"));
        (std::iter::once(first).chain(others).collect(), port)
    }

    /// Which socket has received something, in the order of the group.
    fn receiver(sockets: &[OwnedFd]) -> usize {
        let mut batch = crate::datagram::Batch::new();
        for _ in 0..1000 {
            for (n, socket) in sockets.iter().enumerate() {
                if batch.recv(socket.as_raw_fd(), 1).is_ok_and(|count| count > 0) {
                    return n;
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("nothing was received");
    }

    #[test]
    fn the_kernel_chooses_as_we_do() {
        for (own, client) in
            [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.9"), ("::1", "::1"), ("::", "::1"), ("::", "127.0.0.1")]
        {
            for count in [1, 2, 3, 7] {
                let (sockets, port) = group(own.parse().expect("an address"), count);
                steer(sockets[0].as_raw_fd(), count).expect("the kernel takes it");
                for _ in 0..20 {
                    let sender = UdpSocket::bind((client, 0)).expect("bound");
                    let to = if client == "::1" { "::1" } else { "127.0.0.1" };
                    sender.send_to(b"x", (to, port)).expect("sent");
                    let from = sender.local_addr().expect("an address");
                    assert_eq!(receiver(&sockets), socket_of(&from, count), "{own} {from} {count}");
                }
            }
        }
    }

    #[test]
    fn a_socket_without_clients_gets_them_when_it_is_counted() {
        let (sockets, port) = group("127.0.0.1".parse().expect("an address"), 4);
        steer(sockets[0].as_raw_fd(), 2).expect("steered");
        let senders: Vec<UdpSocket> = (0..40).map(|_| UdpSocket::bind("127.0.0.1:0").expect("bound")).collect();
        let found = |count: usize| -> Vec<usize> {
            senders
                .iter()
                .map(|sender| {
                    sender.send_to(b"x", ("127.0.0.1", port)).expect("sent");
                    let chosen = receiver(&sockets);
                    assert!(chosen < count);
                    chosen
                })
                .collect()
        };
        let before = found(2);
        steer(sockets[3].as_raw_fd(), 4).expect("steered");
        let after = found(4);
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *after >= 2));
        assert!(after.iter().any(|chosen| *chosen >= 2));
    }

    #[test]
    fn clients_are_shared_out_evenly_and_move_to_new_sockets_only() {
        let clients: Vec<SocketAddr> = (0..20_000_u32)
            .map(|n| match n % 2 {
                0 => SocketAddr::from(([127, 0, 0, 1], 1024 + (n % 60_000) as u16)),
                _ => SocketAddr::from(([10, (n >> 16) as u8, (n >> 8) as u8, n as u8], 53)),
            })
            .collect();
        for count in [1, 2, 3, 4, 7, 8, 16, 64] {
            let mut shares = vec![0_usize; count];
            for client in &clients {
                let chosen = socket_of(client, count);
                shares[chosen] += 1;
                let before = socket_of(client, count.max(2) - 1);
                assert!(chosen == before || chosen + 1 == count, "{client} {before} {chosen} of {count}");
            }
            let fair = clients.len() / count;
            assert!(shares.iter().all(|share| share.abs_diff(fair) < fair / 5 + 50), "{count}: {shares:?}");
        }
    }

    #[test]
    fn groups_have_bounds() {
        let (sockets, _) = group("127.0.0.1".parse().expect("an address"), 1);
        for (count, good) in [(0, false), (1, true), (MOST, true), (MOST + 1, false)] {
            assert_eq!(steer(sockets[0].as_raw_fd(), count).is_ok(), good, "{count}");
        }
        let alone = UdpSocket::bind("127.0.0.1:0").expect("bound");
        assert!(steer(alone.as_raw_fd(), 1).is_err(), "it is of no group");
    }
}
