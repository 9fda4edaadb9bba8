//! Every input is parsed whole and split at every byte, with the same outcome.

use super::*;
use crate::uri;

/// One line of outcome: what nginx's variables would be, or status and log text.
fn show(input: &[u8], limits: &Limits) -> String {
    let whole = outcome(input, &[input.len()], limits);
    for cut in 0..input.len() {
        assert_eq!(outcome(input, &[cut, input.len()], limits), whole, "cut at {cut} of {:?}", input.escape_ascii());
    }
    let bytewise: Vec<usize> = (0..=input.len()).collect();
    assert_eq!(outcome(input, &bytewise, limits), whole, "bytewise {:?}", input.escape_ascii());
    whole
}

fn outcome(input: &[u8], cuts: &[usize], limits: &Limits) -> String {
    let (mut parser, mut head) = (RequestParser::default(), RequestHead::default());
    for &cut in cuts {
        match parser.parse(&input[..cut], limits, &mut head) {
            Ok(Parsed::Incomplete) => {}
            Ok(Parsed::Complete(used)) => return complete(input, &head, used),
            Err(e) => return refused(e, input),
        }
    }
    "incomplete".into()
}

fn refused(e: RequestError, input: &[u8]) -> String {
    e.text(input).to_string()
}

fn complete(input: &[u8], head: &RequestHead, used: usize) -> String {
    let text = |s: Span| String::from_utf8_lossy(s.of(input)).into_owned();
    let framing = match head.framing(input).and_then(|framing| head.check_method(false, framing).map(|()| framing)) {
        Err(e) if head.version != 9 => return refused(e, input),
        Err(_) => BodyFraming::None,
        Ok(framing) => framing,
    };
    let mut path = text(head.uri_path);
    if head.complex_uri || head.empty_path_in_uri {
        let mut out = Vec::new();
        if uri::normalize(head.uri_path.of(input), true, &mut out).is_err() {
            return "invalid path".into();
        }
        path = String::from_utf8_lossy(&out).into_owned();
    } else {
        assert!(uri::is_simple(head.uri_path.of(input)), "{path}");
    }
    let mut shown = format!("{} {path}", text(head.method));
    if let Some(args) = head.args {
        shown += &format!("?{}", text(args));
    }
    shown += &format!(" {} u={} h={}", head.version, text(head.target), head.host().map_or("-".into(), text));
    if let Some(port) = head.port() {
        shown += &format!(":{port}");
    }
    if framing != BodyFraming::None {
        shown += &format!(" {framing:?}");
    }
    if used != input.len() {
        shown += &format!(" +{}", input.len() - used);
    }
    shown
}

