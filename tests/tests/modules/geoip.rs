//! `geoip_country`, `geoip_city`, `geoip_org`, and `geoip2`, with databases that the tests write.

use std::net::Ipv4Addr;

use e2e::Setup;

/// A tree of the older kind in which one address has a leaf and all others have none.
fn tree(address: Ipv4Addr, width: usize, none: u32, leaf: u32) -> Vec<u8> {
    let mut file = Vec::new();
    for depth in 0..32 {
        let next = if depth == 31 { leaf } else { depth + 1 };
        let is_right = address.to_bits() >> (31 - depth) & 1 == 1;
        let sides = if is_right { [none, next] } else { [next, none] };
        sides.iter().for_each(|side| file.extend_from_slice(&side.to_le_bytes()[..width]));
    }
    file
}

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

pub(crate) fn countries() -> Vec<u8> {
    [&tree(HERE, 3, 16_776_960, 16_776_960 + 185)[..], b"\0\0\0\xff\xff\xff\x01"].concat()
}

pub(crate) fn cities() -> Vec<u8> {
    let mut file = [&tree(HERE, 3, 32, 33)[..], b"\0\xe1CA\0San Jos\xe9\095101\0"].concat();
    for number in [1_800_000 + 373_394, 1_800_000 - 1_218_950, 807_408_u32] {
        file.extend_from_slice(&number.to_le_bytes()[..3]);
    }
    [&file[..], b"\0\0\0\xff\xff\xff\x02\x20\0\0"].concat()
}

pub(crate) fn organizations() -> Vec<u8> {
    [&tree(HERE, 4, 32, 33)[..], b"\0The Tide\0\xff\xff\xff\x05\x20\0\0"].concat()
}

