//! The program: its command line, and the ordered list of its modules.
#![forbid(unsafe_code)]

mod args;
mod builtin;
mod folders;
mod version;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::exit;

use engine::cycle::{ConfSource, Program};
use engine::log::report::tell;
use engine::personality::{Personality, personality, set_personality};
use engine::{Module, Variable, start};
use http::module::HttpModule;

use args::Args;
use builtin::{Address, BuiltIn};

/// The modules, in the order in which their directives are looked up and their applications built.
fn modules() -> Vec<Box<dyn Module>> {
    vec![Box::new(http::Module::new(http_modules())), Box::new(stream::Module), Box::new(mail::Module)]
}

/// The modules of HTTP; within a phase their handlers run in this order.
fn http_modules() -> Vec<&'static dyn HttpModule> {
    [
        http_modules::MODULES,
        #[cfg(feature = "image")]
        extra_image::MODULES,
        #[cfg(feature = "zstd")]
        extra_zstd::MODULES,
        http_proxy::MODULES,
        http_modules::FILES,
    ]
    .concat()
}

fn main() {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let rest: Vec<OsString> = words.collect();
    let command_line = command_line(&program, &rest);
    set_personality(choose_personality(Path::new(&program)));
    let args = Args::parse(rest, !personality().is_nginx()).unwrap_or_else(|message| fail(&message));
    os::title::init();
    exit(run(&args, &command_line, &program));
}

/// The end of a start that can't be.
fn fail(message: &str) -> ! {
    tell(&format!("{}: {message}\n", personality().name));
    exit(1)
}

fn choose_personality(program: &Path) -> Personality {
    let personality = Personality::of(program);
    match os::users::effective_uid() {
        0 => personality,
        uid if !personality.is_nginx() => personality.unprivileged(uid),
        _ => personality,
    }
}

fn command_line(program: &OsString, rest: &[OsString]) -> String {
    let words = std::iter::once(program).chain(rest).map(|word| word.to_string_lossy());
    words.collect::<Vec<_>>().join(" ")
}

/// Does what the command line asks for: the exit code. `called` is what the program was called by.
fn run(args: &Args, command_line: &str, called: &OsString) -> i32 {
    let (mut program, address) = program(args).unwrap_or_else(|message| fail(&message));
    program.global.clone_from(&args.global);
    if let Some(path) = &args.error_log {
        program.error_log.clone_from(path);
    }
    if args.help || args.version {
        let text = match args {
            Args { help: true, .. } => version::help(personality()),
            Args { configure: true, .. } => version::configure(personality(), &program.registry),
            _ => version::version(personality()),
        };
        tell(&text);
        // Scripts ask for both by `-Vt`; nginx's exit code is the test's.
        if !args.test {
            return 0;
        }
    }
    if let Some(code) = inform(args, &program) {
        return code;
    }
    if args.test {
        let Some(cycle) = start::test(&program, args.quiet) else { return 1 };
        let code = if args.dump { dump(&cycle) } else { 0 };
        // The process ends: the kernel is faster at freeing it all.
        std::mem::forget(cycle);
        return code;
    }
    if let Some(word) = &args.signal {
        return i32::from(!start::signal(&program, word));
    }
    start::run(&mut program, command_line, |_| {
        if let Some(address) = address {
            print(&welcome(address, args, &called.to_string_lossy()));
        }
    })
}

/// What the manual's options print.
fn inform(args: &Args, program: &Program) -> Option<i32> {
    if let Some(name) = &args.explain {
        return Some(explain(name, program));
    }
    if args.dump_directives {
        return Some(print(&conf::manual::dump(&program.registry)));
    }
    if args.dump_variables {
        let lines = variables(program).into_iter().map(|v| format!("{}\t{}\t{}\n", v.module, v.name, v.text));
        return Some(print(&format!("module\tname\tdoc\n{}", lines.collect::<String>())));
    }
    None
}

/// The manual's text of a directive or, with a `$`, of a variable.
fn explain(name: &str, program: &Program) -> i32 {
    let (kind, text, hint) = match name.strip_prefix('$') {
        Some(bare) => {
            let variables = variables(program);
            let near = conf::similar_name(bare, variables.iter().map(|variable| &*variable.name));
            let hint = near.map(|near| format!("did you mean \"${near}\"?"));
            ("variable", explain_variable(bare, &variables), hint)
        }
        None => {
            let registry = &program.registry;
            ("directive", conf::manual::explain(registry, name), conf::manual::hint(registry, name))
        }
    };
    if let Some(text) = text {
        return print(&text);
    }
    let hint = hint.map_or(String::new(), |hint| format!(" ({hint})"));
    tell(&format!("{}: no {kind} \"{name}\"{hint}\n", personality().name));
    1
}

/// The variables of all modules, by module and name.
fn variables(program: &Program) -> Vec<Variable> {
    let mut variables: Vec<_> = program.modules.iter().flat_map(|module| module.variables()).collect();
    variables.sort();
    variables
}

/// The text of a variable; of a family if no variable has the whole name.
fn explain_variable(name: &str, variables: &[Variable]) -> Option<String> {
    let whole = variables.iter().find(|variable| variable.name == name);
    let prefix = |variable: &&Variable| variable.name.strip_suffix('*').is_some_and(|prefix| name.starts_with(prefix));
    let families = variables.iter().filter(prefix);
    let found = whole.or_else(|| families.max_by_key(|variable| variable.name.len()))?;
    Some(conf::manual::variable(found.module, &found.name, &found.text))
}

