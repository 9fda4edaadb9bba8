//! The name under which the program runs, and what follows from it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// nginx's release whose behaviour the program follows.
pub const NGINX_VERSION: &str = "1.31.5";

/// The program's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Names and default paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Personality {
    /// `tidegate` or `nginx`: in messages, process titles, the `Server` field.
    pub name: &'static str,
    /// Where relative paths of the configuration start, unless `-p` says otherwise.
    pub prefix: PathBuf,
    /// The configuration file, unless `-c` names one.
    pub conf_path: PathBuf,
    /// The error log, unless `-e` or the configuration names one; `stderr` is the standard error stream.
    pub error_log: PathBuf,
    /// The access log, unless the configuration names one.
    pub http_log: PathBuf,
    /// The pid file, unless the configuration names one.
    pub pid: PathBuf,
    /// The lock file, unless the configuration names one.
    pub lock: PathBuf,
    /// The folder for temporary files of the http modules.
    pub temp: PathBuf,
    /// The user of workers, unless the configuration names one.
    pub user: &'static str,
}

static PERSONALITY: OnceLock<Personality> = OnceLock::new();

/// The program's personality: the one set first, else tidegate's.
pub fn personality() -> &'static Personality {
    PERSONALITY.get_or_init(Personality::tidegate)
}

/// Sets the personality, once, before anything asks for it.
pub fn set_personality(personality: Personality) {
    let _ = PERSONALITY.set(personality);
}

/// The texts of the `Server` field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNames {
    /// `server_tokens off`: `nginx`.
    pub name: &'static str,
    /// `server_tokens on`: `nginx/1.31.5`.
    pub version: String,
    /// `server_tokens build`: `nginx/1.31.5 (tidegate/0.1.0)`.
    pub build: String,
}

/// What the server calls itself towards clients.
pub fn server_names() -> &'static ServerNames {
    static NAMES: OnceLock<ServerNames> = OnceLock::new();
    NAMES.get_or_init(|| {
        let personality = personality();
        ServerNames { name: personality.name, version: personality.server_token(), build: personality.version() }
    })
}

impl Personality {
    /// The personality of a program called by this path: `nginx` (or `nginx.x`, `nginx-x`) is nginx, all else tidegate.
    pub fn of(program: &Path) -> Personality {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let rest = name.strip_prefix("nginx");
        if rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric())) {
            return Personality::nginx().on(&|folder| Path::new(folder).is_dir());
        }
        Personality::tidegate()
    }

    /// nginx's paths as the system's own package of nginx has them, so that a configuration written for it finds what it
    /// doesn't name: where there is no folder of nginx's packages and one of Debian's, these are Debian's.
    #[must_use]
    fn on(mut self, is_folder: &dyn Fn(&str) -> bool) -> Personality {
        if !is_folder("/var/cache/nginx") && is_folder("/var/lib/nginx") {
            self.prefix = "/usr/share/nginx/".into();
            self.lock = "/var/lock/nginx.lock".into();
            self.temp = "/var/lib/nginx/".into();
        }
        self
    }

    /// What nginx's own packages have.
    pub fn nginx() -> Personality {
        Personality {
            name: "nginx",
            prefix: "/etc/nginx/".into(),
            conf_path: "/etc/nginx/nginx.conf".into(),
            error_log: "/var/log/nginx/error.log".into(),
            http_log: "/var/log/nginx/access.log".into(),
            pid: "/run/nginx.pid".into(),
            lock: "/run/nginx.lock".into(),
            temp: "/var/cache/nginx/".into(),
            user: "nobody",
        }
    }

    /// Tidegate's own.
    pub fn tidegate() -> Personality {
        Personality {
            name: "tidegate",
            prefix: "/etc/tidegate/".into(),
            conf_path: "/etc/tidegate/nginx.conf".into(),
            error_log: "stderr".into(),
            http_log: "/var/log/tidegate/access.log".into(),
            pid: "/run/tidegate.pid".into(),
            lock: "/run/tidegate.lock".into(),
            temp: "/var/cache/tidegate/".into(),
            user: "nobody",
        }
    }

    /// The same, at home for a user who isn't root, in the system's folder for temporary files.
    #[must_use]
    pub fn unprivileged(mut self, uid: u32) -> Personality {
        let folder = std::env::temp_dir().join(format!("{}-{uid}", self.name));
        self.http_log = folder.join("access.log");
        self.pid = folder.join("tidegate.pid");
        self.lock = folder.join("tidegate.lock");
        self.temp = folder;
        self
    }

    /// Whether it is nginx's.
    pub fn is_nginx(&self) -> bool {
        self.name == "nginx"
    }

    /// What `-v` prints and the error log notes at the start: `nginx/1.31.5 (tidegate/0.1.0)`.
    pub fn version(&self) -> String {
        match self.is_nginx() {
            true => format!("nginx/{NGINX_VERSION} (tidegate/{VERSION})"),
            false => format!("tidegate/{VERSION} (nginx/{NGINX_VERSION})"),
        }
    }

    /// The `Server` field's text: `nginx/1.31.5` or `tidegate/0.1.0`.
    pub fn server_token(&self) -> String {
        match self.is_nginx() {
            true => format!("nginx/{NGINX_VERSION}"),
            false => format!("tidegate/{VERSION}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name() {
        for (path, name) in [
            ("/usr/sbin/nginx", "nginx"),
            ("nginx-debug", "nginx"),
            ("nginxed", "tidegate"),
            ("/x/tidegate", "tidegate"),
            ("", "tidegate"),
        ] {
            assert_eq!(Personality::of(Path::new(path)).name, name, "{path}");
        }
    }

    #[test]
    fn by_package() {
        for (folders, prefix, temp) in [
            (&[][..], "/etc/nginx/", "/var/cache/nginx/"),
            (&["/var/cache/nginx"], "/etc/nginx/", "/var/cache/nginx/"),
            (&["/var/lib/nginx"], "/usr/share/nginx/", "/var/lib/nginx/"),
            (&["/var/lib/nginx", "/var/cache/nginx"], "/etc/nginx/", "/var/cache/nginx/"),
        ] {
            let found = Personality::nginx().on(&|folder| folders.contains(&folder));
            assert_eq!((found.prefix.to_str(), found.temp.to_str()), (Some(prefix), Some(temp)), "{folders:?}");
        }
    }
}
