//! URIs: paths made canonical, hosts checked, bytes escaped.

mod escape;
mod host;
mod path;
mod url;

pub use escape::{Escape, escape, escape_html, escaped_len, unescape, unescape_redirect};
pub(crate) use host::is_line_name;
pub use host::{HostError, HostParts, ScannedHost, scan_host, validate_host};
pub use path::{Normalized, UriError, is_simple, is_unsafe, normalize};
pub use url::{SplitUrl, split_authority, split_url};
