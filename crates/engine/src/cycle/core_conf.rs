//! The directives outside of all blocks: processes, users, limits, files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use conf::values::{flag, msec, number, offset};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result};

use crate::log::{ErrorLog, parse_error_log};
use crate::personality::personality;

conf::table! {
    /// Settings of the master and the workers.
    pub struct CoreConf, raw CoreRaw, module "ngx_core_module", level MAIN Main;

    /// Detaches the program from the terminal and runs it in the background if it is `on`.
    ///
    /// Effect: the command returns as soon as the server runs. With `off` it stays in the foreground, as supervisors
    /// (systemd with `Type=exec`, containers) want it. A reload doesn't change it.
    ///
    /// ```nginx
    /// daemon off;
    /// ```
    "daemon" in Context::MAIN, Args::FLAG, default "on",
        scalar(flag) daemon: bool = true;
    /// Starts workers if it is `on`. With `off` one process does everything.
    ///
    /// Effect: with `off` there is no process that starts a worker again, and no reload without interruption.
    ///
    /// Danger: `off` is for debugging only: the process that serves clients keeps the rights of the one that started
    /// it.
    ///
    /// ```nginx
    /// master_process off;
    /// ```
    "master_process" in Context::MAIN, Args::FLAG, default "on",
        scalar(flag) master_process: bool = true;
    /// Sets how often workers ask the system for the time.
    ///
    /// Form: `timer_resolution interval`
    ///
    /// - `interval`: the time between two requests for the time; without this directive workers ask each time that
    ///   events have arrived.
    ///
    /// Effect: times in logs and timeouts are as inexact as the interval.
    ///
    /// ```nginx
    /// timer_resolution 100ms;
    /// ```
    "timer_resolution" in Context::MAIN, Args::exactly(1), default none,
        scalar(msec) timer_resolution_ms: u64 = 0;
    /// Names the file that holds the process id of the master.
    ///
    /// Form: `pid file`
    ///
    /// - `file`: a path, relative to the prefix (`-p`).
    ///
    /// Effect: the file is written at the start and removed at the end; `-s` reads it to find the process that gets the
    /// signal.
    ///
    /// Danger: whoever can write the file decides which process the superuser sends signals to.
    ///
    /// ```nginx
    /// pid logs/tidegate.pid;
    /// ```
    "pid" in Context::MAIN, Args::exactly(1), default computed("`/run/tidegate.pid`; called as nginx `/run/nginx.pid`; without the rights of root, in a folder below that for temporary files"),
        scalar(parse_pid) pid: PathBuf = personality().pid.clone();
    /// Accepted for compatibility: it names the prefix of lock files, and locks here are in shared memory.
    "lock_file" in Context::MAIN, Args::exactly(1), default computed("`/run/tidegate.lock`; called as nginx `/run/nginx.lock`; without the rights of root, in a folder below that for temporary files"),
        scalar(parse_path) lock_file: PathBuf = personality().lock.clone();
    /// Sets the number of worker processes.
    ///
    /// Form: `worker_processes number | auto`
    ///
    /// - `number`: from 1 to 1024.
    /// - `auto`: one for each processor that the process may use.
    ///
    /// Effect: each worker runs one event loop on one processor and serves any connection. A reload changes the number.
    ///
    /// Cost: a worker takes a few MiB of memory and `worker_connections` places of its own. More workers than
    /// processors are useful only if they wait for disks.
    ///
    /// Danger: limits that are kept by worker hold for each: with four workers there are four times
    /// `worker_connections`, and without a `zone` each counts failures and connections of backends for itself.
    ///
    /// ```nginx
    /// worker_processes auto;
    /// ```
    "worker_processes" in Context::MAIN, Args::exactly(1), default "1",
        scalar(parse_worker_processes) worker_processes: usize = 1;
    /// Accepted for compatibility, with a warning: an internal error costs its connection, and no process.
    "debug_points" in Context::MAIN, Args::exactly(1), default none,
        scalar(parse_debug_points) debug_points: Option<DebugPoint> = None;
    /// Sets the user and the group of the workers.
    ///
    /// Form: `user name [group]`
    ///
    /// - `name`: the user's name.
    /// - `group`: the group's name; the default is the group that has the user's name.
    ///
    /// Effect: the master keeps the rights of the superuser to open ports, logs and keys; workers lose them. If the
    /// master isn't run by the superuser, the directive is ignored with a warning.
    ///
    /// Danger: workers of the user `root` hand all rights to whoever takes one over. The user needs to read the files
    /// that are served, and nothing else.
    ///
    /// ```nginx
    /// user daemon;
    /// ```
    "user" in Context::MAIN, Args::between(1, 2), default computed("the user `nobody` and its group"),
        scalar(parse_user) user: Option<Owner> = None;
    /// Sets the scheduling priority of workers.
    ///
    /// Form: `worker_priority number`
    ///
    /// - `number`: as `nice` counts: from -20, the most favoured, to 19.
    ///
    /// Effect: the kernel gives workers more or less processor time than other processes. If that fails, the error log
    /// says so.
    ///
    /// Danger: with a negative value busy workers can starve other processes.
    ///
    /// ```nginx
    /// worker_priority 5;
    /// ```
    "worker_priority" in Context::MAIN, Args::exactly(1), default computed("the master's"),
        scalar(parse_priority) worker_priority: Option<i32> = None;
    /// Binds workers to processors.
    ///
    /// Form: `worker_cpu_affinity mask ... | auto [mask]`
    ///
    /// - `mask`: processors as binary digits, the last digit for the first processor; one mask for each worker, and the
    ///   last for all further workers.
    /// - `auto`: each worker gets one of the processors, in turn; a mask after it says which may be used.
    ///
    /// Effect: a worker runs only on its processors, whose caches stay filled. Without this directive the kernel
    /// distributes workers.
    ///
    /// Danger: if other processes are busy on a worker's processor, the worker can't move to an idle one.
    ///
    /// ```nginx
    /// worker_processes 2;
    /// worker_cpu_affinity 01 10;
    /// ```
    "worker_cpu_affinity" in Context::MAIN, Args::at_least(1), default none,
        scalar(parse_affinity) worker_cpu_affinity: Affinity = Affinity::default();
    /// Sets how many files a worker may have open (RLIMIT_NOFILE).
    ///
    /// Form: `worker_rlimit_nofile number`
    ///
    /// - `number`: each connection takes one, and a proxied request two; files that are being sent take more.
    ///
    /// Effect: the limit can be raised without changing that of the master. Without this directive a limit that is
    /// smaller than `worker_connections` is raised to twice their number, as far as the system's hard limit allows.
    ///
    /// Danger: with too few, connections are refused and files can't be opened.
    ///
    /// ```nginx
    /// worker_rlimit_nofile 16384;
    /// events {
    ///     worker_connections 8192;
    /// }
    /// ```
    "worker_rlimit_nofile" in Context::MAIN, Args::exactly(1), default none,
        scalar(parse_limit) worker_rlimit_nofile: Option<u64> = None;
    /// Sets how large a worker's core file may be (RLIMIT_CORE).
    ///
    /// Form: `worker_rlimit_core size`
    ///
    /// - `size`: the size of the largest file.
    ///
    /// Effect: a worker that crashes leaves a core file in `working_directory`, if the system is set to write them.
    ///
    /// Danger: core files contain keys, passwords and what clients sent.
    ///
    /// ```nginx
    /// worker_rlimit_core 500m;
    /// working_directory /tmp;
    /// ```
    "worker_rlimit_core" in Context::MAIN, Args::exactly(1), default none,
        scalar(parse_core_limit) worker_rlimit_core: Option<u64> = None;
    /// Limits how long a worker that is told to quit may go on serving.
    ///
    /// Form: `worker_shutdown_timeout time`
    ///
    /// - `time`: after it the worker closes all connections. Without this directive it waits for its last one.
    ///
    /// Effect: it holds for a reload, for `-s quit` and for an upgrade of the program. Where it is set,
    /// `reload_handover` is off by default.
    ///
    /// Cost: without it, an old worker stays in memory for as long as a client keeps a connection busy.
    ///
    /// Danger: downloads and WebSockets that take longer are cut.
    ///
    /// ```nginx
    /// worker_shutdown_timeout 1h;
    /// ```
    "worker_shutdown_timeout" in Context::MAIN, Args::exactly(1), default none,
        scalar(msec) worker_shutdown_timeout_ms: u64 = 0;
    /// Hands idle connections and tunnels (WebSocket) over to the new workers if it is `on` and workers leave, on a
    /// reload or an upgrade of the program.
    ///
    /// With `off` workers do as nginx's: they close idle connections, and run for as long as tunnels do. Where this
    /// isn't set and `worker_shutdown_timeout` is, it is `off`, since a limit of the old workers' time asks for clients
    /// to leave with them.
    ///
    /// Effect: clients, also those with TLS, notice nothing, and the old workers end soon.
    ///
    /// ```nginx
    /// reload_handover off;
    /// ```
    "reload_handover" in Context::MAIN, Args::FLAG, default computed("`on`; `off` where `worker_shutdown_timeout` is set"),
        scalar(parse_some_flag) reload_handover: Option<bool> = None;
    /// Sets the working folder of workers.
    ///
    /// Form: `working_directory path`
    ///
    /// - `path`: a folder that the workers' `user` can enter.
    ///
    /// Effect: core files are written to it (`worker_rlimit_core`).
    ///
    /// Danger: a worker can't start if it can't enter the folder.
    ///
    /// ```nginx
    /// working_directory /tmp;
    /// ```
    "working_directory" in Context::MAIN, Args::exactly(1), default none,
        scalar(parse_working_directory) working_directory: Option<PathBuf> = None;
    /// Keeps a variable of the environment for the workers, or sets it.
    ///
    /// Form: `env name[=value]`
    ///
    /// - `name`: the variable; without a value it keeps the one that the master was started with.
    /// - `value`: its new value.
    ///
    /// Effect: all other variables but `TZ` are removed from the environment of workers. The directive may be repeated.
    ///
    /// ```nginx
    /// env TZ=UTC;
    /// env LANG;
    /// ```
    "env" in Context::MAIN, Args::exactly(1), default computed("`env TZ;`"),
        list(parse_env) env: Env;
    /// Confines workers if it is `on`: they can open only the files and folders that the configuration names
    /// (Landlock), and make only the system calls that serving needs (seccomp).
    ///
    /// Effect: a refused call fails with EPERM or EACCES. It protects what a worker that has been taken over could
    /// reach.
    ///
    /// Cost: the kernel checks a filter at each system call.
    ///
    /// Danger: files whose names contain variables have to be below folders that the configuration names. Try it with a
    /// copy of the configuration before you switch it on.
    ///
    /// ```nginx
    /// sandbox on;
    /// ```
    "sandbox" in Context::MAIN, Args::FLAG, default "off",
        scalar(flag) sandbox: bool = false;
    /// Accepted for compatibility: modules are built in. The name of one that is built in is accepted; another is an
    /// error.
    "load_module" in Context::MAIN, Args::exactly(1), default none,
        also(load_module);
}

