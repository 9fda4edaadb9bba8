//! `dav_methods` and the other directives of WebDAV.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use e2e::{Folder, Response, Server, Setup, basic, tool};

/// A server whose files are in the folder `files`, which the workers may write to.
fn setup(locations: &str) -> Setup {
    Setup::http(&format!(
        "server {{ listen 127.0.0.1:%%PORT%%; server_name site; root %%DIR%%/files; absolute_redirect off;
            dav_methods PUT DELETE MKCOL COPY MOVE; {locations} }}"
    ))
    .public("files")
}

fn at(server: &Server, name: &str) -> PathBuf {
    server.folder().path().join("files").join(name)
}

fn read(server: &Server, name: &str) -> Option<String> {
    fs::read_to_string(at(server, name)).ok()
}

/// A folder or a file below `files` that workers may change.
fn make(server: &Server, name: &str, text: Option<&str>) {
    let path = at(server, name);
    let mut folder = if text.is_some() { path.parent().expect("a folder").to_path_buf() } else { path.clone() };
    fs::create_dir_all(&folder).expect("folders can be made");
    if let Some(text) = text {
        fs::write(&path, text).expect("the folder is ours");
    }
    while folder.starts_with(at(server, "")) && folder != at(server, "") {
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).expect("it is ours");
        folder.pop();
    }
}

fn ask(server: &Server, line: &str, more: &str) -> Response {
    server.raw(format!("{line} HTTP/1.1\r\nHost: site\r\nConnection: close\r\n{more}\r\n"))
}

fn put(server: &Server, target: &str, more: &str, body: &str) -> Response {
    let length = body.len();
    let head =
        format!("PUT {target} HTTP/1.1\r\nHost: site\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n");
    server.raw(head + body)
}

