//! `autoindex_format styled`: a list for readers. It needs no script and no other file.

use jiff::tz::TimeZone;
use wire::uri::{Escape, escape, escape_html};

use super::{AutoindexConf, Entry, EntryKind, time, zone};

/// The page.
pub(super) fn page(conf: &AutoindexConf, uri: &[u8], mut entries: Vec<Entry>) -> Vec<u8> {
    entries.sort_by_cached_key(|entry| {
        (entry.kind != EntryKind::Directory, String::from_utf8_lossy(&entry.name).to_lowercase(), entry.name.clone())
    });
    let zone = zone(conf);
    let mut out = Vec::with_capacity(HEAD.len() + STYLE.len() + 512 + entries.len() * 256);
    out.extend_from_slice(HEAD.as_bytes());
    text(uri, &mut out);
    out.extend_from_slice(b"</title>\n<style>\n");
    out.extend_from_slice(STYLE.as_bytes());
    out.extend_from_slice(b"</style>\n<main>\n<h1>Index of <bdi>");
    path(uri, &mut out);
    out.extend_from_slice(b"</bdi></h1>\n<table>\n<thead><tr><th>Name<th>Size<th>Modified\n<tbody>\n");
    if uri.len() > 1 {
        out.extend_from_slice(b"<tr class=up><td><a href=\"../\">..</a><td><td>\n");
    }
    for entry in &entries {
        row(conf, &zone, entry, &mut out);
    }
    out.extend_from_slice(b"</table>\n<footer>");
    out.extend_from_slice(summary(&entries).as_bytes());
    out.extend_from_slice(b"</footer>\n</main>\n");
    out
}

/// The path with a link to each folder on it, written as ways up from here: so they are right behind a proxy that adds
/// or takes away a prefix.
fn path(uri: &[u8], out: &mut Vec<u8>) {
    let names: Vec<&[u8]> = uri.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect();
    let step = |name: &[u8], up: usize, out: &mut Vec<u8>| {
        if up == 0 {
            return text(name, out);
        }
        out.extend_from_slice(b"<a href=\"");
        out.extend_from_slice("../".repeat(up).as_bytes());
        out.extend_from_slice(b"\">");
        text(name, out);
        out.extend_from_slice(b"</a>");
    };
    step(b"/", names.len(), out);
    for (index, name) in names.iter().enumerate() {
        step(name, names.len() - 1 - index, out);
        out.push(b'/');
    }
}

fn row(conf: &AutoindexConf, zone: &TimeZone, entry: &Entry, out: &mut Vec<u8>) {
    let folder = entry.kind == EntryKind::Directory;
    out.extend_from_slice(if folder { b"<tr class=dir><td><a href=\"" } else { b"<tr><td><a href=\"" });
    escape(Escape::UriComponent, &entry.name, out);
    out.extend_from_slice(if folder { b"/\"><bdi>" } else { b"\"><bdi>" });
    text(&entry.name, out);
    out.extend_from_slice(if folder { b"</bdi>/</a><td>" } else { b"</bdi></a><td>" });
    if entry.kind == EntryKind::File {
        let size = if conf.autoindex_exact_size { entry.size.to_string() } else { rounded(entry.size) };
        out.extend_from_slice(size.as_bytes());
    }
    out.extend_from_slice(b"<td><time datetime=\"");
    time(entry.modified, &TimeZone::UTC, b"%Y-%m-%dT%H:%M:%SZ", out);
    out.extend_from_slice(b"\">");
    time(entry.modified, zone, b"%Y-%m-%d %H:%M", out);
    out.extend_from_slice(b"</time>\n");
}

/// A name as text: what isn't UTF-8 is shown as unknown.
fn text(name: &[u8], out: &mut Vec<u8>) {
    escape_html(String::from_utf8_lossy(name).as_bytes(), out);
}

/// Three digits at most, and a unit.
fn rounded(size: u64) -> String {
    let mut value = size as f64;
    let mut units = UNITS.iter();
    let mut unit = UNITS[0];
    while value >= 999.5
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1000.0, next);
    }
    match size {
        0..1000 => format!("{size} B"),
        _ if value < 9.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

fn summary(entries: &[Entry]) -> String {
    let folders = entries.iter().filter(|entry| entry.kind == EntryKind::Directory).count();
    let some = |count: usize, name: &str| match count {
        0 => None,
        1 => Some(format!("1 {name}")),
        _ => Some(format!("{count} {name}s")),
    };
    let parts: Vec<String> =
        [some(folders, "folder"), some(entries.len() - folders, "file")].into_iter().flatten().collect();
    if parts.is_empty() { "This folder is empty.".into() } else { parts.join(", ") }
}

const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>Index of ";

const STYLE: &str = include_str!("styled.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (size, expect) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_960, "10 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (1_234_567_890, "1.2 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(rounded(size), expect);
        }
    }

    #[test]
    fn ways_up() {
        for (uri, expect) in [
            ("/", "/"),
            ("/a/", "<a href=\"../\">/</a>a/"),
            ("/a/<b>/", "<a href=\"../../\">/</a><a href=\"../\">a</a>/&lt;b&gt;/"),
        ] {
            let mut out = Vec::new();
            path(uri.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expect);
        }
    }

    #[test]
    fn rows() {
        let conf = AutoindexConf {
            autoindex: true,
            autoindex_format: super::super::Format::Styled,
            autoindex_localtime: false,
            autoindex_exact_size: false,
        };
        let entry = |name: &str, kind, size| Entry { name: name.into(), kind, size, modified: 0 };
        let entries = vec![
            entry("Zebra", EntryKind::Directory, 9),
            entry("b.txt", EntryKind::File, 1500),
            entry("A.txt", EntryKind::File, 2),
            entry("javascript:x", EntryKind::Other, 0),
        ];
        let shown = String::from_utf8(page(&conf, b"/x/", entries)).unwrap();
        let time = "<td><time datetime=\"1970-01-01T00:00:00Z\">1970-01-01 00:00</time>";
        let rows: Vec<&str> = shown.lines().filter(|line| line.starts_with("<tr")).collect();
        assert_eq!(
            rows,
            [
                "<tr class=up><td><a href=\"../\">..</a><td><td>".to_string(),
                format!("<tr class=dir><td><a href=\"Zebra/\"><bdi>Zebra</bdi>/</a><td>{time}"),
                format!("<tr><td><a href=\"A.txt\"><bdi>A.txt</bdi></a><td>2 B{time}"),
                format!("<tr><td><a href=\"b.txt\"><bdi>b.txt</bdi></a><td>1.5 kB{time}"),
                format!("<tr><td><a href=\"javascript%3Ax\"><bdi>javascript:x</bdi></a><td>{time}"),
            ]
        );
        assert!(shown.contains("<footer>1 folder, 3 files</footer>"), "{shown}");
        assert!(String::from_utf8(page(&conf, b"/", Vec::new())).unwrap().contains("This folder is empty."));
    }
}
