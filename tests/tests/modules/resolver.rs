//! `resolver`: its faults in a configuration.

use e2e::Setup;

/// Not in nginx: resolver … status_zone=
#[test]
fn faults_of_the_configuration() {
    for (directives, expect) in [
        ("resolver valid=1s;", "no name servers defined"),
        ("resolver 127.0.0.1 valid=x;", "invalid parameter: valid=x"),
        ("resolver 127.0.0.1 ipv6=x;", "invalid parameter: ipv6=x"),
        ("resolver 127.0.0.1:0;", "invalid port in resolver \"127.0.0.1:0\""),
        ("resolver no.such.invalid;", "host not found in resolver \"no.such.invalid\""),
        ("resolver 127.0.0.1; resolver 127.0.0.2;", "\"resolver\" directive is duplicate"),
        ("resolver 127.0.0.1; resolver_timeout x;", "\"resolver_timeout\" directive invalid value"),
        ("resolver 127.0.0.1 ipv4=off ipv6=off;", "\"ipv4\" and \"ipv6\" cannot both be \"off\""),
        ("resolver 127.0.0.1 [::1]:5353 valid=30s ipv4=on status_zone=x;", "test is successful"),
    ] {
        let server = Setup::http(&format!("{directives} server {{ listen 127.0.0.1:%%PORT%%; }}")).prepare();
        let out = server.command(&["-t"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(expect), "{directives}: {said}");
    }
}
