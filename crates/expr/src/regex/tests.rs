//! Patterns against what nginx with PCRE2 10.42 answered.

use proptest::prelude::*;

use super::*;

/// Undoes the `%XX` of the tables.
fn decode(field: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// What the tables say of a match: `+` and the groups in brackets, or `-`.
fn outcome(regex: &Regex, text: &[u8]) -> Vec<u8> {
    let mut captures = Captures::new();
    let matched = regex.captures(text, &mut captures).expect("within the limit");
    assert_eq!(regex.is_match(text), Ok(matched));
    if !matched {
        return b"-".to_vec();
    }
    let mut out = b"+".to_vec();
    for n in 1..=9 {
        out.push(b'[');
        out.extend_from_slice(captures.slice(text, n).unwrap_or_default());
        out.push(b']');
    }
    out
}

#[test]
fn matches_are_those_of_pcre() {
    check_matches(include_str!("matches.tsv"));
}

#[test]
fn random_patterns_match_as_those_of_pcre() {
    check_matches(include_str!("random.tsv"));
}

/// Lines of pattern (after `~` or `~*`), text, outcome.
fn check_matches(table: &str) {
    let mut wrong = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [pattern, text, expect] = *fields else { panic!("three fields: {line}") };
        let (source, caseless) = match pattern.strip_prefix("~*") {
            Some(rest) => (rest, true),
            None => (&pattern[1..], false),
        };
        let seen = match Regex::new(&decode(source), caseless) {
            Ok(regex) => outcome(&regex, &decode(text)),
            Err(error) => error.to_string().into_bytes(),
        };
        if seen != decode(expect) {
            wrong.push(format!("{line}\tbut {}", seen.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Lines of `errors.tsv`: pattern, message.
#[test]
fn errors_are_those_of_pcre() {
    let mut wrong = Vec::new();
    for line in include_str!("errors.tsv").lines().filter(|line| !line.starts_with('#')) {
        let (pattern, expect) = line.split_once('\t').expect("two fields");
        let seen = match Regex::new(&decode(pattern), false) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        };
        if seen.as_bytes() != decode(expect) {
            wrong.push(format!("{line}\n\tbut {seen}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_the_engine_cannot_do_is_refused() {
    for (pattern, expect) in [
        (r"(a(?1)?b)", "recursion is not supported"),
        (r"(?R)?", "recursion is not supported"),
        (r"(a\1?)*", "a reference inside its own group is not supported"),
        (r"(?(1)a|b)(?|(a)|(b))", "a condition on one of several groups is not supported"),
        (r"((?(1)a|b))", "a reference inside its own group is not supported"),
        (r"a\Xb", "this version of PCRE2 does not have support for \\P, \\p, or \\X"),
        (r"\p{Nope}", "unknown property after \\P or \\p"),
        (r"a(*COMMIT)b", "backtracking control verbs are not supported"),
    ] {
        let error = Regex::new(pattern.as_bytes(), false).err().map(|error| error.why);
        assert_eq!(error.as_deref(), Some(expect), "{pattern}");
    }
}

/// What still differs: an iteration that matches nothing sets its group in PCRE and doesn't here. Also texts that the
/// tables can't hold, for `map` doesn't try regexes on an empty value.
#[test]
fn known_differences_and_empty_texts() {
    for (pattern, text, expect) in [
        ("(a*)*b", "aab", "+[aa][][][][][][][][]"),
        ("(a?)++", "a", "+[a][][][][][][][][]"),
        ("^$", "", "+[][][][][][][][][]"),
        ("", "", "+[][][][][][][][][]"),
        ("a", "", "-"),
    ] {
        let regex = Regex::new(pattern.as_bytes(), false).expect("a valid pattern");
        assert_eq!(outcome(&regex, text.as_bytes()), expect.as_bytes(), "{pattern}");
    }
}

#[test]
fn names() {
    let regex = Regex::new(br"^(?<a>x)(?P<b>y)(z)(?'c'.)", false).expect("a valid pattern");
    let expect = [("a", 1), ("b", 2), ("c", 4)].map(|(name, number)| (name.to_owned(), number));
    assert_eq!((regex.names(), regex.capture_count()), (expect.as_slice(), 4));
}

#[test]
fn limits() {
    let regex = Regex::new(br"^(?=(a+)+$)\1*(?:a|aa)*(?:a|aa)*(?:a|aa)*!\1", false).expect("a valid pattern");
    assert_eq!(regex.is_match(&[b'a'; 4000]), Err(MatchError));
    let deep = "(".repeat(1000) + &")".repeat(1000);
    let error = Regex::new(deep.as_bytes(), false).err().map(|error| error.why);
    assert_eq!(error.as_deref(), Some("parentheses are too deeply nested"));
    assert!(Regex::new(b"(?:(?:a{1000}){1000}){1000}", false).is_err());
}

#[test]
fn captures_are_reused() {
    let mut captures = Captures::new();
    let two = Regex::new(b"(a)(b)?", false).expect("a valid pattern");
    assert_eq!(two.captures(b"xab", &mut captures), Ok(true));
    assert_eq!((captures.range(0), captures.range(2), captures.range(3)), (Some(1..3), Some(2..3), None));
    assert_eq!(two.captures(b"xa", &mut captures), Ok(true));
    assert_eq!((captures.len(), captures.range(2), captures.slice(b"xa", 1)), (3, None, Some(b"a".as_slice())));
    assert_eq!(two.captures(b"x", &mut captures), Ok(false));
    assert_eq!(captures.len(), 3);
    captures.clear();
    assert!(captures.is_empty());
}

proptest! {
    #[test]
    fn nothing_panics(pattern in r"[ab1(){}\[\]|*+?^$\\.,:<>='PkgxQEcpNR#&i-]{0,16}", text in "[ab1\n]{0,8}") {
        if let Ok(regex) = Regex::new(pattern.as_bytes(), false) {
            let mut captures = Captures::new();
            let matched = regex.captures(text.as_bytes(), &mut captures);
            prop_assert_eq!(regex.is_match(text.as_bytes()), matched);
        }
    }

    #[test]
    fn any_bytes(pattern in proptest::collection::vec(any::<u8>(), 0..12), utf in any::<bool>()) {
        let start: &[u8] = if utf { b"(*UTF)" } else { b"" };
        if let Ok(regex) = Regex::new(&[start, &pattern].concat(), true) {
            prop_assert!(regex.is_match(&pattern).is_ok());
        }
    }
}
