//! `valid_referers`, and browsers.

use e2e::{Connection, Setup};

#[test]
fn valid_and_invalid() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; server_name site.test ~^re\\.;
            location /none { valid_referers none a.test; return 200 [$invalid_referer]; }
            location /blocked { valid_referers blocked a.test; return 200 [$invalid_referer]; }
            location /names { valid_referers a.test *.b.test c.* d.test/Path; return 200 [$invalid_referer]; }
            location /regex { valid_referers ~\\.google\\. ~/galleries/; return 200 [$invalid_referer]; }
            location /server { valid_referers server_names; return 200 [$invalid_referer]; }
            location /free { return 200 [$invalid_referer]; }
            location /outer/ { valid_referers a.test; location /outer/own { valid_referers c.*; return 200 [$invalid_referer]; }
                location /outer/same { return 200 [$invalid_referer]; } }
            location /if { valid_referers a.test; if ($invalid_referer) { return 403; } return 200 []; }
         }",
    )
    .start();
    let none = "";
    for (target, referer, valid) in [
        ("/none", none, true),
        ("/none", "Referer: \r\n", false),
        ("/none", "Referer: http://a.test/x\r\n", true),
        ("/blocked", none, false),
        ("/blocked", "Referer: \r\n", true),
        ("/blocked", "Referer: a.test\r\n", true),
        ("/blocked", "Referer: http://su\r\n", true),
        ("/blocked", "Referer: http://other.test\r\n", false),
        ("/names", "Referer: HTTPS://A.test:8443/x\r\n", true),
        ("/names", "Referer: http://x.b.test\r\n", true),
        ("/names", "Referer: http://b.test/page\r\n", false),
        ("/names", "Referer: http://c.example\r\n", true),
        ("/names", "Referer: http://d.test:80/Path/x\r\n", true),
        ("/names", "Referer: http://d.test/path\r\n", false),
        ("/regex", "Referer: http://www.Google.com\r\n", true),
        ("/regex", "Referer: http://x.test/Galleries/1\r\n", true),
        ("/regex", "Referer: http://x.test/other\r\n", false),
        ("/server", "Referer: http://Site.test/\r\n", true),
        ("/server", "Referer: http://re.test/\r\n", true),
        ("/server", "Referer: http://other.test/re.\r\n", false),
        ("/free", "Referer: http://other.test/\r\n", true),
        ("/outer/own", "Referer: http://a.test/x\r\n", false),
        ("/outer/own", "Referer: http://c.test/x\r\n", true),
        ("/outer/same", "Referer: http://a.test/x\r\n", true),
    ] {
        let expect = if valid { "[]" } else { "[1]" };
        assert_eq!(server.get_with(target, referer).text(), expect, "{target} {referer}");
    }
    assert_eq!(server.get_with("/if", "Referer: http://b.test/\r\n").status, 403);
    let long = format!("Referer: http://c.{}\r\n", "a".repeat(255));
    assert_eq!(server.get_with("/names", &long).text(), "[1]", "no host has such a name");
}

#[test]
fn browsers() {
    let server = Setup::http(
        "ancient_browser_value old;
         server { listen 127.0.0.1:%%PORT%%; modern_browser msie 5.5; modern_browser gecko 1.0.2; modern_browser unlisted;
            ancient_browser Lynx netscape4; modern_browser_value new;
            location / { return 200 $modern_browser|$ancient_browser|$msie; }
            location /any { modern_browser_value 1; modern_browser unlisted; return 200 $modern_browser|$ancient_browser|$msie; } }
         server { listen 127.0.0.1:%%PORT_PLAIN%%; location / { return 200 $modern_browser|$ancient_browser|$msie; } }",
    )
    .start();
    let agent = |agent: &str| format!("User-Agent: {agent}\r\n");
    for (target, fields, expect) in [
        ("/", agent("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)"), "new||1"),
        ("/", agent("Mozilla/4.0 (compatible; MSIE 5.0; Windows NT 5.1)"), "|old|1"),
        ("/any", agent("Mozilla/4.0 (compatible; MSIE 5.0; Windows NT 5.1)"), "|old|1"),
        ("/any", agent("Mozilla/5.0 (X11; U; rv:0.9) Gecko/2003"), "1||"),
        ("/", agent("Mozilla/5.0 (X11; U; rv:0.9) Gecko/2003"), "|old|"),
        ("/", agent("Lynx/2.8"), "|old|"),
        ("/", agent("curl/7.0"), "new||"),
        ("/", String::new(), "new||"),
    ] {
        assert_eq!(server.get_with(target, &fields).text(), expect, "{target} {fields}");
    }
    let plain = Connection::open(server.port_of("PORT_PLAIN")).get("/", &agent("curl/7.0"));
    assert_eq!(plain.text(), "|old|");
}
