//! Databases of places of the newer kind: no panic, no endless search, and an address is the same in both families.
#![cfg_attr(fuzzing, no_main)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::mmdb::{Database, Step};

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((address, file)) = data.split_first_chunk::<16>() else { return };
    let Ok(database) = Database::new(file.to_vec()) else { return };
    let v4 = Ipv4Addr::from(*address.last_chunk().expect("it is shorter"));
    let paths = [
        vec![Step::of("country"), Step::of("iso_code")],
        vec![Step::of("location"), Step::of("latitude")],
        vec![Step::of("subdivisions"), Step::Index(-1), Step::of("code")],
        vec![Step::Index(0)],
    ];
    for path in paths {
        let ask = |ip: IpAddr| {
            let mut out = Vec::new();
            (database.field(ip, &path, &mut out), out)
        };
        assert_eq!(ask(v4.into()), ask(v4.to_ipv6_mapped().into()));
        ask(Ipv6Addr::from(*address).into());
    }
});
