//! The manual: each directive's text is in its form, and its examples load.

use std::path::Path;
use std::process::Command;

use conf::manual::Text;
use e2e::{EC, Folder, binary, certificate};

use crate::geoip;

struct Row {
    name: String,
    contexts: Vec<String>,
    args: String,
    text: Text,
}

fn rows() -> Vec<Row> {
    let out = Command::new(binary()).arg("--dump-directives").output().expect("the program starts");
    let dump = String::from_utf8(out.stdout).expect("the manual is UTF-8");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [_, name, contexts, args, _, _, _, doc] = cells[..] else { panic!("{line}") };
        let text =
            Text::parse(&conf::manual::unescaped(doc)).unwrap_or_else(|fault| panic!("the text of {name}: {fault}"));
        let contexts = contexts.split(", ").map(str::to_owned).collect();
        Row { name: name.to_owned(), contexts, args: args.to_owned(), text }
    };
    let rows: Vec<Row> = dump.lines().skip(1).map(row).collect();
    assert!(!rows.is_empty(), "the program has directives");
    rows
}

/// The blocks around the contexts, the outer contexts first.
const CONTEXTS: [(&str, &str, &str); 14] = [
    ("main", "", ""),
    ("events", "events {", "}"),
    ("http", "http {", "}"),
    ("upstream", "http { upstream example {", "} }"),
    ("server", "http { server {", "} }"),
    ("location", "http { server { location / {", "} } }"),
    ("if in server", "http { server { if ($host) {", "} } }"),
    ("if in location", "http { server { location / { if ($host) {", "} } } }"),
    ("mail", "mail {", "}"),
    ("mail server", "mail { auth_http 127.0.0.1:9000; server { ", "} }"),
    ("limit_except", "http { server { location / { limit_except GET {", "} } } }"),
    ("stream", "stream {", "}"),
    ("stream upstream", "stream { upstream example {", "} }"),
    ("stream server", "stream { server { listen 127.0.0.1:1024;", "} }"),
];

/// The names of an example's outermost directives.
fn outermost(example: &str) -> Vec<String> {
    let (_, directives, errors) = conf::parse::parse("example", example);
    assert!(errors.is_empty(), "{errors:?} in {example}");
    directives.iter().map(|directive| directive.name.lossy().into_owned()).collect()
}

/// The whole configuration for an example: in the first of the directive's contexts in which all of it may stand.
fn whole(row: &Row, example: &str, rows: &[Row]) -> String {
    let names = outermost(example);
    let may_stand = |name: &str, context: &str| {
        let allowed = |row: &&Row| row.contexts.iter().any(|known| known == context || known == "any context");
        if name == row.name {
            allowed(&row)
        } else {
            rows.iter().filter(|row| row.name == name).any(|row| allowed(&row))
        }
    };
    // A block of the same name may stand in another protocol's.
    let of_row = |context: &str| row.contexts.iter().any(|known| protocol(known) == protocol(context));
    let any = row.contexts.iter().any(|known| known == "any context" || known == "main");
    let fits = |(context, ..): &&(&str, &str, &str)| {
        (any || *context == "main" || of_row(context)) && names.iter().all(|name| may_stand(name, context))
    };
    let found = CONTEXTS.iter().find(fits);
    let (context, open, close) = found.unwrap_or_else(|| panic!("{}: {names:?} can't stand together", row.name));
    let has_servers = names.iter().any(|name| name == "server" || name == "state");
    let server = if context.ends_with("upstream") && !has_servers { "server 127.0.0.1:1;" } else { "" };
    let events = if names.iter().any(|name| name == "events") || *context == "events" { "" } else { "events { }" };
    let pid = if names.iter().any(|name| name == "pid") { "" } else { "pid example.pid;" };
    format!("{pid}\n{events}\n{open}\n{example}\n{server}{close}\n")
}

/// The protocol of a context.
fn protocol(context: &str) -> &str {
    match context.split(' ').next().unwrap_or_default() {
        other @ ("main" | "events" | "stream" | "mail") => other,
        _ => "http",
    }
}

fn load(folder: &Path, text: &str) -> Result<(), String> {
    let conf = folder.join("nginx.conf");
    std::fs::write(&conf, text).expect("the folder is there");
    let mut command = Command::new(binary());
    command.arg("-t").arg("-p").arg(folder).arg("-c").arg(&conf);
    let out = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    if out.status.success() { Ok(()) } else { Err(said) }
}

/// Not in nginx: `--explain NAME`
#[test]
fn examples_load() {
    let folder = Folder::new();
    for name in ["site", "backend", "ca"] {
        certificate(&folder, name, EC);
    }
    std::fs::create_dir(folder.path().join("logs")).expect("the folder is ours");
    for (name, content) in [("passwords", &b"secret\n"[..]), ("ticket.key", &[7; 80]), ("dictionary", b"text")] {
        std::fs::write(folder.path().join(name), content).expect("the folder is ours");
    }
    let databases = [
        ("countries.dat", geoip::countries()),
        ("cities.dat", geoip::cities()),
        ("organizations.dat", geoip::organizations()),
        ("cities.mmdb", geoip::newer("US", 1)),
    ];
    for (name, content) in databases {
        std::fs::write(folder.path().join(name), content).expect("the folder is ours");
    }
    let rows = rows();
    let mut failed = Vec::new();
    for row in &rows {
        for example in &row.text.examples {
            if let Err(said) = load(folder.path(), &whole(row, example, &rows)) {
                failed.push(format!("{}:\n{example}\n{said}", row.name));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Not in nginx: `--explain NAME`
#[test]
fn texts_are_whole() {
    let lacking: Vec<String> = rows()
        .iter()
        .map(|row| (row, row.text.lacks(!matches!(&*row.args, "flag" | "0" | "block"))))
        .filter(|(_, lacks)| !lacks.is_empty())
        .map(|(row, lacks)| format!("{}: {}", row.name, lacks.join(", ")))
        .collect();
    assert!(
        lacking.is_empty(),
        "{} texts lack a part:
{}",
        lacking.len(),
        lacking.join(
            "
"
        )
    );
}

/// Not in nginx: `--explain NAME`
#[test]
fn an_example_is_put_where_it_may_stand() {
    let rows = rows();
    let row = |name: &str| rows.iter().find(|row| row.name == name).expect("there is such a directive");
    assert!(whole(row("gzip"), "gzip on;", &rows).contains("http {\ngzip on;\n}"));
    assert!(whole(row("alias"), "alias /x/;", &rows).contains("location / {\nalias /x/;\n}"));
    assert!(
        whole(row("keepalive"), "keepalive 4;", &rows)
            .contains("upstream example {\nkeepalive 4;\nserver 127.0.0.1:1;}")
    );
    let folder = Folder::new();
    assert!(load(folder.path(), &whole(row("gzip"), "gzip maybe;", &rows)).is_err(), "one that doesn't load is found");
}
