//! What can be checked of the packaging without building or installing it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::pages;
use crate::tools::{self, Outcome};

/// Scripts, which a shell must be able to read.
const SCRIPTS: [&str; 5] = [
    "packaging/install.sh",
    "packaging/debian/replace",
    "packaging/debian/postinst",
    "packaging/debian/prerm",
    "packaging/debian/postrm",
];

/// The exposure, of 100, from which on `systemd-analyze security` calls a service more than "OK".
const EXPOSURE: &str = "50";

/// Runs the checks. What needs a program that isn't installed is left out, and said.
pub(crate) fn run() -> Outcome {
    let folder = tools::folder("packaging")?;
    let folder = folder.path();
    for script in SCRIPTS {
        with(&["sh", "-n"], &tools::root().join(script))?;
    }
    let unit = tools::root().join("packaging/systemd/tidegate.service");
    with(&["systemd-analyze", "security", "--no-pager", "--offline=true", &format!("--threshold={EXPOSURE}")], &unit)?;
    let program = tools::server()?;
    configuration(&program, folder)?;
    for (name, text) in pages::all(&program)? {
        let file = folder.join(name);
        tools::write(&file, &text)?;
        if name.contains("/man/") {
            complete(&["groff", "-man", "-Tutf8", "-ww", "-z"], &file)?;
        } else {
            let shell = ["bash", "zsh", "fish"].into_iter().find(|shell| name.contains(shell)).unwrap_or("sh");
            with(&[shell, "-n"], &file)?;
        }
    }
    Ok(())
}

/// The configuration must load, with its logs and its ports elsewhere.
fn configuration(program: &Path, folder: &Path) -> Outcome {
    let from = tools::root().join("packaging/conf");
    let etc = folder.join("etc");
    for path in tools::files(&from) {
        let text = tools::read(&path)?.replace("/var/log/tidegate", &folder.display().to_string());
        let text = text.replace(" 80 ", " 8080 ").replace("user www-data;", "");
        tools::write(&etc.join(path.strip_prefix(&from).unwrap_or(&path)), &text)?;
    }
    let sites = etc.join("sites-available");
    fs::rename(&sites, etc.join("sites-enabled")).map_err(|error| format!("{}: {error}", sites.display()))?;
    // None of the parameters' files is used by a site yet.
    let used = ["proxy", "fastcgi", "scgi", "uwsgi"].map(|name| format!("include {}/{name}_params;\n", etc.display()));
    tools::write(&etc.join("conf.d/params.conf"), &used.concat())?;
    let mut test = Command::new(program);
    test.args(["-t", "-q", "-g", &format!("pid {};", folder.join("pid").display()), "-c"]).arg(etc.join("nginx.conf"));
    tools::run(test)
}

/// Runs a command on a file, if its program is installed.
fn with(command: &[&str], file: &Path) -> Outcome {
    let said = said(command, file)?;
    said.map_or(Ok(()), |(good, text)| if good { Ok(()) } else { Err(format!("{}: {text}", command.join(" "))) })
}

/// The same; it must say nothing either.
fn complete(command: &[&str], file: &Path) -> Outcome {
    match said(command, file)? {
        Some((good, text)) if !good || !text.is_empty() => Err(format!("{}: {text}", command.join(" "))),
        _ => Ok(()),
    }
}

/// Whether a command ended well, and its complaints.
fn said(command: &[&str], file: &Path) -> Outcome<Option<(bool, String)>> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    if tools::find(program).is_none() {
        println!("left out, {program} isn't there: {}", file.file_name().unwrap_or_default().display());
        return Ok(None);
    }
    let mut run = Command::new(program);
    let out =
        run.args(arguments).arg(file).stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    Ok(Some((out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())))
}
