//! `access_log`, `log_format`, `open_log_file_cache`: what is written of each session.
//!
//! A line is rendered into one buffer that is used again and again, and goes from there to its file (or the file's own
//! buffer) in one piece. A full disk costs lines and one alert a second, nothing else.

mod cache;
mod format;
mod gzip;
mod parse;
mod writer;

use std::marker::PhantomData;
use std::path::PathBuf;
use std::rc::Rc;

use conf::{Args, Directive, Level, Loader, Registry, Result, Set};

use self::cache::{LogCache, parse_cache};
use self::format::{Format, log_format};
use self::parse::{AccessLogs, access_log, default_log};
use super::{Log as Logger, Module, Phases};
use crate::Proto;

/// The module.
pub struct Log;

/// What access logs ask of a protocol besides.
pub trait LogProto: Proto {
    /// The text of the format `combined`, where the protocol has one.
    const COMBINED: Option<&'static str>;

    /// The file of the log, in that format, of levels that say nothing; without one they have no log.
    fn default_log() -> Option<PathBuf>;

    /// Whether a log whose name has variables may be made for this session; what speaks against it has been logged.
    fn may_create(session: &mut Self::Session) -> bool;
}

conf::table! {
    /// Formats, which belong to the whole block of the protocol.
    pub struct LogFormatConf of P: LogProto, raw LogFormatRaw,
        at P::tables().log_formats, block P::PLACES.block, level Level::Main;

    /// Defines a format for `access_log`.
    ///
    /// Form: `log_format name [escape=default | escape=json | escape=none] text ...`
    ///
    /// - `name`: the format's name; `combined` exists already.
    /// - `escape=default`: in values of variables the characters `"`, `\` and those outside of printable ASCII are
    ///   written as `\xXX`; an empty value is written as `-`.
    /// - `escape=json`: values are escaped as strings of JSON are.
    /// - `escape=none`: values are written as they are.
    /// - `text`: a text with variables; several are joined.
    ///
    /// Effect: none as long as no `access_log` names the format.
    ///
    /// Danger: with `escape=none`, clients can write line breaks and control characters to the log.
    ///
    /// ```nginx http
    /// log_format short '$remote_addr [$time_local] "$request" $status $body_bytes_sent';
    /// log_format json escape=json '{"address": "$remote_addr", "request": "$request", "status": $status}';
    /// access_log logs/access.log short;
    /// ```
    ///
    /// ```nginx stream
    /// log_format short '$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time';
    /// access_log logs/access.log short;
    /// ```
    "log_format" in P::PLACES.block, Args::at_least(2), default computed("`log_format combined \"...\";`"),
        block(log_format::<P>);
}

conf::table! {
    /// Where sessions are logged.
    pub struct LogConf of P: LogProto, raw LogRaw,
        at P::tables().log, block P::PLACES.block, level P::PLACES.innermost;

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
    /// ```nginx http
    /// log_format short '$remote_addr "$request" $status $request_time';
    /// map $status $loggable {
    ///     ~^[23] 0;
    ///     default 1;
    /// }
    /// access_log logs/access.log combined buffer=32k flush=5s;
    /// access_log logs/errors.log short if=$loggable;
    /// ```
    ///
    /// ```nginx stream
    /// log_format short '$remote_addr $protocol $status $upstream_addr';
    /// map $status $loggable {
    ///     200 0;
    ///     default 1;
    /// }
    /// access_log logs/sessions.log short buffer=32k flush=5s;
    /// access_log logs/errors.log short if=$loggable;
    /// ```
    "access_log" in P::PLACES.log, Args::at_least(1), default computed("`access_log /var/log/tidegate/access.log combined;`, called as nginx `access_log /var/log/nginx/access.log combined;`"),
        set(set_access_log::<P>) access_log: Option<Rc<AccessLogs>> = None;
    /// Keeps log files open whose names contain variables.
    ///
    /// Form: `open_log_file_cache off | max=number [inactive=time] [min_uses=number] [valid=time]`
    ///
    /// - `max=number`: how many files are kept open; the one that was used least recently is closed for a new one.
    /// - `inactive=time`: a file that hasn't been used for this time is closed; the default is 10s.
    /// - `min_uses=number`: how many uses keep a file open; the default is 1.
    /// - `valid=time`: after this time it is checked that the name still belongs to the same file; the default is 60s.
    /// - `off`: files are opened and closed for each request.
    ///
    /// Effect: requests are logged without opening a file for each.
    ///
    /// Cost: a file descriptor of each worker for each file.
    ///
    /// Danger: after a file is moved, workers write to it for up to `valid`.
    ///
    /// ```nginx http
    /// open_log_file_cache max=100 inactive=20s min_uses=2 valid=1m;
    /// access_log logs/$server_name.log;
    /// ```
    ///
    /// ```nginx stream
    /// open_log_file_cache max=100 inactive=20s min_uses=2 valid=1m;
    /// log_format short '$remote_addr $status';
    /// access_log logs/$server_port.log short;
    /// ```
    "open_log_file_cache" in P::PLACES.everywhere, Args::between(1, 4), default "off",
        scalar(parse_cache) open_log_file_cache: Option<Rc<LogCache>> = None;
}

fn set_access_log<P: LogProto>(raw: &mut LogRaw, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let logs = raw.access_log.get_or_insert_default().get_or_insert_default();
    access_log::<P>(Rc::make_mut(logs), loader, d)
}

/// The log of all levels that say nothing.
struct DefaultLog<P>(Option<Rc<AccessLogs>>, PhantomData<fn() -> P>);

impl<P> Default for DefaultLog<P> {
    fn default() -> DefaultLog<P> {
        DefaultLog(None, PhantomData)
    }
}

impl<P: LogProto> Module<P> for Log {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<LogFormatConf<P>>();
        registry.add::<LogConf<P>>();
    }

    fn phases(&self, set: &Set, loader: &mut Loader<'_>, out: &mut impl Phases<P>) -> Result<()> {
        let conf = set.get::<LogConf<P>>();
        let logs = match &conf.access_log {
            Some(logs) => logs.clone(),
            None => shared_default::<P>(loader)?,
        };
        if !logs.off && !logs.logs.is_empty() {
            out.log(Logs { logs, cache: conf.open_log_file_cache.clone() });
        }
        Ok(())
    }
}

fn shared_default<P: LogProto>(loader: &mut Loader<'_>) -> Result<Rc<AccessLogs>> {
    if let Some(logs) = &loader.store.entry::<DefaultLog<P>>().0 {
        return Ok(logs.clone());
    }
    let logs = match P::default_log() {
        Some(path) => Rc::new(default_log::<P>(loader, &path)?),
        None => Rc::default(),
    };
    loader.store.entry::<DefaultLog<P>>().0 = Some(logs.clone());
    Ok(logs)
}

struct Logs {
    logs: Rc<AccessLogs>,
    cache: Option<Rc<LogCache>>,
}

impl<P: LogProto> Logger<P> for Logs {
    fn log(&self, session: &mut P::Session) {
        for log in &self.logs.logs {
            log.write::<P>(session, self.cache.as_deref());
        }
    }
}
