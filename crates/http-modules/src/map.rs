//! `map`: variables whose values are looked up by other values. The table itself is in `common::map`.

use std::rc::Rc;

use common::map::{Map as Table, Parsed};
use conf::values::number;
use conf::{Args, Context, Directive, Loader, Registry, Result};
use expr::vars::Flags;
use http::module::HttpModule;
use http::request::Request;
use http::request::variables::{Definition, Getter, Variable, define};

use crate::proto::HttpProto;

/// The module.
pub struct Map;

const MODULE: &str = "ngx_http_map_module";

conf::table! {
    /// Maps of the whole `http {}` block.
    pub struct MapConf, raw MapRaw, module "ngx_http_map_module", level HTTP Main;

    /// Defines a variable whose value depends on another value.
    ///
    /// Form: `map source $name`
    ///
    /// - `source`: the text with variables that is looked up.
    /// - `$name`: the variable that is defined.
    /// - `value result`: a line of the block: a string in any case, or a regex after `~` or, if case doesn't count,
    ///   `~*`; and the result, which may contain variables and captures.
    /// - `default result`: the result if nothing matches; without it that is empty.
    /// - `hostnames`: values may be host names with a wildcard (`*.example.com`, `www.example.*`, `.example.com`). It
    ///   has to stand before them.
    /// - `include file`: further lines are read from a file.
    /// - `volatile`: the variable is computed at each use, not once for a request.
    ///
    /// Effect: strings are preferred to wildcards, those to regexes, which are tried in their order. A value that is a
    /// keyword is written after `\`.
    ///
    /// Cost: nothing for requests that don't use the variable. Strings are looked up in a table; each regex takes its
    /// own time.
    ///
    /// ```nginx
    /// map $http_user_agent $is_bot {
    ///     ~*(bot|crawler) 1;
    ///     default 0;
    /// }
    /// ```
    "map" in Context::HTTP, Args::exactly(2).block(), default none,
        block(map);
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "map_hash_max_size" in Context::HTTP, Args::exactly(1), default "2048",
        scalar(number) map_hash_max_size: usize = 2048;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "map_hash_bucket_size" in Context::HTTP, Args::exactly(1), default "64",
        scalar(number) map_hash_bucket_size: usize = 64;
}

impl HttpModule for Map {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<MapConf>();
    }
}

struct MapVariable(Table<HttpProto>);

impl Variable for MapVariable {
    fn value(&self, r: &mut Request, out: &mut Vec<u8>) -> bool {
        self.0.value(r, out);
        true
    }
}

fn map(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let Parsed { map, volatile } = Table::parse(loader, d)?;
    let flags = if volatile { Flags::CHANGEABLE | Flags::NOCACHEABLE } else { Flags::CHANGEABLE };
    let getter = Getter::Object(Rc::new(MapVariable(map)));
    let text = "The value that `map` gives to its source. Empty if nothing fits and there is no `default`.";
    let definition = Definition { getter, setter: None, module: MODULE, text };
    define(loader, d.arg(1), flags, definition)
}
