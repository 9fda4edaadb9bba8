//! `ssl_stapling`: where the OCSP responses come from that go out with certificates.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use ::conf::{Error, Loader, Result};
use tls::{Identity, Trust};

use super::SslConf;
use super::ocsp;
use crate::Proto;
use crate::ocsp::{Names, Stapler};

/// Where responses come from.
pub(super) enum Stapling {
    /// There are none.
    Off,
    /// A file.
    File(PathBuf),
    /// Responders.
    Fetched(Fetched),
}

/// How they are fetched.
pub(super) struct Fetched {
    trust: Rc<Trust>,
    responder: String,
    names: Names,
    verify: bool,
}

impl Stapling {
    /// As a server's directives say.
    pub(super) fn of<P: Proto>(conf: &SslConf<P>, names: &Names, loader: &Loader<'_>) -> Result<Stapling> {
        if !conf.ssl_stapling {
            return Ok(Stapling::Off);
        }
        let file = &conf.ssl_stapling_file;
        if let Some(path) = file.path(loader) {
            let path = PathBuf::from(path);
            response(&path).map_err(|error| error.or_at(file.place))?;
            return Ok(Stapling::File(path));
        }
        Ok(Stapling::Fetched(Fetched {
            trust: ocsp::trust(conf, loader)?,
            responder: conf.ssl_stapling_responder.clone(),
            names: names.clone(),
            verify: conf.ssl_stapling_verify,
        }))
    }

    /// The file that responses come from.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Stapling::File(path) => Some(path),
            _ => None,
        }
    }

    /// A certificate of the file `name` with its response, or with what will fetch it; `warn` is told why that can't be.
    pub(super) fn staple(
        &self,
        identity: Identity,
        name: &str,
        warn: &mut dyn FnMut(String),
    ) -> Result<(Identity, Option<Rc<Stapler>>)> {
        match self {
            Stapling::Off => Ok((identity, None)),
            Stapling::File(path) => Ok((with_file(path, &identity)?, None)),
            Stapling::Fetched(Fetched { trust, responder, names, verify }) => {
                match Stapler::new(&identity, name, responder, trust.clone(), names.clone(), *verify) {
                    Ok(stapler) => Ok((stapler.identity().clone(), Some(Rc::new(stapler)))),
                    Err(why) => {
                        warn(format!("\"ssl_stapling\" ignored, {why}"));
                        Ok((identity, None))
                    }
                }
            }
        }
    }
}

fn with_file(path: &Path, identity: &Identity) -> Result<Identity> {
    Ok(identity.with_staple(response(path)?))
}

/// The OCSP response in a file.
fn response(path: &Path) -> Result<Vec<u8>> {
    let name = buf::text::path(path).to_string();
    let response = match std::fs::read(path) {
        Err(_) if path.is_dir() => {
            let read =
                "error:80000015:system library::Is a directory:calling fread() error:10080002:BIO routines::system lib";
            return Err(Error::new(format!("d2i_OCSP_RESPONSE_bio(\"{name}\") failed (SSL: {read} {TOO_SHORT})")));
        }
        response => response.map_err(|error| {
            Error::new(format!("BIO_new_file(\"{name}\") failed ({})", tls::cannot_open(&name, "rb", &error)))
        })?,
    };
    if tls::ocsp::is_response(&response) {
        return Ok(response);
    }
    let why = if response.is_empty() { String::new() } else { format!(" (SSL: {TOO_SHORT})") };
    Err(Error::new(format!("d2i_OCSP_RESPONSE_bio(\"{name}\") failed{why}")))
}

/// What OpenSSL says of a text that isn't in DER.
const TOO_SHORT: &str = "error:0680008E:asn1 encoding routines::not enough data";
