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

    /// Declares a zone of shared memory in which requests are counted by a key; those with an empty key aren't.
    "limit_conn_zone" in Context::HTTP, Args::exactly(2), default none,
        block(zone);
}

conf::table! {
    /// The limits of a location.
    pub struct LimitConnConf, raw LimitConnRaw, module "ngx_http_limit_conn_module", level HTTP Location;

    /// Limits the number of requests under way for one value of the zone's key. A level without limits has those of the
    /// level around it.
    "limit_conn" in EVERYWHERE, Args::exactly(2), default none,
        set(limit) limits: Vec<Limit> = Vec::new();
    /// The level at which refused requests are logged: `info`, `notice`, `warn` or `error`.
    "limit_conn_log_level" in EVERYWHERE, Args::exactly(1), default "error",
        scalar(one_of(LOG_LEVELS)) log_level: Level = Level::Error;
    /// The status of refused requests.
    "limit_conn_status" in EVERYWHERE, Args::exactly(1), default "503",
        scalar(number_between(400, 599)) status: u16 = 503;
    /// Whether requests beyond the limit are only logged, and not refused.
    "limit_conn_dry_run" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) dry_run: bool = false;
}

fn zone(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    limit_conn::parse_zone::<HttpProto>(loader, d, MODULE)
}

fn limit(raw: &mut LimitConnRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    limit_conn::parse(raw.limits.get_or_insert_default(), loader, d, MODULE)
}

/// What the limits said of a request, and what it holds until it is over.
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
        // Once for a request, wherever it is redirected.
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