#[test]
fn request_lines_as_nginx_answers() {
    const INVALID: &str = "client sent invalid request";
    const METHOD: &str = "client sent invalid method";
    const HOST: &str = "client sent invalid host in request line";
    for (line, expect) in [
        ("GET /", "GET / 9 u=/ h=- +11"),
        ("POST /", "client sent invalid method in HTTP/0.9 request"),
        ("GET  / HTTP/1.1", "GET / 1001 u=/ h=a"),
        ("GET / HTTP/1.1 ", "GET / 1001 u=/ h=a"),
        ("GET /  HTTP/1.1", "GET / 1001 u=/ h=a"),
        ("GET / HTTP/1.1  x", INVALID),
        (" GET / HTTP/1.1", METHOD),
        ("\r\nGET / HTTP/1.1", "GET / 1001 u=/ h=a"),
        ("\n\n\r\nGET / HTTP/1.1", "GET / 1001 u=/ h=a"),
        ("get / HTTP/1.1", METHOD),
        ("G-T / HTTP/1.1", "G-T / 1001 u=/ h=a"),
        ("G_T / HTTP/1.1", "G_T / 1001 u=/ h=a"),
        ("G1 / HTTP/1.1", METHOD),
        ("GET\t/ HTTP/1.1", METHOD),
        ("GET\r", METHOD),
        ("GET", METHOD),
        ("", METHOD),
        ("GET HTTP/1.1", INVALID),
        ("GET / HTTP/2.0", "client sent invalid version"),
        ("GET / HTTP/11.1", "client sent invalid version"),
        ("GET / HTTP/1.2", "GET / 1002 u=/ h=a"),
        ("GET / HTTP/1.10", "GET / 1010 u=/ h=a"),
        ("GET / HTTP/1.999", "GET / 1999 u=/ h=a"),
        ("GET / HTTP/1.1000", INVALID),
        ("GET / HTTP/01.1", INVALID),
        ("GET / HTTP/0.9", INVALID),
        ("GET / HTTP/1.0", "GET / 1000 u=/ h=a"),
        ("GET / HTTP/1", INVALID),
        ("GET / HTTP/1.", INVALID),
        ("GET / HTTP/.1", INVALID),
        ("GET / http/1.1", INVALID),
        ("GET / X", INVALID),
        ("GET / HTTP/1.1\r", INVALID),
        ("GET x HTTP/1.1", INVALID),
        ("OPTIONS * HTTP/1.1", INVALID),
        ("GET ?a HTTP/1.1", INVALID),
        ("GET http:/a/ HTTP/1.1", INVALID),
        ("GET http://a HTTP/1.1", "GET / 1001 u= h=a"),
        ("GET http://A:80/B HTTP/1.1", "GET /B 1001 u=/B h=A:80"),
        ("GET h1+.-ttp://a/ HTTP/1.1", "GET / 1001 u=/ h=a"),
        ("GET 1h://a/ HTTP/1.1", INVALID),
        ("GET http://a", INVALID),
        ("GET http://a:", INVALID),
        ("GET http://a/ ", "GET / 9 u=/ h=a +11"),
        ("GET http://a:8a/ HTTP/1.1", INVALID),
        ("GET http://:80/ HTTP/1.1", HOST),
        ("GET http:/// HTTP/1.1", HOST),
        ("GET http://a#f HTTP/1.1", INVALID),
        ("GET http://b?x HTTP/1.1", "GET /?x 1001 u=?x h=b"),
        ("GET http://b:80?x#f HTTP/1.1", "GET /?x 1001 u=?x#f h=b:80"),
        ("GET http://a b/ HTTP/1.1", INVALID),
        ("GET http://u@a/ HTTP/1.1", INVALID),
        ("GET http://[::1]:80/ HTTP/1.1", "GET / 1001 u=/ h=[::1]:80"),
        ("GET http://b.:/ HTTP/1.1", "GET / 1001 u=/ h=b"),
        ("GET http://a/x/../b?c HTTP/1.1", "GET /b?c 1001 u=/x/../b?c h=a"),
        ("GET http://a/../b HTTP/1.1", "invalid path"),
        ("CONNECT a:80 HTTP/1.1", "client sent CONNECT method"),
        ("CONNECT a HTTP/1.1", INVALID),
        ("CONNECT a: HTTP/1.1", INVALID),
        ("CONNECT a:80/ HTTP/1.1", INVALID),
        ("CONNECT / HTTP/1.1", INVALID),
        ("TRACE / HTTP/1.1", "client sent TRACE method"),
        ("GET /\0 HTTP/1.1", INVALID),
        ("GET /\x7f HTTP/1.1", INVALID),
        ("GET /\u{e9} HTTP/1.1", "GET /\u{e9} 1001 u=/\u{e9} h=a"),
        ("GET /a\tb HTTP/1.1", INVALID),
        ("GET /a\rb HTTP/1.1", INVALID),
        ("GET / / HTTP/1.1", INVALID),
        ("GET /a%3fb?c%3fd#e HTTP/1.1", "GET /a?b?c%3fd 1001 u=/a%3fb?c%3fd#e h=a"),
        ("GET /a%23b#c?d HTTP/1.1", "GET /a#b 1001 u=/a%23b#c?d h=a"),
        ("GET /a+b%2bc HTTP/1.1", "GET /a+b+c 1001 u=/a+b%2bc h=a"),
        ("GET /?%zz HTTP/1.1", "GET /?%zz 1001 u=/?%zz h=a"),
        ("GET /? HTTP/1.1", "GET /? 1001 u=/? h=a"),
        ("GET /a?b\x01 HTTP/1.1", INVALID),
        ("GET /%00 HTTP/1.1", "invalid path"),
    ] {
        let input = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(show(input.as_bytes(), &Limits::default()), expect, "{line:?}");
    }
}

