//! Every input is parsed whole and split at every byte, with the same outcome.

use super::*;

fn show(input: &[u8]) -> String {
    let whole = outcome(input, input.len());
    for cut in 0..input.len() {
        assert_eq!(outcome(input, cut), whole, "cut at {cut} of {:?}", input.escape_ascii());
    }
    whole
}

fn outcome(input: &[u8], cut: usize) -> String {
    let (mut parser, mut head) = (ResponseParser::default(), ResponseHead::default());
    for end in [cut, input.len()] {
        match parser.parse(&input[..end], 200, &mut head) {
            Ok(Parsed::Incomplete) => {}
            Ok(Parsed::Complete(_)) => return complete(input, &head),
            Err(e) => return e.text(input).to_string(),
        }
    }
    "incomplete".into()
}

fn complete(input: &[u8], head: &ResponseHead) -> String {
    let framing = match head.framing(input, false) {
        Ok(framing) => format!("{framing:?}"),
        Err(e) => return e.text(input).to_string(),
    };
    let reason = String::from_utf8_lossy(head.reason.of(input)).into_owned();
    let keep = if head.keep_alive(input) { "keep" } else { "close" };
    format!("{} {} [{reason}] {} {framing} {keep}", head.version, head.status, head.headers.len())
}

#[test]
fn responses_as_nginx_takes_them() {
    const NO_HEADER: &str = "upstream sent no valid HTTP/1.0 header";
    for (input, expect) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "1001 200 [OK] 1 Length(3) keep"),
        ("HTTP/1.1 200 OK\nConnection: close\n\n", "1001 200 [OK] 1 UntilClose close"),
        ("HTTP/1.0 200 OK\r\n\r\n", "1000 200 [OK] 0 UntilClose close"),
        ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", "1000 200 [OK] 1 UntilClose keep"),
        ("HTTP/1.1 200\r\n\r\n", "1001 200 [] 0 UntilClose keep"),
        ("HTTP/1.1 200 \r\n\r\n", "1001 200 [] 0 UntilClose keep"),
        ("HTTP/1.1  404 Not Found\r\n\r\n", "1001 404 [Not Found] 0 UntilClose keep"),
        ("HTTP/1.1 200 a\x01b\r\n\r\n", "1001 200 [a\x01b] 0 UntilClose keep"),
        ("HTTP/1.9 999 x\r\n\r\n", "1009 999 [x] 0 UntilClose keep"),
        ("HTTP/1.1 403.7 No\r\n\r\n", "1001 403 [7 No] 0 UntilClose keep"),
        ("HTTP/1.1 204 No Content\r\n\r\n", "1001 204 [No Content] 0 None keep"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", "1001 200 [OK] 1 Chunked keep"),
        ("HTTP/1.1 200 OK\r\nX_a: b\r\nx.y: z\r\n\r\n", "1001 200 [OK] 2 UntilClose keep"),
        ("HTTP/1.1 200 OK\r\nHTTP/1.1 404 x\0y\r\nA: b\r\nHTTP/2\r\n\r\n", "1001 200 [OK] 1 UntilClose keep"),
        ("HTTP/1.1 200 OK\r\nhttp/1.1 404\r\n\r\n", "upstream sent invalid header: \"http/1.1\\x20...\""),
        ("HTTP/1.1 200 OK\r\nHTTP/1.1 404\r\n", "incomplete"),
        ("HTTP/1.1 20 OK\r\n\r\n", NO_HEADER),
        ("HTTP/1.1 2000 OK\r\n\r\n", NO_HEADER),
        ("HTTP/1.1 099 OK\r\n\r\n", NO_HEADER),
        ("HTTP/x.1 200 OK\r\n\r\n", NO_HEADER),
        ("HTTP/1.1200 OK\r\n\r\n", NO_HEADER),
        ("HTTP/2.0 200 OK\r\n\r\n", "2000 200 [OK] 0 UntilClose keep"),
        ("HTTP/100.1 200 OK\r\n\r\n", "65535 200 [OK] 0 UntilClose keep"),
        ("HTTP/0.9 200 OK\r\n\r\n", NO_HEADER),
        ("HTTP/1 200 OK\r\n\r\n", NO_HEADER),
        ("HTTP/1.1 200OK\r\n\r\n", NO_HEADER),
        ("HTTP/1.1 200 O\rK\r\n\r\n", NO_HEADER),
        ("hello", NO_HEADER),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "upstream sent invalid header: \"A\\x20...\""),
        ("HTTP/1.1 200 OK\r\nA: b\r\n", "incomplete"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            "upstream sent duplicate header line: \"Content-Length: 0\", previous value: \"Content-Length: 0\"",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: foo\r\n\r\n",
            "upstream sent invalid \"Content-Length\" header: \"Content-Length: foo\"",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: foo\r\n\r\n", "upstream sent unknown \"Transfer-Encoding\": \"foo\""),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
            "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
        ),
    ] {
        assert_eq!(show(input.as_bytes()), expect, "{input:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(200));
    assert_eq!(show(long.as_bytes()), "upstream sent too big header");
}

#[test]
fn heads_without_a_status_line() {
    for (text, expect) in [
        ("Status: 404 Not Found\r\nA: b\r\n\r\nrest", Ok(Some((2, 31)))),
        ("A: b\n\nrest", Ok(Some((1, 6)))),
        ("\r\nrest", Ok(Some((0, 2)))),
        ("A: b\r\n", Ok(None)),
        ("A b\r\n\r\n", Err(())),
    ] {
        let mut head = ResponseHead::default();
        let parsed = ResponseParser::of_fields().parse(text.as_bytes(), 4096, &mut head);
        let found = parsed.map_err(|_| ()).map(|parsed| match parsed {
            Parsed::Complete(used) => Some((head.headers.len(), used)),
            Parsed::Incomplete => None,
        });
        assert_eq!(found, expect, "{text:?}");
    }
}
