//! `proxy_…`, `xclient`: the login with the server that has a client's mail.

mod login;
mod tunnel;

use common::backend::header::Header;
use conf::Args;
use conf::values::{flag, msec, one_of, size};

pub use self::login::log_in;
pub use self::tunnel::Tunnel;
use crate::proto::EVERYWHERE;

conf::table! {
    /// How servers that have the mail are spoken to.
    pub struct ProxyConf, raw ProxyRaw, module "ngx_mail_proxy_module", level MAIL Server;

    /// Accepted for compatibility: clients that have logged in are always connected to a server.
    "proxy" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) proxy: bool = false;
    /// Sets the size of the buffers through which bytes pass.
    ///
    /// Form: `proxy_buffer size`
    ///
    /// - `size`: in bytes, or with `k` or `m`.
    ///
    /// Effect: so much is read at once after the login. Before that, a longer answer of the server is an error.
    ///
    /// Cost: this much memory while something passes; an idle session has no buffer.
    ///
    /// ```nginx
    /// proxy_buffer 16k;
    /// ```
    "proxy_buffer" in EVERYWHERE, Args::exactly(1), default "4k",
        scalar(size) proxy_buffer: usize = 4096;
    /// Tells clients what the server that has the mail says when it refuses the login, if it is `on`.
    ///
    /// Effect: with `off` they are told of an internal error. The connection is closed in any case.
    ///
    /// Danger: the message may say something that clients shouldn't know.
    ///
    /// ```nginx
    /// proxy_pass_error_message on;
    /// ```
    "proxy_pass_error_message" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) proxy_pass_error_message: bool = false;
    /// Sets the time after which a session is closed in which nothing passes.
    ///
    /// Form: `proxy_timeout time`
    ///
    /// - `time`: between two reads or writes in either direction, once the client has logged in.
    ///
    /// Effect: both connections are closed.
    ///
    /// Danger: clients of IMAP may be idle for half an hour (IDLE); with a shorter time they lose their connections.
    ///
    /// ```nginx
    /// proxy_timeout 1h;
    /// ```
    "proxy_timeout" in EVERYWHERE, Args::exactly(1), default "24h",
        scalar(msec) proxy_timeout: u64 = 24 * 3600 * 1000;
    /// Begins connections to servers that have the mail with a header of the PROXY protocol.
    ///
    /// Form: `proxy_protocol on | v2 | off`
    ///
    /// - `on`: version 1, which is text.
    /// - `v2`: version 2, with a checksum.
    /// - `off`: no header.
    ///
    /// Effect: the server learns the client's address, and the one that it connected to.
    ///
    /// Danger: a server that doesn't expect the header refuses the connection, or takes it for a command.
    ///
    /// ```nginx
    /// proxy_protocol on;
    /// ```
    "proxy_protocol" in EVERYWHERE, Args::exactly(1), default "off",
        scalar(one_of(Header::NAMES)) proxy_protocol: Header = Header::Off;
    /// Logs clients of SMTP in with the server that has the mail, by AUTH PLAIN, if it is `on`.
    ///
    /// Effect: XCLIENT has no LOGIN then. The password is that of the client, or `Auth-Pass` of `auth_http`; without one (after
    /// `external`, say) it is an error.
    ///
    /// ```nginx
    /// proxy_smtp_auth on;
    /// ```
    "proxy_smtp_auth" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) proxy_smtp_auth: bool = false;
    /// Tells SMTP servers by XCLIENT who the client is, if it is `on`.
    ///
    /// Effect: the server gets EHLO with `server_name`, XCLIENT with the client's address, its host's name (if there is a
    /// `resolver`, and the name has the address) and its login, and then HELO or EHLO as the client has sent it. With `off` the
    /// server gets EHLO with `server_name`, or HELO if the client hasn't sent EHLO.
    ///
    /// Danger: a server that doesn't allow XCLIENT from here refuses it, and so the client. One that allows it from everywhere
    /// believes everybody.
    ///
    /// ```nginx
    /// xclient off;
    /// ```
    "xclient" in EVERYWHERE, Args::FLAG, default "on",
        scalar(flag) xclient: bool = true;
}
