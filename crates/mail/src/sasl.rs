//! The exchange of credentials with a client, which is the same in all protocols but for what stands before a challenge.

use buf::Secret;
use engine::log::Level;
use wire::mail::sasl::{self, Fault, Mechanism};

use crate::session::{Client, Gone};

/// Methods of authentication, as bits of `imap_auth`, `pop3_auth` and `smtp_auth`.
pub mod method {
    /// Name and password: PLAIN.
    pub const PLAIN: u32 = 1;
    /// Name and password in turn: LOGIN.
    pub const LOGIN: u32 = 2;
    /// A digest with a challenge: CRAM-MD5.
    pub const CRAM_MD5: u32 = 4;
    /// The name alone: EXTERNAL.
    pub const EXTERNAL: u32 = 8;
    /// A digest with the greeting's salt: APOP.
    pub const APOP: u32 = 16;
    /// Nothing.
    pub const NONE: u32 = 32;
}

/// How a client says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By name and password.
    Plain,
    /// By a digest with the greeting's salt.
    Apop,
    /// By a digest with a challenge.
    CramMd5,
    /// By a layer below.
    External,
    /// Not at all.
    None,
}

impl Method {
    /// The value of `Auth-Method`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Plain => "plain",
            Method::Apop => "apop",
            Method::CramMd5 => "cram-md5",
            Method::External => "external",
            Method::None => "none",
        }
    }

    /// Whether what the client gives is a digest, not a password, so that salt belongs to it.
    pub fn has_salt(self) -> bool {
        matches!(self, Method::Apop | Method::CramMd5)
    }
}

/// What a client says of itself.
#[derive(Debug)]
pub struct Login {
    /// How.
    pub method: Method,
    /// Who.
    pub user: Vec<u8>,
    /// The password, or a digest; empty without one.
    pub password: Secret,
    /// What the digest is made of, beside the password.
    pub salt: Box<str>,
}

impl Login {
    /// Credentials that a client has given.
    pub fn new(client: &mut Client, method: Method, user: &[u8], password: Secret) -> Login {
        let salt = if method.has_salt() { client.salt().into() } else { Box::default() };
        Login { method, user: user.to_vec(), password, salt }
    }
}

/// How a protocol does it.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// What stands before a challenge.
    pub prompt: &'static str,
    /// The methods that it has, as bits.
    pub methods: u32,
    /// The longest line of a response.
    pub limit: usize,
}

/// The bit of a mechanism.
fn bit(mechanism: Mechanism) -> u32 {
    match mechanism {
        Mechanism::Plain => method::PLAIN,
        Mechanism::Login => method::LOGIN,
        Mechanism::CramMd5 => method::CRAM_MD5,
        Mechanism::External => method::EXTERNAL,
    }
}

/// The mechanisms that clients are told of, each with `prefix`; one that a method implies stands for it.
pub fn offered(methods: u32, prefix: &str) -> String {
    let names = Mechanism::ALL.into_iter().filter(|mechanism| methods & bit(*mechanism) != 0);
    names.map(|mechanism| format!("{prefix}{}", mechanism.name())).collect::<Vec<_>>().join(" ")
}

/// Lets the client log in by a mechanism. `None`: it hasn't given credentials that could be; the log knows.
pub async fn exchange(
    client: &mut Client,
    dialect: Dialect,
    mechanism: &[u8],
    initial: Option<&[u8]>,
) -> Result<Option<Login>, Gone> {
    let Some(mechanism) = Mechanism::of(mechanism) else { return Ok(None) };
    // As nginx does: name and password are always taken, they just aren't offered.
    let always = method::PLAIN | method::LOGIN;
    if (dialect.methods | always) & bit(mechanism) == 0 || mechanism == Mechanism::CramMd5 && initial.is_some() {
        return Ok(None);
    }
    let (prompt, limit) = (dialect.prompt.as_bytes(), dialect.limit);
    let first = match (initial, mechanism) {
        (Some(initial), _) => initial.into(),
        (None, Mechanism::Plain) => client.challenge(&[prompt], limit).await?,
        (None, Mechanism::Login | Mechanism::External) => client.challenge(&[prompt, USERNAME], limit).await?,
        (None, Mechanism::CramMd5) => {
            let mut challenge = Vec::new();
            sasl::encode(client.salt().as_bytes(), &mut challenge);
            client.challenge(&[prompt, &challenge], limit).await?
        }
    };
    let mut second = Secret::default();
    if mechanism == Mechanism::Login && sasl::decode(&first).is_ok() {
        second = client.challenge(&[prompt, PASSWORD], limit).await?;
    }
    let login = credentials(client, mechanism, &first, &second);
    Ok(login
        .inspect_err(|fault| {
            let message = format_args!("client sent {fault} in AUTH {} command while in auth state", mechanism.name());
            client.session.log_at(Level::Info, message);
        })
        .ok())
}

fn credentials(client: &mut Client, mechanism: Mechanism, first: &Secret, second: &Secret) -> Result<Login, Fault> {
    let first = Secret::from(sasl::decode(first)?);
    let (method, user, password) = match mechanism {
        Mechanism::Plain => {
            let (user, password) = sasl::plain(&first)?;
            (Method::Plain, user, Secret::from(password))
        }
        Mechanism::Login => {
            let password = Secret::from(sasl::decode(second)?);
            sasl::password(&password)?;
            (Method::Plain, sasl::login(&first)?, password)
        }
        Mechanism::CramMd5 => {
            let (user, digest) = sasl::cram_md5(&first)?;
            (Method::CramMd5, user, Secret::from(digest))
        }
        Mechanism::External => (Method::External, sasl::login(&first)?, Secret::default()),
    };
    Ok(Login::new(client, method, user, password))
}

/// `Username:`
const USERNAME: &[u8] = b"VXNlcm5hbWU6";
/// `Password:`
const PASSWORD: &[u8] = b"UGFzc3dvcmQ6";
