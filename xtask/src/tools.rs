//! What the tasks share: where things are, how other programs are run.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// What a task ends with: nothing, or a sentence about what went wrong.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask stands inside the workspace")
}

/// Where cargo builds: `target`, or what `CARGO_TARGET_DIR` or cargo's configuration says. This program was built there.
pub(crate) fn target() -> Outcome<PathBuf> {
    let program = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
    program.ancestors().nth(2).map(Path::to_path_buf).ok_or_else(|| format!("{}: no place to build", program.display()))
}

/// The server: `TIDEGATE_BINARY`, or the release build with all modules, which is brought up to date.
pub(crate) fn server() -> Outcome<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_BINARY") {
        return Ok(PathBuf::from(path));
    }
    build(&["--release", "--package", "tidegate", "--features", ALL_MODULES])
}

/// The features of modules that are left out of a program unless it is asked for them.
pub(crate) const ALL_MODULES: &str = "image,zstd";

/// Builds one program, and says where it is.
pub(crate) fn build(arguments: &[&str]) -> Outcome<PathBuf> {
    build_with(arguments, &[])
}

/// The same with these variables in cargo's environment.
pub(crate) fn build_with(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome<PathBuf> {
    let form = ["build", "--quiet", "--message-format", "json-render-diagnostics"];
    let mut command = cargo([&form, arguments].concat());
    command.envs(environment.iter().copied());
    let said = output(command)?;
    executable(&said).ok_or_else(|| format!("cargo build {} made no program", arguments.join(" ")))
}

/// The path of the last program in what cargo says of a build.
fn executable(said: &str) -> Option<PathBuf> {
    let path = said.lines().rev().find_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next())?;
    Some(PathBuf::from(path))
}

/// A new folder for the files of a task, which everybody may read: servers that it starts run as other users. It goes when
/// it is dropped.
pub(crate) fn folder(task: &str) -> Outcome<TempDir> {
    let made = TempDir::with_prefix(format!("tidegate-{task}-")).map_err(|e| format!("a folder for {task}: {e}"))?;
    std::fs::set_permissions(made.path(), Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    Ok(made)
}

/// A cargo command in the workspace.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Runs a command; it must succeed.
pub(crate) fn run(mut command: Command) -> Outcome {
    let status = command.status().map_err(|e| format!("{}: {e}", name(&command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} {status}", name(&command))) }
}

/// Runs a command, which must succeed, and returns its standard output.
pub(crate) fn output(mut command: Command) -> Outcome<String> {
    let out = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{}: {e}", name(&command)))?;
    if !out.status.success() {
        return Err(format!("{} {}", name(&command), out.status));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Where a program is installed, if it is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/bin:/sbin:/bin";
    path.split(':').map(|d| Path::new(d).join(program)).find(|p| p.is_file())
}

/// Whether cargo's own folder of programs has this one.
pub(crate) fn find_in_cargo_home(program: &str) -> bool {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cargo")));
    home.is_some_and(|h| h.join("bin").join(program).is_file())
}

/// All files below a folder, sorted, without those in hidden folders and where cargo builds.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if !path.join("CACHEDIR.TAG").exists() && !name.to_string_lossy().starts_with('.') {
                    folders.push(path);
                }
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A path as it reads from the root of the workspace.
pub(crate) fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Writes a file, making the folders above it.
pub(crate) fn write(path: &Path, text: &str) -> Outcome {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, text)).map_err(|e| format!("{}: {e}", path.display()))
}

/// A page with this table between its marks; `None` if it has none.
pub(crate) fn with_figures(page: &str, table: &str) -> Option<String> {
    let begin = page.find("<!-- figures").and_then(|at| Some(at + page[at..].find('\n')? + 1))?;
    let end = page.find("<!-- end of figures")?;
    Some(format!("{}{table}\n{}", &page[..begin], &page[end..]))
}

fn name(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Options of a task: flags, options with a value, and the rest.
#[derive(Debug, Default)]
pub(crate) struct Options {
    given: Vec<(String, String)>,
    /// What isn't an option.
    pub rest: Vec<String>,
}

impl Options {
    /// Splits arguments. `flags` stand alone, `valued` take the next argument (or what follows `=`).
    pub(crate) fn parse(arguments: &[String], flags: &[&str], valued: &[&str]) -> Outcome<Options> {
        let mut options = Options::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
            if !argument.starts_with('-') || argument == "-" {
                options.rest.push(argument.clone());
            } else if flags.contains(&name) {
                options.given.push((name.to_string(), String::new()));
            } else if valued.contains(&name) {
                let value = if argument.contains('=') { Some(value) } else { arguments.next().map(String::as_str) };
                let value = value.ok_or_else(|| format!("{name} needs a value"))?;
                options.given.push((name.to_string(), value.to_string()));
            } else {
                return Err(format!("unknown option {name}"));
            }
        }
        Ok(options)
    }

    /// Whether a flag was given.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.given.iter().any(|(n, _)| n == flag)
    }

    /// The last value of an option.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.given.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values of an option that was given more than once.
    pub(crate) fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.given.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The number given to an option, or its default.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Outcome<T> {
        self.value(name).map_or(Ok(default), |v| v.parse().map_err(|_| format!("{name}: {v:?} is no number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs() {
        let said = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                    {\"reason\":\"compiler-artifact\",\"executable\":\"/x y/release/tidegate\",\"fresh\":true}\n\
                    {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executable(said), Some(PathBuf::from("/x y/release/tidegate")));
        assert_eq!(executable("{\"executable\":null}"), None);
        let built = target().unwrap();
        assert!(std::env::current_exe().unwrap().starts_with(built));
    }

    #[test]
    fn folders() {
        let (one, other) = (folder("x").unwrap(), folder("x").unwrap());
        assert_ne!(one.path(), other.path());
        assert_eq!(std::fs::metadata(one.path()).unwrap().permissions().mode() & 0o777, 0o755);
        let path = one.path().to_path_buf();
        drop(one);
        assert!(!path.exists() && other.path().exists());
    }

    #[test]
    fn figures() {
        let page = "a\n<!-- figures, x -->\nold\n<!-- end of figures -->\nb\n";
        assert_eq!(with_figures(page, "new"), Some(page.replace("old", "new")));
        assert_eq!(with_figures("nothing", "new"), None);
    }

    #[test]
    fn options() {
        let arguments: Vec<String> = ["--x", "a", "-n", "3", "--m=4", "b"].map(String::from).into();
        let options = Options::parse(&arguments, &["--x"], &["-n", "--m"]).unwrap();
        assert!(options.has("--x") && !options.has("--y"));
        assert_eq!(
            (options.number("-n", 0), options.number("--m", 0), options.number("--k", 7)),
            (Ok(3), Ok(4), Ok(7))
        );
        assert_eq!(options.rest, ["a", "b"]);
        assert_eq!(options.values("-n").collect::<Vec<_>>(), ["3"]);
        assert!(Options::parse(&["--z".to_string()], &[], &[]).is_err());
        assert!(Options::parse(&["-n".to_string()], &[], &["-n"]).is_err());
    }
}