conf::table! {
    /// The outermost error log.
    pub struct ErrlogConf, raw ErrlogRaw, module "ngx_errlog_module", level MAIN Main;

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
    /// Effect: the log of the master and the workers, and of all requests whose `http`, `server` or `location` sets
    /// none. `USR1` (`-s reopen`) opens files again after they have been moved. Until the configuration has been read,
    /// messages go to the log that `-e` names, or the default one.
    ///
    /// Cost: a system call for each message. `debug` and `info` write several lines for each request or connection.
    ///
    /// Danger: messages contain what clients send (URIs, host names, fields); logs may contain personal data and
    /// secrets in URIs.
    ///
    /// ```nginx
    /// error_log logs/error.log notice;
    /// error_log syslog:server=127.0.0.1:514,tag=web warn;
    /// ```
    "error_log" in Context::MAIN, Args::at_least(1), default computed("`error_log stderr error;`, called as nginx `error_log /var/log/nginx/error.log error;`"),
        list(parse_error_log) error_log: ErrorLog;
}

conf::table! {
    /// Settings of regular expressions.
    pub struct RegexConf, raw RegexRaw, module "ngx_regex_module", level MAIN Main;

    /// Accepted for compatibility: the engine for regular expressions has no such choice.
    "pcre_jit" in Context::MAIN, Args::FLAG, default "off",
        scalar(flag) pcre_jit: bool = false;
}

