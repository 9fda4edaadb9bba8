//! Values of the `ssl_*` directives, those for clients and those for backends.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use conf::values::{bitmask, conf_path};
use conf::{Directive, Error, Loader, Result};
use expr::vars::Template;
use tls::{Identity, Protocols};

use super::LateFile;
use crate::vars::{self, Late};
use crate::{Proto, Session};

/// TLS 1.2 and 1.3.
pub(crate) const DEFAULT_PROTOCOLS: u32 = TLS12 | TLS13;
/// The bit of TLS 1.2 in `ssl_protocols`.
const TLS12: u32 = 16;
/// The bit of TLS 1.3 in `ssl_protocols`.
const TLS13: u32 = 32;
const PROTOCOLS: &[(&str, u32)] =
    &[("SSLv2", 1), ("SSLv3", 2), ("TLSv1", 4), ("TLSv1.1", 8), ("TLSv1.2", TLS12), ("TLSv1.3", TLS13)];

/// A certificate or key: a name that is known, or one with variables.
#[derive(Clone, Debug)]
pub enum File {
    /// A path, or a text after `data:`.
    Fixed(String),
    /// To be rendered for each connection.
    Variable(Rc<Template>),
}

/// A name of a certificate or key, as a directive has it: what stands in it is looked at after inheritance.
pub fn file(_: &mut Loader<'_>, d: &Directive) -> Result<LateFile> {
    LateFile::of(d)
}

impl File {
    /// What the name `text` means, which `value` compiles if there are variables in it.
    pub fn of<P: Proto>(loader: &mut Loader<'_>, text: &str, value: &Late) -> Result<File> {
        if !text.contains('$') {
            return Ok(File::Fixed(full_name(&loader.env.conf_prefix, text)));
        }
        if !text.starts_with("data:") {
            let path = loader.env.conf_prefix.join(text);
            loader.store.entry::<engine::worker::sandbox::Needs>().read(path);
        }
        value.compile::<P>(loader).map(File::Variable)
    }

    /// The name for a session; empty if variables say nothing.
    pub fn name<S: Session>(&self, session: &mut S, prefix: &Path) -> String {
        match self {
            File::Fixed(name) => name.clone(),
            File::Variable(template) => {
                let name = String::from_utf8_lossy(&vars::render(session, template)).into_owned();
                if name.is_empty() { name } else { full_name(prefix, &name) }
            }
        }
    }
}

/// How long certificates that were loaded for a connection are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    max: usize,
    inactive_ms: u64,
    valid_ms: u64,
}

/// `off`, or `max=N [inactive=time] [valid=time]`.
pub(crate) fn certificate_cache(_: &mut Loader<'_>, d: &Directive) -> Result<Option<CacheLimits>> {
    let mut limits = CacheLimits { max: 0, inactive_ms: 10_000, valid_ms: 60_000 };
    for word in &d.args {
        let text = word.lossy();
        if *word == "off" {
            return Ok(None);
        }
        let time = |text: &str| buf::parse::parse_sec(text.as_bytes()).map(|seconds| seconds * 1000);
        let read = match text.split_once('=') {
            Some(("max", value)) => value.parse().ok().filter(|max| *max > 0).map(|max| limits.max = max),
            Some(("inactive", value)) => time(value).map(|ms| limits.inactive_ms = ms),
            Some(("valid", value)) => time(value).map(|ms| limits.valid_ms = ms),
            _ => None,
        };
        read.ok_or_else(|| Error::at(word, format!("invalid parameter \"{text}\"")))?;
    }
    if limits.max == 0 {
        let name = d.name.lossy();
        return Err(Error::on(d, format!("\"{name}\" must have the \"max\" parameter")));
    }
    Ok(Some(limits))
}

/// Certificates that were loaded for connections, with their keys.
pub struct CertificateCache {
    limits: Option<CacheLimits>,
    kept: RefCell<HashMap<(String, String), Kept>>,
}

struct Kept {
    identity: Identity,
    loaded_ms: u64,
    used_ms: u64,
}

impl CertificateCache {
    /// An empty one; without limits it keeps nothing.
    pub fn new(limits: Option<CacheLimits>) -> CertificateCache {
        CertificateCache { limits, kept: RefCell::default() }
    }

    /// The certificate of these names, from the files if need be.
    pub fn load(&self, certificate: &str, key: &str, passwords: &[Vec<u8>]) -> tls::Result<Identity> {
        let read = || tls::identity(certificate, key, passwords);
        let Some(limits) = self.limits else { return read() };
        let now = rt::now_ms();
        let names = (certificate.to_owned(), key.to_owned());
        let mut kept = self.kept.borrow_mut();
        if let Some(found) = kept.get_mut(&names)
            && now.saturating_sub(found.loaded_ms) < limits.valid_ms
            && now.saturating_sub(found.used_ms) < limits.inactive_ms
        {
            found.used_ms = now;
            return Ok(found.identity.clone());
        }
        kept.remove(&names);
        let identity = read()?;
        if identity.is_encrypted() {
            // As nginx does: what the file protects by a password isn't kept.
            return Ok(identity);
        }
        kept.retain(|_, kept| now.saturating_sub(kept.used_ms) < limits.inactive_ms);
        // A certificate and its key count as two, as nginx counts them.
        if 2 * (kept.len() + 1) > limits.max {
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.used_ms).map(|(names, _)| names.clone());
            oldest.and_then(|names| kept.remove(&names));
        }
        kept.insert(names, Kept { identity: identity.clone(), loaded_ms: now, used_ms: now });
        Ok(identity)
    }
}

