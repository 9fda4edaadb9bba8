//! Mail under each event method: logins, and sessions that move. Configurations have `%%USE%%` by [`e2e::mail::setup`].

use e2e::mail::{Talk, allow, echo, setup};
use e2e::{Connection, EC, certificate, echo_over_reloads, secure};

/// A client of IMAP that has logged in.
fn logged_in(connection: Connection) -> Connection {
    let mut client = Talk(connection);
    client.expect(&["* OK*"]).say("a LOGIN u p", &["a OK in"]);
    client.0
}

/// Not in nginx: both connections move to the new workers
#[test]
fn sessions_go_on_over_reloads() {
    let (echo, setup_text) = (echo(), |port: u16| {
        format!(
            "auth_http 127.0.0.1:{port}; proxy_buffer 16k; ssl_certificate site.crt; ssl_certificate_key site.key;
             server {{ listen 127.0.0.1:%%PORT%%; protocol imap; }}
             server {{ listen 127.0.0.1:%%PORT_tls%% ssl; protocol imap; }}"
        )
    });
    let who = allow(echo.port);
    let setup = setup(&setup_text(who.port));
    certificate(setup.folder(), "site", EC);
    let mut server = setup.start();
    let plain = (0..3).map(|_| logged_in(Connection::open(server.port())));
    let secured = (0..2).map(|_| logged_in(secure::connect(server.port_of("PORT_tls"), &[])));
    let tunnels = plain.chain(secured).collect();
    echo_over_reloads(&mut server, tunnels, 4 << 20);
    let log = server.read_until("error.log", "proxied session done");
    assert!(!log.contains("client timed out"), "{log}");
}