#[test]
fn put_writes_files() {
    let server =
        setup("client_body_buffer_size 1k; location /deep/ { create_full_put_path on; dav_access group:rw all:r; }")
            .start();
    let made = put(&server, "/new%20file?a=b", "", "text");
    assert_eq!(
        (made.status, made.field("Location"), made.field("Content-Length")),
        (201, Some("/new%20file"), Some("0"))
    );
    assert_eq!(read(&server, "new file").as_deref(), Some("text"));
    assert_eq!(fs::metadata(at(&server, "new file")).expect("made").mode() & 0o777, 0o600);
    let large = "0123456789".repeat(10_000);
    let changed = put(&server, "/new%20file", "", &large);
    assert_eq!((changed.status, changed.field("Content-Length")), (204, None));
    assert_eq!(read(&server, "new file").as_deref(), Some(&large[..]));
    assert_eq!(put(&server, "/empty", "", "").status, 201);
    assert_eq!(put(&server, "/dated", "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "x").status, 201);
    assert_eq!(fs::metadata(at(&server, "dated")).expect("made").mtime(), 784_111_777);
    assert_eq!(put(&server, "/dated2", "Date: yesterday\r\n", "x").status, 201);
    assert_eq!(put(&server, "/deep/a/b/file", "", "x").status, 201);
    let modes = ["deep/a", "deep/a/b/file"].map(|name| fs::metadata(at(&server, name)).expect("made").mode() & 0o777);
    assert_eq!(modes[1], 0o664);
    assert_eq!(modes[0] & 0o711, 0o711, "who may read the file finds it");
    let chunked = "PUT /chunks HTTP/1.1\r\nHost: site\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!((server.raw(chunked).status, read(&server, "chunks").as_deref()), (201, Some("abcde")));
    let temporary = fs::read_dir(server.folder().path()).expect("ours").flatten();
    let left = temporary.filter(|entry| entry.file_name().to_string_lossy().contains("body")).map(|entry| entry.path());
    assert!(
        left.into_iter().all(|folder| fs::read_dir(folder).expect("ours").count() == 0),
        "no temporary file is left"
    );
}

#[test]
fn what_put_refuses() {
    let server = setup("location /off/ { dav_methods off; } location /some/ { dav_methods MKCOL; }").start();
    make(&server, "folder", None);
    for (target, more, status) in [
        ("/folder", "", 409),
        ("/folder/", "", 409),
        ("/new/", "", 409),
        ("/part", "Content-Range: bytes 0-3/9\r\n", 501),
        ("/off/x", "", 405),
        ("/some/x", "", 405),
        ("/../x", "", 400),
        ("/%2e%2e/x", "", 400),
        ("/a%2f..%2f..%2fx", "", 400),
        ("/a%00", "", 400),
    ] {
        assert_eq!(put(&server, target, more, "text").status, status, "{target}");
    }
    assert_eq!(fs::read_dir(at(&server, "")).expect("ours").count(), 1);
    let log = server.read("error.log");
    for line in
        ["cannot PUT to a collection", "could not be created (21: Is a directory)", "PUT with range is unsupported"]
    {
        assert!(log.contains(line), "{line}: {log}");
    }
}

/// Differs from nginx: a folder that is missing is 409
#[test]
fn a_missing_folder_is_a_conflict() {
    let server = setup("").start();
    make(&server, "file", Some("text"));
    assert_eq!(put(&server, "/no/x", "", "text").status, 409);
    assert_eq!(put(&server, "/file/x", "", "text").status, 409);
    for method in ["COPY", "MOVE"] {
        assert_eq!(ask(&server, &format!("{method} /file"), "Destination: /no/x\r\n").status, 409, "{method}");
    }
    assert_eq!(read(&server, "file").as_deref(), Some("text"));
}

/// Differs from nginx: it makes an empty file
#[test]
fn put_without_a_body_makes_an_empty_file() {
    let server = setup("").start();
    assert_eq!((ask(&server, "PUT /x", "").status, read(&server, "x").as_deref()), (201, Some("")));
}

#[test]
fn delete() {
    let server = setup("location /min/ { min_delete_depth 3; }").start();
    for name in ["file", "folder/sub/x", "slash/x", "other/x", "min/x", "min/a/x", "dated", "dated2"] {
        make(&server, name, Some("x"));
    }
    for (target, more, status) in [
        ("/file", "", 204),
        ("/file", "", 404),
        ("/no/x", "", 404),
        ("/slash", "", 409),
        ("/dated/", "", 409),
        ("/dated/x", "", 409),
        ("/slash/", "Depth: 0\r\n", 400),
        ("/slash/", "Depth: 1\r\n", 400),
        ("/slash/", "Depth: infinity\r\n", 204),
        ("/folder/", "", 204),
        ("/dated", "Depth: 1\r\n", 400),
        ("/dated", "Depth: x\r\n", 400),
        ("/dated", "Depth: 0\r\n", 204),
        ("/dated2", "Depth: infinity\r\n", 204),
        ("/other/", "Content-Length: 4\r\n", 415),
        ("/min/x", "", 409),
        ("/min/a/x", "", 204),
    ] {
        let body = if status == 415 { "text" } else { "" };
        let head = format!("DELETE {target} HTTP/1.1\r\nHost: site\r\nConnection: close\r\n{more}\r\n{body}");
        assert_eq!(server.raw(head).status, status, "{target} {more}");
    }
    let gone = ["file", "slash", "folder", "dated", "dated2", "min/a/x"].map(|name| at(&server, name).exists());
    assert_eq!(gone, [false; 6]);
    assert!(at(&server, "other/x").exists() && at(&server, "min/x").exists());
    assert!(server.read("error.log").contains("insufficient URI depth:2 to DELETE"));
}

#[test]
fn mkcol() {
    let server = setup("location /wide/ { dav_access user:rw group:r all:r; }").start();
    make(&server, "wide", None);
    make(&server, "file", Some("x"));
    let made = ask(&server, "MKCOL /a%20b/", "");
    assert_eq!((made.status, made.field("Location")), (201, Some("/a%20b/")));
    for (target, status) in
        [("/a%20b/", 405), ("/noslash", 409), ("/no/x/", 409), ("/file/", 405), ("/file/x/", 409), ("/wide/x/", 201)]
    {
        assert_eq!(ask(&server, &format!("MKCOL {target}"), "").status, status, "{target}");
    }
    let head = "MKCOL /body/ HTTP/1.1\r\nHost: site\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(server.raw(head).status, 415);
    let modes = ["a b", "wide/x"].map(|name| fs::metadata(at(&server, name)).expect("made").mode() & 0o777);
    assert_eq!(modes, [0o700, 0o755]);
}

#[test]
fn copy_and_move() {
    let server = setup("").start();
    for method in ["COPY", "MOVE"] {
        // What nginx writes over must be its own.
        assert!(put(&server, "/over", "", "over").status < 300);
        for name in ["file", "folder/x", "folder/sub/y", "there/old"] {
            make(&server, name, Some(name));
        }
        for (target, more, status) in [
            ("/file", "", 400),
            ("/file", "Destination: \r\n", 400),
            ("/file", "Destination: relative\r\n", 400),
            ("/file", "Destination: http://other/x\r\n", 400),
            ("/file", "Destination: https://site/x\r\n", 400),
            ("/file", "Destination: http://site\r\n", 400),
            ("/file", "Destination: /../x\r\n", 400),
            ("/file", "Destination: /%2e%2e/x\r\n", 400),
            ("/file", "Destination: /a%2f..%2f..%2fx\r\n", 400),
            ("/file", "Destination: /a%00\r\n", 400),
            ("/file", "Destination: /file\r\n", 403),
            ("/file", "Destination: /folder\r\n", 409),
            ("/file", "Destination: /new/\r\n", 409),
            ("/folder/", "Destination: /new\r\n", 409),
            ("/folder/", "Destination: /folder/in/\r\n", 403),
            ("/folder/", "Destination: /new/\r\nDepth: 1\r\n", 400),
            ("/nothing", "Destination: /new\r\n", 404),
            ("/file", "Destination: /over\r\nOverwrite: F\r\n", 412),
            ("/file", "Destination: /over\r\nOverwrite: x\r\n", 400),
            ("/folder/", "Destination: /there/\r\nOverwrite: f\r\n", 412),
        ] {
            assert_eq!(ask(&server, &format!("{method} {target}"), more).status, status, "{method} {target} {more}");
        }
        for (target, to, status) in [
            ("/file", "/over", 204),
            ("/over", "http://site:8080/new%20file?x", 204),
            ("/folder/", "/there/", 201),
            ("/there/", "http://site/a/", 201),
        ] {
            let done = ask(&server, &format!("{method} {target}"), &format!("Destination: {to}\r\n"));
            assert_eq!(done.status, status, "{method} {target} {to}");
        }
        let moved = method == "MOVE";
        assert_eq!(read(&server, "new file").as_deref(), Some("file"), "{method}");
        let texts = [read(&server, "a/x"), read(&server, "a/sub/y"), read(&server, "a/old")];
        assert_eq!(texts, [Some("folder/x".into()), Some("folder/sub/y".into()), None], "{method}");
        let left = ["file", "over", "folder", "there"].map(|name| at(&server, name).exists());
        assert_eq!(left, [!moved; 4], "{method}");
        fs::remove_dir_all(at(&server, "a")).expect("it is there");
    }
    let mut names: Vec<_> =
        fs::read_dir(at(&server, "")).expect("ours").flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["new file"], "nothing is left over");
}

/// Differs from nginx: a host that begins with that of the request
#[test]
fn a_destination_is_of_the_same_host() {
    let server = setup("").start();
    make(&server, "file", Some("text"));
    for to in ["http://site.other/x", "http://sites/x", "http://site@other/x", "http://site:x/x"] {
        assert_eq!(ask(&server, "COPY /file", &format!("Destination: {to}\r\n")).status, 400, "{to}");
    }
    assert_eq!(ask(&server, "COPY /file", "Destination: http://SITE/x\r\n").status, 204);
}

#[test]
fn a_folder_is_not_replaced_by_a_part_of_it() {
    let server = setup("").start();
    for method in ["COPY", "MOVE"] {
        make(&server, "folder/sub/x", Some("x"));
        let done = ask(&server, &format!("{method} /folder/sub/"), "Destination: /folder/\r\n");
        assert_eq!((done.status, read(&server, "folder/sub/x").as_deref()), (403, Some("x")), "{method}");
    }
}

/// Differs from nginx: a link that is in a folder is copied as a link
#[test]
fn links_lead_nowhere() {
    let server = setup("location /strict/ { alias %%DIR%%/files/; disable_symlinks on from=%%DIR%%; }").start();
    server.folder().write("secret/key", "secret");
    make(&server, "folder", None);
    make(&server, "file", Some("text"));
    symlink(server.folder().path().join("secret"), at(&server, "folder/link")).expect("a link can be made");
    symlink(server.folder().path().join("secret"), at(&server, "out")).expect("a link can be made");
    assert_eq!(ask(&server, "COPY /folder/", "Destination: /copy/\r\n").status, 201);
    assert!(at(&server, "copy/link").is_symlink());
    for (line, more) in [
        ("COPY /strict/out/key", "Destination: /strict/key\r\n"),
        ("COPY /strict/file", "Destination: /strict/out/file\r\n"),
        ("MOVE /strict/out/key", "Destination: /strict/key\r\n"),
        ("MOVE /strict/file", "Destination: /strict/out/file\r\n"),
        ("DELETE /strict/out/key", ""),
        ("MKCOL /strict/out/new/", ""),
    ] {
        assert_eq!(ask(&server, line, more).status, 403, "{line}");
    }
    assert_eq!(put(&server, "/strict/out/new", "", "x").status, 403);
    assert_eq!(ask(&server, "DELETE /copy/", "").status, 204);
    // The link itself goes, whatever the URI's end is.
    assert_eq!(ask(&server, "DELETE /out/", "").status, 204);
    assert!(!at(&server, "out").is_symlink());
    let secret: Vec<_> = fs::read_dir(server.folder().path().join("secret")).expect("ours").flatten().collect();
    assert_eq!(secret.len(), 1, "nothing was written or removed beyond the links");
}

#[test]
fn an_alias_takes_its_own_destinations() {
    let server = setup("location /alias/ { alias %%DIR%%/files/inner/; }").start();
    make(&server, "inner/x", Some("x"));
    assert_eq!(ask(&server, "COPY /alias/x", "Destination: /alias/y\r\n").status, 204);
    assert_eq!(read(&server, "inner/y").as_deref(), Some("x"));
}

/// Differs from nginx: one of another location is refused
#[test]
fn an_alias_takes_no_other_destinations() {
    let server = setup("location /alias { alias %%DIR%%/files/inner; }").start();
    make(&server, "inner/x", Some("x"));
    for method in ["COPY", "MOVE"] {
        assert_eq!(ask(&server, &format!("{method} /alias/x"), "Destination: /other/y\r\n").status, 400);
    }
    assert_eq!(read(&server, "inner/x").as_deref(), Some("x"));
}

#[test]
fn other_file_systems() {
    let server = setup("client_body_temp_path %%DIR%%/small;").tiny_disk("small").start();
    assert_eq!(put(&server, "/file", "", "text").status, 201);
    assert_eq!(read(&server, "file").as_deref(), Some("text"));
}

#[test]
fn moves_over_the_border_of_a_file_system() {
    let server = setup("").tiny_disk("files/disk").start();
    make(&server, "folder/sub/x", Some("text"));
    assert_eq!(ask(&server, "MOVE /folder/", "Destination: /disk/moved/\r\n").status, 201);
    assert!(!at(&server, "folder").exists());
    assert_eq!(server.get("/disk/moved/sub/x").text(), "text");
    // What is in the way there goes.
    make(&server, "other/new", Some("new"));
    assert_eq!(ask(&server, "MKCOL /disk/there/", "").status, 201);
    assert_eq!(put(&server, "/disk/there/old", "", "old").status, 201);
    assert_eq!(ask(&server, "MOVE /other/", "Destination: /disk/there/\r\n").status, 201);
    assert_eq!(server.get("/disk/there/new").text(), "new");
    assert_eq!([server.get("/disk/there/old").status, server.get("/other/new").status], [404, 404]);
    assert_eq!(ask(&server, "MOVE /disk/moved/sub/x", "Destination: /x\r\n").status, 204);
    assert_eq!(read(&server, "x").as_deref(), Some("text"));
    assert_eq!(server.get("/disk/moved/sub/x").status, 404);
}

/// Not in nginx: PROPFIND and OPTIONS are built in
#[test]
fn properties() {
    let server =
        setup("dav_ext_methods PROPFIND OPTIONS; location /off/ { dav_methods off; dav_ext_methods off; }").start();
    make(&server, "folder/a b", Some("text"));
    make(&server, "folder/sub/x", Some("x"));
    symlink("nowhere", at(&server, "folder/broken")).expect("a link can be made");
    let hrefs = |target: &str, depth: &str| {
        let response = ask(&server, &format!("PROPFIND {target}"), &format!("Depth: {depth}\r\n"));
        let mut found: Vec<_> = response
            .text()
            .split("<D:href>")
            .skip(1)
            .map(|rest| rest.split('<').next().unwrap_or_default().to_owned())
            .collect();
        found.sort();
        (response.status, found.join(" "))
    };
    for (target, depth, status, expect) in [
        ("/folder/", "1", 207, "/folder/ /folder/a%20b /folder/sub/"),
        ("/folder", "1", 207, "/folder/ /folder/a%20b /folder/sub/"),
        ("/folder/", "0", 207, "/folder/"),
        ("/folder/a%20b", "1", 207, "/folder/a%20b"),
        ("/folder/", "infinity", 403, ""),
        ("/folder/", "2", 403, ""),
        ("/nothing", "0", 404, ""),
        ("/off/", "0", 405, ""),
    ] {
        assert_eq!(hrefs(target, depth), (status, expect.into()), "{target} {depth}");
    }
    let file = ask(&server, "PROPFIND /folder/a%20b", "Depth: 0\r\nContent-Length: 0\r\n");
    assert_eq!(file.field("Content-Type"), Some("text/xml; charset=utf-8"));
    assert!(file.text().contains("<D:getcontentlength>4</D:getcontentlength>"), "{}", file.text());
    let etag = server.get("/folder/a%20b").field("ETag").unwrap_or_default().replace('"', "&quot;");
    assert!(file.text().contains(&format!("<D:getetag>{etag}</D:getetag>")), "{}", file.text());
    let options = ask(&server, "OPTIONS /", "");
    let allow = options.field("Allow").unwrap_or_default();
    assert_eq!((options.status, allow), (200, "GET, HEAD, OPTIONS, PROPFIND, PUT, DELETE, MKCOL, COPY, MOVE"));
    assert_eq!(options.field("DAV"), Some("1"));
}

/// A share as file managers use it: with a password, over one of its own folders.
fn share() -> Server {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; client_max_body_size 0;
            location /share/ { alias %%DIR%%/files/; auth_basic share; auth_basic_user_file passwords; autoindex on;
                dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS; create_full_put_path on; }
        }",
    )
    .public("files")
    .file("passwords", "user:$apr1$salt$Xxd1irWT9ycqoYxGFn4cb.\n")
    .start();
    assert_eq!(server.get("/share/").status, 401);
    assert_eq!(server.get_with("/share/", &basic("user", "password")).status, 200);
    server
}

