//! `ssl_stapling`: the response that goes out with a server's certificate.

use std::cell::Cell;
use std::rc::Rc;

use engine::log::{Level, Log};
use tls::ocsp::{Query, Signers, Status};
use tls::{Identity, Trust};

use super::{Names, Report, Responder, now};

/// Fetches the responses for a certificate: the first one when a handshake has used the certificate, which goes without,
/// and the next ones in time. Each worker has its own.
pub struct Stapler {
    /// Where responses go.
    identity: Identity,
    /// The certificate's file, for log lines.
    name: String,
    query: Query,
    responder: Responder,
    names: Names,
    /// Whether only responses count that the issuer has authorized (`ssl_stapling_verify`).
    verify: bool,
    trust: Rc<Trust>,
    loading: Cell<bool>,
    /// When the next response is due, in seconds since 1970.
    due: Cell<u64>,
}

/// A response is fetched again so long before it expires, and so long after a failure, in seconds.
const MARGIN: u64 = 300;
/// A response is fetched again after so long in any case, in seconds.
const LONGEST: u64 = 3600;

impl Stapler {
    /// For a certificate of the file `name`, issued by one that follows in it or is trusted. `responder`: the URL that the
    /// configuration gives, empty to take the certificate's. The error says why nothing can be stapled, in nginx's words.
    pub fn new(
        identity: &Identity,
        name: &str,
        responder: &str,
        trust: Rc<Trust>,
        names: Names,
        verify: bool,
    ) -> Result<Stapler, String> {
        let Some(query) = trust.query(identity.chain()) else {
            return Err(format!("issuer certificate not found for certificate \"{name}\""));
        };
        let url = if responder.is_empty() { query.responder().unwrap_or_default() } else { responder };
        if url.is_empty() {
            return Err(format!("no OCSP responder URL in the certificate \"{name}\""));
        }
        let responder = Responder::configured(url).map_err(|why| format!("{why} in the certificate \"{name}\""))?;
        Ok(Stapler {
            identity: identity.with_staples(),
            name: name.to_owned(),
            query,
            responder,
            names,
            verify,
            trust,
            loading: Cell::new(false),
            due: Cell::new(0),
        })
    }

    /// The certificate, to which responses will be stapled.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Fetches a response in the background, if a handshake has used the certificate and one is due.
    pub(crate) fn fetch_if_due(self: &Rc<Self>, log: &Log) {
        if !self.identity.take_wanted() || self.loading.get() || now() < self.due.get() {
            return;
        }
        self.loading.set(true);
        let (stapler, log) = (self.clone(), log.clone());
        rt::spawn(async move {
            let until = stapler.fetch(&log).await;
            stapler.due.set(due(now(), until));
            stapler.loading.set(false);
        });
    }

    /// Fetches a response; until when it can be used.
    async fn fetch(&self, log: &Log) -> Option<u64> {
        let report = Report {
            log,
            connection: None,
            responder: &self.responder,
            certificate: Some(&self.name),
            peer: Default::default(),
        };
        let response = self.responder.ask(&self.query, &self.names, &report).await?;
        let known: Vec<&[u8]> =
            self.identity.chain().iter().chain(self.trust.roots()).map(|certificate| &certificate[..]).collect();
        let signers = if self.verify { Signers::Authorized } else { Signers::Any(&known) };
        match self.query.judge(&response, signers, now()) {
            Ok(answer) if answer.status == Status::Good => {
                let until = answer.until.unwrap_or(u64::MAX);
                self.identity.put_staple(response, until);
                return Some(until);
            }
            Ok(answer) => {
                let name = answer.status.name();
                report.say(Level::Error, None, format_args!("certificate status \"{name}\" in the OCSP response"));
            }
            Err(fault) => report.say(Level::Error, None, format_args!("{fault}")),
        }
        None
    }
}

/// When the next response is due, after one that can be used until then.
fn due(now: u64, until: Option<u64>) -> u64 {
    until.map_or(0, |until| until.saturating_sub(MARGIN).min(now + LONGEST)).max(now + MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_next_response() {
        for (until, expect) in
            [(None, 300), (Some(1000), 300), (Some(1700), 400), (Some(1_000_000), 3600), (Some(u64::MAX), 3600)]
        {
            assert_eq!(due(1000, until) - 1000, expect, "{until:?}");
        }
    }
}
