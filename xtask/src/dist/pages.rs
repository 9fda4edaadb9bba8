//! Manual pages and completions, made from what the program says of itself: `-h` and the tables of directives and variables.

use std::path::Path;
use std::process::Command;

use conf::manual::Text;

use super::VERSION;
use crate::docs::{self, Directive, Variable};
use crate::tools::{self, Outcome};

/// A file of the packages: its path below the prefix, and its text.
pub(crate) type Page = (&'static str, String);

/// All of a program.
pub(crate) fn all(program: &Path) -> Outcome<Vec<Page>> {
    let switches = switches(&help(program)?);
    if switches.is_empty() {
        return Err(format!("{} -h names no options", program.display()));
    }
    let template = tools::read(&tools::root().join("packaging/tidegate.8"))?;
    let manual = template.replace("@VERSION@", VERSION).replace("@OPTIONS@\n", &options(&switches));
    Ok(vec![
        ("share/man/man8/tidegate.8", manual),
        ("share/man/man5/tidegate.conf.5", directives(&docs::directives_of(program)?, &docs::variables(program)?)),
        ("share/bash-completion/completions/tidegate", bash(&switches)),
        ("share/zsh/vendor-completions/_tidegate", zsh(&switches)),
        ("share/fish/vendor_completions.d/tidegate.fish", fish(&switches)),
    ])
}

/// What `-h` prints, which goes to the standard error stream.
fn help(program: &Path) -> Outcome<String> {
    let out = Command::new(program).arg("-h").output().map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(String::from_utf8_lossy(&out.stderr).into_owned())
}

/// An option of the command line.
#[derive(Debug, PartialEq, Eq)]
struct Switch {
    /// `-s`, or several that do the same.
    names: Vec<String>,
    /// What stands after it.
    argument: Option<String>,
    text: String,
}

impl Switch {
    /// The words that may stand after it, where these are few.
    fn words(&self) -> Vec<&str> {
        let listed = self.text.rsplit_once(": ").filter(|_| self.argument.as_deref() == Some("signal"));
        listed.map_or(Vec::new(), |(_, words)| words.split(", ").collect())
    }
}

/// The options in what `-h` prints, each a line `  -s signal  : text`.
fn switches(help: &str) -> Vec<Switch> {
    let switch = |line: &str| {
        let (left, text) = line.strip_prefix("  ").filter(|rest| rest.starts_with('-'))?.split_once(" : ")?;
        let mut words = left.split_whitespace();
        let names = words.next()?.split(',').map(str::to_string).collect();
        Some(Switch { names, argument: words.next().map(str::to_string), text: text.trim().to_string() })
    };
    help.lines().filter_map(switch).collect()
}

// -- manual pages

/// Text that roff prints as it stands, but for what is between backquotes, which is bold.
fn inline(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(at, part)| if at % 2 == 1 { format!("\\fB{}\\fR", plain(part)) } else { plain(part) });
    protected(&parts.collect::<String>())
}

fn plain(text: &str) -> String {
    let plain = |letter| match letter {
        '\\' => "\\e".to_string(),
        '-' => "\\-".to_string(),
        '\'' => "\\(aq".to_string(),
        '^' => "\\(ha".to_string(),
        '~' => "\\(ti".to_string(),
        '–' => "\\(en".to_string(),
        letter if letter.is_ascii() => letter.to_string(),
        letter => format!("\\[u{:04X}]", u32::from(letter)),
    };
    text.chars().map(plain).collect()
}

/// A line must not begin as a request does.
fn protected(line: &str) -> String {
    if line.starts_with('.') { format!("\\&{line}") } else { line.to_string() }
}

/// The options of tidegate(8).
fn options(switches: &[Switch]) -> String {
    let entry = |switch: &Switch| {
        let names: Vec<String> = switch.names.iter().map(|name| format!("\\fB{}\\fR", plain(name))).collect();
        let argument = switch.argument.as_ref().map_or(String::new(), |word| format!(" \\fI{}\\fR", plain(word)));
        format!(".TP\n{}{argument}\n{}\n", names.join(", "), inline(&switch.text))
    };
    switches.iter().map(entry).collect()
}

/// tidegate.conf(5): directives by module, then variables.
fn directives(directives: &[Directive], variables: &[Variable]) -> String {
    let mut page = format!(".TH TIDEGATE.CONF 5 \"\" \"tidegate {VERSION}\" \"Tidegate\"\n{BEGIN}");
    let mut modules: Vec<&str> = directives.iter().map(|directive| &*directive.module).collect();
    modules.sort_unstable();
    modules.dedup();
    for module in modules {
        page += &format!(".SH {}\n", plain(module));
        directives.iter().filter(|directive| directive.module == module).for_each(|one| page += &section(one));
    }
    page += ".SH VARIABLES\n";
    for (_, name, text) in variables {
        page += &format!(".TP\n\\fB${}\\fR\n{}\n", plain(name), inline(text));
    }
    page
}