#[test]
fn older_databases() {
    let server = Setup::http(
        "geoip_country %%DIR%%/countries.dat; geoip_city %%DIR%%/cities.dat utf8; geoip_org %%DIR%%/organizations.dat;
         geoip_proxy 127.0.0.0/8; geoip_proxy_recursive on;
         server { listen 127.0.0.1:%%PORT%%;
            location /country { return 200 \"$geoip_country_code|$geoip_country_code3|$geoip_country_name\"; }
            location /city { return 200 \"$geoip_city_continent_code|$geoip_city_country_code|$geoip_city_country_code3|\
                $geoip_city_country_name|$geoip_region|$geoip_region_name|$geoip_city|$geoip_postal_code|$geoip_latitude|\
                $geoip_longitude|$geoip_dma_code|$geoip_area_code\"; }
            location /org { return 200 \"$geoip_org|$remote_addr\"; } }",
    )
    .file("countries.dat", countries())
    .file("cities.dat", cities())
    .file("organizations.dat", organizations())
    .start();
    let here = "X-Forwarded-For: 192.0.2.1, 127.0.0.2\r\n";
    for (target, fields, expect) in [
        ("/country", here, "RU|RUS|Russian Federation"),
        ("/city", here, "NA|US|USA|United States|CA|California|San José|95101|37.3394|-121.8950|807|408"),
        ("/org", here, "The Tide|127.0.0.1"),
        ("/country", "", "||"),
        ("/city", "", "|||||||||||"),
        ("/org", "X-Forwarded-For: 2001:db8::1\r\n", "|127.0.0.1"),
        ("/org", "X-Forwarded-For: ::ffff:192.0.2.1\r\n", "The Tide|127.0.0.1"),
    ] {
        assert_eq!(server.get_with(target, fields).text(), expect, "{target} {fields}");
    }
}

#[test]
fn files_that_are_no_such_databases() {
    for (lines, expect) in [
        ("geoip_country %%DIR%%/none.dat;", "none.dat\") failed"),
        ("geoip_city %%DIR%%/countries.dat;", "invalid GeoIP City database"),
        ("geoip_country %%DIR%%/countries.dat; geoip_country %%DIR%%/countries.dat;", "is duplicate"),
        ("geoip_country %%DIR%%/countries.dat latin1;", "invalid parameter \"latin1\""),
        ("geoip_proxy here;", "invalid network \"here\""),
    ] {
        let setup = Setup::http(&format!("{lines} server {{ listen 127.0.0.1:%%PORT%%; }}"));
        let said = setup.file("countries.dat", countries()).prepare().command(&["-t"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && text.contains(expect), "{lines}: {text}");
    }
}

/// A value of the newer kind: a type and a size in one byte, then its bytes.
fn text(value: &str) -> Vec<u8> {
    [&[0x40 | value.len() as u8], value.as_bytes()].concat()
}

fn number(value: u32) -> Vec<u8> {
    [&[0xc4], &value.to_be_bytes()[..]].concat()
}

fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![0xe0 | entries.len() as u8];
    entries.iter().for_each(|(key, value)| out.extend([text(key), value.clone()].concat()));
    out
}

/// A database of the newer kind in which 192.0.0.0/2 has a record.
pub(crate) fn newer(country: &str, built: u32) -> Vec<u8> {
    let list = |entries: &[Vec<u8>]| [&[entries.len() as u8, 0x04][..], &entries.concat()].concat();
    let double = |value: f64| [&[0x68][..], &value.to_be_bytes()].concat();
    let record = map(&[
        ("country", map(&[("iso_code", text(country)), ("id", number(6_252_001)), ("eu", vec![0x01, 0x07])])),
        ("location", map(&[("latitude", double(37.751))])),
        ("subdivisions", list(&[map(&[("code", text("CA"))]), map(&[("code", text("SC"))])])),
    ]);
    let metadata = map(&[
        ("binary_format_major_version", vec![0xa1, 2]),
        ("binary_format_minor_version", vec![0xa1, 0]),
        ("build_epoch", [&[0x04, 0x02], &built.to_be_bytes()[..]].concat()),
        ("database_type", text("Test")),
        ("description", map(&[])),
        ("ip_version", vec![0xa1, 4]),
        ("languages", list(&[])),
        ("node_count", number(2)),
        ("record_size", vec![0xa1, 24]),
    ]);
    // Node 0: half of all addresses have none (2 is the number of nodes), the others go on; node 1: the upper half.
    let nodes: Vec<u8> = [2_u32, 1, 2, 2 + 16].iter().flat_map(|side| side.to_be_bytes()[1..].to_vec()).collect();
    [&nodes[..], &[0; 16], &record, b"\xab\xcd\xefMaxMind.com", &metadata].concat()
}

/// Not in nginx: `geoip2`, as ngx_http_geoip2_module has it
#[test]
fn newer_databases() {
    let server = Setup::http(
        "geoip2 %%DIR%%/places.mmdb {
            $country country iso_code; $id country id; $eu country eu; $latitude location latitude;
            $last subdivisions -1 code; $first subdivisions 0 code; $city default=none city names en;
            $other default=nobody source=$arg_ip country iso_code; $built metadata build_epoch; }
         geoip2_proxy 127.0.0.0/8;
         server { listen 127.0.0.1:%%PORT%%;
            location / { return 200 \"$country|$id|$eu|$latitude|$first|$last|$city|$other|$built\"; } }",
    )
    .file("places.mmdb", newer("US", 1_700_000_000))
    .start();
    let here = "X-Forwarded-For: 192.0.2.1\r\n";
    for (target, fields, expect) in [
        ("/", here, "US|6252001|1|37.75100|CA|SC|none|nobody|1700000000"),
        ("/?ip=200.1.1.1", "", "||||||none|US|1700000000"),
        ("/?ip=::ffff:200.1.1.1", "X-Forwarded-For: 10.0.0.1\r\n", "||||||none|US|1700000000"),
        ("/?ip=2001:db8::1", "", "||||||none|nobody|1700000000"),
    ] {
        assert_eq!(server.get_with(target, fields).text(), expect, "{target} {fields}");
    }
}

/// Not in nginx: `geoip2`, as ngx_http_geoip2_module has it
#[test]
fn a_database_that_changes_is_read_again() {
    let mut server = Setup::http(
        "error_log %%DIR%%/error.log info;
         geoip2 %%DIR%%/places.mmdb { auto_reload 1s; $country source=$arg_ip country iso_code; $changed metadata last_change; }
         server { listen 127.0.0.1:%%PORT%%; location / { return 200 $country|$changed; } }",
    )
    .file("places.mmdb", newer("US", 1))
    .start();
    let ask = |server: &e2e::Server| server.get("/?ip=200.1.1.1").text();
    assert!(ask(&server).starts_with("US|"));
    // Half a file changes nothing.
    let path = server.folder().path().join("places.mmdb");
    std::fs::write(&path, &newer("DE", 2)[..40]).expect("writes");
    server.wait(
        |server| ask(server).starts_with("US|") && server.read("error.log").contains("reload of"),
        "it is looked at",
    );
    std::fs::write(&path, newer("DE", 2)).expect("writes");
    server.wait(|server| ask(server).starts_with("DE|"), "the new database");
}

/// Not in nginx: `geoip2`, as ngx_http_geoip2_module has it
#[test]
fn blocks_that_are_wrong() {
    for (lines, expect) in [
        ("geoip2 none.mmdb { }", "MMDB_open(\"none.mmdb\") failed"),
        ("geoip2 %%DIR%%/text { }", "failed"),
        ("geoip2 %%DIR%%/places.mmdb { $x; }", "invalid number of arguments"),
        ("geoip2 %%DIR%%/places.mmdb { $x metadata age; }", "unknown metadata field \"age\""),
        ("geoip2 %%DIR%%/places.mmdb { x country; }", "invalid variable name"),
        ("geoip2 %%DIR%%/places.mmdb { $x source=1 country; }", "invalid variable name \"1\""),
        ("geoip2 %%DIR%%/places.mmdb { auto_reload never; }", "invalid interval"),
        ("geoip2 %%DIR%%/places.mmdb { } geoip2 %%DIR%%/places.mmdb { }", "Duplicate GeoIP2 mmdb"),
        ("geoip2_proxy here;", "invalid network \"here\""),
    ] {
        let setup = Setup::http(&format!("{lines} server {{ listen 127.0.0.1:%%PORT%%; }}"));
        let setup = setup.file("places.mmdb", newer("US", 1)).file("text", "nothing");
        let said = setup.prepare().command(&["-t"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && text.contains(expect), "{lines}: {text}");
    }
}
