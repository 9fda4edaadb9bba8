//! `access_log`, `log_format`, `open_log_file_cache`: what is written of each request. The logs are in `common::log`.

use std::fmt;
use std::rc::Rc;

use common::log::{AccessLogs, LogCache, LogProto, access_log, default_log, log_format, parse_cache};
use conf::{Args, Context, Directive, Loader, Registry, Result};
use engine::log::{Errno, Level};
use http::config::core::{AND_IF, EVERYWHERE};
use http::module::{HttpModule, LocationContext};
use http::request::Request;
use http::server::location::{Handlers, LogHandler};

use crate::proto::HttpProto;

/// The module.
pub struct Log;

const PLACES: Context = AND_IF.or(Context::LIMIT_EXCEPT);

conf::table! {
    /// Formats, which belong to the whole `http {}` block.
    pub struct LogFormatConf, raw LogFormatRaw, module "ngx_http_log_module", level HTTP Main;

    /// Defines a format: text with variables, whose values are escaped as `escape=default|json|none` says.
    "log_format" in Context::HTTP, Args::at_least(2), default computed("`log_format combined \"...\";`"),
        block(log_format::<HttpProto>);
}

conf::table! {
    /// Where requests are logged.
    pub struct LogConf, raw LogRaw, module "ngx_http_log_module", level HTTP Location;

    /// Writes a line for each request to a file or to syslog. It may be repeated.
    ///
    /// Form: `access_log path [format [buffer=size] [gzip[=level]] [flush=time] [if=condition]] | off`
    ///
    /// - `path`: a file, relative to the prefix (`-p`), with or without variables; or
    ///   `syslog:server=address[,parameter=value...]`.
    /// - `format`: the name of a `log_format`; the default is `combined`.
    /// - `buffer=size`: lines are gathered until there are this many bytes.
    /// - `gzip[=level]`: gathered lines are compressed, with a level from 1 to 9 (the default is 1); without `buffer`
    ///   it gathers 64k.
    /// - `flush=time`: gathered lines are written at the latest after this time.
    /// - `if=condition`: requests for which the condition is empty or `0` aren't logged.
    /// - `off`: nothing is logged at this level.
    ///
    /// Effect: a request is logged when it is over, by the location in which it ends. A level that sets any log doesn't
    /// inherit those of the level around it. `USR1` (`-s reopen`) opens files again after they have been moved.
    ///
    /// Cost: a system call for each request and log, unless `buffer` gathers lines. A path with variables is opened and
    /// closed for each request, unless `open_log_file_cache` keeps it.
    ///
    /// Danger: gathered lines are lost if the worker is killed. A path with variables that clients control lets them
    /// choose the file; workers create it only if the request's `root` is there.
    ///
    /// ```nginx
    /// log_format short '$remote_addr "$request" $status $request_time';
    /// map $status $loggable {
    ///     ~^[23] 0;
    ///     default 1;
    /// }
    /// access_log logs/access.log combined buffer=32k flush=5s;
    /// access_log logs/errors.log short if=$loggable;
    /// ```
    "access_log" in PLACES, Args::at_least(1), default computed("`access_log /var/log/tidegate/access.log combined;`, called as nginx `access_log /var/log/nginx/access.log combined;`"),
        set(set_access_log) access_log: Option<Rc<AccessLogs>> = None;
    /// Keeps log files whose names have variables open: `max=`, `inactive=`, `min_uses=`, `valid=`.
    "open_log_file_cache" in EVERYWHERE, Args::between(1, 4), default "off",
        scalar(parse_cache) open_log_file_cache: Option<Rc<LogCache>> = None;
}

fn set_access_log(raw: &mut LogRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let logs = raw.access_log.get_or_insert_default().get_or_insert_default();
    access_log::<HttpProto>(Rc::make_mut(logs), loader, d)
}

/// The log of all levels that say nothing.
#[derive(Default)]
struct DefaultLog(Option<Rc<AccessLogs>>);

impl HttpModule for Log {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<LogFormatConf>();
        registry.add::<LogConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.get::<LogConf>();
        let logs = match &conf.access_log {
            Some(logs) => logs.clone(),
            None => shared_default(cx.loader)?,
        };
        if !logs.off && !logs.logs.is_empty() {
            out.log.push(Rc::new(Logs { logs, cache: conf.open_log_file_cache.clone() }));
        }
        Ok(())
    }
}

fn shared_default(loader: &mut Loader<'_>) -> Result<Rc<AccessLogs>> {
    if let Some(logs) = &loader.store.entry::<DefaultLog>().0 {
        return Ok(logs.clone());
    }
    let logs = Rc::new(default_log::<HttpProto>(loader, &engine::personality::personality().http_log)?);
    loader.store.entry::<DefaultLog>().0 = Some(logs.clone());
    Ok(logs)
}

struct Logs {
    logs: Rc<AccessLogs>,
    cache: Option<Rc<LogCache>>,
}

impl LogHandler for Logs {
    fn log(&self, r: &mut Request) {
        for log in &self.logs.logs {
            log.write::<HttpProto>(r, self.cache.as_deref());
        }
    }
}

impl LogProto for HttpProto {
    const COMBINED: Option<&'static str> = Some(
        "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \
         \"$http_user_agent\"",
    );

    /// The request's root has to be there: a client can't fill a folder with logs of names that it made up.
    fn may_create(r: &mut Request) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let Some(root) = r.document_root() else { return false };
        let error = match std::fs::metadata(std::ffi::OsStr::from_bytes(&root)) {
            Ok(meta) if meta.is_dir() => return true,
            // ENOTDIR
            Ok(_) => std::io::Error::from_raw_os_error(20),
            Err(error) => error,
        };
        let root = buf::text::encode(&root);
        r.log_error(format_args!("testing \"{root}\" existence failed{}", Errno(&error)));
        false
    }

    fn report(r: &Request, level: Level, message: fmt::Arguments<'_>) {
        r.log_at(level, message);
    }
}