#[test]
fn heads_as_nginx_answers() {
    const GET: &str = "GET / HTTP/1.1\r\n";
    let duplicate = |a: &str, b: &str| format!("client sent duplicate {b}, previous value: \"{a}\"");
    for (rest, expect) in [
        ("\r\n", "client sent HTTP/1.1 request without \"Host\" header".into()),
        ("Host:\r\n\r\n", "client sent invalid host header".into()),
        ("Host: b\r\nHOST:\r\n\r\n", duplicate("Host: b", "host header: \"HOST: \"")),
        ("Host: b:81\r\n\r\n", "GET / 1001 u=/ h=b:81".into()),
        ("Host: b\n\n", "GET / 1001 u=/ h=b".into()),
        ("Host: b\n\r\n", "GET / 1001 u=/ h=b".into()),
        ("Host: b\r\n\rX", "client sent invalid header line: \"\\x0d...\"".into()),
        ("Host: b\r\nA : b\r\n\r\n", "client sent invalid header line: \"A\\x20...\"".into()),
        ("Host: b\r\nContent-Length: 5\r\n\r\n", "GET / 1001 u=/ h=b Length(5)".into()),
        (
            "Host: b\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            duplicate("Content-Length: 1", "header line: \"Content-Length: 1\""),
        ),
        ("Host: b\r\nContent-Length: 1, 1\r\n\r\n", "client sent invalid \"Content-Length\" header".into()),
        ("Host: b\r\nContent-Length: +1\r\n\r\n", "client sent invalid \"Content-Length\" header".into()),
        ("Host: b\r\nContent-Length:\r\n\r\n", "client sent invalid \"Content-Length\" header".into()),
        (
            "Host: b\r\nContent-Length: 9223372036854775808\r\n\r\n",
            "client sent invalid \"Content-Length\" header".into(),
        ),
        (
            "Host: b\r\nContent-Length: 9223372036854775807\r\n\r\n",
            "GET / 1001 u=/ h=b Length(9223372036854775807)".into(),
        ),
        ("Host: b\r\nTransfer-Encoding: Chunked\r\n\r\n", "GET / 1001 u=/ h=b Chunked".into()),
        (
            "Host: b\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "client sent unknown \"Transfer-Encoding\": \"gzip, chunked\"".into(),
        ),
        (
            "Host: b\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time".into(),
        ),
    ] {
        assert_eq!(show(format!("{GET}{rest}").as_bytes(), &Limits::default()), expect, "{rest:?}");
    }
    let old = b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(show(old, &Limits::default()), "client sent HTTP/1.0 request with \"Transfer-Encoding\" header");
}

#[test]
fn limits_as_nginx_counts_them() {
    let limits = Limits { header_buffer: 256, line: 512, buffers: 4, ..Limits::default() };
    let line = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(n));
    let field = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX-Foo: {}\r\n\r\n", "a".repeat(n));
    assert!(show(line(496).as_bytes(), &limits).starts_with("GET"));
    assert_eq!(show(line(497).as_bytes(), &limits), "client sent too long URI");
    assert!(show(field(503).as_bytes(), &limits).starts_with("GET"));
    assert!(show(field(504).as_bytes(), &limits).starts_with("client sent too long header line: \"X-Foo: aaa"));
    let many = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Foo: b\r\n".repeat(n));
    let five = Limits { max_headers: 5, ..limits };
    assert!(show(many(4).as_bytes(), &five).starts_with("GET"));
    assert_eq!(show(many(5).as_bytes(), &five), "client sent too many header lines");
    assert!(show(many(220).as_bytes(), &limits).starts_with("GET"));
    assert_eq!(show(many(240).as_bytes(), &limits), "client sent too long header line: \"X-...\"");
}

#[test]
fn invalid_names_are_skipped_or_kept() {
    let input = b"GET / HTTP/1.0\r\nx_foo: a\r\nx.bar: b\r\nok: c\r\n\r\n";
    for (ignore_invalid, underscores, kept, ignored) in
        [(true, false, 1, 2), (true, true, 2, 1), (false, false, 3, 0), (false, true, 3, 0)]
    {
        let limits = Limits { ignore_invalid, underscores, ..Limits::default() };
        let (mut parser, mut head) = (RequestParser::default(), RequestHead::default());
        parser.parse(input, &limits, &mut head).unwrap();
        assert_eq!((head.headers.len(), head.ignored.len()), (kept, ignored));
    }
}

