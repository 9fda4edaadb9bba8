//! PROXY protocol headers: what is read of version 1 is written and read again as the same.
#![cfg_attr(fuzzing, no_main)]

use wire::proxy_protocol::{parse, tlv, tlvs, write_v1};

tidegate_fuzz::target!(|data: &[u8]| {
    let Ok(Some(header)) = parse(data) else { return };
    assert!(header.len <= data.len());
    let bytes = header.tlvs.of(data);
    let _ = (tlvs(bytes).count(), tlv(bytes, 2));
    if let Some((source, destination)) = header.addresses
        && source.is_ipv4() == destination.is_ipv4()
    {
        let mut out = Vec::new();
        write_v1(source, destination, &mut out);
        assert_eq!(parse(&out).unwrap().unwrap().addresses, Some((source, destination)));
    }
});
