//! PROXY protocol headers: what is read is written in both versions, and read again as the same.
#![cfg_attr(fuzzing, no_main)]

use wire::proxy_protocol::{ProxyError, parse, tlv, tlvs, write_v1, write_v2};

tidegate_fuzz::target!(|data: &[u8]| {
    let Ok(Some(header)) = parse(data) else { return };
    assert!(header.len <= data.len());
    let bytes = header.tlvs.of(data);
    let _ = (tlvs(bytes).count(), tlv(bytes, 2));
    if let Some((source, destination)) = header.addresses
        && source.is_ipv4() == destination.is_ipv4()
    {
        let mut out = Vec::new();
        write_v1(header.addresses, &mut out);
        assert_eq!(parse(&out).unwrap().unwrap().addresses, Some((source, destination)));
        let all: Result<Vec<_>, _> = tlvs(bytes).collect();
        out.clear();
        if all.is_ok_and(|all| write_v2(header.addresses, header.transport, &all, &mut out)) {
            match parse(&out) {
                Ok(Some(again)) => {
                    assert_eq!((again.addresses, again.transport), (header.addresses, header.transport));
                    assert!(again.tlvs.of(&out).starts_with(bytes));
                }
                // The checksum has made it longer.
                again => assert_eq!(again, Err(ProxyError::TooLarge)),
            }
        }
    }
});
