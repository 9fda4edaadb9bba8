//! `random_index`.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

use e2e::Setup;

#[test]
fn any_file_of_the_folder() {
    let setup = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%/site;
            location / { random_index on; }
            location /none/ { random_index on; autoindex on; }
            location /plain/ { }
            location /php/ { random_index on; location ~ \\.php$ { return 200 \"$uri?$args\"; } }
        }",
    )
    .file("site/a", "a")
    .file("site/b", "b")
    .file("site/.hidden", "hidden")
    .file("site/none/folder/x", "x")
    .file("site/plain/index.html", "plain")
    .file("site/php/a.php", "x")
    .file("other", "link");
    let site = setup.folder().path().join("site");
    symlink("../other", site.join("link")).expect("a link can be made");
    symlink("none", site.join("folder-link")).expect("a link can be made");
    symlink("nowhere", site.join("broken")).expect("a link can be made");
    let server = setup.start();
    let found: BTreeSet<String> = (0..100).map(|_| server.get("/").text()).collect();
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "link"]);
    assert_eq!(server.get("/php/?x=y").text(), "/php/a.php?x=y", "the redirect may lead to another location");
    assert!(server.get("/none/").text().contains("folder/"), "without a file others respond");
    assert_eq!((server.get("/plain/").text(), server.get("/missing/").status), ("plain".into(), 404));
    assert_eq!(server.raw("DELETE / HTTP/1.0\r\n\r\n").status, 405);
    assert!(server.read("error.log").contains("opendir() \""));
}
