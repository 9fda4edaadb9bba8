//! The command line: nginx's options, and a few of our own.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Args {
    /// `-h`, `-?`.
    pub help: bool,
    /// `-v`.
    pub version: bool,
    /// `-V`.
    pub configure: bool,
    /// `-t`.
    pub test: bool,
    /// `-T`.
    pub dump: bool,
    /// `-q`.
    pub quiet: bool,
    /// `-s`: `stop`, `quit`, `reopen` or `reload`.
    pub signal: Option<String>,
    /// `-p`.
    pub prefix: Option<PathBuf>,
    /// `-e`.
    pub error_log: Option<PathBuf>,
    /// `-c`.
    pub conf: Option<PathBuf>,
    /// `-g`.
    pub global: Option<String>,
    /// `-a`: where the built-in configurations listen.
    pub address: Option<String>,
    /// `--explain`.
    pub explain: Option<String>,
    /// `--dump-directives`.
    pub dump_directives: bool,
    /// `--dump-variables`.
    pub dump_variables: bool,
    /// A folder to be served, without an option before it.
    pub folder: Option<PathBuf>,
}

impl Args {
    /// Parses the arguments after the program's name; the error is nginx's message. Only `folders` allows one without
    /// a dash, and `-a`.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>, folders: bool) -> Result<Args, String> {
        let mut parser = Parser::from_args(args);
        let mut found = Args::default();
        while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
            match arg {
                Arg::Short('h' | '?') => found.help = true,
                Arg::Short('v') => found.version = true,
                Arg::Short('V') => (found.version, found.configure) = (true, true),
                Arg::Short('t') => found.test = true,
                Arg::Short('T') => (found.test, found.dump) = (true, true),
                Arg::Short('q') => found.quiet = true,
                Arg::Short('s') => found.signal = Some(signal(&mut parser)?),
                Arg::Short('p') => found.prefix = Some(value(&mut parser, "p", "directory name")?.into()),
                Arg::Short('e') => found.error_log = Some(value(&mut parser, "e", "file name")?.into()),
                Arg::Short('c') => found.conf = Some(value(&mut parser, "c", "file name")?.into()),
                Arg::Short('g') => found.global = Some(text(global(&mut parser)?)),
                Arg::Short('a') if folders => found.address = Some(text(value(&mut parser, "a", "address")?)),
                Arg::Long("help") => found.help = true,
                Arg::Long("version") => found.version = true,
                Arg::Long("explain") => found.explain = Some(text(value(&mut parser, "-explain", "directive name")?)),
                Arg::Long("dump-directives") => found.dump_directives = true,
                Arg::Long("dump-variables") => found.dump_variables = true,
                Arg::Short(other) => return Err(format!("invalid option: \"{other}\"")),
                Arg::Long(other) => return Err(format!("invalid option: \"--{other}\"")),
                Arg::Value(folder) if folders && found.folder.is_none() => found.folder = Some(folder.into()),
                Arg::Value(other) => return Err(format!("invalid option: \"{}\"", other.to_string_lossy())),
            }
        }
        found.check()?;
        Ok(found)
    }

    /// Whether a text is asked for and nothing else, so that no configuration is needed.
    pub(crate) fn only_informs(&self) -> bool {
        let tells = (self.help || self.version) && !self.test;
        tells || self.explain.is_some() || self.dump_directives || self.dump_variables
    }

    /// A folder brings its own configuration: what names another one, or where it is, can't stand beside it.
    fn check(&self) -> Result<(), String> {
        let others = [("-c", self.conf.is_some()), ("-p", self.prefix.is_some()), ("-s", self.signal.is_some())];
        let Some((option, _)) = others.into_iter().find(|(_, given)| *given) else { return Ok(()) };
        if let Some(folder) = &self.folder {
            return Err(format!(
                "the folder \"{}\" can't be served beside option \"{option}\"",
                buf::text::path(folder)
            ));
        }
        match self.address {
            Some(_) => Err(format!(
                "option \"-a\" is for a folder or the welcome page; beside \"{option}\" it is \"listen\" in the \
                 configuration that says where to listen"
            )),
            None => Ok(()),
        }
    }
}

