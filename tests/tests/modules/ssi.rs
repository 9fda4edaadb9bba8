//! Server-side includes: what commands give, in which order, and what becomes of the head.

use std::sync::Barrier;
use std::thread;

use e2e::{Backend, Server, Setup};

/// The message that stands where a command fails.
const ERROR: &str = "[an error occurred while processing the directive]";

/// A server whose pages are processed. `/in` tells its arguments.
const SERVER: &str = "listen 127.0.0.1:%%PORT%%; root %%DIR%%; default_type text/html; ssi on; set $conf own;
   location = /in { return 200 \"<$args>\"; }
   location = /empty { return 200 ''; }
   location = /created { return 201 made; }
   location = /denied { deny all; return 200 inner; }
   location = /set { set $conf child; return 200 ''; }
   location = /moved { error_page 404 = /in; return 404; }
   location = /closed { return 444; }";

fn start(files: &[(&str, &str)]) -> Server {
    let mut setup = Setup::http(&format!("server {{ {SERVER} }}"));
    for (name, text) in files {
        setup = setup.file(name, text);
    }
    setup.start()
}

/// What each page gives; `ERR` stands for the message of an error.
fn check(pages: &[(&str, &str)]) {
    let names: Vec<_> = (0..pages.len()).map(|n| format!("pages/{n}.html")).collect();
    let files: Vec<_> = names.iter().zip(pages).map(|(name, (page, _))| (&name[..], *page)).collect();
    let server = start(&[&files[..], &[("pages/part.html", "part <!--#echo var='uri' -->")]].concat());
    for (name, (page, expect)) in names.iter().zip(pages) {
        let response = server.get(&format!("/{name}?v=1&w=1&e=&t=%3Ca"));
        let text = response.text().replace(ERROR, "ERR");
        assert_eq!((response.status, text.as_str()), (200, *expect), "{page}");
    }
}

#[test]
fn variables() {
    check(&[
        ("a<!--#echo var=\"arg_v\" -->b", "a1b"),
        (
            "<!--#echo var='nosuch' -->|<!--#echo var='nosuch' default='d' -->|<!--#echo var='arg_e' default='d'-->",
            "(none)|d|",
        ),
        ("[<!--#echo var='arg_e' -->]", "[]"),
        ("<!--#set var='X' value='$arg_v-${arg_w}-$nosuch\\$x' --><!--#echo var='x' -->", "1-1-$x"),
        ("<!--#set var='args' value='own' --><!--#echo var='args' -->", "own"),
        ("<!--#set var='x' value='$' -->|<!--#set var='x' value='${arg_v' -->|<!--#echo var='x' -->", "ERR|ERR|(none)"),
        ("<!--#echo var='conf' --><!--#include virtual='/set' wait='yes' --><!--#echo var='conf' -->", "ownchild"),
        ("<!--#set var='x' value='<&\"%' --><!--#echo var='x' -->", "&lt;&amp;&quot;%"),
        ("<!--#set var='x' value='<&\"% ' --><!--#echo var='x' encoding='url' -->", "%3C&%22%25%20"),
        ("<!--#set var='x' value='<&' --><!--#echo var='x' encoding='none' --><!--#echo var='x' -->", "<&<&"),
        ("<!--#set var='x' value='<' --><!--#echo var='x' encoding='odd' -->", "&lt;"),
        ("<!--#echo --><!--#echo var='x' y='z' --><!--#foo -->", "ERRERRERR"),
        ("<!--#config errmsg='E<' --><!--#foo -->", "E<"),
        ("<!--#config timefmt='%Y.%q' --><!--#if expr='$date_gmt = /^20..\\.%q\\$/' -->yes<!--#endif -->", "yes"),
    ]);
}

#[test]
fn conditions() {
    check(&[
        ("<!--#if expr='$arg_v' -->a<!--#else -->b<!--#endif -->c", "ac"),
        (
            "<!--#if expr='$arg_e' -->a<!--#elif expr='$arg_w' -->b<!--#elif expr='1' -->c<!--#else -->d<!--#endif -->",
            "b",
        ),
        ("<!--#if expr='$arg_e' -->a<!--#elif expr='$nosuch' -->b<!--#else -->d<!--#endif -->", "d"),
        ("<!--#if expr='$arg_v = $arg_w' -->a<!--#endif --><!--#if expr='$arg_v != 1' -->b<!--#endif -->", "a"),
        ("<!--#if expr='$uri = /(p)a(?<rest>g)/' --><!--#echo var='1' --><!--#echo var='rest' --><!--#endif -->", "pg"),
        ("<!--#if expr='$uri != /PAGES/' -->a<!--#endif -->", "a"),
        ("<!--#if expr='a = /(/' -->x<!--#else -->y<!--#endif -->z", "ERRxERRyERRz"),
        ("<!--#if -->x<!--#endif -->z", "ERRxERRz"),
        ("<!--#endif -->a<!--#else -->b<!--#elif expr='1' -->c<!--#endblock -->d", "ERRaERRbERRcd"),
        ("<!--#if expr='1' -->a<!--#else -->b<!--#else -->c<!--#endif -->d", "aERRd"),
        ("<!--#if expr='$arg_e' --><!--#foo --><!--#echo --><!--#include virtual='/in' --><!--#endif -->d", "d"),
    ]);
}

/// Differs from nginx: conditions of server-side includes may be nested
#[test]
fn conditions_in_one_another() {
    check(&[
        ("<!--#if expr='1' -->a<!--#if expr='1' -->b<!--#else -->c<!--#endif -->d<!--#endif -->e", "abde"),
        (
            "<!--#if expr='$arg_e' -->a<!--#if expr='1' -->b<!--#else -->c<!--#endif --><!--#else -->d<!--#endif -->e",
            "de",
        ),
        ("<!--#if expr='1' -->a<!--#if -->b<!--#endif -->c<!--#else -->d<!--#endif -->e", "aERRbERRce"),
    ]);
    // What is hidden stays so, however deep the conditions in it are.
    let (begin, end) = ("<!--#if expr='1' -->".repeat(100), "<!--#endif -->".repeat(100));
    check(&[(&format!("<!--#if expr='$arg_e' -->{begin}x{end}secret<!--#endif -->e"), "e")]);
}

#[test]
fn a_large_value_is_shown_often() {
    let value = "v".repeat(200);
    let page = format!("<!--#set var='a' value='{value}' -->{}", "<!--#echo var='a' encoding='none' -->".repeat(1000));
    check(&[(&page, &value.repeat(1000))]);
}

#[test]
fn includes() {
    check(&[
        ("a<!--#include virtual='/in?x=$arg_v' -->b", "a<x=1>b"),
        (
            "<!--#include virtual='part.html' -->, <!--#include file='part.html' -->",
            "part /pages/part.html, part /pages/part.html",
        ),
        ("<!--#include virtual='/%69n?%69' -->", "<%69>"),
        (
            "<!--#include virtual='../in' -->|<!--#include virtual='/a/../in' -->|<!--#include virtual='/a%00' -->",
            "ERR|ERR|ERR",
        ),
        ("<!--#include --><!--#include virtual='/in' file='x' --><!--#include virtual='/in' wait='x' -->", "ERRERRERR"),
        ("<!--#include virtual='/denied' -->", "inner"),
        ("[<!--#include virtual='/in?1' set='x' -->|<!--#echo var='x' encoding='none' -->]", "[|<1>]"),
        ("<!--#include virtual='/created' set='x' --><!--#echo var='x' -->", "made"),
        ("<!--#include virtual='/nope' set='x' -->[<!--#echo var='x' -->]", "[]"),
        ("<!--#block name='b' -->B<!--#endblock --><!--#include virtual='/in' set='x' stub='b' -->", "ERR"),
        ("<!--#include virtual='/in' stub='b' --><!--#block name='b' -->B<!--#endblock -->", "ERR"),
        (
            "<!--#block name='b' -->B<!--#echo var='arg_z' --><!--#endblock --><!--#include virtual='/nope?z=1' stub='b' -->",
            "B1",
        ),
        (
            "<!--#block name='b' -->B<!--#endblock --><!--#block name='b' -->C<!--#endblock --><!--#include virtual='/closed' stub='b' -->",
            "B",
        ),
        (
            "<!--#block name='b' -->B<!--#endblock --><!--#include virtual='/moved' stub='b' -->|<!--#include virtual='/in' stub='b' -->",
            "B|<>",
        ),
        (
            "<!--#block name='b' --><!--#if expr='1' -->x<!--#endif --><!--#include virtual='/in?y' --><!--#endblock -->[<!--#include virtual='/nope' stub='b' -->]",
            "[x<y>]",
        ),
    ]);
}

/// Differs from nginx: the commands of a stub are run for an empty response too
#[test]
fn stubs_of_empty_responses() {
    check(&[(
        "<!--#block name='b' -->B<!--#echo var='uri' --><!--#endblock --><!--#include virtual='/empty' stub='b' -->",
        "B/empty",
    )]);
}

/// Differs from nginx: the end of a page that could begin a command isn't lost
#[test]
fn pages_that_end_early() {
    check(&[("a<", "a<"), ("a<!--", "a<!--"), ("a<!--#echo var='x' --", "a"), ("a<!--#if expr='1' -->b", "ab")]);
}

#[test]
fn what_pages_share() {
    let server = start(&[
        (
            "page.html",
            "<!--#set var='x' value='page' --><!--#if expr='abc = /(b)/' --><!--#endif --><!--#config timefmt='own' errmsg='page' -->\
          <!--#block name='b' -->block<!--#endblock --><!--#include virtual='/inner.html' wait='yes' -->\
          [<!--#echo var='x' --> <!--#echo var='date_gmt' --> <!--#foo -->]",
        ),
        (
            "inner.html",
            "[<!--#echo var='x' --><!--#echo var='1' --> <!--#include virtual='/nope' stub='b' -->\
          <!--#set var='x' value='inner' --><!--#config errmsg='inner' --><!--#foo -->]",
        ),
    ]);
    assert_eq!(server.get("/page.html").text(), "[pageb blockinner][inner own page]");
}

#[test]
fn includes_run_side_by_side() {
    // Each answer waits until all requests are there: one after the other, they would wait for ever.
    let all = Barrier::new(3);
    let backend = Backend::start(move |request| {
        all.wait();
        Backend::ok(request.line())
    });
    let server = Setup::http(&format!(
        "server {{ {SERVER} location /b/ {{ proxy_pass http://127.0.0.1:{}; }} }}",
        backend.port
    ))
    // They are far apart, and one of them is in an include.
    .file(
        "page.html",
        format!(
            "<!--#include virtual='/b/1' -->{}<!--#include virtual='/inner.html' --><!--#include virtual='/b/2' -->",
            "-".repeat(50_000)
        ),
    )
    .file("inner.html", "(<!--#include virtual='/b/3' -->)")
    .start();
    let line = |n: u8| format!("GET /b/{n} HTTP/1.1");
    assert_eq!(server.get("/page.html").text(), format!("{}{}({}){}", line(1), "-".repeat(50_000), line(3), line(2)));
}

#[test]
fn a_page_waits_if_it_says_so() {
    let backend = Backend::start(|request| Backend::ok(request.line()));
    let server =
        Setup::http(&format!("server {{ {SERVER} location /b/ {{ proxy_pass http://127.0.0.1:{}; }} }}", backend.port))
            .file(
                "page.html",
                "<!--#include virtual='/b/1' wait='yes' -->,<!--#include virtual='/b/2' set='x' -->\
         <!--#if expr='$x = /2/' -->,<!--#include virtual='/b/3?$x' --><!--#endif -->",
            )
            .start();
    assert_eq!(server.get("/page.html").text(), "GET /b/1 HTTP/1.1,,GET /b/3?GET /b/2 HTTP/1.1 HTTP/1.1");
    let lines: Vec<_> = backend.requests().iter().map(|request| request.line().to_owned()).collect();
    assert_eq!(lines[..2], ["GET /b/1 HTTP/1.1", "GET /b/2 HTTP/1.1"]);
}

#[test]
fn pages_come_in_pieces() {
    // Each piece is a write of its own.
    let page = "a<!--#set var='x' value='v' -->b<!--#echo var='x' -->c<!--#include virtual='/in?i' -->d<!-";
    let backend = Backend::sockets(move |mut stream, _| {
        use std::io::{Read, Write};
        let mut head = [0; 4096];
        if stream.read(&mut head).is_err() {
            return;
        }
        let _ = stream.set_nodelay(true);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n");
        for piece in page.as_bytes().chunks(3) {
            let _ = stream.write_all(piece);
            thread::yield_now();
        }
        let _ = stream.write_all(b"- -->e");
    });
    for buffering in ["on", "off"] {
        let server = Setup::http(&format!(
            "server {{ {SERVER} location /b {{ proxy_buffering {buffering}; proxy_pass http://127.0.0.1:{}; }} }}",
            backend.port
        ))
        .start();
        assert_eq!(server.get("/b").text(), "abvc<i>d<!-- -->e");
    }
}

#[test]
fn heads() {
    let server = Setup::http(
        "server { listen 127.0.0.1:%%PORT%%; root %%DIR%%; default_type text/html; types { text/plain txt; text/html html; }
           location / { ssi on; }
           location /kept/ { ssi on; ssi_last_modified on; alias %%DIR%%/; }
           location /plain/ { ssi on; ssi_types text/plain; alias %%DIR%%/; }
           location /all/ { ssi on; ssi_types *; alias %%DIR%%/; }
           location /silent/ { ssi on; ssi_silent_errors on; alias %%DIR%%/; }
           location /short/ { ssi on; ssi_value_length 3; alias %%DIR%%/; }
           location /if/ { if ($arg_on) { ssi on; } alias %%DIR%%/; } }",
    )
    .file("page.html", "<!--#foo -->a<!--#echo var='args' --><!--#echo var='arg' -->")
    .file("page.txt", "a<!--#echo var='args' -->")
    .start();
    let response = server.get_with("/page.html?q", "Range: bytes=0-1\r\n");
    assert_eq!((response.status, response.text().as_str()), (200, &format!("{ERROR}aq(none)")[..]));
    for field in ["Content-Length", "Last-Modified", "ETag", "Accept-Ranges"] {
        assert_eq!(response.field(field), None, "{}", response.head);
    }
    let kept = server.get("/kept/page.html");
    assert!(kept.field("Last-Modified").is_some(), "{}", kept.head);
    assert!(kept.field("ETag").is_some_and(|tag| tag.starts_with("W/")), "{}", kept.head);
    for (target, expect) in [
        ("/page.txt?q", "a<!--#echo var='args' -->"),
        ("/plain/page.txt?q", "aq"),
        ("/all/page.txt?q", "aq"),
        ("/silent/page.html?q", "aq(none)"),
        ("/short/page.html?q", &format!("{ERROR}a{ERROR}(none)")),
        ("/if/page.txt?on", "a<!--#echo var='args' -->"),
    ] {
        assert_eq!(server.get(target).text(), expect, "{target}");
    }
}

