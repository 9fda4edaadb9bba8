//! Files on their way to clients: by sendfile, by reading, by file threads, to clients that read slowly or not at all.

use e2e::{Server, Setup, pattern};

/// More than the sockets' buffers take in.
const LENGTH: usize = 12 << 20;

fn site(directives: &str) -> Server {
    Setup::http(&format!("server {{ listen 127.0.0.1:%%PORT%%; root %%DIR%%/html; {directives} }}"))
        .file("html/big", pattern(0, LENGTH))
        .file("html/small", "small")
        .start()
}

#[test]
fn ways_to_send() {
    let whole = pattern(0, LENGTH);
    for directives in [
        "sendfile on;",
        "sendfile off;",
        "sendfile on; tcp_nopush on;",
        "sendfile on; sendfile_max_chunk 64k;",
        "aio threads;",
        "sendfile on; aio threads;",
        "sendfile off; output_buffers 2 8k;",
    ] {
        let server = site(directives);
        assert!(server.get("/big").body == whole, "{directives}");
        let part = server.get_with("/big", "Range: bytes=1000000-4999999\r\n");
        assert!(part.status == 206 && part.body == whole[1_000_000..5_000_000], "{directives}");
        // One that reads later gets all of it, and keeps nobody waiting.
        let mut slow = server.connect();
        slow.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        for _ in 0..5 {
            assert_eq!(server.get("/small").text(), "small", "{directives}");
        }
        assert!(slow.response().body == whole, "{directives}");
        assert_eq!(slow.get("/small", "").text(), "small", "{directives}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    for directives in ["sendfile on;", "sendfile off;", "aio threads;"] {
        let mut server = site(&format!("send_timeout 300ms; {directives}"));
        let mut client = server.connect();
        client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        server.read_until("access.log", "GET /big");
        assert!(client.rest().len() < LENGTH, "{directives}");
    }
}
