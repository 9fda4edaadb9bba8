//! `secure_link`, `secure_link_md5`, `secure_link_secret`.

use e2e::{Server, Setup, run};

fn server() -> Server {
    Setup::http(
        "server { listen 127.0.0.1:%%PORT%%;
            location /md5 { secure_link $arg_h,$arg_e; secure_link_md5 '$secure_link_expires$uri secret';
                return 200 '[$secure_link|$secure_link_expires]'; }
            location /forever { secure_link $arg_h; secure_link_md5 '$uri secret'; return 200 '[$secure_link]'; }
            location /half { secure_link $arg_h; return 200 '[$secure_link]'; }
            location /none { return 200 '[$secure_link|$secure_link_expires]'; }
            location /p/ { secure_link_secret secret; return 200 '[$secure_link]'; }
            location /level/ { secure_link_secret secret;
                location /level/inner { secure_link $arg_h; secure_link_md5 '$uri secret'; return 200 '[$secure_link]';
                    location /level/inner/most { secure_link_secret secret; return 200 '[$secure_link]'; } } }
            location /to/ { secure_link_secret secret; if ($secure_link = '') { return 403; }
                rewrite ^ /secure/$secure_link; }
            location /secure/ { internal; return 200 'secure $uri'; }
        }",
    )
    .start()
}

#[test]
fn links_with_a_hash_among_their_arguments() {
    let server = server();
    for (target, expect) in [
        // Of `2147483647/md5 secret`.
        ("/md5?h=JXnVQGSM6wP_Yep7h964KA&e=2147483647", "[1|2147483647]"),
        ("/md5?h=JXnVQGSM6wP_Yep7h964KA==&e=2147483647", "[1|2147483647]"),
        ("/md5?h=JXnVQGSM6wP_Yep7h964KB&e=2147483647", "[1|2147483647]"),
        ("/md5?h=XXnVQGSM6wP_Yep7h964KA&e=2147483647", "[|2147483647]"),
        ("/md5?h=JXnVQGSM6wP_Yep7h964KA&e=2147483646", "[|2147483646]"),
        // Of `1/md5 secret`.
        ("/md5?h=lKDEXG8Kd8O5Q6HZ6QlaGw&e=1", "[0|1]"),
        ("/md5?h=lKDEXG8Kd8O5Q6HZ6QlaGw&e=", "[|]"),
        ("/md5", "[|]"),
        // Of `/forever secret`.
        ("/forever?h=2FWyZmKKaxf4HyFe1YzZKg", "[1]"),
        ("/forever?h=", "[]"),
        // Of `/level/inner secret`: the level around it has the other kind.
        ("/level/inner?h=qUNxSs3_yziZ6Vt0_mOF6A", "[1]"),
        ("/level/inner/most?h=qUNxSs3_yziZ6Vt0_mOF6A", "[]"),
        ("/half?h=2FWyZmKKaxf4HyFe1YzZKg", "[]"),
        ("/none", "[|]"),
    ] {
        assert_eq!(server.get(target).text(), expect, "{target}");
    }
}

#[test]
fn a_hash_that_a_shell_makes() {
    let script = "printf '%s' \"$0\" | openssl md5 -binary | openssl base64 | tr +/ -_ | tr -d =";
    let Some(hash) = run("sh", &["-c", script, "2147483647/md5 secret"]) else { return };
    assert_eq!(server().get(&format!("/md5?h={}&e=2147483647", hash.trim())).text(), "[1|2147483647]");
}

#[test]
fn links_with_a_hash_in_their_path() {
    let server = server();
    for (target, status, expect) in [
        ("/p/5e814704a28d9bc1914ff19fa0c4a00a/link", 200, "[link]"),
        ("/p/583f0840cc67bbd8ff3f2ed4d18ae048/link?a=b", 200, "[link?a=b]"),
        ("/p/79b7cc169ccf5d454442acc3ed05c8d1/l%20n", 200, "[l%20n]"),
        ("/p/5e814704a28d9bc1914ff19fa0c4a00a/other", 200, "[]"),
        ("/p/5e814704a28d9bc1914ff19fa0c4a00a", 200, "[]"),
        ("/to/5e814704a28d9bc1914ff19fa0c4a00a/link", 200, "secure /secure/link"),
        ("/to/5e814704a28d9bc1914ff19fa0c4a00b/link", 403, ""),
        ("/secure/link", 404, ""),
    ] {
        let response = server.get(target);
        assert_eq!(response.status, status, "{target}");
        assert!(status != 200 || response.text() == expect, "{target}: {}", response.text());
    }
}

#[test]
fn the_two_kinds_cannot_be_mixed() {
    for second in ["secure_link $arg_h;", "secure_link_md5 x;"] {
        let directives = format!("{second} secure_link_secret x;");
        let server = Setup::http(&format!("server {{ listen 127.0.0.1:%%PORT%%; {directives} }}")).prepare();
        let out = server.command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr);
        let expect = "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\" in ";
        assert!(!out.status.success() && said.contains(expect), "{said}");
    }
}