conf::table! {
    /// What of TLS outlives a reload.
    pub struct SslCacheConf, raw SslCacheRaw, module "ngx_openssl_cache_module", level MAIN Main;

    /// On a reload the next configuration takes over the certificates, keys, certificates of authorities and revocation
    /// lists that this one has read, where their files have not changed.
    ///
    /// Effect: a reload takes less time where there are many certificates. A file has changed if it has another inode, or
    /// another time of its last change, in seconds. The directive of the running configuration counts, as in nginx: what
    /// the new one says holds for the reload after it. A certificate and a key that don't belong together are read again.
    /// Encrypted keys, other files of TLS, and what variables name are read in any case; a start and `-t` take nothing over.
    ///
    /// Danger: a file that is overwritten in place and keeps the second of its last change is not read again. Put the new
    /// file in its place by a rename.
    ///
    /// ```nginx
    /// ssl_object_cache_inheritable off;
    /// ```
    "ssl_object_cache_inheritable" in Context::MAIN, Args::FLAG, default "on",
        scalar(flag) ssl_object_cache_inheritable: bool = true;
}

conf::table! {
    /// Pools of threads for file operations.
    pub struct ThreadPoolConf, raw ThreadPoolRaw, module "ngx_thread_pool_module", level MAIN Main;

    /// Defines a pool of threads that reads files for `aio threads`.
    ///
    /// Form: `thread_pool name threads=number [max_queue=number]`
    ///
    /// - `name`: the name that `aio threads=name` refers to; `default` for `aio threads`.
    /// - `threads=number`: how many threads each worker has for it.
    /// - `max_queue=number`: how many tasks may wait for a thread; the default is 65536. Further ones fail, and the
    ///   error log says so.
    ///
    /// Effect: a disk that is slow makes single requests wait, and not the whole worker.
    ///
    /// Cost: threads of each worker, with their stacks.
    ///
    /// ```nginx
    /// thread_pool disk threads=16 max_queue=1024;
    /// ```
    "thread_pool" in Context::MAIN, Args::between(2, 3), default computed("`thread_pool default threads=32 max_queue=65536;`"),
        set(parse_thread_pool) pools: Rc<[ThreadPool]> = Rc::new([]);
}