const BEGIN: &str = "\
.SH NAME
tidegate.conf \\- directives and variables of Tidegate's configuration
.SH DESCRIPTION
The configuration, /etc/tidegate/nginx.conf unless \\fB\\-c\\fR of
.BR tidegate (8)
names another file, is written in nginx's language: directives that end with a semicolon, and blocks in braces.
Below are all directives by their modules, each with its form, its default, and the blocks in which it may stand;
\\fBmain\\fR is outside of all blocks. At the end are the variables.
.PP
\\fBtidegate \\-\\-explain\\fR \\fIname\\fR prints the same for one directive or variable.
";

fn section(directive: &Directive) -> String {
    let default = if directive.default.is_empty() { "none" } else { &directive.default };
    let mut out = format!(
        ".SS {}\n\\fB{}\\fR\n.br\nDefault: {}\n.br\nIn: {}\n",
        plain(&directive.name),
        plain(&directive.syntax),
        plain(default),
        plain(&directive.contexts)
    );
    let Ok(text) = Text::parse(&directive.doc) else { return out + ".PP\n" + &inline(&directive.doc) + "\n" };
    for paragraph in &text.what {
        out += &format!(".PP\n{}\n", inline(paragraph));
    }
    for (name, what) in &text.parameters {
        out += &format!(".TP\n{}\n{}\n", inline(name), inline(what));
    }
    for (label, part) in [("Effect", &text.effect), ("Cost", &text.cost), ("Danger", &text.danger)] {
        if let Some(part) = part {
            out += &format!(".PP\n\\fI{label}:\\fR {}\n", inline(part));
        }
    }
    for example in &text.examples {
        let lines: Vec<String> = example.lines().map(|line| protected(&plain(line))).collect();
        out += &format!(".PP\n.RS 4\n.nf\n{}\n.fi\n.RE\n", lines.join("\n"));
    }
    out
}

// -- completions

/// What a shell is to offer after an option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offer {
    Nothing,
    Words,
    Files,
    Folders,
    Directives,
}

fn offer(switch: &Switch) -> Offer {
    match switch.argument.as_deref() {
        Some("signal") => Offer::Words,
        Some("filename") => Offer::Files,
        Some("prefix") => Offer::Folders,
        Some("name") => Offer::Directives,
        _ => Offer::Nothing,
    }
}

/// Prints the names of all directives.
const NAMES: &str = "tidegate --dump-directives 2>/dev/null | cut -f 2 | sort -u";

fn bash(switches: &[Switch]) -> String {
    let mut cases = String::new();
    for switch in switches.iter().filter(|switch| switch.argument.is_some()) {
        let words = match offer(switch) {
            Offer::Nothing => "return".to_string(),
            Offer::Words => format!("mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\")", switch.words().join(" ")),
            Offer::Files => "mapfile -t COMPREPLY < <(compgen -f -- \"$word\")".to_string(),
            Offer::Folders => "mapfile -t COMPREPLY < <(compgen -d -- \"$word\")".to_string(),
            Offer::Directives => format!("mapfile -t COMPREPLY < <(compgen -W \"$({NAMES})\" -- \"$word\")"),
        };
        cases += &format!("        {}) {words} ;;\n", switch.names.join(" | "));
    }
    let names: Vec<_> = switches.iter().flat_map(|switch| &switch.names).map(String::as_str).collect();
    format!(
        "# Completion of tidegate for bash.\n_tidegate() {{\n    local word=${{COMP_WORDS[COMP_CWORD]}}\n    \
         case ${{COMP_WORDS[COMP_CWORD - 1]}} in\n{cases}        *)\n            case $word in\n                \
         -*) mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\") ;;\n                \
         *) mapfile -t COMPREPLY < <(compgen -d -- \"$word\") ;;\n            esac\n            ;;\n    esac\n}}\n\
         complete -o filenames -F _tidegate tidegate\n",
        names.join(" ")
    )
}

fn zsh(switches: &[Switch]) -> String {
    let mut arguments = String::new();
    for switch in switches {
        let text = switch.text.replace('[', "\\[").replace(']', "\\]").replace('\'', "'\\''");
        let words = match offer(switch) {
            Offer::Nothing => String::new(),
            Offer::Words => format!("({})", switch.words().join(" ")),
            Offer::Files => "_files".to_string(),
            Offer::Folders => "_files -/".to_string(),
            Offer::Directives => format!("{{compadd -- ${{(f)\"$({NAMES})\"}}}}"),
        };
        let after =
            switch.argument.as_ref().map_or(String::new(), |word| format!(":{}:{words}", word.replace(':', "\\:")));
        for name in &switch.names {
            arguments += &format!("    '{name}[{text}]{after}' \\\n");
        }
    }
    format!("#compdef tidegate\n\n_arguments \\\n{arguments}    '::folder:_files -/'\n")
}

