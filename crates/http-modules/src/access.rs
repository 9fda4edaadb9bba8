//! `allow` and `deny`: access by the client's address. The rules themselves are in `common::access`.

use std::rc::Rc;

use common::access::{Rule, Rules, parse};
use conf::{Args, Context, Directive, Loader, Registry, Result};
use http::config::core::{EVERYWHERE, Satisfy};
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{Flow, Handler};
use http::request::Request;
use http::server::location::Handlers;

/// The module.
pub struct Access;

const PLACES: Context = EVERYWHERE.or(Context::LIMIT_EXCEPT);

conf::table! {
    /// Who may and who may not.
    pub struct AccessConf, raw AccessRaw, module "ngx_http_access_module", level HTTP Location;

    /// Allows access for an address, a network, all unix sockets (`unix:`) or everybody (`all`). The first rule that
    /// fits counts; a level without rules has those of the level around it.
    "allow" in PLACES, Args::exactly(1), default none,
        list(parse) rules: Rule;
    /// Denies access, as `allow` allows it.
    "deny" in PLACES, Args::exactly(1), default none,
        also(deny);
    derived {
        /// The rules, ready to be asked.
        compiled: Option<Rc<Rules>> = None;
    }
    finish(finish)
}

fn deny(raw: &mut AccessRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let rule = parse(loader, d)?;
    raw.rules.get_or_insert_with(Vec::new).push(rule);
    Ok(())
}

fn finish(conf: &mut AccessConf, parent: Option<&AccessConf>, _: &mut Loader<'_>) -> Result<()> {
    let inherited = parent.is_some_and(|parent| Rc::ptr_eq(&parent.rules, &conf.rules));
    if !inherited && !conf.rules.is_empty() {
        conf.compiled = Some(Rc::new(Rules::new(&conf.rules)));
    }
    Ok(())
}

impl HttpModule for Access {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<AccessConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if let Some(rules) = &cx.set.get::<AccessConf>().compiled {
            out.access.push(Rc::new(ByAddress(rules.clone())));
        }
        Ok(())
    }
}

struct ByAddress(Rc<Rules>);

impl Handler for ByAddress {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        match self.0.allows(&r.conn.peer) {
            None => Flow::Next,
            Some(true) => Flow::Allow,
            Some(false) => {
                // With `satisfy any` another handler may still allow it: the phase logs if none does.
                if r.location.core.satisfy == Satisfy::All {
                    r.log_error(format_args!("access forbidden by rule"));
                }
                Flow::Status(403)
            }
        }
    }
}