/// A time in milliseconds, more than none; or `off`.
pub fn interval(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<u64>> {
    if *d.arg(0) == "off" {
        return Ok(None);
    }
    match conf::values::msec(loader, d)? {
        0 => Err(Error::at(d.arg(0), "the time must be more than 0; \"off\" switches it off")),
        ms => Ok(Some(ms)),
    }
}

/// As an argument names it, and where that stands.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// The name; empty for none.
    pub text: String,
    /// The place, if there is a name.
    pub place: Option<conf::Span>,
}

/// The name of a file that is read after inheritance, in the servers and locations that have it.
pub fn named(_: &mut Loader<'_>, d: &Directive) -> Result<Named> {
    let word = d.arg(0);
    let place = Some(conf::Span { line: d.end.line, ..word.span });
    Ok(Named { text: conf::values::text(word)?.to_owned(), place })
}

impl Named {
    /// Its path, unless the name is empty.
    pub fn path(&self, loader: &Loader<'_>) -> Option<String> {
        (!self.text.is_empty()).then(|| full_name(&loader.env.conf_prefix, &self.text))
    }

    /// An error of its contents.
    pub fn error(&self, error: tls::Error) -> Error {
        Error { span: self.place, ..Error::new(error.0) }
    }
}

/// Reads certificate and key; a fault of theirs is one of the configuration.
pub fn load(certificate: &str, key: &str, passwords: &[Vec<u8>]) -> Result<Identity> {
    tls::identity(certificate, key, passwords).map_err(|error| Error::new(error.0))
}

/// An error of a certificate or its key, at the one that it is about.
pub(crate) fn at_file(error: Error, places: Option<(conf::Span, conf::Span)>) -> Error {
    let is_about_key = error.message.contains(" certificate key ") || error.message.contains("PrivateKey(");
    error.or_at(places.map(|(certificate, key)| if is_about_key { key } else { certificate }))
}

/// A path below the configuration's folder; what has a scheme stays as it is.
pub(crate) fn full_name(prefix: &Path, name: &str) -> String {
    let scheme = ["data:", "engine:", "store:"].iter().any(|scheme| name.starts_with(scheme));
    if scheme { name.to_owned() } else { prefix.join(name).to_string_lossy().into_owned() }
}

