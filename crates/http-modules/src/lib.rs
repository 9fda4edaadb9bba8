//! The modules of HTTP that ask no backend: one file each, and one line each in a list.
#![forbid(unsafe_code)]

pub mod addition;
pub mod auth_basic;
pub mod auth_request;
pub mod autoindex;
pub mod brotli;
pub mod brotli_static;
pub mod browser;
pub mod charset;
mod constant_time;
pub mod dav;
pub mod degradation;
pub mod empty_gif;
pub mod flv;
pub mod geoip;
pub mod geoip2;
pub mod gunzip;
pub mod gzip;
pub mod gzip_static;
pub mod headers;
pub mod headers_more;
pub mod index;
pub mod json;
pub mod limit_req;
pub mod mirror;
pub mod mp4;
pub mod not_modified;
pub mod random_index;
pub mod range;
pub mod realip;
pub mod referer;
pub mod rewrite;
pub mod secure_link;
pub mod slice;
pub mod ssi;
pub mod static_files;
pub mod stub_status;
pub mod sub_filter;
#[cfg(feature = "test-hooks")]
pub mod test_hooks;
#[cfg(feature = "test-hooks")]
pub mod test_include;
pub mod try_files;
pub mod userid;
pub mod zstd_static;

use common::modules::{access, geo, limit_conn, log, map, split_clients};
use http::module::{HttpModule, Shared};

/// The modules, but for those of [`FILES`]; within a phase their handlers run in this order.
pub const MODULES: &[&dyn HttpModule] = &[
    &rewrite::Rewrite,
    &headers_more::HeadersMore,
    &realip::Realip,
    &Shared(map::Map),
    &json::Json,
    &degradation::Degradation,
    &Shared(geo::Geo),
    &Shared(split_clients::SplitClients),
    &geoip::Geoip,
    &geoip2::Geoip2,
    &referer::Referer,
    &browser::Browser,
    &limit_req::LimitReq,
    &Shared(limit_conn::LimitConn),
    &Shared(access::Access),
    &auth_basic::AuthBasic,
    &auth_request::AuthRequest,
    &try_files::TryFiles,
    &mirror::Mirror,
    &Shared(log::Log),
    &slice::Slice,
    &not_modified::NotModified,
    &headers::Headers,
    &gunzip::Gunzip,
    &sub_filter::SubFilter,
    &charset::Charset,
    &ssi::Ssi,
    &addition::Addition,
    &brotli::Brotli,
    &userid::Userid,
    &gzip::Gzip,
    &range::Range,
    &stub_status::StubStatus,
    &secure_link::SecureLink,
    &empty_gif::EmptyGif,
    #[cfg(feature = "test-hooks")]
    &test_hooks::TestHooks,
    #[cfg(feature = "test-hooks")]
    &test_include::TestInclude,
];

/// The modules that answer with files. They come last: they answer where no other content handler does.
pub const FILES: &[&dyn HttpModule] = &[
    &dav::Dav,
    &random_index::RandomIndex,
    &index::Index,
    &autoindex::Autoindex,
    &flv::Flv,
    &mp4::Mp4,
    &brotli_static::BrotliStatic,
    &zstd_static::ZstdStatic,
    &gzip_static::GzipStatic,
    &static_files::StaticFiles,
];