impl CoreConf {
    /// Whether connections are handed over on a reload.
    pub(crate) fn hands_over(&self) -> bool {
        self.reload_handover.unwrap_or(self.worker_shutdown_timeout_ms == 0)
    }
}

/// Registers the tables of this file.
pub fn tables(registry: &mut Registry) {
    registry.add::<CoreConf>();
    registry.add::<ErrlogConf>();
    registry.add::<RegexConf>();
    registry.add::<SslCacheConf>();
    registry.add::<ThreadPoolConf>();
}

/// `debug_points`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugPoint {
    /// `stop`.
    Stop,
    /// `abort`.
    Abort,
}

/// The user and group that workers become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: os::users::User,
    /// The group's number.
    pub gid: u32,
}

/// `worker_cpu_affinity`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// Whether each worker gets one processor of the (single) mask.
    pub auto: bool,
    /// Sets of processors' numbers, one for each worker; the last counts for all further workers.
    pub masks: Vec<Vec<usize>>,
}

impl Affinity {
    /// The processors that a worker is bound to, if it is bound.
    pub(crate) fn of_worker(&self, number: usize) -> Option<Vec<usize>> {
        if !self.auto {
            return self.masks.get(number).or(self.masks.last()).cloned();
        }
        let all: Vec<usize> = (0..os::process::processors()).collect();
        let usable = match self.masks.first() {
            Some(mask) => all.into_iter().filter(|cpu| mask.contains(cpu)).collect(),
            None => all,
        };
        let at = number.checked_rem(usable.len())?;
        usable.get(at).map(|&cpu| vec![cpu])
    }
}

