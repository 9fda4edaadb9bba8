//! Which configurations of a folder the server understands, and what is missing in the others.
//!
//! Each file is tested with `-t`, which tells all faults at once. Those that come of the machine alone (a certificate, a
//! folder, a user or a name that isn't here) don't count.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::{self, Outcome};

/// Looks at every file below the folder; the totals stand in the first line.
pub(crate) fn run(folder: &Path, list: bool) -> Outcome {
    let work = tools::folder("compat")?;
    Tester::new(folder, work.path())?.all(list)
}

struct Tester {
    /// A copy of the folder: tested files may need another one beside them, and another user reads them.
    copy: PathBuf,
    server: PathBuf,
    /// Where the server makes its user's folder.
    temp: PathBuf,
    as_nobody: bool,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// This directive or module isn't there.
    Missing(String),
    /// Anything else that the server doesn't take.
    Other(String),
}

impl Tester {
    fn new(folder: &Path, work: &Path) -> Outcome<Tester> {
        let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        if !folder.is_dir() {
            return Err(format!("{} is no folder", folder.display()));
        }
        let tester = Tester {
            copy: work.join("copy"),
            server: work.join("tidegate"),
            temp: work.join("temp"),
            as_nobody: rustix::process::geteuid().is_root(),
        };
        for path in tools::files(folder) {
            let to = tester.copy.join(path.strip_prefix(folder).unwrap_or(&path));
            let made = to.parent().map_or(Ok(()), fs::create_dir_all);
            // What isn't a readable file, such as a link to nowhere, is no configuration.
            if made.and_then(|()| fs::copy(&path, &to)).is_ok() {
                fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).map_err(|e| failed(&to, e))?;
            }
        }
        let made = fs::create_dir(&tester.temp);
        let opened = made.and_then(|()| fs::set_permissions(&tester.temp, fs::Permissions::from_mode(0o1777)));
        opened.map_err(|e| failed(&tester.temp, e))?;
        fs::copy(tools::server()?, &tester.server).map_err(|e| failed(&tester.server, e))?;
        Ok(tester)
    }

    fn all(&self, list: bool) -> Outcome {
        let (mut all, mut good) = (0, 0);
        let (mut missing, mut others) = (BTreeMap::new(), BTreeMap::new());
        let mut lines = String::new();
        for path in tools::files(&self.copy) {
            let Some(faults) = self.test(&path)? else { continue };
            all += 1;
            good += usize::from(faults.is_empty());
            if let Some(first) = faults.first() {
                let path = path.strip_prefix(&self.copy).unwrap_or(&path);
                lines += &format!("{}: {}\n", path.display(), first.text());
            }
            for fault in faults {
                let (map, name) = match fault {
                    Fault::Missing(name) => (&mut missing, name),
                    Fault::Other(text) => (&mut others, text),
                };
                *map.entry(name).or_insert(0) += 1;
            }
        }
        println!("{good} of {all} configurations load");
        print_most_frequent("missing directives and modules, by the number of configurations", missing);
        print_most_frequent("other faults", others);
        if list {
            print!("files that don't load\n{lines}");
        }
        Ok(())
    }

    /// The faults of a file, each once; none if it isn't a configuration.
    fn test(&self, path: &Path) -> Outcome<Option<Vec<Fault>>> {
        let Ok(text) = fs::read(path) else { return Ok(None) };
        let text = String::from_utf8_lossy(&text);
        let Some(wrapped) = wrap(&text, &path.display().to_string()) else { return Ok(None) };
        let beside = path.with_file_name(".tested");
        fs::write(&beside, wrapped).map_err(|e| format!("{}: {e}", beside.display()))?;
        let mut command = Command::new("timeout");
        command.arg("60");
        if self.as_nobody {
            command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
        }
        command.arg(&self.server).args(["-t", "-c"]).arg(&beside).current_dir("/").env("TMPDIR", &self.temp);
        let out = command.output().map_err(|e| format!("timeout: {e}"))?;
        let _ = fs::remove_file(&beside);
        Ok(Some(faults(&String::from_utf8_lossy(&out.stderr))))
    }
}

impl Fault {
    fn text(&self) -> String {
        match self {
            Fault::Missing(name) => format!("there is no {name}"),
            Fault::Other(text) => text.clone(),
        }
    }
}

/// A whole configuration that includes the file where its outermost blocks may stand; none for what is no configuration.
fn wrap(text: &str, path: &str) -> Option<String> {
    let include = format!("include \"{path}\";");
    let blocks = outermost(text);
    let has = |name: &str| blocks.iter().any(|block| block == name);
    let events = if has("events") { "" } else { "events { }\n" };
    if has("events") || ["http", "stream", "mail"].iter().any(|name| has(name)) {
        return Some(format!("{events}{include}\n"));
    }
    if ["server", "upstream", "map", "geo", "types", "split_clients"].iter().any(|name| has(name)) {
        return Some(format!("{events}http {{ {include} }}\n"));
    }
    ["location", "if"].iter().any(|name| has(name)).then(|| format!("{events}http {{ server {{ {include} }} }}\n"))
}