#[test]
fn connection_and_expectation() {
    for (version, value, keep) in [
        ("1.1", "X: y", true),
        ("1.0", "X: y", false),
        ("1.1", "Connection: foo, Close", false),
        ("1.0", "Connection: Keep-Alive", true),
        ("1.1", "Connection: upgrade", true),
    ] {
        let input = format!("GET / HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\n{value}\r\n\r\n");
        let (mut parser, mut head) = (RequestParser::default(), RequestHead::default());
        parser.parse(input.as_bytes(), &Limits::default(), &mut head).unwrap();
        assert_eq!(head.keep_alive(input.as_bytes()), keep, "{version} {value}");
        assert_eq!(head.expects_continue(input.as_bytes()), version == "1.1");
        head.clear();
        assert!(head.headers.is_empty() && !head.has(KnownHeader::Host));
    }
}

/// What httparse takes and nginx isn't stricter about comes out the same.
#[test]
fn agrees_with_httparse() {
    for input in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /a/b.c?d=e&f HTTP/1.0\r\nhost: b.c:80\r\ncontent-length: 3\r\nx: \r\n\r\nabc",
        "GET /wp-content/uploads/a.jpg HTTP/1.1\r\nHost: www.kittyhell.com\r\nUser-Agent: Mozilla/5.0 (Macintosh; U)\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: ja,en-us;q=0.7\r\n\
         Cookie: wp_ozh_wsa_visits=2; wp_ozh_wsa_visit_lasttime=xxxxxxxxxx; __utma=xxxxxxxxx.xxxxxxxxxx\r\n\r\n",
    ] {
        let buf = input.as_bytes();
        let (mut parser, mut head) = (RequestParser::default(), RequestHead::default());
        let ours = parser.parse(buf, &Limits::default(), &mut head).unwrap();
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut theirs = httparse::Request::new(&mut headers);
        let used = theirs.parse(buf).unwrap().unwrap();
        assert_eq!(ours, Parsed::Complete(used));
        assert_eq!(theirs.method.unwrap().as_bytes(), head.method.of(buf));
        assert_eq!(theirs.path.unwrap().as_bytes(), head.target.of(buf));
        assert_eq!(theirs.headers.len(), head.headers.len());
        for (a, b) in theirs.headers.iter().zip(&head.headers) {
            assert_eq!((a.name.as_bytes(), a.value), (b.name.of(buf), b.value.of(buf)));
        }
    }
}

#[test]
fn connect_where_there_is_a_tunnel() {
    for (version, more, expect) in [
        ("1.1", "", Ok(())),
        ("1.0", "", Err(RequestError::Connect)),
        ("1.1", "Content-Length: 3\r\n", Err(RequestError::ConnectBody)),
        ("1.1", "Transfer-Encoding: chunked\r\n", Err(RequestError::ConnectBody)),
    ] {
        let text = format!("CONNECT a:80 HTTP/{version}\r\nHost: a\r\n{more}\r\n");
        let (mut parser, mut head) = (RequestParser::default(), RequestHead::default());
        parser.parse(text.as_bytes(), &Limits::default(), &mut head).expect("it parses");
        let framing = head.framing(text.as_bytes()).expect("it is framed");
        assert_eq!(head.check_method(true, framing), expect, "{text}");
        assert_eq!(head.check_method(false, framing), Err(RequestError::Connect));
    }
}

#[test]
fn hosts_in_used_memory() {
    let mut head = RequestHead::default();
    let long = "l".repeat(300);
    for host in ["", "a.example", "a.example", "A.example:80", "a..b", "A.example:80", "a.example", &long, &long, ""] {
        let input = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let parse = |head: &mut RequestHead| {
            head.clear();
            let parsed = RequestParser::default().parse(input.as_bytes(), &Limits::default(), head);
            (parsed, head.header_host, head.header_port)
        };
        assert_eq!(parse(&mut head), parse(&mut RequestHead::default()), "{host}");
    }
}