/// `env`: the name of a variable, and its value if the directive sets one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env {
    /// The variable.
    pub name: String,
    /// Its new value; `None` keeps the inherited one.
    pub value: Option<String>,
}

/// One `thread_pool`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadPool {
    /// Its name.
    pub name: String,
    /// Its threads.
    pub threads: usize,
    /// How many tasks may wait.
    pub max_queue: usize,
}

fn parse_path(loader: &mut Loader<'_>, directive: &Directive) -> Result<PathBuf> {
    Ok(crate::log::full_path(loader, &directive.arg(0).text))
}

/// An empty name is none.
fn parse_pid(loader: &mut Loader<'_>, directive: &Directive) -> Result<PathBuf> {
    match directive.arg(0).text.is_empty() {
        true => Ok(personality().pid.clone()),
        false => parse_path(loader, directive),
    }
}

fn parse_worker_processes(loader: &mut Loader<'_>, directive: &Directive) -> Result<usize> {
    if directive.arg(0) == "auto" {
        return Ok(os::process::processors());
    }
    number(loader, directive)
        .ok()
        .and_then(|number: usize| (number <= MAX_WORKERS).then_some(number))
        .ok_or_else(|| Error::on(directive, "\"worker_processes\" directive invalid value"))
}

fn parse_debug_points(loader: &mut Loader<'_>, directive: &Directive) -> Result<Option<DebugPoint>> {
    let point = match directive.arg(0) {
        word if word == "stop" => DebugPoint::Stop,
        word if word == "abort" => DebugPoint::Abort,
        word => return Err(Error::at(word, format!("invalid value \"{}\"", word.lossy()))),
    };
    loader.no_effect(directive, "an internal error costs its connection, and no process");
    Ok(Some(point))
}

fn parse_user(loader: &mut Loader<'_>, directive: &Directive) -> Result<Option<Owner>> {
    if os::users::effective_uid() != 0 {
        loader.warnings.push(Error::on(
            directive,
            "the \"user\" directive makes sense only if the master process runs with super-user privileges, ignored",
        ));
        return Ok(None);
    }
    let user = directive.arg(0).lossy();
    let group = directive.args.get(1).map_or(user.clone(), |group| group.lossy());
    find_owner(&user, &group).map(Some).map_err(|message| Error::on(directive, message))
}

/// Looks up a user and a group; the error is nginx's message.
pub(crate) fn find_owner(user: &str, group: &str) -> std::result::Result<Owner, String> {
    let found = os::users::user(user).ok().flatten().ok_or_else(|| format!("getpwnam(\"{user}\") failed"))?;
    let gid = os::users::group(group).ok().flatten().ok_or_else(|| format!("getgrnam(\"{group}\") failed"))?;
    Ok(Owner { user: found, gid })
}

fn parse_some_flag(loader: &mut Loader<'_>, directive: &Directive) -> Result<Option<bool>> {
    flag(loader, directive).map(Some)
}

fn parse_priority(_: &mut Loader<'_>, directive: &Directive) -> Result<Option<i32>> {
    let text = directive.arg(0).lossy();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let value = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    value.map(Some).ok_or_else(|| Error::on(directive, "\"worker_priority\" directive invalid number"))
}

