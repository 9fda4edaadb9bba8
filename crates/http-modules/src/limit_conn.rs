//! `limit_conn`: how many requests may be under way for one key. The counting is in `common::limit_conn`.

use std::rc::Rc;

use common::limit::LOG_LEVELS;
use common::limit_conn::{self, Leases, Limit, Manner, Status};
use conf::values::{flag, number_between, one_of};
use conf::{Args, Context, Directive, Loader, Registry, Result};
use engine::log::Level;
use expr::vars::Flags;
use http::config::core::EVERYWHERE;
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{Flow, Handler};
use http::request::Request;
use http::request::variables::{Getter, Setup};
use http::server::location::Handlers;

use crate::proto::HttpProto;

/// The module.
pub struct LimitConn;

const MODULE: &str = "ngx_http_limit_conn_module";

conf::table! {
    /// Zones are declared for all of `http {}`.
    pub struct LimitConnZones, raw LimitConnZonesRaw, module "ngx_http_limit_conn_module", level HTTP Main;

    /// Declares a zone of shared memory in which all workers count the requests under way by a key.
    ///
    /// Form: `limit_conn_zone key zone=name:size`
    ///
    /// - `key`: a text with variables. Requests with an empty key aren't counted.
    /// - `zone=name:size`: the zone's name and size, at least 8 pages (32k).
    ///
    /// Effect: none as long as no `limit_conn` names the zone.
    ///
    /// Cost: the zone's memory.
    ///
    /// Danger: entries are never evicted: while the zone is full, requests with a new key are refused.
    ///
    /// ```nginx
    /// limit_conn_zone $binary_remote_addr zone=clients:10m;
    /// server {
    ///     limit_conn clients 20;
    /// }
    /// ```
    "limit_conn_zone" in Context::HTTP, Args::exactly(2), default none,
        block(zone);
}

conf::table! {
    /// The limits of a location.
    pub struct LimitConnConf, raw LimitConnRaw, module "ngx_http_limit_conn_module", level HTTP Location;

    /// Limits the number of requests under way with the same key.
    ///
    /// Form: `limit_conn zone number`
    ///
    /// - `zone`: the zone, which `limit_conn_zone` declares.
    /// - `number`: how many requests may be under way with one value of its key.
    ///
    /// Effect: a request beyond the limit is refused with `limit_conn_status`. A connection counts from when the head
    /// of a request has been read until the request ends; with HTTP/2 each request counts. `$limit_conn_status` shows
    /// what happened. The directive may be repeated for several zones. A level with any limit doesn't inherit those of
    /// the level around it.
    ///
    /// Cost: a lookup in shared memory at the beginning and the end of each request.
    ///
    /// Danger: clients behind one address (a company, a mobile network) share a key of addresses.
    ///
    /// ```nginx
    /// limit_conn_zone $binary_remote_addr zone=clients:10m;
    /// limit_conn_zone $server_name zone=servers:1m;
    /// server {
    ///     limit_conn clients 20;
    ///     limit_conn servers 1000;
    /// }
    /// ```
    "limit_conn" in EVERYWHERE, Args::exactly(2), default none,
        set(limit) limits: Vec<Limit> = Vec::new();
    /// Sets the level at which refused requests are logged.
    ///
    /// Form: `limit_conn_log_level level`
    ///
    /// - `level`: `info`, `notice`, `warn` or `error`.
    ///
    /// Effect: a line in the error log for each refused request, if `error_log` has this level.
    ///
    /// ```nginx
    /// limit_conn_log_level warn;
    /// ```
    "limit_conn_log_level" in EVERYWHERE, Args::exactly(1), default "error",
        scalar(one_of(LOG_LEVELS)) log_level: Level = Level::Error;
    /// Sets the status of refused requests.
    ///
    /// Form: `limit_conn_status status`
    ///
    /// - `status`: from 400 to 599.
    ///
    /// Effect: requests beyond a `limit_conn` get it; `error_page` can give it a page.
    ///
    /// ```nginx
    /// limit_conn_status 429;
    /// ```
    "limit_conn_status" in EVERYWHERE, Args::exactly(1), default "503",
        scalar(number_between(400, 599)) status: u16 = 503;
    /// Only logs requests beyond the limit, and doesn't refuse them, if it is `on`.
    ///
    /// Effect: limits can be tried: `$limit_conn_status` is `REJECTED_DRY_RUN` for requests that would be refused.
    ///
    /// ```nginx
    /// limit_conn_dry_run on;
    /// ```
    "limit_conn_dry_run" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) dry_run: bool = false;
}

fn zone(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    limit_conn::parse_zone::<HttpProto>(loader, d, MODULE)
}

fn limit(raw: &mut LimitConnRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    limit_conn::parse(raw.limits.get_or_insert_default(), loader, d, MODULE)
}

/// The result of the limits for a request, and the places that it holds until it ends.
#[derive(Default)]
struct State {
    status: Status,
    _leases: Leases,
}

impl HttpModule for LimitConn {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<LimitConnZones>();
        registry.add::<LimitConnConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        http::variables! { setup, MODULE;
            /// What `limit_conn` did: `PASSED`, `REJECTED` or `REJECTED_DRY_RUN`. Empty where no limit applied.
            "limit_conn_status", Flags::NOCACHEABLE, Getter::Plain(status);
        }
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.share::<LimitConnConf>();
        if !conf.limits.is_empty() {
            out.preaccess.push(Rc::new(Limiter(conf)));
        }
        Ok(())
    }
}

fn status(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let name = r.find_lasting_slot::<State>().and_then(|state| state.status.name());
    out.extend_from_slice(name.unwrap_or_default().as_bytes());
    name.is_some()
}

struct Limiter(Rc<LimitConnConf>);

impl Handler for Limiter {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        // A request is counted once, even if it is redirected internally.
        if r.find_lasting_slot::<State>().is_some_and(|state| state.status != Status::None) {
            return Flow::Next;
        }
        let manner = Manner { owner: MODULE, level: self.0.log_level, dry_run: self.0.dry_run };
        let (status, leases) = limit_conn::admit::<HttpProto>(&self.0.limits, r, manner);
        if status != Status::None {
            *r.lasting_slot() = State { status, _leases: leases };
        }
        if status == Status::Rejected { Flow::Status(self.0.status) } else { Flow::Next }
    }
}
