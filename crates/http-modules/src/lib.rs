//! The modules of HTTP that ask no backend: one file each, and one line each in a list.
#![forbid(unsafe_code)]

pub mod autoindex;
pub mod browser;
pub mod geoip;
pub mod geoip2;
pub mod gzip;
pub mod gzip_static;
pub mod headers;
pub mod headers_more;
pub mod index;
pub mod limit_req;
pub mod not_modified;
pub mod range;
pub mod realip;
pub mod referer;
pub mod rewrite;
pub mod slice;
pub mod static_files;
pub mod stub_status;
#[cfg(feature = "test-hooks")]
pub mod test_hooks;
#[cfg(feature = "test-hooks")]
pub mod test_include;
pub mod try_files;
pub mod userid;

use common::modules::{access, geo, limit_conn, log, map, split_clients};
use http::module::{HttpModule, Shared};

/// The modules, but for those of [`FILES`]; within a phase their handlers run in this order.
pub const MODULES: &[&dyn HttpModule] = &[
    &rewrite::Rewrite,
    &headers_more::HeadersMore,
    &realip::Realip,
    &Shared(map::Map),
    &Shared(geo::Geo),
    &Shared(split_clients::SplitClients),
    &geoip::Geoip,
    &geoip2::Geoip2,
    &referer::Referer,
    &browser::Browser,
    &limit_req::LimitReq,
    &Shared(limit_conn::LimitConn),
    &Shared(access::Access),
    &try_files::TryFiles,
    &Shared(log::Log),
    &slice::Slice,
    &not_modified::NotModified,
    &headers::Headers,
    &userid::Userid,
    &gzip::Gzip,
    &range::Range,
    &stub_status::StubStatus,
    #[cfg(feature = "test-hooks")]
    &test_hooks::TestHooks,
    #[cfg(feature = "test-hooks")]
    &test_include::TestInclude,
];

/// The modules that answer with files. They come last: they answer where no other content handler does.
pub const FILES: &[&dyn HttpModule] =
    &[&index::Index, &autoindex::Autoindex, &gzip_static::GzipStatic, &static_files::StaticFiles];
