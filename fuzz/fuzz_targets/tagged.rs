//! Messages of tagged fields.
#![cfg_attr(fuzzing, no_main)]

use wire::tagged::{Reader, Writer};

tidegate_fuzz::target!(|data: &[u8]| {
    if let Some(reader) = Reader::new(1, data) {
        let mut writer = Writer::new(1);
        for (tag, value) in reader.iter() {
            writer.bytes(tag, value);
            assert!(reader.all(tag).any(|other| other == value));
        }
        assert_eq!(&writer.finish()[..], data, "there is one form only");
    }
});
