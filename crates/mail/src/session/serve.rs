//! The life of a session: what precedes it, the login, and then the tunnel to the server that has the mail.

use std::rc::Rc;

use buf::Bytes;
use common::front::proxy;
use common::front::tls::{Greeted, Unproved, greet, log_failure};
use common::modules::Check as _;
use engine::log::Level;
use os::SockAddr;
use tls::HandshakeError;

use super::{Client, Gone, MailSession};
use crate::auth_http::{self, Decision};
use crate::proto::Protocol;
use crate::proxy::{self as backend, Tunnel};
use crate::server::{Address, Mail};
use crate::{imap, pop3, smtp};

/// Serves a connection to its end.
pub async fn serve(mail: Rc<Mail>, address: Rc<Address>, stream: rt::Stream, peer: SockAddr) {
    let _counted = mail.worker.sessions.count();
    // In a box of its own: what follows lasts longer, and needs less.
    if let Ok(tunnel) = Box::pin(begin(MailSession::new(&mail, address, stream, peer))).await {
        tunnel.run().await;
    }
}

/// All before the tunnel.
async fn begin(mut session: MailSession) -> Result<Box<Tunnel>, Gone> {
    session.log().write(
        Level::Info,
        Some(session.stream.number()),
        format_args!("client {} connected to {}", session.peer, session.address.addr),
    );
    let mut first = Bytes::default();
    if session.address.proxy_protocol {
        first = read_proxy_header(&mut session).await?;
    }
    let server = session.server.clone();
    if let Some(realip) = &server.realip {
        realip.check(&mut session);
    }
    let mut client = Client::new(session, Bytes::default());
    client.renew_timeout();
    if client.session.address.ssl {
        secure(&mut client, first).await?;
    } else {
        client.input.extend_from_slice(&first);
    }
    log_in(client).await
}

async fn read_proxy_header(session: &mut MailSession) -> Result<Bytes, Gone> {
    let stream = &session.stream;
    stream.set_recv_timeout(Some(session.server.core.timeout));
    let (header, rest) = proxy::read(stream, b"", || session.visitor()).await.ok_or(Gone)?;
    session.proxy = header.map(Box::new);
    Ok(rest)
}

/// Makes the connection a TLS connection. `first` has been read already.
pub async fn secure(client: &mut Client, first: Bytes) -> Result<(), Gone> {
    let session = &mut client.session;
    let address = session.address.clone();
    let greeting = match greet(&session.stream, first, &address, || session.visitor()).await {
        Some(Greeted::Hello(greeting)) => greeting,
        Some(Greeted::Plain(_)) => {
            let error = HandshakeError::Tls("error:0A00010B:SSL routines::wrong version number".to_owned());
            log_failure(&session.visitor(), &error);
            return Err(Gone);
        }
        None => return Err(Gone),
    };
    let identity = greeting.tls.clone().identity(session);
    let log = session.log().clone();
    let secured = greeting.finish(&session.stream, identity, &log, || session.visitor()).await.ok_or(Gone)?;
    let checked = session.verify_client().check(&secured);
    session.tls = Some(secured);
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
async fn log_in(mut client: Client) -> Result<Box<Tunnel>, Gone> {
    let protocol = client.session.server.protocol;
    match protocol {
        Protocol::Imap => imap::greet(&mut client),
        Protocol::Pop3 => pop3::greet(&mut client),
        Protocol::Smtp => smtp::greet(&mut client).await?,
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
        let allowed = match auth_http::ask(&client, &login, &smtp).await {
            Some(Decision::Allowed(allowed)) => allowed,
            Some(Decision::Refused(refusal)) => {
                client.session.log_at(
                    Level::Info,
                    format_args!(
                        "client login failed: \"{}\" while in http auth state",
                        buf::text::encode(&refusal.reason)
                    ),
                );
                refuse(&mut client, &refusal).await?;
                continue;
            }
            None => return Err(client.fail().await),
        };
        return backend::log_in(client, login, smtp, allowed).await;
    }
}

/// Tells the client that it may not log in; it may try again if it is to wait for that.
async fn refuse(client: &mut Client, refusal: &auth_http::Refusal) -> Result<(), Gone> {
    rt::sleep(refusal.wait_s.saturating_mul(1000)).await;
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