fn fish(switches: &[Switch]) -> String {
    let mut lines = "# Completion of tidegate for fish.\n".to_string();
    for switch in switches {
        let words = match offer(switch) {
            _ if switch.argument.is_none() => String::new(),
            Offer::Nothing => " -x".to_string(),
            Offer::Words => format!(" -x -a '{}'", switch.words().join(" ")),
            Offer::Files => " -r -F".to_string(),
            Offer::Folders => " -x -a '(__fish_complete_directories)'".to_string(),
            Offer::Directives => format!(" -x -a '({NAMES})'"),
        };
        for name in &switch.names {
            let name = match name.strip_prefix("--") {
                Some(long) => format!("-l {long}"),
                None => format!("-s '{}'", name.trim_start_matches('-')),
            };
            lines += &format!("complete -c tidegate {name}{words} -d '{}'\n", switch.text.replace('\'', "\\'"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "tidegate version: tidegate/1\nUsage: tidegate [-?h]\n       tidegate FOLDER   : serve a folder\n\n\
                        Options:\n  -?,-h         : this help\n  -s signal     : send signal: stop, quit\n  \
                        -c filename   : set it's file (default: x)\n  --explain name    : show\n";

    #[test]
    fn options_of_the_command_line() {
        let switches = switches(HELP);
        assert_eq!(switches.len(), 4);
        assert_eq!((&*switches[0].names, &switches[0].argument), (&["-?".to_string(), "-h".to_string()][..], &None));
        assert_eq!((switches[1].words(), switches[1].argument.as_deref()), (vec!["stop", "quit"], Some("signal")));
        assert_eq!(switches[2].words(), [""; 0]);
        assert!(
            options(&switches)
                .starts_with(".TP\n\\fB\\-?\\fR, \\fB\\-h\\fR\nthis help\n.TP\n\\fB\\-s\\fR \\fIsignal\\fR\n")
        );
        let bash = bash(&switches);
        assert!(
            bash.contains("        -s) mapfile -t COMPREPLY < <(compgen -W 'stop quit' -- \"$word\") ;;\n"),
            "{bash}"
        );
        assert!(bash.contains("compgen -W '-? -h -s -c --explain'"), "{bash}");
        let zsh = zsh(&switches);
        assert!(zsh.contains("'-s[send signal: stop, quit]:signal:(stop quit)'"), "{zsh}");
        assert!(zsh.contains("set it'\\''s file"), "{zsh}");
        let fish = fish(&switches);
        assert!(fish.contains("complete -c tidegate -s 'c' -r -F -d 'set it\\'s file (default: x)'\n"), "{fish}");
        assert!(fish.contains("complete -c tidegate -l explain -x -a '(tidegate --dump"), "{fish}");
    }

    #[test]
    fn roff() {
        for (text, expect) in [
            ("a `b-c` \\d", "a \\fBb\\-c\\fR \\ed"),
            (".x 'y'", "\\&.x \\(aqy\\(aq"),
            ("it's – ü", "it\\(aqs \\(en \\[u00FC]"),
        ] {
            assert_eq!(inline(text), expect, "{text}");
        }
    }

    #[test]
    fn the_page_of_directives() {
        let own = |text: &str| text.to_string();
        let directive = Directive {
            module: own("m_x"),
            name: own("send"),
            contexts: own("http, server"),
            arity: own("flag"),
            kind: own("scalar"),
            default: String::new(),
            syntax: own("send on | off;"),
            doc: own("Sends.\n\n- `on`: yes.\n\nEffect: it `is`.\n\n```nginx\nsend on;\n.x\n```\n"),
        };
        let page = directives(&[directive], &[(own("m_x"), own("sent"), own("What was."))]);
        let expect = ".SH m_x\n.SS send\n\\fBsend on | off;\\fR\n.br\nDefault: none\n.br\nIn: http, server\n.PP\nSends.\n.TP\n\
                      \\fBon\\fR\nyes.\n.PP\n\\fIEffect:\\fR it \\fBis\\fR.\n.PP\n.RS 4\n.nf\nsend on;\n\\&.x\n.fi\n.RE\n\
                      .SH VARIABLES\n.TP\n\\fB$sent\\fR\nWhat was.\n";
        assert!(page.ends_with(expect), "{page}");
    }
}