#[test]
fn includes_that_fail() {
    let backend = Backend::start(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\nConnection: close\r\n\r\ncut".to_vec());
    let mut server = Setup::http(&format!(
        "server {{ {SERVER}
           location = /cut {{ proxy_pass http://127.0.0.1:{0}; }}
           location = /short {{ subrequest_output_buffer_size 2; return 200 long; }} }}",
        backend.port
    ))
    .file("cut.html", "a<!--#include virtual='/cut' -->b")
    .file("again.html", "x<!--#include virtual='/again.html' -->")
    .file("long.html", "<!--#include virtual='/short' set='x' -->b")
    .file("closed.html", "<!--#include virtual='/closed' -->b")
    .start();
    assert_eq!(server.get("/cut.html").text(), "acutb", "the page goes on");
    assert_eq!(server.get("/again.html").text(), format!("{}{ERROR}", "x".repeat(52)), "51 in one another");
    for target in ["/long.html", "/closed.html"] {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.rest(), b"", "{target}: no response at all");
    }
    server.read_until("error.log", "too big subrequest response: 4");
}

/// Differs from nginx: what pages set and keep is bounded
#[test]
fn what_pages_keep_is_bounded() {
    // Doubled 30 times, a value would take 10 GB.
    let doubled = "<!--#set var='x' value='$x$x' -->".repeat(30);
    let mut server = start(&[("page.html", &format!("<!--#set var='x' value='0123456789' -->{doubled}end"))]);
    let text = server.get("/page.html").text();
    assert_eq!(text, format!("{}end", ERROR.repeat(14)), "16 times it is less than 1 MiB");
    server.read_until("error.log", "SSI variables take too much memory");
}