fn parse_affinity(_: &mut Loader<'_>, directive: &Directive) -> Result<Affinity> {
    let auto = directive.arg(0) == "auto";
    let words = &directive.args[usize::from(auto)..];
    if auto && words.len() > 1 {
        return Err(Error::on(directive, "invalid number of arguments in \"worker_cpu_affinity\" directive"));
    }
    let mut masks = Vec::new();
    for word in words {
        let mut mask = Vec::new();
        let bits = word.text.iter().filter(|&&byte| byte != b' ').rev();
        for (cpu, &byte) in bits.enumerate() {
            match byte {
                b'0' => {}
                b'1' if cpu < MAX_CPUS => mask.push(cpu),
                b'1' => {
                    let message = format!("\"worker_cpu_affinity\" supports up to {MAX_CPUS} CPUs only");
                    return Err(Error::at(word, message));
                }
                _ => {
                    let message = format!("invalid character \"{}\" in \"worker_cpu_affinity\"", byte as char);
                    return Err(Error::at(word, message));
                }
            }
        }
        masks.push(mask);
    }
    Ok(Affinity { auto, masks })
}

fn parse_limit(loader: &mut Loader<'_>, directive: &Directive) -> Result<Option<u64>> {
    let value: usize = number(loader, directive)?;
    Ok(Some(value as u64))
}

fn parse_core_limit(loader: &mut Loader<'_>, directive: &Directive) -> Result<Option<u64>> {
    offset(loader, directive).map(Some)
}

fn parse_working_directory(_: &mut Loader<'_>, directive: &Directive) -> Result<Option<PathBuf>> {
    Ok(Some(PathBuf::from(OsStr::from_bytes(&directive.arg(0).text))))
}

fn parse_env(_: &mut Loader<'_>, directive: &Directive) -> Result<Env> {
    let text = directive.arg(0).lossy();
    Ok(match text.split_once('=') {
        Some((name, value)) => Env { name: name.into(), value: Some(value.into()) },
        None => Env { name: text.into_owned(), value: None },
    })
}

fn load_module(_: &mut CoreRaw, loader: &mut Loader<'_>, directive: &Directive) -> Result<()> {
    let path = crate::log::full_path(loader, &directive.arg(0).text);
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if loader.registry().tables().iter().any(|table| table.module == name) {
        return Ok(());
    }
    let path = buf::text::path(&path);
    let message =
        format!("dlopen() \"{path}\" failed ({path}: cannot open shared object file: No such file or directory)");
    Err(Error::on(directive, message).hint(format!("modules are built in; {name} isn't one of them")))
}

fn parse_thread_pool(raw: &mut ThreadPoolRaw, _: &mut Loader<'_>, directive: &Directive) -> Result<()> {
    let name = directive.arg(0).lossy().into_owned();
    let mut pool = ThreadPool { name, threads: 0, max_queue: MAX_QUEUE };
    for word in &directive.args[1..] {
        let text = word.lossy();
        let value = |prefix: &str| text.strip_prefix(prefix).map(|value| value.parse::<usize>().ok());
        if let Some(threads) = value("threads=") {
            pool.threads = threads
                .filter(|&threads| threads > 0)
                .ok_or_else(|| Error::at(word, format!("invalid threads value \"{text}\"")))?;
        } else if let Some(queue) = value("max_queue=") {
            pool.max_queue = queue.ok_or_else(|| Error::at(word, format!("invalid max_queue value \"{text}\"")))?;
        }
    }
    let pools = raw.pools.take().unwrap_or_else(|| Rc::new([]));
    if pools.iter().any(|other| other.name == pool.name) {
        return Err(Error::on(directive, format!("duplicate thread pool \"{}\"", pool.name)));
    }
    if pool.threads == 0 {
        return Err(Error::on(directive, "\"thread_pool\" must have \"threads\" parameter"));
    }
    raw.pools = Some(pools.iter().cloned().chain([pool]).collect());
    Ok(())
}

const MAX_WORKERS: usize = 1024;
const MAX_CPUS: usize = 1024;
/// The default number of tasks that may wait in a pool.
pub(crate) const MAX_QUEUE: usize = 65536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity() {
        let two = Affinity { auto: false, masks: vec![vec![0], vec![1, 2]] };
        assert_eq!(two.of_worker(0), Some(vec![0]));
        assert_eq!(two.of_worker(5), Some(vec![1, 2]));
        assert_eq!(Affinity::default().of_worker(0), None);
        let auto = Affinity { auto: true, masks: vec![vec![0]] };
        assert_eq!(auto.of_worker(3), Some(vec![0]));
    }
}
