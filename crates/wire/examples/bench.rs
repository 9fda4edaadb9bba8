//! Head parsing against httparse: nanoseconds per head. `cargo run --release -p wire --example bench`
use std::hint::black_box;
use std::time::Instant;

use wire::h1::{Limits, RequestHead, RequestParser};

const SMALL: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive\r\n\r\n";
const BROWSER: &[u8] = b"GET /wp-content/uploads/2010/03/hello-kitty-darth-vader-pink.jpg HTTP/1.1\r\n\
Host: www.kittyhell.com\r\n\
User-Agent: Mozilla/5.0 (Macintosh; U; Intel Mac OS X 10.6; ja-JP-mac; rv:1.9.2.3) Gecko/20100401 Firefox/3.6.3 Pathtraq/0.9\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
Accept-Language: ja,en-us;q=0.7,en;q=0.3\r\n\
Accept-Encoding: gzip,deflate\r\n\
Accept-Charset: Shift_JIS,utf-8;q=0.7,*;q=0.7\r\n\
Keep-Alive: 115\r\n\
Connection: keep-alive\r\n\
Cookie: wp_ozh_wsa_visits=2; wp_ozh_wsa_visit_lasttime=xxxxxxxxxx; __utma=xxxxxxxxx.xxxxxxxxxx.xxxxxxxxxx.xxxxxxxxxx.xxxxxxxxxx.x; __utmz=xxxxxxxxx.xxxxxxxxxx.x.x.utmccn=(referral)|utmcsr=reader.livedoor.com|utmcct=/reader/|utmcmd=referral\r\n\r\n";

fn time(name: &str, mut run: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..rounds() {
        let start = Instant::now();
        for _ in 0..20_000 {
            run();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / 20_000.0);
    }
    println!("{name:30} {best:7.1} ns");
}

fn rounds() -> u32 {
    std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(7)
}

fn main() {
    let limits = Limits::default();
    for (name, input) in [("small", SMALL), ("browser", BROWSER)] {
        if std::env::args().nth(2).is_some_and(|only| only != name) {
            continue;
        }
        let (mut parser, mut head) = (RequestParser::default(), RequestHead::default());
        time(&format!("{name} {} bytes, wire", input.len()), || {
            parser.reset();
            head.clear();
            black_box(parser.parse(black_box(input), &limits, &mut head)).ok();
            black_box(&head);
        });
        time(&format!("{name} {} bytes, httparse", input.len()), || {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut request = httparse::Request::new(&mut headers);
            black_box(request.parse(black_box(input))).ok();
            black_box(&request);
        });
    }
}
