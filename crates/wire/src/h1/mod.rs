//! HTTP/1: heads of requests and responses, framing of bodies (RFC 9112), as strict as nginx.
//!
//! Life of a request head: a [`RequestParser`] is given the connection's buffer after each read and fills a
//! [`RequestHead`] with spans of it. A line is parsed when it is complete; until then only its start is remembered, so
//! a second call repeats at most one line. [`RequestHead::framing`] then applies the rules that need all header lines.
//! The body, if chunked, goes through a [`ChunkedDecoder`].

mod chunked;
mod error;
mod fields;
mod known;
mod request;
mod request_line;
mod response;

pub use chunked::{CHUNK_END, CHUNK_HEAD, ChunkEvent, ChunkedDecoder, ChunkedError, LAST_CHUNK, chunk, chunk_head};
pub use error::{RequestError, Stage};
pub use fields::{FieldsError, HeaderSpan, parse_fields};
pub use known::KnownHeader;
pub(crate) use known::{KNOWN as KNOWN_HEADERS, NAMES as KNOWN_NAMES};
pub use request::{BodyFraming, Connection, Limits, Method, Parsed, RequestHead, RequestParser};
pub(crate) use request_line::{parse_method, parse_path};
pub use response::{ResponseError, ResponseHead, ResponseParser, UpstreamFraming};
