use proptest::prelude::*;

use super::*;

/// What a page is taken for, in one line: texts as they are, commands in brackets, errors in braces.
fn read(pieces: &[&[u8]]) -> String {
    let mut parser = Parser::new(10);
    let mut out = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (used, event) = parser.step(rest);
            match event {
                Event::Text(range) => out.extend_from_slice(&rest[range]),
                Event::Held(text) => out.extend_from_slice(text),
                Event::Command(command) => {
                    out.push(b'[');
                    out.extend_from_slice(command.kind.name().as_bytes());
                    for (name, value) in &command.params {
                        out.extend_from_slice(format!(" {name}=").as_bytes());
                        out.extend_from_slice(&value.plain());
                    }
                    out.push(b']');
                }
                Event::Error(error) => out.extend_from_slice(format!("{{{error}}}").as_bytes()),
                Event::More => break,
            }
            rest = &rest[used..];
        }
    }
    match parser.finish() {
        Ok(text) => out.extend_from_slice(text),
        Err(error) => out.extend_from_slice(format!("({error})").as_bytes()),
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The page's meaning, whole and split at every byte.
fn check(page: &str, expect: &str) {
    let page_bytes = page.as_bytes();
    assert_eq!(read(&[page_bytes]), expect, "{page}");
    for at in 0..page_bytes.len() {
        assert_eq!(read(&[&page_bytes[..at], &page_bytes[at..]]), expect, "{page} split at {at}");
    }
    let single: Vec<&[u8]> = page_bytes.chunks(1).collect();
    assert_eq!(read(&single), expect, "{page} byte by byte");
}

#[test]
fn texts_and_commands() {
    for (page, expect) in [
        ("", ""),
        ("a<!-- c --><!--x-->b", "a<!-- c --><!--x-->b"),
        ("a<!--#echo var=\"x\" -->b", "a[echo var=x]b"),
        ("<!--#else--><!--#endif -->", "[else][endif]"),
        ("<!--# echo   var\t=\r\n'x'-->", "[echo var=x]"),
        ("<!--#echo\nvar= \"x\"   -->", "[echo var=x]"),
        ("<!--#set var=\"a\" value='q\"\\'\\\\\\x' -->", "[set var=a value=q\"'\\\\x]"),
        ("<!--#set value=\"\" var=\"\" -->", "[set value= var=]"),
        ("<<!--#else --><!<!-<!--<!--#else -->", "<[else]<!<!-<!--[else]"),
        ("<!----#else -->", "<!----#else -->"),
        ("a<", "a<"),
        ("a<!--", "a<!--"),
        ("a<!--#", "a(the \"\" SSI command doesn't end)"),
        ("a<!--#echo var=\"x\" --", "a(the \"echo\" SSI command doesn't end)"),
        ("a<!--#foo --", "a(invalid SSI command: \"foo\")"),
        ("a#<!-#<!--x#", "a#<!-#<!--x#"),
    ] {
        check(page, expect);
    }
}

#[test]
fn errors() {
    for (command, expect) in [
        ("foo", "invalid SSI command: \"foo\""),
        ("ECHO var=\"x\"", "invalid SSI command: \"ECHO\""),
        ("echo", "mandatory \"var\" parameter is absent in \"echo\" SSI command"),
        ("echo foo=\"x\"", "invalid parameter name: \"foo\" in \"echo\" SSI command"),
        ("echo var=\"x\" var=\"y\"", "duplicate \"var\" parameter in \"echo\" SSI command"),
        ("echo var=x", "unexpected \"x\" symbol before value of \"var\" parameter in \"echo\" SSI command"),
        (
            "echo var=\"x\"default=\"y\"",
            "unexpected \"d\" symbol after \"x\" value of \"var\" parameter in \"echo\" SSI command",
        ),
        ("echo var \"x\"", "unexpected \"\"\" symbol after \"var\" parameter in \"echo\" SSI command"),
        ("echo v-x", "unexpected \"-\" symbol after \"v\" parameter in \"echo\" SSI command"),
        ("echo var=\"x\" - ", "unexpected \" \" symbol in \"echo\" SSI command"),
        ("echo var=\"x\" --x", "unexpected \"x\" symbol in \"echo\" SSI command"),
        ("echo var=\"0123456789a\"", "too long \"0123456789a...\" value of \"var\" parameter in \"echo\" SSI command"),
        (
            "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
            "the \"eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee...\" SSI command is too long",
        ),
        (
            "echo eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee=\"x\"",
            "too long \"eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee...\" parameter in \"echo\" SSI command",
        ),
        ("else x=\"y\"", "invalid parameter name: \"x\" in \"else\" SSI command"),
    ] {
        check(&format!("a<!--#{command} -->b"), &format!("a{{{expect}}}b"));
    }
    // What can't be read ends where a command would.
    check("a<!--#foo x=\"-->\" -->b", "a{invalid SSI command: \"foo\"}\" -->b");
    check("a<!--#foo--->b", "a{invalid SSI command: \"foo\"}b");
    check("a<!--#-->b", "a{invalid SSI command: \"-\"}b");
}

#[test]
fn a_command_is_written_as_it_was() {
    for page in ["<!--#else -->", "<!--#set var='a' value=\"q\\\"\\$x\" -->"] {
        let (used, event) = Parser::new(20).step(page.as_bytes());
        let Event::Command(command) = event else { panic!("{event:?}") };
        let mut out = Vec::new();
        command.write(&mut out);
        assert_eq!((used, &*String::from_utf8_lossy(&out)), (page.len(), page));
    }
}

fn value(raw: &str) -> Value {
    Value { quote: b'"', raw: raw.as_bytes().into() }
}

/// Parts in one line: names in angles.
fn shown(parts: &[Part<'_>]) -> String {
    let part = |part: &Part<'_>| match part {
        Part::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Part::Variable(name) => format!("<{}>", String::from_utf8_lossy(name)),
    };
    parts.iter().map(part).collect()
}

#[test]
fn parts_of_values() {
    for (raw, expect) in [
        ("", Ok("")),
        ("text", Ok("text")),
        ("$args-${x}y$1z", Ok("<args>-<x>y<1z>")),
        ("\\$args", Ok("$args")),
        ("a\\\\$args", Ok("a\\<args>")),
        ("a\\x\\\"$b\\", Ok("a\\x\"<b>\\")),
        ("\\\\\\$args", Ok("\\$args")),
        ("a$", Err("invalid variable name in \"a$\"")),
        ("$$a", Err("invalid variable name in \"$$a\"")),
        ("${", Err("invalid variable name in \"${\"")),
        ("${args", Err("the closing bracket in \"args\" variable is missing")),
        ("${a-b}", Err("the closing bracket in \"a\" variable is missing")),
    ] {
        let value = value(raw);
        let seen = value.parts().map(|parts| shown(&parts)).map_err(|error| error.to_string());
        assert_eq!(seen.as_deref().map_err(String::as_str), expect, "{raw}");
    }
}

#[test]
fn conditions() {
    use Operator::*;
    for (raw, expect) in [
        ("", Some((IsSet, "", ""))),
        (" ", Some((IsSet, "", ""))),
        ("$a", Some((IsSet, "<a>", ""))),
        ("x${a}1", Some((IsSet, "x<a>1", ""))),
        ("a=b", Some((Equal, "a", "b"))),
        ("$a  =  b c ", Some((Equal, "<a>", "b c "))),
        ("$a !=$b", Some((Unequal, "<a>", "<b>"))),
        ("$a == b", Some((Equal, "<a>", "= b"))),
        ("= a", Some((Equal, "", "a"))),
        ("a =", Some((Equal, "a", ""))),
        ("a = /b$c/", Some((Match, "a", "b<c>"))),
        ("a != /b/c/", Some((Mismatch, "a", "b/c"))),
        ("a = //", Some((Match, "a", ""))),
        ("a = /", Some((Equal, "a", "/"))),
        ("a = /^\\d\\$/", Some((Match, "a", "^\\d$"))),
        (" a = a", None),
        ("a b", None),
        ("a ! b", None),
        ("!$a", None),
        ("a.b = c", None),
        ("a = /b", None),
        ("a = /b/x", None),
        ("$a && $b", None),
    ] {
        let value = value(raw);
        let seen = value.condition().ok();
        let seen = seen.map(|condition| (condition.operator, shown(&condition.left), shown(&condition.right)));
        let seen = seen.as_ref().map(|(operator, left, right)| (*operator, &left[..], &right[..]));
        assert_eq!(seen, expect, "{raw}");
    }
}

proptest! {
    /// Without a mark a page is text, and what a page is taken for doesn't depend on where it is cut.
    #[test]
    fn pages_may_be_cut_anywhere(page in "([<!#>a\"= -]|<!--#|-->|echo|var=\"x\"){0,30}", at in 0..90_usize) {
        let bytes = page.as_bytes();
        let at = at.min(bytes.len());
        let whole = read(&[bytes]);
        prop_assert_eq!(&read(&[&bytes[..at], &bytes[at..]]), &whole);
        if !page.contains("<!--#") {
            prop_assert_eq!(whole, page);
        }
    }
}