/// Not in nginx: PROPFIND and OPTIONS are built in
#[test]
fn a_share_used_by_rclone() {
    let Some(rclone) = tool(&["rclone"]) else { return };
    let server = share();
    let local = Folder::new();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(&rclone);
        command.args(["--config", "/dev/null", "--retries", "1"]).args(args).env("HOME", local.path());
        let remote = [("TYPE", "webdav"), ("URL", &server.url("/share/")), ("USER", "user"), ("VENDOR", "other")];
        remote.iter().for_each(|(name, value)| {
            command.env(format!("RCLONE_CONFIG_TG_{name}"), value);
        });
        let hidden =
            std::process::Command::new(&rclone).args(["obscure", "password"]).output().expect("it is installed");
        command.env("RCLONE_CONFIG_TG_PASS", String::from_utf8_lossy(&hidden.stdout).trim());
        let out = command.output().expect("it is installed");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let (text, large) = ("100% of ä & <b>", "0123456789".repeat(200_000));
    local.write("tree/sub dir/ä & <b> 100%.txt", text);
    local.write("tree/large", &large);
    let tree = local.path().join("tree").display().to_string();
    run(&["copy", &tree, "tg:backup"]);
    assert_eq!(read(&server, "backup/sub dir/ä & <b> 100%.txt").as_deref(), Some(text));
    assert_eq!(read(&server, "backup/large").map(|read| read.len()), Some(large.len()));
    let listed = run(&["lsf", "-R", "tg:backup"]);
    let mut listed: Vec<_> = listed.lines().collect();
    listed.sort();
    assert_eq!(listed, ["large", "sub dir/", "sub dir/ä & <b> 100%.txt"]);
    run(&["check", "--download", &tree, "tg:backup"]);
    run(&["moveto", "tg:backup/large", "tg:backup/moved"]);
    run(&["moveto", "tg:backup/sub dir", "tg:other dir"]);
    assert!(read(&server, "backup/large").is_none() && read(&server, "backup/moved").is_some());
    assert_eq!(run(&["cat", "tg:other dir/ä & <b> 100%.txt"]), text);
    run(&["purge", "tg:backup"]);
    run(&["deletefile", "tg:other dir/ä & <b> 100%.txt"]);
    assert_eq!(run(&["lsf", "-R", "tg:"]), "other dir/\n");
}

