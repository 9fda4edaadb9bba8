//! OCSP for a server: what its directives make of [`crate::ocsp`].

use std::rc::Rc;

use ::conf::{Error, Loader, Result};

use tls::Trust;

use super::conf::Ocsp;
use super::{SslConf, VerifyClient};
use crate::Proto;
use crate::ocsp::{Names, Responder, StatusCheck};

/// Whom a response to be stapled may come from, beside the certificates behind the server's own.
pub(super) fn trust<P: Proto>(conf: &SslConf<P>, loader: &Loader<'_>) -> Result<Rc<Trust>> {
    let mut trust = Trust::new(0);
    if let Some(path) = conf.ssl_trusted_certificate.path(loader) {
        trust.add_file(&path).map_err(|error| conf.ssl_trusted_certificate.error(error))?;
    }
    Ok(Rc::new(trust))
}

/// How the status of clients' certificates is found out, if it is.
pub(super) fn status<P: Proto>(conf: &SslConf<P>, names: &Names) -> Result<Option<StatusCheck>> {
    if conf.ssl_ocsp == Ocsp::Off {
        return Ok(None);
    }
    if conf.ssl_verify_client == VerifyClient::OptionalNoCa {
        return Err(Error::new("\"ssl_ocsp\" is incompatible with \"ssl_verify_client optional_no_ca\""));
    }
    let mut responder = None;
    if !conf.ssl_ocsp_responder.is_empty() {
        let configured = Responder::configured(&conf.ssl_ocsp_responder);
        responder = Some(configured.map_err(|why| Error::new(format!("{why} in \"ssl_ocsp_responder\"")))?);
    }
    let (whole, cache) = (conf.ssl_ocsp == Ocsp::On, conf.ssl_ocsp_cache.clone());
    Ok(Some(StatusCheck { whole, responder, names: names.clone(), cache }))
}
