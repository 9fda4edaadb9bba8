use super::*;
use crate::{Args, Level, values};

const PLACES: Context = Context::HTTP.or(Context::SERVER);

crate::table! {
    /// A configuration for this test.
    pub(super) struct TestConf, raw TestRaw, module "test", level HTTP Location;

    /// A flag.
    "gzip" in PLACES, Args::FLAG, default "off", scalar(values::flag) gzip: bool = false;
    /// A path.
    "root" in PLACES, Args::exactly(1), default "html", scalar(values::bytes) root: Vec<u8> = b"html".to_vec();
    /// Outermost block.
    "http" in Context::MAIN, Args::exactly(0).block(), default none, block(http);
    /// Inner block.
    "server" in Context::HTTP, Args::exactly(0).block(), default none, block(server);
}

fn http(loader: &mut Loader<'_>, directive: &Directive) -> Result<()> {
    let frame = loader.frame().nested(Level::Main);
    loader.block(directive.children(), Context::HTTP, frame);
    Ok(())
}

fn server(loader: &mut Loader<'_>, directive: &Directive) -> Result<()> {
    let frame = loader.frame().nested(Level::Server);
    if directive.children().is_empty() {
        return Err(Error::in_block(directive, "nothing is inside server"));
    }
    loader.block(directive.children(), Context::SERVER, frame);
    Ok(())
}

/// Errors as `LINE: MESSAGE` or `LINE: MESSAGE (HINT)`.
fn check(text: &str, expect: &[&str]) {
    let mut registry = Registry::new();
    registry.add::<TestConf>();
    let (sources, directives, errors) = crate::parse::parse("x", text);
    let mut loader = Loader::new(&registry, Env::default(), sources);
    loader.errors = errors;
    loader.block(&directives, Context::MAIN, Frame::default());
    loader.sort();
    let show = |error: &Error| {
        let line = error.span.map_or(0, |span| span.line);
        let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{line}: {}{hint}", error.message)
    };
    assert_eq!(loader.errors.iter().map(show).collect::<Vec<_>>(), expect, "{text:?}");
}

#[test]
fn finds_errors() {
    check("http { gzip on; server { gzip off; root a; } server { gzip On; } }", &[]);
    check("http {\n server {\n\n}\n }", &["4: nothing is inside server"]);
    check("http { gzip on; gzip x; }", &["1: \"gzip\" directive is duplicate (the first one stands in x:1)"]);
    check(
        "http {\ngzip\n1\n; }",
        &["4: invalid value \"1\" in \"gzip\" directive, it must be \"on\" or \"off\" (write \"on\")"],
    );
    check("gzip on;", &["1: \"gzip\" directive is not allowed here (it may stand in: http, server)"]);
    check("http;", &["1: directive \"http\" has no opening \"{\" (its form is \"http { ... }\")"]);
    check(
        "http { root a\n gzip on;\n gzip; }",
        &[
            "2: invalid number of arguments in \"root\" directive (is a \";\" missing here?)",
            "3: invalid number of arguments in \"gzip\" directive (its form is \"gzip on | off;\")",
        ],
    );
    check(
        "http { root a\n server {\n} }",
        &["2: directive \"root\" is not terminated by \";\" (is a \";\" missing here?)"],
    );
}

#[test]
fn names_what_was_meant() {
    check("http { gzpi on; }", &["1: unknown directive \"gzpi\" (did you mean \"gzip\"?)"]);
    check("htpp { }", &["1: unknown directive \"htpp\" (did you mean \"http\"?)"]);
    check("inlcude x;", &["1: unknown directive \"inlcude\" (did you mean \"include\"?)"]);
    check("zzz;", &["1: unknown directive \"zzz\""]);
    let has = "nginx has this directive (module ngx_http_fastcgi_module), Tidegate does not have it yet";
    check("http { fastcgi_pass a; }", &[&format!("1: unknown directive \"fastcgi_pass\" ({has})")]);
    check(
        "http { if($a) { } }",
        &["1: unknown directive \"if($a)\" (white space is missing between \"if\" and \"(\")"],
    );
    check(
        "include;",
        &["1: invalid number of arguments in \"include\" directive (its form is \"include file | mask;\")"],
    );
    check("include a {}", &["1: directive \"include\" is not terminated by \";\""]);
    check(
        "\u{feff}http {}",
        &[
            "1: unknown directive \"\u{feff}http\" (the file begins with a byte order mark, which is no part of the language: remove it)",
        ],
    );
}

#[test]
fn says_what_a_brace_has_done() {
    check(
        "http { root ^/a{2}$ x; }\nfoo;",
        &[
            "1: directive \"root\" is not terminated by \";\" (a \"{\" ends a word that isn't in quotes, quote it: \"^/a{2}$\")",
        ],
    );
    check(
        "http { server{2} }",
        &["1: unexpected \"}\" (a \"{\" ends a word that isn't in quotes, quote it: \"server{2}\")"],
    );
    check("http { root a; server {gzip on; } }", &[]);
}

#[test]
fn knows_what_others_have() {
    let lua = "a third-party module's directive (lua-nginx-module (OpenResty)), Tidegate does not have it";
    check(
        "http { server { content_by_lua_block { ngx.say(1) } } } }",
        &[&format!("1: unknown directive \"content_by_lua_block\" ({lua})")],
    );
    check(
        "else { }",
        &[
            "1: unknown directive \"else\" (there is no \"else\": write a second \"if\" with the opposite condition, or a \"map\")",
        ],
    );
    check(
        "http { gzip yes; }",
        &["1: invalid value \"yes\" in \"gzip\" directive, it must be \"on\" or \"off\" (write \"on\")"],
    );
}

#[test]
fn gathers_errors_in_order() {
    check(
        "foofoo;\nhttp {\n barbar;\n root a }\n}\n",
        &[
            "1: unknown directive \"foofoo\"",
            "3: unknown directive \"barbar\"",
            "4: unexpected \"}\" (is a \";\" missing here?)",
            "5: unexpected \"}\" (no block of this file is open here: is there a \"}\" too many above?)",
        ],
    );
}
