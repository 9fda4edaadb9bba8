//! Databases of places of the older kind: no panic, an address is the same in both families, and texts end where they should.
#![cfg_attr(fuzzing, no_main)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::geoip::Database;

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((address, file)) = data.split_first_chunk::<16>() else { return };
    let Ok(database) = Database::new(file.to_vec()) else { return };
    let v4 = Ipv4Addr::from(*address.last_chunk().expect("it is shorter"));
    for (ip, same) in [
        (IpAddr::V4(v4), IpAddr::V6(v4.to_ipv6_mapped())),
        (IpAddr::V6(Ipv6Addr::from(*address)), IpAddr::V6(Ipv6Addr::from(*address))),
    ] {
        assert_eq!(database.country(ip), database.country(same));
        assert_eq!(database.city(ip), database.city(same));
        assert_eq!(database.name(ip), database.name(same));
        if let Some(city) = database.city(ip) {
            assert!([city.region, city.city, city.postal_code].iter().all(|text| !text.contains(&0)));
            assert!(city.country.code == "US" || (city.dma_code, city.area_code) == (0, 0));
        }
        assert!(database.name(ip).is_none_or(|name| !name.contains(&0)));
        let told = [database.country(ip).is_some(), database.city(ip).is_some(), database.name(ip).is_some()];
        assert!(told.iter().filter(|told| **told).count() <= 1, "a database is of one kind");
    }
});
