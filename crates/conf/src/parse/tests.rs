use super::*;
use crate::MemoryFiles;

/// The tree in one line: `name arg;` and `name{…}`.
fn show(directives: &[Directive]) -> String {
    let mut out = String::new();
    for directive in directives {
        out.push_str(&directive.name.lossy());
        for arg in &directive.args {
            out.push(' ');
            out.push_str(&arg.lossy());
        }
        match &directive.block {
            Some(block) => out.push_str(&format!("{{{}}}", show(block))),
            None => out.push(';'),
        }
    }
    out
}

fn load_all(files: &[(&str, &str)], global: Option<&str>) -> (String, Vec<String>) {
    let files = MemoryFiles::new(files.iter().copied());
    let env = Env { conf_prefix: "/c/".into(), ..Env::default() };
    let (sources, directives, mut errors) = load(&files, Path::new("/c/m"), global, &env);
    sources.sort(&mut errors);
    let place = |error: &Error| error.span.map(|span| sources.place(span)).unwrap_or_default();
    (show(&directives), errors.iter().map(|error| format!("{}{}", error.message, place(error))).collect())
}

fn check(text: &str, tree: &str, errors: &[&str]) {
    let (found, found_errors) = load_all(&[("/c/m", text)], None);
    assert_eq!(found, tree, "{text:?}");
    assert_eq!(found_errors, errors, "{text:?}");
}

#[test]
fn trees() {
    check("", "", &[]);
    check("a b c;\n d { e f; g { } }", "a b c;d{e f;g{}}", &[]);
    check("a\n\"b c\"\n;", "a b c;", &[]);
    check("include; include a b; include c { }", "include;include a b;include c{}", &[]);
}

#[test]
fn recovers() {
    check("}\na;", "a;", &["unexpected \"}\" in /c/m:1"]);
    check(";a;", "a;", &["unexpected \";\" in /c/m:1"]);
    check("{ a; }\n b; }", "b;", &["unexpected \"{\" in /c/m:1", "unexpected \"}\" in /c/m:2"]);
    check("a { b\n }\nc;", "a{b;}c;", &["unexpected \"}\" in /c/m:2"]);
    check("a \"b\"c { d; }\n;e;", "e;", &["unexpected \"c\" in /c/m:1", "unexpected \";\" in /c/m:2"]);
    check("a b\n\n", "", &["unexpected end of file, expecting \";\" or \"}\" in /c/m:3"]);
    check("a { b { c;\n\n", "a{b{c;}}", &["unexpected end of file, expecting \"}\" in /c/m:3"]);
    check("a { b", "a{}", &["unexpected end of file, expecting \";\" or \"}\" in /c/m:1"]);
    check("a;\n\"b;\n", "a;", &["unexpected end of file, expecting \";\" or \"}\" in /c/m:3"]);
}

#[test]
fn includes() {
    let main = "a { include x/*.conf; include y; }\nfoo;";
    let files = [("/c/m", main), ("/c/x/1.conf", "b 1;"), ("/c/x/2.conf", "b 2;\ninclude y;"), ("/c/y", "c {\n}\n")];
    let (tree, errors) = load_all(&files, Some("g 1;"));
    assert_eq!((tree.as_str(), errors.len()), ("g 1;a{b 1;b 2;c{}c{}}foo;", 0));
    let (_, errors) = load_all(&[("/c/m", "include no;\ninclude no*;\n\ninclude p;"), ("/c/p", "}\n")], None);
    let missing = "open() \"/c/no\" failed (2: No such file or directory) in /c/m:1";
    assert_eq!(errors, [missing, "unexpected \"}\" in /c/p:1"]);
    let (_, errors) = load_all(&[], None);
    assert_eq!(errors, ["open() \"/c/m\" failed (2: No such file or directory)"]);
}

#[test]
fn command_line() {
    let check = |global: &str, expect: &str| {
        let (_, errors) = load_all(&[("/c/m", "")], Some(global));
        assert_eq!(errors, [expect], "{global}");
    };
    check("a", "unexpected end of parameter, expecting \";\" in command line");
    check("a; b {", "block directives are not supported in -g option in command line");
    check("a; }", "unexpected \"}\" in command line");
    check("\n;", "unexpected \";\" in command line");
    check("include no;", "open() \"/c/no\" failed (2: No such file or directory) in command line");
}

