//! Answers of name servers: whatever the bytes, no more than the question asked for; and none that is cut short.
#![cfg_attr(fuzzing, no_main)]

use wire::dns::{Kind, Name, answer};

tidegate_fuzz::target!(|data: &[u8]| {
    let (Some(name), Some(id)) = (Name::parse(b"a.test"), data.first_chunk::<2>()) else { return };
    let id = u16::from_be_bytes(*id);
    for kind in [Kind::A, Kind::Aaaa, Kind::Srv, Kind::Ptr] {
        let Some(found) = answer(data, id, &name, kind) else { continue };
        assert!(
            found.addresses.iter().all(|address| address.is_ipv4() == (kind == Kind::A))
                && (matches!(kind, Kind::A | Kind::Aaaa) || found.addresses.is_empty())
        );
        let lists_nothing = found.addresses.is_empty() && found.services.is_empty() && found.names.is_empty();
        let says_nothing = lists_nothing && found.alias.is_none();
        assert!(says_nothing || (found.code == 0 && !found.truncated && found.ttl <= i32::MAX as u32));
        assert!(found.alias.is_none() || lists_nothing);
        assert!(found.services.is_empty() || kind == Kind::Srv);
        assert!(found.names.is_empty() || kind == Kind::Ptr);
        assert!(found.names.iter().filter_map(Name::host).all(|host| Name::parse(host.as_bytes()).is_some()));
        // Another question isn't answered by it, except by a server that didn't understand.
        let other = answer(data, id.wrapping_add(1), &name, kind);
        assert!(other.is_none());
        // What follows the records is skipped.
        assert_eq!(answer(&[data, b"more"].concat(), id, &name, kind), Some(found));
    }
});
