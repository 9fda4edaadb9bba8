//! `ssl_ocsp`: whether a client's certificate is revoked.

use std::fmt;
use std::rc::Rc;

use engine::cycle::zones::SharedZone;
use engine::log::{Level, Log};
use tls::Reason;
use tls::ocsp::{Answer, Query, Signers, Status};

use super::{Names, Report, Responder, now};

/// How the status of clients' certificates is found out.
pub struct StatusCheck {
    /// Whether the whole chain is asked about, and not only the client's own certificate.
    pub whole: bool,
    /// The responder, if it isn't the one that each certificate names.
    pub responder: Option<Responder>,
    /// Who looks up names of responders.
    pub names: Names,
    /// Where answers are kept.
    pub cache: Option<Rc<SharedZone>>,
}

/// On whose behalf is asked.
pub struct Asker<'a> {
    /// Where the log is.
    pub log: &'a Log,
    /// The connection's number.
    pub connection: u64,
    /// Says something about the connection itself.
    pub say: &'a dyn Fn(Level, fmt::Arguments<'_>),
}

/// The version of the entries of a zone with answers.
pub const CACHE_LAYOUT: u32 = 1;
/// How many old answers may make room for a new one.
const MOST_EVICTED: usize = 16;

impl StatusCheck {
    /// Asks about certificates, one after the other; the first bad news.
    pub async fn check(&self, queries: &[Query], asker: &Asker<'_>) -> Option<Reason> {
        for query in queries {
            let reason = match self.status(query, asker).await {
                Some(Status::Good) => continue,
                Some(Status::Revoked) => Reason::STATUS_REVOKED,
                Some(Status::Unknown) => Reason::STATUS_UNKNOWN,
                None => Reason::STATUS_FAILED,
            };
            return Some(reason);
        }
        None
    }

    async fn status(&self, query: &Query, asker: &Asker<'_>) -> Option<Status> {
        if let Some(status) = self.kept(query) {
            return Some(status);
        }
        let named;
        let responder = match &self.responder {
            Some(responder) => responder,
            None => {
                named = of_certificate(query, asker)?;
                &named
            }
        };
        let report = Report {
            log: asker.log,
            connection: Some(asker.connection),
            responder,
            certificate: None,
            peer: Default::default(),
        };
        let response = responder.ask(query, &self.names, &report).await?;
        match query.judge(&response, Signers::Authorized, now()) {
            Ok(answer) => {
                self.keep(query, answer);
                Some(answer.status)
            }
            Err(fault) => {
                report.say(Level::Error, None, format_args!("{fault}"));
                None
            }
        }
    }

    fn kept(&self, query: &Query) -> Option<Status> {
        self.cache.as_ref()?.zone().with(|map| {
            let node = map.find(&query.key())?;
            let [status, until @ ..] = map.array::<9>(node)?;
            if u64::from_be_bytes(until) < now() {
                map.remove(node);
                return None;
            }
            match status {
                0 => Some(Status::Good),
                1 => Some(Status::Revoked),
                2 => Some(Status::Unknown),
                _ => None,
            }
        })
    }

    /// Keeps an answer as long as it says; one that doesn't say isn't kept.
    fn keep(&self, query: &Query, answer: Answer) {
        let (Some(cache), Some(until)) = (&self.cache, answer.until.filter(|until| *until > now())) else { return };
        let status: u8 = match answer.status {
            Status::Good => 0,
            Status::Revoked => 1,
            Status::Unknown => 2,
        };
        let mut value = [status; 9];
        value[1..].copy_from_slice(&until.to_be_bytes());
        cache.zone().with(|map| {
            let key = query.key();
            match map.find(&key) {
                Some(node) => map.set_value(node, &value),
                None => {
                    map.insert_evicting(&key, &value, MOST_EVICTED);
                }
            }
        });
    }
}

/// The responder that a certificate names.
fn of_certificate(query: &Query, asker: &Asker<'_>) -> Option<Responder> {
    let Some(url) = query.responder() else {
        let message = "no OCSP responder URL in certificate while SSL handshaking";
        (asker.say)(Level::Error, format_args!("{message}"));
        return None;
    };
    let named = Responder::named(url);
    named.map_err(|why| (asker.say)(Level::Error, format_args!("{why} in certificate while SSL handshaking"))).ok()
}