/// 8,000 parts, of which there may be fewer at a time than the pages could begin: nobody waits for ever.
#[test]
fn many_parts_in_one_another() {
    let page = |part: &str| format!("({})", format!("<!--#include virtual='/{part}' -->").repeat(20));
    let server = start(&[("a", &page("b")), ("b", &page("c")), ("c", &page("d")), ("d", "d")]);
    let whole = |part: &str| format!("({})", part.repeat(20));
    assert!(server.get("/a").text() == whole(&whole(&whole("d"))), "every part in its place");
}

/// Differs from nginx: 64,535 of a request in all
#[test]
fn a_page_that_includes_itself_comes_to_an_end() {
    let mut server = start(&[("page", &format!("x{}", "<!--#include virtual='/page' -->".repeat(128)))]);
    let response = server.get("/page");
    let pages = response.body.iter().filter(|byte| **byte == b'x').count();
    // What is nested too deeply counts among all.
    assert!(response.status == 200 && (500..64_535).contains(&pages), "{pages}");
    let log = server.read_until("error.log", "a request has more than 64535 includes");
    for line in ["subrequests cycle", "more than"] {
        assert_eq!(log.matches(line).count(), 1, "it is told once: {line}");
    }
}

/// Differs from nginx: the subrequest is answered with 502
#[test]
fn an_include_cannot_switch_protocols() {
    let backend =
        Backend::start(|_| b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_vec());
    let mut server = Setup::http(&format!(
        "server {{ {SERVER} location = /up {{ proxy_set_header Upgrade $http_upgrade;
           proxy_set_header Connection upgrade; proxy_pass http://127.0.0.1:{}; }} }}",
        backend.port
    ))
    .file("page.html", "a<!--#include virtual='/up' -->b")
    .start();
    let response = server.get_with("/page.html", "Upgrade: x\r\nConnection: upgrade\r\n");
    let text = response.text();
    assert_eq!((response.status, text.starts_with("a<html>"), text.ends_with("b")), (200, true, true), "{text}");
    assert!(text.contains("502 Bad Gateway"), "{text}");
    server.read_until("error.log", "connection upgrade in subrequest");
}