/// The first words of the blocks that stand outside all others. Comments and quotes are skipped, variables in braces
/// aren't blocks.
fn outermost(text: &str) -> Vec<String> {
    let (mut found, mut depth, mut words) = (Vec::new(), 0usize, String::new());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' if words.is_empty() || words.ends_with(char::is_whitespace) => {
                while chars.next_if(|c| *c != '\n').is_some() {}
            }
            '\\' => drop(chars.next()),
            '"' | '\'' => {
                while let Some(next) = chars.next().filter(|next| *next != c) {
                    if next == '\\' {
                        chars.next();
                    }
                }
            }
            '$' if chars.peek() == Some(&'{') => while chars.next_if(|c| *c != '}').is_some() {},
            '{' => {
                if depth == 0 {
                    found.extend(words.split_whitespace().next().map(str::to_string));
                }
                depth += 1;
                words.clear();
            }
            '}' => {
                depth = depth.saturating_sub(1);
                words.clear();
            }
            ';' => words.clear(),
            c if depth == 0 => words.push(c),
            _ => {}
        }
    }
    found
}

/// The faults in what `-t` says, without those that come of the machine.
fn faults(said: &str) -> Vec<Fault> {
    let mut found: Vec<Fault> = said.lines().filter_map(fault).collect();
    found.sort();
    found.dedup();
    found
}

fn fault(line: &str) -> Option<Fault> {
    let message = line.split_once(": [emerg] ")?.1;
    let quoted = |text: &str| text.split('"').nth(1).unwrap_or_default().to_string();
    if message.starts_with("unknown directive \"") {
        return Some(Fault::Missing(quoted(message)));
    }
    if message.starts_with("dlopen() \"") {
        let path = quoted(message);
        let name = Path::new(&path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return Some(Fault::Missing(format!("{name} (load_module)")));
    }
    if OF_THE_MACHINE.iter().any(|part| message.contains(part)) {
        return None;
    }
    let place = message.rfind(" in /").filter(|_| message.rsplit(':').next().is_some_and(|n| n.parse::<u32>().is_ok()));
    Some(Fault::Other(message[..place.unwrap_or(message.len())].to_string()))
}

fn print_most_frequent(title: &str, counts: BTreeMap<String, usize>) {
    if counts.is_empty() {
        return;
    }
    println!("{title}");
    let mut rows: Vec<(String, usize)> = counts.into_iter().collect();
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    rows.iter().for_each(|(name, count)| println!("{count:6}  {name}"));
}

/// Parts of messages about what another machine has.
const OF_THE_MACHINE: [&str; 14] = [
    "open() \"",
    "opendir() \"",
    "mkdir() \"",
    "chown() \"",
    "stat() \"",
    "bind() to ",
    "could not bind()",
    "getpwnam(",
    "getgrnam(",
    "host not found in ",
    "cannot load certificate",
    "certificate file",
    "BIO_new_file(",
    "(2: No such file or directory)",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (text, expect) in [
            ("user x; events { } http { server { } }", Some("include \"f\";")),
            ("http { }", Some("events { }\ninclude \"f\";")),
            ("# http {\nserver { location ~ \"a{2}\" { } }", Some("events { }\nhttp { include \"f\"; }")),
            ("upstream a { server b; }\nserver { }", Some("events { }\nhttp { include \"f\"; }")),
            ("set $a ${b}c; location / { if ($x) { } }", Some("events { }\nhttp { server { include \"f\"; } }")),
            ("{ \"json\": { } }", None),
            ("a readme without blocks; see http", None),
        ] {
            assert_eq!(wrap(text, "f").as_deref().map(str::trim_end), expect, "{text}");
        }
    }

    #[test]
    fn what_counts() {
        let said = "tidegate: [emerg] unknown directive \"lua_x\" in /a/b:3\n  |\n3 | lua_x;\n\
            tidegate: [emerg] unknown directive \"lua_x\" in /a/b:4\n\
            tidegate: [warn] \"aio\" has no effect: x in /a/b:4\n\
            tidegate: [emerg] host not found in upstream \"app:80\" in /a/b:5\n\
            tidegate: [emerg] cannot load certificate \"/x.pem\": BIO_new_file() failed\n\
            tidegate: [emerg] dlopen() \"/m/ngx_x_module.so\" failed (no) in /a/b:1\n\
            tidegate: [emerg] unknown \"y\" variable in /a/b:9\n\
            tidegate: configuration file /a/b test failed\n";
        let missing = |name: &str| Fault::Missing(name.to_string());
        let other = Fault::Other("unknown \"y\" variable".to_string());
        assert_eq!(faults(said), [missing("lua_x"), missing("ngx_x_module (load_module)"), other]);
    }
}
