//! What workers give up: their privileges always, and with `sandbox on` all files and system calls they don't need.
//!
//! Modules say what is needed while the configuration is read: `loader.store.entry::<Needs>().read(path)`. nginx leaves
//! its workers the capabilities' bounding set and has no sandbox.

use std::path::{Path, PathBuf};

use os::capability::{self, Capability};
use os::sandbox::Files;

use crate::cycle::Cycle;
use crate::cycle::core_conf::Owner;
use crate::log::report::Reporter;
use crate::log::{self, Errno, Level};

/// What the configuration lets workers do.
#[derive(Debug, Default)]
pub struct Needs {
    files: Files,
    transparent: bool,
}

impl Needs {
    /// Files below this path are served or read. Of a path with variables counts the folder before the first one.
    pub fn read(&mut self, path: impl AsRef<Path>) {
        self.files.read.push(fixed(path.as_ref()));
    }

    /// Files below this path are made, written and removed. Of a path with variables counts the folder before the first
    /// one.
    pub fn change(&mut self, path: impl AsRef<Path>) {
        self.files.change.push(fixed(path.as_ref()));
    }

    /// Connections are made from addresses that aren't the machine's own, which takes a capability.
    pub fn transparent(&mut self) {
        self.transparent = true;
    }

    fn capabilities(&self) -> &'static [Capability] {
        if self.transparent { &[Capability::NetRaw] } else { &[] }
    }
}

/// The folder that a path with variables lies in; one without is itself.
fn fixed(path: &Path) -> PathBuf {
    let text = path.as_os_str().as_encoded_bytes();
    let Some(variable) = text.iter().position(|&byte| byte == b'$') else { return path.to_path_buf() };
    let before = text.get(..variable).unwrap_or_default();
    let folder = before.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let folder = before.get(..folder).unwrap_or_default();
    match folder {
        [] => PathBuf::from("/"),
        folder => PathBuf::from(String::from_utf8_lossy(folder).into_owned()),
    }
}

/// Whether a user other than the superuser can list a folder. Permissions have many sources, so a child becomes that user
/// and tries.
pub fn can_list(owner: &Owner, folder: &Path) -> Result<bool, String> {
    let failed = |error: std::io::Error| format!("fork() failed{}", Errno(&error));
    match os::process::fork().map_err(failed)? {
        os::process::Fork::Child => {
            let tried = drop_privileges(owner, &Needs::default()).is_ok() && std::fs::read_dir(folder).is_ok();
            os::process::exit_now(i32::from(!tried))
        }
        os::process::Fork::Parent(pid) => {
            os::process::wait_for(pid).map(|exit| exit == os::process::Exit::Code(0)).map_err(failed)
        }
    }
}

/// Becomes the workers' user; of the superuser's privileges stay those that the configuration needs. The error is a
/// message.
pub(crate) fn drop_privileges(owner: &Owner, needs: &Needs) -> Result<(), String> {
    let failed = |call: String| move |error: std::io::Error| format!("{call} failed{}", Errno(&error));
    let (uid, gid, keep) = (owner.user.uid, owner.gid, needs.capabilities());
    // With `user root` the workers are to be what root is.
    let drops = uid != 0;
    if drops && let Err(error) = capability::bound(keep) {
        // In a container whose root may not do this, nobody can regain them either.
        crate::log!(log::current(), Info, "prctl(PR_CAPBSET_DROP) failed{}", Errno(&error));
    }
    if drops && !keep.is_empty() {
        os::process::keep_capabilities().map_err(failed("prctl(PR_SET_KEEPCAPS, 1)".into()))?;
    }
    os::users::set_gid(gid).map_err(failed(format!("setgid({gid})")))?;
    let name = owner.user.name.to_string_lossy();
    os::users::init_groups(&owner.user.name, gid).map_err(failed(format!("initgroups({name}, {gid})")))?;
    os::users::set_uid(uid).map_err(failed(format!("setuid({uid})")))?;
    if drops {
        capability::keep_only(keep).map_err(failed("capset()".into()))?;
    }
    Ok(())
}

/// Lets the process gain no privileges any more, and shuts it in if the configuration says so. The error is a message.
pub fn enter(cycle: &Cycle) -> Result<(), String> {
    capability::set_no_new_privileges()
        .map_err(|error| format!("prctl(PR_SET_NO_NEW_PRIVS) failed{}", Errno(&error)))?;
    if !cycle.core().sandbox {
        return Ok(());
    }
    if os::sandbox::has_landlock() {
        os::sandbox::restrict_files(&files(cycle)).map_err(|error| format!("Landlock failed: {error}"))?;
    }
    let (driver, _) = cycle.method();
    os::sandbox::restrict_calls(driver == rt::Driver::Uring).map_err(|error| format!("seccomp failed: {error}"))
}

/// Says at the start what the sandbox can't do here.
pub fn check(cycle: &Cycle, reporter: &Reporter) {
    if !cycle.core().sandbox {
        return;
    }
    if !cycle.core().master_process {
        reporter.say(Level::Warn, "\"sandbox\" has no effect with \"master_process off\"");
    } else if !os::sandbox::has_landlock() {
        let message = "the kernel has no Landlock: \"sandbox\" restricts system calls, but no files";
        reporter.say(Level::Warn, message);
    }
}

/// All files that workers of this cycle need.
fn files(cycle: &Cycle) -> Files {
    let mut files = cycle.needs.files.clone();
    // A log that was moved away is opened again as another file, so the folder counts; the master makes the file.
    let folders = cycle.log_files.iter().filter_map(|file| file.path().parent().map(Path::to_path_buf));
    files.write.extend(folders);
    files.change.push("/dev/null".into());
    files.read.extend(SYSTEM.iter().map(PathBuf::from));
    files
}

/// What the C library and the resolver read: names, time zones.
const SYSTEM: [&str; 7] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/run/systemd/resolve",
    "/dev/urandom",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_variables() {
        for (path, expect) in [
            ("/srv/www", "/srv/www"),
            ("/srv/$host/www", "/srv/"),
            ("/srv/www-$host", "/srv/"),
            ("$document", "/"),
            ("/logs/${host}.log", "/logs/"),
        ] {
            assert_eq!(fixed(Path::new(path)), Path::new(expect), "{path}");
        }
    }
}