/// Prints to the standard output; a reader that has gone away is no error.
fn print(text: &str) -> i32 {
    let _ = std::io::stdout().write_all(&buf::text::decode(text));
    0
}

/// The program for this command line; with a built-in configuration also where it can be reached. The error is a message.
fn program(args: &Args) -> Result<(Program, Option<Address>), String> {
    let name = personality();
    let informs = args.only_informs();
    if !name.is_nginx() && !informs {
        folders::make(name)?;
    }
    let prefix = prefix(args);
    if let Some(built_in) = if informs { None } else { built_in(args)? } {
        let source = ConfSource::BuiltIn("built-in", built_in.text);
        let program = Program::new(modules(), prefix, source);
        program.give(built_in.listener.into_iter().map(Into::into).collect());
        return Ok((program, Some(built_in.address)));
    }
    let conf = match (&args.conf, name.is_nginx() || args.prefix.is_some()) {
        (Some(path), true) => prefix.join(path),
        (Some(path), false) => absolute(path),
        (None, _) => default_conf(&prefix, args.prefix.is_some()),
    };
    Ok((Program::new(modules(), prefix, ConfSource::File(conf)), None))
}

/// The configuration of a start that names none.
fn built_in(args: &Args) -> Result<Option<BuiltIn>, String> {
    let name = personality();
    let address = || builtin::address(args.address.as_deref());
    if let Some(folder) = &args.folder {
        // Who names a user by `-g` answers for what it can read.
        let global = args.global.as_deref().unwrap_or_default();
        let user_is_chosen = global.split([';', ' ', '\t', '\n']).any(|word| word == "user");
        builtin::check_folder(folder, name, user_is_chosen)?;
        return Ok(Some(builtin::folder(address()?, name)));
    }
    let has_conf = args.conf.is_some() || args.prefix.is_some();
    if name.is_nginx() || has_conf || (args.test && args.address.is_none()) || args.signal.is_some() {
        return Ok(None);
    }
    Ok(Some(builtin::welcome(address()?, name)))
}

/// Without `-c`: the personality's path; as tidegate with `-p` alone, the file that lies there.
fn default_conf(prefix: &Path, given: bool) -> PathBuf {
    let here = [prefix.join("nginx.conf"), prefix.join("conf/nginx.conf")];
    let mut found = here.into_iter().filter(|path| given && !personality().is_nginx() && path.exists());
    found.next().unwrap_or_else(|| prefix.join(&personality().conf_path))
}

/// `-p`, with a slash at its end. Run as tidegate without it, the folder to be served, or that of `-c`.
fn prefix(args: &Args) -> PathBuf {
    if let Some(folder) = args.prefix.as_deref().map(Path::to_path_buf).or_else(|| args.folder.as_deref().map(absolute))
    {
        return folder.join("");
    }
    match &args.conf {
        Some(conf) if !personality().is_nginx() => absolute(conf).parent().unwrap_or(Path::new("/")).join(""),
        _ => personality().prefix.clone(),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// `-T`: every file once, with its exact text.
fn dump(cycle: &engine::Cycle) -> i32 {
    let mut out = Vec::new();
    for file in &cycle.sources.files {
        if file.path == conf::COMMAND_LINE {
            continue;
        }
        let heading = format!("# configuration file {}:\n", file.path);
        out.extend_from_slice(&buf::text::decode(&heading));
        out.extend_from_slice(&file.text);
        out.push(b'\n');
    }
    i32::from(std::io::stdout().write_all(&out).is_err())
}

/// What a person reads at the terminal.
fn welcome(address: Address, args: &Args, called: &str) -> String {
    let url = address.url();
    let mut text = match &args.folder {
        Some(folder) => format!("Serving {} at {url}\n", buf::text::path(folder)),
        None => format!("Tidegate is running: {url}\n"),
    };
    if let Some(port) = address.instead_of {
        text.push_str(&format!("(Port {port} is in use.)\n"));
    }
    match address.socket.ip() {
        ip if ip.is_loopback() => text.push_str("It answers this machine alone; -a ADDRESS:PORT listens elsewhere.\n"),
        ip if ip.is_unspecified() => text.push_str("It listens on every address of this machine.\n"),
        _ => {}
    }
    if args.folder.is_none() {
        text.push_str(&format!("Serve a folder:     {called} FOLDER\nUse an nginx.conf:  {called} -c nginx.conf\n"));
    }
    text.push_str("Stop it with Ctrl-C.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program {
        Program::new(modules(), "/prefix/".into(), ConfSource::BuiltIn("built-in", String::new()))
    }

    #[test]
    fn variables_have_texts() {
        let variables = variables(&program());
        assert!(variables.len() > 100, "{}", variables.len());
        for (name, expect) in [
            ("host", "Variable: $host\n"),
            ("http_accept", "Variable: $http_*\n"),
            ("sent_http_x", "Variable: $sent_http_*\n"),
            ("sent_http_etag", "Variable: $sent_http_etag\n"),
        ] {
            let text = explain_variable(name, &variables).expect("there is such a variable");
            assert!(text.starts_with(expect), "{text}");
        }
        assert_eq!(explain_variable("hots", &variables), None);
    }

    #[test]
    fn the_manual_shows_the_defaults_of_the_code() {
        let program = program();
        let env = conf::Env { prefix: "/prefix/".into(), conf_prefix: "/prefix/".into(), test: true };
        let mut loader = conf::Loader::new(&program.registry, env, conf::Sources::default());
        assert_eq!(conf::defaults::faults(&mut loader), [""; 0]);
    }
}
