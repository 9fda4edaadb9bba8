//! TLS to backends, as locations have it: see `common::backend::ssl`.

pub use common::backend::ssl::{Failure, UpstreamTls, client};
use http::HttpProto;

/// What protocols over TLS can be told.
pub type UpstreamSslConf = common::backend::ssl::UpstreamSslConf<HttpProto>;