/// The lines of a file.
pub(crate) fn password_file(loader: &mut Loader<'_>, d: &Directive) -> Result<Rc<[Vec<u8>]>> {
    let path = conf_path(loader, d)?;
    let text = std::fs::read(&path).map_err(|error| {
        let call = if path.is_dir() { "read" } else { "open" };
        Error::at(d.arg(0), format!("{call}() \"{}\" failed{}", buf::text::path(&path), engine::log::Errno(&error)))
    })?;
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Versions of TLS, as bits. Older ones, which don't exist here, are skipped: nobody who lists them beside newer ones
/// misses them. With none left it is an error.
pub fn protocols(mask: &mut Option<u32>, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    bitmask(mask, PROTOCOLS, loader, d)?;
    if mask.is_some_and(|mask| mask & (TLS12 | TLS13) == 0) {
        let name = d.name.lossy();
        return Err(
            Error::on(d, format!("no protocol of \"{name}\" is supported")).hint("there are TLSv1.2 and TLSv1.3")
        );
    }
    Ok(())
}

/// A setting in OpenSSL's words: its name and value.
pub(crate) fn conf_command(_: &mut Loader<'_>, d: &Directive) -> Result<(String, String)> {
    Ok((d.arg(0).lossy().into_owned(), d.arg(1).lossy().into_owned()))
}

/// What `ssl_conf_command` says.
#[derive(Default)]
pub struct Commands {
    /// Whether there are tickets.
    pub tickets: Option<bool>,
    /// Whether the server's order of ciphers counts.
    pub prefer_server: Option<bool>,
    /// The list of ciphers.
    pub ciphers: Option<String>,
    /// The suites of TLS 1.3.
    pub ciphersuites: Option<String>,
    /// The groups.
    pub groups: Option<String>,
    /// The certificate, and the key.
    identity: (Option<String>, Option<String>),
    min: Option<u32>,
    max: Option<u32>,
}

impl Commands {
    /// Reads the settings.
    pub fn read(settings: &[(String, String)], loader: &Loader<'_>) -> Result<Commands> {
        let mut commands = Commands::default();
        for (name, value) in settings {
            let invalid = || refused(name, value, "");
            match name.as_str() {
                "Options" => commands.options(value).ok_or_else(invalid)?,
                "Ciphersuites" => {
                    tls::ciphers::tls13(value).map_err(|error| refused(name, value, &error.0))?;
                    commands.ciphersuites = Some(value.clone());
                }
                "CipherString" => {
                    tls::ciphers::tls12(value).map_err(|error| refused(name, value, &error.0))?;
                    commands.ciphers = Some(value.clone());
                }
                "Groups" | "Curves" => {
                    tls::groups(value).map_err(|error| refused(name, value, &error.0))?;
                    commands.groups = Some(value.clone());
                }
                "MinProtocol" => commands.min = Some(version(value).ok_or_else(invalid)?),
                "MaxProtocol" => commands.max = Some(version(value).filter(|v| *v >= TLS12).ok_or_else(invalid)?),
                "Certificate" => commands.identity.0 = Some(full_name(&loader.env.conf_prefix, value)),
                "PrivateKey" => commands.identity.1 = Some(full_name(&loader.env.conf_prefix, value)),
                _ => {
                    let why = format!("0A000182:SSL routines::unknown cmd name:cmd={name}");
                    return Err(Error::new(format!("SSL_CONF_cmd(\"{name}\", \"{value}\") failed (SSL: error:{why})")));
                }
            }
        }
        Ok(commands)
    }

    /// Whether they name a certificate or a key.
    pub(crate) fn names_identity(&self) -> bool {
        self.identity.0.is_some() || self.identity.1.is_some()
    }

    /// The certificate and the key that they name; what they don't name is as `directives` have it, or the key stands in
    /// the certificate's file. Both can be read.
    pub fn identity(&self, directives: Option<(File, File)>, passwords: &[Vec<u8>]) -> Result<(File, File)> {
        let (own_certificate, own_key) = (self.identity.0.clone(), self.identity.1.clone());
        let (certificate, key) = directives.unzip();
        let certificate = own_certificate.map(File::Fixed).or(certificate);
        let key = own_key.map(File::Fixed).or(key).or_else(|| certificate.clone());
        let (Some(certificate), Some(key)) = (certificate, key) else {
            return Err(refused("PrivateKey", self.identity.1.as_deref().unwrap_or_default(), ""));
        };
        if let (File::Fixed(certificate), File::Fixed(key)) = (&certificate, &key) {
            tls::identity(certificate, key, passwords).map_err(|error| {
                let is_about_key = self.identity.0.is_none() || error.0.contains(" certificate key ");
                let (name, value) = if is_about_key { ("PrivateKey", key) } else { ("Certificate", certificate) };
                refused(name, value, &error.0)
            })?;
        }
        Ok((certificate, key))
    }

    fn options(&mut self, value: &str) -> Option<()> {
        for word in value.split(',') {
            let (on, name) = match word.strip_prefix('-') {
                Some(name) => (false, name),
                None => (true, word.strip_prefix('+').unwrap_or(word)),
            };
            match name {
                "SessionTicket" => self.tickets = Some(on),
                "ServerPreference" => self.prefer_server = Some(on),
                // These say what is so anyway, or what can't be here.
                "PrioritizeChaCha"
                | "KTLS"
                | "NoRenegotiation"
                | "Compression"
                | "EmptyFragments"
                | "Bugs"
                | "DHSingle"
                | "ECDHSingle"
                | "MiddleboxCompat"
                | "NoResumptionOnRenegotiation"
                | "ExtendedMasterSecret"
                | "EncryptThenMac"
                | "AntiReplay"
                | "CANames"
                | "AllowNoDHEKEX"
                | "TxCertificateCompression"
                | "RxCertificateCompression" => {}
                _ => return None,
            }
        }
        Some(())
    }

    /// The versions, as the bits of a directive and the settings have them.
    pub fn protocols(&self, mask: u32) -> Protocols {
        let allowed = |bit: u32| {
            let named = mask & bit != 0 || (self.min.is_some() || self.max.is_some()) && mask == 0;
            named && self.min.is_none_or(|min| bit >= min) && self.max.is_none_or(|max| bit <= max)
        };
        Protocols { tls12: allowed(TLS12), tls13: allowed(TLS13) }
    }
}

/// The error of a setting whose value isn't taken, with what `cause`, a message of the library's kind, says in brackets.
fn refused(name: &str, value: &str, cause: &str) -> Error {
    let cause = cause.split_once("(SSL: ").and_then(|(_, cause)| cause.strip_suffix(')'));
    let cause = cause.map(|cause| format!("{cause} ")).unwrap_or_default();
    let why = format!("{cause}error:0A000180:SSL routines::bad value:cmd={name}, value={value}");
    Error::new(format!("SSL_CONF_cmd(\"{name}\", \"{value}\") failed (SSL: {why})"))
}

fn version(name: &str) -> Option<u32> {
    Some(match name {
        "None" | "SSLv3" | "TLSv1" | "TLSv1.1" => 0,
        "TLSv1.2" => TLS12,
        "TLSv1.3" => TLS13,
        _ => return None,
    })
}