/// Not in nginx: PROPFIND and OPTIONS are built in
#[test]
fn a_share_used_by_cadaver() {
    let Some(cadaver) = tool(&["cadaver"]) else { return };
    let server = share();
    let local = Folder::new();
    local.write(".netrc", "default login user password password\n");
    local.write("one.txt", "one");
    let script = format!(
        "lcd {}\nmkcol new\ncd new\nput one.txt\ncopy one.txt two.txt\nmove two.txt three.txt\nls\nget three.txt back.txt\n\
         delete one.txt\ncd ..\nquit\n",
        local.path().display()
    );
    local.write("script", script);
    let out = std::process::Command::new(cadaver)
        .arg(server.url("/share/"))
        .env("HOME", local.path())
        .stdin(fs::File::open(local.path().join("script")).expect("just written"))
        .output()
        .expect("it is installed");
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("three.txt") && !said.contains("failed"), "{said}");
    assert_eq!(fs::read_to_string(local.path().join("back.txt")).ok().as_deref(), Some("one"), "{said}");
    assert_eq!(
        (read(&server, "new/three.txt").as_deref(), read(&server, "new/one.txt")),
        (Some("one"), None),
        "{said}"
    );
}

/// Not in nginx: `sandbox on` shuts workers in
#[test]
fn in_a_sandbox() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%/files; dav_methods PUT DELETE MKCOL COPY MOVE;
            dav_ext_methods PROPFIND; auth_basic x; auth_basic_user_file passwords; }",
    )
    .main("sandbox on;")
    .public("files")
    .file("passwords", "user:$apr1$salt$Xxd1irWT9ycqoYxGFn4cb.\n")
    .start();
    let with = |more: &str| basic("user", "password") + more;
    assert_eq!(put(&server, "/a", &with(""), "text").status, 201);
    for (line, more, status) in [
        ("MKCOL /folder/", "", 201),
        ("COPY /a", "Destination: /folder/b\r\n", 204),
        ("MOVE /a", "Destination: /folder/c\r\n", 204),
        ("COPY /folder/", "Destination: /other/\r\n", 201),
        ("PROPFIND /other/", "Depth: 1\r\n", 207),
        ("DELETE /folder/", "", 204),
    ] {
        assert_eq!(ask(&server, line, &with(more)).status, status, "{line}");
    }
    assert_eq!(
        (read(&server, "other/b").as_deref(), read(&server, "other/c").as_deref()),
        (Some("text"), Some("text"))
    );
}
