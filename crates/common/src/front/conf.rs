//! Directives that the core of each protocol has: name servers, error logs, sizes of tables, small packets.

use std::rc::Rc;

use conf::values::{flag, msec, number};
use conf::{Args, Level, Loader, Result};
use engine::log::{ErrorLog, Log};
use upstream::Resolver;

use crate::Proto;
use crate::backend::resolve;
use crate::ocsp::Names;

const ONE: Args = Args::exactly(1);

conf::table! {
    /// Sizes that are accepted.
    pub struct SizesConf of P: Proto, raw SizesRaw,
        at P::tables().core_sizes, block P::PLACES.block, level Level::Main;

    /// Accepted for compatibility: Tidegate's tables size themselves.
    "variables_hash_max_size" in P::PLACES.block, ONE, default "1024",
        scalar(number) variables_hash_max_size: usize = 1024;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "variables_hash_bucket_size" in P::PLACES.block, ONE, default "64",
        scalar(number) variables_hash_bucket_size: usize = 64;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "server_names_hash_max_size" in P::PLACES.block, ONE, default "512",
        scalar(number) server_names_hash_max_size: usize = 512;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "server_names_hash_bucket_size" in P::PLACES.block, ONE, default "64",
        scalar(number) server_names_hash_bucket_size: usize = 64;
}

conf::table! {
    /// What each level of a protocol has.
    pub groups CoreConf of P: Proto, raw CoreRaw;

    group resolving {
        /// Sets the name servers that look up names while the server runs: those in `proxy_pass` with variables, servers
        /// with `resolve`, names that had no address at the start, and those of OCSP responders.
        ///
        /// Form: `resolver address ... [valid=time] [ipv4=on|off] [ipv6=on|off] [status_zone=zone] | system | off`
        ///
        /// - `address`: a name server, an IP address or a name that is looked up at the start, with a port if it isn't 53.
        ///   Several are asked in turn.
        /// - `valid=time`: how long an answer is kept; by default as long as the answer says.
        /// - `ipv4=on|off`: whether IPv4 addresses are looked up; the default is `on`.
        /// - `ipv6=on|off`: whether IPv6 addresses are looked up; the default is `on`. One of the two must be on.
        /// - `status_zone=zone`: accepted; it has no effect, and a warning says so.
        /// - `system`: the name servers in `/etc/resolv.conf` are asked, with its `search` and `ndots`, after `/etc/hosts`;
        ///   changes of both files are followed.
        /// - `off`: no name is looked up.
        ///
        /// Effect: a request that needs a name waits for the answer, at most for `resolver_timeout`. Names in `upstream`
        /// and in `proxy_pass` without variables are looked up by the system, once at the start; those that have no address
        /// then, and those of servers with `resolve`, are looked up as with `resolver system` if `http {}` has no
        /// `resolver`. Names with variables need the directive. In `mail` the name of the client's address is looked up, for
        /// SMTP.
        ///
        /// Cost: a question to the network whenever no kept answer is valid.
        ///
        /// Danger: whoever can forge answers chooses the backend. Use name servers in a network that you trust.
        ///
        /// ```nginx http
        /// resolver 127.0.0.1 valid=30s ipv6=off;
        /// server {
        ///     location / {
        ///         set $backend backend.example.com;
        ///         proxy_pass http://$backend:8080;
        ///     }
        /// }
        /// ```
        ///
        /// ```nginx stream
        /// resolver 127.0.0.1 valid=30s ipv6=off;
        /// server {
        ///     listen 127.0.0.1:5431;
        ///     set $backend backend.example.com:5432;
        ///     proxy_pass $backend;
        /// }
        /// ```
        ///
        /// ```nginx mail
        /// resolver 127.0.0.1 valid=30s;
        /// ```
        "resolver" in P::PLACES.everywhere, Args::at_least(1), default none,
            scalar(resolve::resolver) resolver: Option<Rc<Resolver>> = None;
        /// Limits the time in which a name must be looked up.
        ///
        /// Form: `resolver_timeout time`
        ///
        /// - `time`: the time for all name servers together.
        ///
        /// Effect: a request whose backend isn't found within it ends with status 502.
        ///
        /// Danger: with a long time requests, and their connections, pile up while the name servers don't answer.
        ///
        /// ```nginx
        /// resolver 127.0.0.1;
        /// resolver_timeout 5s;
        /// ```
        "resolver_timeout" in P::PLACES.everywhere, ONE, default "30s",
            scalar(msec) resolver_timeout: u64 = 30_000;
    }
    group sockets {
        /// Sends small packets without waiting for the acknowledgement of earlier ones (TCP_NODELAY).
        ///
        /// Effect: holds for connections that are kept for further requests, for responses that come in parts, and for
        /// connections to backends. HTTP/2 connections always have it.
        ///
        /// Cost: a system call for each connection, and more packets. With `off` the kernel may hold small packets back for
        /// up to a fifth of a second.
        ///
        /// ```nginx
        /// tcp_nodelay on;
        /// ```
        "tcp_nodelay" in P::PLACES.everywhere, Args::FLAG, default "on",
            scalar(flag) tcp_nodelay: bool = true;
    }
    group logs {
        /// Sets where errors are logged, and from which level on. It may be repeated: each log gets the messages of its
        /// level.
        ///
        /// Form: `error_log file [level]`
        ///
        /// - `file`: a file, relative to the prefix (`-p`); `stderr`; `syslog:server=address[,parameter=value...]`; or
        ///   `memory:size`, a ring in memory for debugging.
        /// - `level`: `debug`, `info`, `notice`, `warn`, `error` (the default), `crit`, `alert` or `emerg`. Messages of
        ///   this and more severe levels are logged.
        ///
        /// Effect: holds for the requests of the block, once their server or location is known. A level that sets any log
        /// doesn't inherit those of the level around it. `USR1` (`-s reopen`) opens files again after they have been moved.
        ///
        /// Cost: a system call for each message. `debug` and `info` write several lines for each request or connection.
        ///
        /// Danger: messages contain what clients send (URIs, host names, fields); logs may contain personal data and
        /// secrets in URIs.
        ///
        /// ```nginx http
        /// error_log logs/error.log warn;
        /// server {
        ///     error_log logs/example.log notice;
        /// }
        /// ```
        ///
        /// ```nginx stream
        /// error_log logs/stream.log info;
        /// ```
        ///
        /// ```nginx mail
        /// error_log logs/mail.log info;
        /// ```
        "error_log" in P::PLACES.everywhere, Args::at_least(1), default computed("the outermost level's"),
            list(engine::log::parse_error_log) error_log: ErrorLog;
    }
    derived {
        /// The log that `error_log` makes, or the outer one.
        log: Option<Log> = None;
    }
    finish(finish)
}

impl<P: Proto> CoreConf<P> {
    /// Who looks up names.
    pub fn names(&self) -> Names {
        Names { resolver: self.resolver.clone(), timeout_ms: self.resolver_timeout }
    }
}

fn finish<P: Proto>(conf: &mut CoreConf<P>, parent: Option<&CoreConf<P>>, _: &str, _: &mut Loader<'_>) -> Result<()> {
    conf.log = if parent.is_some_and(|parent| Rc::ptr_eq(&parent.error_log, &conf.error_log)) {
        conf.log.take()
    } else {
        (!conf.error_log.is_empty()).then(|| Log::new(&conf.error_log))
    };
    Ok(())
}
