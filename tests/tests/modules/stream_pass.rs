//! `pass` in `stream {}`: what can't be passed on, and where that ends.

use e2e::{Connection, Server, Setup};

/// Connects, and waits until the connection is closed.
fn connect(server: &Server, port: &str) {
    assert_eq!(Connection::open(server.port_of(port)).rest(), b"");
}

#[test]
fn the_log_tells_what_cannot_be_passed() {
    let mut server = Setup::stream(
        "log_format line '$server_port $status';
         access_log access.log line;
         server { listen 127.0.0.1:%%PORT_NAME%%; set $where nonsense; pass $where; }
         server { listen 127.0.0.1:%%PORT_LOST%%; pass 127.0.0.1:1; }",
    )
    .start();
    for (port, status, why) in
        [("PORT_NAME", 500, "in pass \"nonsense\""), ("PORT_LOST", 200, "port not found for \"127.0.0.1:1\"")]
    {
        connect(&server, port);
        let line = format!("{} {status}\n", server.port_of(port));
        server.read_until("access.log", &line);
        let log = server.read("error.log");
        assert!(log.contains(&format!("{why} while passing connection to port, client: 127.0.0.1, server:")), "{log}");
    }
}

#[test]
fn connections_do_not_go_round_for_ever() {
    let mut server = Setup::stream(
        "log_format line '$server_port $status';
         access_log access.log line;
         server { listen 127.0.0.1:%%PORT_SELF%%; pass 127.0.0.1:%%PORT_SELF%%; }
         server { listen 127.0.0.1:%%PORT_A%%; pass 127.0.0.1:%%PORT_B%%; }
         server { listen 127.0.0.1:%%PORT_B%%; pass 127.0.0.1:%%PORT_A%%; }
         server { listen 127.0.0.1:%%PORT_TEXT%%; return text; }",
    )
    .start();
    for port in ["PORT_SELF", "PORT_A"] {
        connect(&server, port);
        // After ten passes it is where it began.
        let line = format!("{} 500\n", server.port_of(port));
        server.read_until("access.log", &line);
    }
    let log = server.read("error.log");
    assert_eq!(
        log.matches("stream pass cycle while passing connection to port, client: 127.0.0.1").count(),
        2,
        "{log}"
    );
    assert_eq!(Connection::open(server.port_of("PORT_TEXT")).rest(), b"text");
}
