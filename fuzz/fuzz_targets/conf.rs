//! The configuration language: any text is read, with errors or without, and every span lies inside its file.
#![cfg_attr(fuzzing, no_main)]

use std::path::Path;

use conf::{Directive, Env, MemoryFiles, Sources};

tidegate_fuzz::target!(|data: &[u8]| {
    let files = MemoryFiles::new([("/c/m", data), ("/c/n", b"a { b; }")]);
    let env = Env { conf_prefix: "/c/".into(), ..Env::default() };
    let (sources, directives, mut errors) = conf::load(&files, Path::new("/c/m"), None, &env);
    sources.sort(&mut errors);
    let style = conf::diag::Style { program: "nginx", snippets: true, color: false };
    conf::diag::errors(&errors, &sources, style);
    inside(&directives, &sources);
});

fn inside(directives: &[Directive], sources: &Sources) {
    for directive in directives {
        for word in [&directive.name].into_iter().chain(&directive.args) {
            let len = sources.file(word.span).expect("a span has a file").text.len();
            assert!(word.span.start < word.span.end && word.span.end as usize <= len);
        }
        inside(directive.children(), sources);
    }
}