fn signal(parser: &mut Parser) -> Result<String, String> {
    let word = text(value(parser, "s", "parameter")?);
    match word.as_str() {
        "stop" | "quit" | "reopen" | "reload" => Ok(word),
        _ => Err(format!("invalid option: \"-s {word}\"")),
    }
}

fn value(parser: &mut Parser, option: &str, what: &str) -> Result<OsString, String> {
    let found = parser.value().ok().filter(|value| !value.is_empty());
    found.ok_or_else(|| format!("option \"-{option}\" requires {what}"))
}

/// Directives: none at all are fine.
fn global(parser: &mut Parser) -> Result<OsString, String> {
    parser.value().map_err(|_| "option \"-g\" requires parameter".to_owned())
}

fn text(value: OsString) -> String {
    value.string().unwrap_or_else(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(OsString::from), true)
    }

    #[track_caller]
    fn check(line: &str, expect: impl FnOnce(&mut Args)) {
        let mut args = Args::default();
        expect(&mut args);
        assert_eq!(parse(line), Ok(args), "{line}");
    }

    #[test]
    fn options() {
        check("", |_| {});
        check("-tq", |args| (args.test, args.quiet) = (true, true));
        check("-T", |args| (args.test, args.dump) = (true, true));
        check("-V", |args| (args.version, args.configure) = (true, true));
        check("-?", |args| args.help = true);
        check("-tcfile", |args| (args.test, args.conf) = (true, Some("file".into())));
        check("-c file -p dir -e log", |args| {
            args.conf = Some("file".into());
            args.prefix = Some("dir".into());
            args.error_log = Some("log".into());
        });
        check("-s reload", |args| args.signal = Some("reload".into()));
        check("-g daemon;", |args| args.global = Some("daemon;".into()));
        check("--explain listen", |args| args.explain = Some("listen".into()));
        check("folder", |args| args.folder = Some("folder".into()));
        check("-a [::1]:80 folder", |args| {
            args.folder = Some("folder".into());
            args.address = Some("[::1]:80".into());
        });
    }

    #[test]
    fn no_directives() {
        let args = Args::parse(["-g".into(), "".into()], true).expect("as nginx takes it");
        assert_eq!(args.global.as_deref(), Some(""));
    }

    #[test]
    fn errors() {
        for (line, message) in [
            ("-x", "invalid option: \"x\""),
            ("-tx", "invalid option: \"x\""),
            ("-c", "option \"-c\" requires file name"),
            ("-e", "option \"-e\" requires file name"),
            ("-p", "option \"-p\" requires directory name"),
            ("-g", "option \"-g\" requires parameter"),
            ("-s", "option \"-s\" requires parameter"),
            ("-s foo", "invalid option: \"-s foo\""),
            ("a b", "invalid option: \"b\""),
            ("--foo", "invalid option: \"--foo\""),
            ("-a", "option \"-a\" requires address"),
            ("-c a b", "the folder \"b\" can't be served beside option \"-c\""),
            ("b -p a", "the folder \"b\" can't be served beside option \"-p\""),
            ("b -s stop", "the folder \"b\" can't be served beside option \"-s\""),
        ] {
            assert_eq!(parse(line), Err(message.to_string()), "{line}");
        }
        let nginx = Args::parse([OsString::from("foo")], false);
        assert_eq!(nginx, Err("invalid option: \"foo\"".to_string()));
        let nginx = Args::parse(["-a".into(), "foo".into()], false);
        assert_eq!(nginx, Err("invalid option: \"a\"".to_string()));
        assert!(parse("-a 80 -c file").is_err_and(|message| message.contains("\"listen\"")));
    }
}
