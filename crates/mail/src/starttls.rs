//! `starttls`: TLS that begins within a session. What else belongs to TLS is in `common`.

use conf::Args;
use conf::values::one_of;

use buf::Bytes;

use crate::proto::EVERYWHERE;
use crate::session::{Client, Gone, secure};

conf::table! {
    /// TLS within sessions.
    pub struct StarttlsConf, raw StarttlsRaw, module "ngx_mail_ssl_module", level MAIL Server;

    /// Lets clients begin TLS within a session: by STARTTLS in IMAP and SMTP, by STLS in POP3.
    ///
    /// Form: `starttls on | only | off`
    ///
    /// - `on`: clients are offered it.
    /// - `only`: clients have to begin TLS before they log in, or name a sender without logging in (`smtp_auth none`).
    /// - `off`: they can't begin TLS.
    ///
    /// Effect: it is offered as long as the connection doesn't speak TLS. The server needs `ssl_certificate`. What a client
    /// has sent before the handshake, beyond the command itself, is thrown away.
    ///
    /// Danger: with `on`, clients may send their passwords without TLS, and whoever stands between can take the offer out of
    /// the answer.
    ///
    /// ```nginx
    /// starttls only;
    /// ```
    "starttls" in EVERYWHERE, Args::exactly(1), default "off",
        scalar(one_of(STARTTLS)) starttls: Starttls = Starttls::Off;
}

/// `starttls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starttls {
    /// Clients can't begin TLS.
    Off,
    /// They can.
    On,
    /// They have to.
    Only,
}

const STARTTLS: &[(&str, Starttls)] = &[("off", Starttls::Off), ("on", Starttls::On), ("only", Starttls::Only)];

/// Begins TLS, after telling the client so. What it had sent before that was nobody's word for it, so it is thrown away.
pub async fn begin(client: &mut Client, answer: &[&[u8]]) -> Result<(), Gone> {
    client.say(answer);
    client.flush().await?;
    client.input.clear();
    client.session.starttls = true;
    client.renew_timeout();
    Box::pin(secure(client, Bytes::default())).await
}