#[test]
fn limits() {
    let (_, errors) = load_all(&[("/c/m", "a;\ninclude m;")], None);
    assert_eq!(errors, ["\"/c/m\" includes itself in /c/m:2"]);

    let nested = |depth: usize| format!("{}{}", "a{".repeat(depth), "}".repeat(depth));
    assert_eq!(load_all(&[("/c/m", &nested(MAX_BLOCKS))], None).1, [""; 0]);
    let (_, errors) = load_all(&[("/c/m", &nested(MAX_BLOCKS + 1))], None);
    assert_eq!(errors, [format!("blocks are nested more than {MAX_BLOCKS} deep in /c/m:1")]);

    let chain = |length: usize| -> Vec<String> {
        let mut files = vec![("/c/m".to_owned(), "include 1.c*;".to_owned())];
        files.extend((1..=length).map(|n| (format!("/c/{n}.c"), format!("include {}.c*;", n + 1))));
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        load_all(&files, None).1
    };
    assert_eq!(chain(10), [""; 0]);
    assert_eq!(chain(200).len(), 1);
}

mod properties {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A directive as text, with every word quoted, and the same in the form of `show`.
    fn quoted(text: &str) -> String {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }

    fn directives() -> impl Strategy<Value = Vec<Directive>> {
        let word =
            "[a-z ;{}$#\"'\\\\\n\u{e4}]{0,8}".prop_map(|text| Word { text: text.into_bytes(), ..Word::default() });
        let plain = vec(word, 1..4).prop_map(|mut args| {
            // A name that can't be taken for an include.
            let mut name = args.remove(0);
            name.text.push(b'x');
            Directive { name, args, ..Directive::default() }
        });
        let with_block = plain.prop_recursive(3, 24, 4, |inner| {
            (inner.clone(), vec(inner, 0..4)).prop_map(|(head, block)| Directive { block: Some(block), ..head })
        });
        vec(with_block, 0..5)
    }

    fn write(directives: &[Directive], out: &mut String) {
        for directive in directives {
            for word in [&directive.name].into_iter().chain(&directive.args) {
                out.push_str(&quoted(&word.lossy()));
                out.push(' ');
            }
            match &directive.block {
                Some(block) => {
                    out.push('{');
                    write(block, out);
                    out.push_str("}\n");
                }
                None => out.push(';'),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(tree in directives()) {
            let mut text = String::new();
            write(&tree, &mut text);
            let (found, errors) = load_all(&[("/c/m", &text)], None);
            prop_assert_eq!(errors, Vec::<String>::new());
            prop_assert_eq!(found, show(&tree));
        }

        #[test]
        fn any_text_is_read(text in "([a-c$;{}#\"'\\\\ \n]|include m|\\PC){0,60}", global in any::<bool>()) {
            let files = MemoryFiles::new([("/c/m", text.as_str()), ("/c/n", "a { b; }")]);
            let env = Env { conf_prefix: "/c/".into(), ..Env::default() };
            let (sources, directives, mut errors) = load(&files, Path::new("/c/m"), global.then_some(text.as_str()), &env);
            sources.sort(&mut errors);
            let style = crate::diag::Style { program: "nginx", snippets: true, color: false };
            crate::diag::errors(&errors, &sources, style);
            inside(&directives, &sources);
        }

        #[test]
        fn any_value_is_read(text in "[0-9kmgwdhsMy ]{0,12}") {
            let all = [buf::parse::parse_number, buf::parse::parse_size, buf::parse::parse_offset,
                buf::parse::parse_msec, buf::parse::parse_sec];
            for parse in all {
                prop_assert!(parse(text.as_bytes()).is_none_or(|value| i64::try_from(value).is_ok()));
            }
        }
    }

    /// Every span lies inside its file.
    fn inside(directives: &[Directive], sources: &Sources) {
        for directive in directives {
            let words = [&directive.name].into_iter().chain(&directive.args).map(|word| word.span);
            let close = directive.block.is_some().then_some(directive.close);
            for span in words.chain([directive.end]).chain(close) {
                let len = sources.file(span).expect("a span has a file").text.len();
                assert!(span.start < span.end && span.end as usize <= len, "{span:?} {len}");
            }
            inside(directive.children(), sources);
        }
    }
}
