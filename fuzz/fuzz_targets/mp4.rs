//! Indexes of videos: no panic; what is cut is sound, lies within the file's data, and can be cut again.
#![cfg_attr(fuzzing, no_main)]

use wire::mp4::{Clip, Mp4Error, box_head, cut};

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&[key_frame, start, end, before], moov)) = data.split_first_chunk() else { return };
    let end_ms = (end > 0).then(|| u64::from(end) * 200);
    let clip = Clip { start_ms: u64::from(start) * 200, end_ms, key_frame: key_frame % 2 == 1 };
    let Ok(part) = cut(moov, &clip, before.into()) else { return };
    assert!(part.data.start < part.data.end);
    let head = box_head(&part.head, part.head.len() as u64).expect("the first box is whole");
    assert_eq!(&head.kind, b"moov");
    let (index, media) = part.head.split_at(head.size as usize);
    let len = part.data.end - part.data.start;
    let media_head = box_head(media, media.len() as u64 + len).expect("the second box has a head");
    assert!(&media_head.kind == b"mdat" && media_head.head as usize == media.len());
    assert_eq!(media_head.size, media_head.head + len);
    let whole = Clip { start_ms: 0, end_ms: None, key_frame: false };
    match cut(&index[8..], &whole, before.into()) {
        Ok(again) => {
            let after = u64::from(before) + part.head.len() as u64;
            assert!(again.data.start >= after && again.data.end <= after + len);
        }
        // Samples without any duration, from the start on.
        Err(error) => assert_eq!(error, Mp4Error::Empty),
    }
});
