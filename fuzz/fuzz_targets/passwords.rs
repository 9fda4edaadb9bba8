//! Files of passwords: what is found doesn't depend on where the parts of the file end, and is what a reader of lines finds.
//! Whatever form the stored password has, it is checked without a panic.
#![cfg_attr(fuzzing, no_main)]

use http_modules::auth_basic::file::Search;
use http_modules::auth_basic::hashes::{Answer, is_slow, verify};

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&at, rest)) = data.split_first() else { return };
    let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return };
    let (user, file) = (&rest[..end], &rest[end + 1..]);
    let whole = find(user, &[file]);
    let (first, second) = file.split_at(usize::from(at).min(file.len()));
    assert_eq!(find(user, &[first, second]), whole);
    let bytes: Vec<&[u8]> = file.chunks(1).collect();
    assert_eq!(find(user, &bytes), whole);
    assert_eq!(naive(user, file), whole);
    let Some(stored) = whole else { return };
    if let Some(plain) = stored.strip_prefix(b"{PLAIN}") {
        assert_eq!(verify(&stored, plain), Answer::Right);
    }
    // The slow ones may be as slow as they say.
    if !is_slow(&stored) || stored.starts_with(b"$1$") || stored.starts_with(b"$apr1$") {
        let _ = verify(&stored, user);
    }
});

fn find(user: &[u8], parts: &[&[u8]]) -> Option<Vec<u8>> {
    let mut search = Search::new(user);
    let _ = parts.iter().any(|part| search.feed(part));
    search.end().map(|stored| stored.to_vec())
}

fn naive(user: &[u8], file: &[u8]) -> Option<Vec<u8>> {
    let lines = file.split(|&byte| byte == b'\n').filter(|line| !matches!(line.first(), Some(b'#' | b'\r')));
    let mut found = lines.filter_map(|line| line.strip_prefix(user)?.strip_prefix(b":"));
    let end = |byte: &u8| matches!(byte, b':' | b'\r');
    found.next().map(|rest| rest.split(end).next().unwrap_or_default().to_vec())
}
