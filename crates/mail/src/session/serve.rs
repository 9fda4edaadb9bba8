//! The life of a session: what precedes it, the login, and then the tunnel to the server that has the mail.

use buf::{Buf, Bytes};
use common::front::proxy;
use common::front::tls::{Unproved, greet_secure};
use common::modules::Check as _;
use engine::log::Level;

use super::{Client, Gone};
use crate::auth_http::{self, Decision};
use crate::proto::Protocol;
use crate::proxy::{self as backend, Tunnel};
use crate::{imap, pop3, smtp};

/// Serves a connection to its end.
pub async fn serve(client: Box<Client>) {
    let _counted = client.session.mail.worker.sessions.count();
    // Each in a box of its own, as all that is rare: what lasts needs little.
    if let Ok(tunnel) = Box::pin(begin(client)).await {
        Box::pin(tunnel.run()).await;
    }
}

/// All before the tunnel.
async fn begin(mut client: Box<Client>) -> Result<Box<Tunnel>, Gone> {
    let session = &mut client.session;
    session.log().write(
        Level::Info,
        Some(session.base.number),
        format_args!("client {} connected to {}", session.base.peer, session.address.addr),
    );
    if session.address.proxy_protocol {
        Box::pin(read_proxy_header(&mut client)).await?;
    }
    let server = client.session.server.clone();
    if let Some(realip) = &server.realip {
        realip.check(&mut client.session);
    }
    client.renew_timeout();
    if client.session.address.ssl {
        let first = std::mem::replace(&mut client.input, Buf::empty()).freeze();
        Box::pin(secure(&mut client, first)).await?;
    }
    log_in(client).await
}

async fn read_proxy_header(client: &mut Client) -> Result<(), Gone> {
    let session = &mut client.session;
    session.stream.set_recv_timeout(Some(session.server.core.timeout));
    let (header, rest) = proxy::read(&session.stream, b"", || session.visitor()).await.ok_or(Gone)?;
    session.base.proxy = header.map(Box::new);
    client.input.extend_from_slice(&rest);
    Ok(())
}

/// Makes the connection a TLS connection. `first` has been read already.
pub async fn secure(client: &mut Client, first: Bytes) -> Result<(), Gone> {
    let session = &mut client.session;
    let address = session.address.clone();
    let greeting = greet_secure(&session.stream, first, &address, || session.visitor()).await.ok_or(Gone)?;
    let identity = greeting.tls.clone().identity(session);
    let log = session.log().clone();
    let secured = greeting.finish(&session.stream, identity, &log, || session.visitor()).await.ok_or(Gone)?;
    let checked = session.verify_client().check(&secured);
    session.base.tls = Some(secured);
    client.renew_timeout();
    let Err(unproved) = checked else { return Ok(()) };
    let session = &client.session;
    let doing = session.visitor().doing();
    let reason = match unproved {
        Unproved::Bad(reason) => {
            let message = format_args!("client SSL certificate verify error: {reason} while {doing}");
            session.log_at(Level::Info, message);
            "SSL certificate error"
        }
        Unproved::Nobody => {
            session.log_at(Level::Info, format_args!("client sent no required SSL certificate while {doing}"));
            "No required SSL certificate"
        }
    };
    let goodbye = session.server.protocol.goodbye();
    client.say(&[goodbye.as_bytes(), reason.as_bytes()]);
    Err(client.dismiss().await)
}

/// Greets the client, and lets it try to log in until it may.
async fn log_in(mut client: Box<Client>) -> Result<Box<Tunnel>, Gone> {
    let protocol = client.session.server.protocol;
    match protocol {
        Protocol::Imap => imap::greet(&mut client),
        Protocol::Pop3 => pop3::greet(&mut client),
        Protocol::Smtp => Box::pin(smtp::greet(&mut client)).await?,
    }
    let mut smtp = smtp::Envelope::default();
    loop {
        let login = match protocol {
            Protocol::Imap => imap::log_in(&mut client).await?,
            Protocol::Pop3 => pop3::log_in(&mut client).await?,
            Protocol::Smtp => smtp::log_in(&mut client, &mut smtp).await?,
        };
        client.flush().await?;
        client.attempts += 1;
        client.session.login.clone_from(&login.user);
        let asked = Box::pin(client.watched(auth_http::ask(&client, &login, &smtp))).await?;
        let allowed = match asked {
            Some(Decision::Allowed(allowed)) => allowed,
            Some(Decision::Refused(refusal)) => {
                client.session.log_at(
                    Level::Info,
                    format_args!(
                        "client login failed: \"{}\" while in http auth state",
                        buf::text::encode(&refusal.reason)
                    ),
                );
                Box::pin(refuse(&mut client, &refusal)).await?;
                continue;
            }
            None => return Err(client.fail().await),
        };
        return Box::pin(backend::log_in(client, login, smtp, allowed)).await;
    }
}

/// Tells the client that it may not log in; it may try again if it is to wait for that.
async fn refuse(client: &mut Client, refusal: &auth_http::Refusal) -> Result<(), Gone> {
    client.watched(rt::sleep(refusal.wait_s.saturating_mul(1000))).await?;
    let tag = std::mem::take(&mut client.tag);
    let (start, middle): (&[u8], &[u8]) = match client.session.server.protocol {
        Protocol::Imap => (&tag, b" NO "),
        Protocol::Pop3 => (b"-ERR", b" "),
        Protocol::Smtp => (refusal.code.as_deref().unwrap_or(b"535 5.7.0"), b" "),
    };
    client.say(&[start, middle, &refusal.reason]);
    if refusal.wait_s == 0 {
        return Err(client.dismiss().await);
    }
    client.renew_timeout();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    /// The size of the future that a function makes.
    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn clients_take_little_before_the_login() {
        let sizes = [size(serve), size(begin), size_of::<Client>()];
        assert!(sizes.iter().sum::<usize>() <= 1500, "{sizes:?}");
    }
}
