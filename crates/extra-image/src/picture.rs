//! Pictures: what they are, and changed ones. It knows no requests, and runs in any thread.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::error::{LimitError, LimitErrorKind};
use image::imageops::{self, FilterType};
use image::{DynamicImage, ExtendedColorType, ImageError, ImageFormat, ImageReader, Limits, RgbaImage};

/// The formats that are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Jpeg,
    Gif,
    Png,
    Webp,
}

/// How many bytes of a file tell its format.
pub(crate) const SIGNATURE: usize = 12;

impl Format {
    /// What a file that begins so is.
    pub(crate) fn of(bytes: &[u8]) -> Option<Format> {
        match bytes {
            [0xff, 0xd8, ..] => Some(Format::Jpeg),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(Format::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::Webp),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "jpeg",
            Format::Gif => "gif",
            Format::Png => "png",
            Format::Webp => "webp",
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Format::Jpeg => "image/jpeg",
            Format::Gif => "image/gif",
            Format::Png => "image/png",
            Format::Webp => "image/webp",
        }
    }

    fn of_library(self) -> ImageFormat {
        match self {
            Format::Jpeg => ImageFormat::Jpeg,
            Format::Gif => ImageFormat::Gif,
            Format::Png => ImageFormat::Png,
            Format::Webp => ImageFormat::WebP,
        }
    }
}

/// The most memory for a decoded picture, in bytes: small files may describe huge ones.
const MOST_MEMORY: u64 = 256 << 20;
/// The most pixels of a picture that is changed, which takes four bytes for each.
const MOST_PIXELS: u64 = MOST_MEMORY / 4;
/// The most pixels of a side.
const LONGEST_SIDE: u32 = 1 << 15;

fn reader(bytes: &[u8], format: Format) -> ImageReader<Cursor<&[u8]>> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format.of_library());
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_MEMORY);
    (limits.max_image_width, limits.max_image_height) = (Some(LONGEST_SIDE), Some(LONGEST_SIDE));
    reader.limits(limits);
    reader
}

/// A picture's format, width and height, as its head tells them.
pub(crate) fn size(bytes: &[u8]) -> Option<(Format, u32, u32)> {
    let format = Format::of(bytes)?;
    let (width, height) = reader(bytes, format).into_dimensions().ok()?;
    Some((format, width, height))
}

/// How large a picture may be; no bound where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    /// Whether it is cut to them, rather than made to fit into them.
    pub(crate) crop: bool,
}

impl Bounds {
    fn contains(&self, (width, height): (u32, u32)) -> bool {
        self.width.is_none_or(|most| width <= most) && self.height.is_none_or(|most| height <= most)
    }

    /// The size to which a picture is reduced in proportion.
    fn reduced(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let scaled = |side: u32, to: u32, of: u32| (u64::from(side) * u64::from(to) / u64::from(of)).max(1) as u32;
        let (mut wide, mut high) = (width, height);
        if !self.crop {
            if let Some(most) = self.width.filter(|most| wide > *most) {
                (high, wide) = (scaled(high, most, wide), most);
            }
            if let Some(most) = self.height.filter(|most| high > *most) {
                (wide, high) = (scaled(wide, most, high), most);
            }
        } else if let (Some(most_wide), Some(most_high)) = (self.width, self.height)
            && wide > most_wide
            && high > most_high
        {
            let fitted = scaled(wide, most_high, high);
            (wide, high) =
                if fitted > most_wide { (fitted, most_high) } else { (most_wide, scaled(high, most_wide, wide)) };
        }
        (wide, high)
    }
}

/// What is done to a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) bounds: Option<Bounds>,
    pub(crate) turn: Option<Turn>,
    pub(crate) jpeg_quality: u8,
    /// In percent.
    pub(crate) sharpen: u32,
    /// Whether palettes keep their transparent color.
    pub(crate) transparency: bool,
    pub(crate) interlace: bool,
}

/// By how much a picture is turned, counter-clockwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Quarter,
    Half,
    ThreeQuarters,
}

impl Turn {
    pub(crate) fn of_degrees(text: &[u8]) -> Option<Turn> {
        match text {
            b"90" => Some(Turn::Quarter),
            b"180" => Some(Turn::Half),
            b"270" => Some(Turn::ThreeQuarters),
            _ => None,
        }
    }
}

/// Changes a picture; `None` if it is as it should be.
pub(crate) fn change(bytes: &[u8], plan: &Plan) -> Result<Option<Vec<u8>>, ImageError> {
    let unknown = || ImageError::IoError(std::io::ErrorKind::InvalidData.into());
    let (format, width, height) = size(bytes).ok_or_else(unknown)?;
    if plan.turn.is_none() && plan.bounds.is_none_or(|bounds| bounds.contains((width, height))) {
        return Ok(None);
    }
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(ImageError::Limits(LimitError::from_kind(LimitErrorKind::DimensionError)));
    }
    let mut picture = reader(bytes, format).decode()?;
    if !plan.transparency && has_palette(bytes, format) {
        picture = picture.into_rgb8().into();
    }
    let is_opaque = !picture.color().has_alpha();
    let mut picture = picture.into_rgba8();
    if let Some((wide, high)) = plan.bounds.map(|bounds| bounds.reduced(picture.dimensions()))
        && (wide, high) != picture.dimensions()
    {
        picture = reduce(picture, wide, high, is_opaque);
    }
    picture = match plan.turn {
        None => picture,
        Some(Turn::Quarter) => imageops::rotate270(&picture),
        Some(Turn::Half) => imageops::rotate180(&picture),
        Some(Turn::ThreeQuarters) => imageops::rotate90(&picture),
    };
    if let Some(bounds) = plan.bounds.filter(|bounds| bounds.crop) {
        let (wide, high) = picture.dimensions();
        let to = (bounds.width.unwrap_or(wide).min(wide), bounds.height.unwrap_or(high).min(high));
        picture = imageops::crop_imm(&picture, (wide - to.0) / 2, (high - to.1) / 2, to.0, to.1).to_image();
    }
    if plan.sharpen > 0 {
        let part = plan.sharpen as f32 / 400.0;
        picture = imageops::filter3x3(&picture, &[0.0, -part, 0.0, -part, 1.0 + 4.0 * part, -part, 0.0, -part, 0.0]);
    }
    encode(picture, format, is_opaque, plan).map(Some)
}

/// Whether the colors of a file come from a palette.
fn has_palette(bytes: &[u8], format: Format) -> bool {
    /// Where the head of a PNG tells its colors, and what it says of palettes.
    const PNG_COLORS: (usize, u8) = (25, 3);
    format == Format::Gif || format == Format::Png && bytes.get(PNG_COLORS.0) == Some(&PNG_COLORS.1)
}

/// Makes a picture smaller. Pixels count as much as they are opaque, so that hidden colors don't show at edges.
fn reduce(mut picture: RgbaImage, width: u32, height: u32, is_opaque: bool) -> RgbaImage {
    if is_opaque {
        return imageops::resize(&picture, width, height, FilterType::Triangle);
    }
    for pixel in picture.pixels_mut() {
        let [colors @ .., alpha] = &mut pixel.0;
        colors.iter_mut().for_each(|color| *color = (u16::from(*color) * u16::from(*alpha) / 255) as u8);
    }
    let mut reduced = imageops::resize(&picture, width, height, FilterType::Triangle);
    for pixel in reduced.pixels_mut() {
        let [colors @ .., alpha] = &mut pixel.0;
        let whole = u16::from(*alpha).max(1);
        colors.iter_mut().for_each(|color| *color = (u16::from(*color) * 255 / whole).min(255) as u8);
    }
    reduced
}

fn encode(picture: RgbaImage, format: Format, is_opaque: bool, plan: &Plan) -> Result<Vec<u8>, ImageError> {
    let mut out = Vec::new();
    match format {
        Format::Jpeg => {
            let picture = DynamicImage::from(picture).into_rgb8();
            JpegEncoder::new_with_quality(&mut out, plan.jpeg_quality.clamp(1, 100)).encode_image(&picture)?;
            comment(&mut out, &format!("quality = {}", plan.jpeg_quality));
        }
        Format::Gif => encode_gif(picture, plan.interlace, &mut out)?,
        Format::Png | Format::Webp => {
            let (width, height) = picture.dimensions();
            let picture = DynamicImage::from(picture);
            let picture = if is_opaque { picture.into_rgb8().into() } else { picture };
            let color: ExtendedColorType = picture.color().into();
            match format {
                Format::Webp => WebPEncoder::new_lossless(&mut out).encode(picture.as_bytes(), width, height, color)?,
                _ => picture.write_to(&mut Cursor::new(&mut out), ImageFormat::Png)?,
            }
        }
    }
    Ok(out)
}

/// Puts a comment into a JPEG file, after the segment that it has to begin with.
fn comment(file: &mut Vec<u8>, text: &str) {
    let after = match file.get(2..6) {
        Some(&[0xff, 0xe0, high, low]) => 4 + usize::from(u16::from_be_bytes([high, low])),
        _ => 2,
    };
    let length = (text.len() + 2) as u16;
    let segment = [&[0xff, 0xfe][..], &length.to_be_bytes(), text.as_bytes()].concat();
    file.splice(after..after, segment);
}

/// How well the colors of a GIF file are chosen: from 1, the best, to 30.
const GIF_SPEED: i32 = 10;

fn encode_gif(mut picture: RgbaImage, interlace: bool, out: &mut Vec<u8>) -> Result<(), ImageError> {
    // A pixel is either there or not.
    picture.pixels_mut().for_each(|pixel| pixel.0[3] = if pixel.0[3] < 128 { 0 } else { 255 });
    let side = |side: u32| u16::try_from(side).map_err(|_| ImageError::IoError(std::io::ErrorKind::InvalidData.into()));
    let (width, height) = (side(picture.width())?, side(picture.height())?);
    let mut frame = gif::Frame::from_rgba_speed(width, height, &mut picture, GIF_SPEED);
    frame.interlaced = interlace;
    if interlace {
        frame.buffer = interlaced(&frame.buffer, usize::from(width)).into();
    }
    let failed = |error: gif::EncodingError| ImageError::IoError(std::io::Error::other(error));
    gif::Encoder::new(out, width, height, &[]).and_then(|mut encoder| encoder.write_frame(&frame)).map_err(failed)
}

/// The rows of a picture in the order of an interlaced GIF file.
fn interlaced(pixels: &[u8], width: usize) -> Vec<u8> {
    let rows = |first: usize, each: usize| pixels.chunks(width.max(1)).skip(first).step_by(each);
    rows(0, 8).chain(rows(4, 8)).chain(rows(2, 4)).chain(rows(1, 2)).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan =
        Plan { bounds: None, turn: None, jpeg_quality: 75, sharpen: 0, transparency: true, interlace: false };

    /// A picture of so many pixels, the left half transparent.
    fn picture(format: Format, width: u32, height: u32) -> Vec<u8> {
        let picture = RgbaImage::from_fn(width, height, |x, _| {
            image::Rgba(if x < width / 2 { [200, 0, 0, 0] } else { [0, 0, 200, 255] })
        });
        encode(picture, format, false, &PLAN).expect("it can be encoded")
    }

    const FORMATS: [Format; 4] = [Format::Jpeg, Format::Gif, Format::Png, Format::Webp];

    fn within(width: u32, height: u32, crop: bool) -> Option<Bounds> {
        let bound = |side: u32| Some(side).filter(|side| *side > 0);
        Some(Bounds { width: bound(width), height: bound(height), crop })
    }

    #[test]
    fn sizes_of_changed_pictures() {
        for format in FORMATS {
            let file = picture(format, 100, 120);
            assert_eq!(size(&file), Some((format, 100, 120)));
            for (bounds, turn, expect) in [
                (within(10, 12, false), None, Some((10, 12))),
                (within(10, 0, false), None, Some((10, 12))),
                (within(0, 12, false), None, Some((10, 12))),
                (within(50, 12, false), None, Some((10, 12))),
                (within(100, 120, false), None, None),
                (within(0, 0, false), None, None),
                (None, Some(Turn::Quarter), Some((120, 100))),
                (None, Some(Turn::Half), Some((100, 120))),
                (within(5, 6, false), Some(Turn::Quarter), Some((6, 5))),
                (within(60, 80, true), None, Some((60, 80))),
                (within(0, 50, true), None, Some((100, 50))),
                (within(200, 50, true), None, Some((100, 50))),
                (within(50, 200, true), Some(Turn::ThreeQuarters), Some((50, 100))),
                (within(5, 6, true), Some(Turn::Quarter), Some((5, 5))),
            ] {
                let plan = Plan { bounds, turn, ..PLAN };
                let changed = change(&file, &plan).expect("it can be changed");
                let found = changed.as_deref().and_then(size);
                assert_eq!(found, expect.map(|(width, height)| (format, width, height)), "{plan:?}");
            }
        }
    }

    #[test]
    fn pixels() {
        let pixel = |file: &[u8], format, x, y| reader(file, format).decode().expect("sound").into_rgba8()[(x, y)].0;
        for format in [Format::Gif, Format::Png, Format::Webp] {
            let file = picture(format, 40, 20);
            let half = change(&file, &Plan { bounds: within(20, 0, false), ..PLAN }).expect("sound").expect("changed");
            assert_eq!(
                (pixel(&half, format, 2, 5)[3], pixel(&half, format, 18, 5)),
                (0, [0, 0, 200, 255]),
                "{format:?}"
            );
            // The transparent left side comes to the bottom.
            let turned = change(&file, &Plan { turn: Some(Turn::Quarter), ..PLAN }).expect("sound").expect("changed");
            assert_eq!((pixel(&turned, format, 5, 35)[3], pixel(&turned, format, 5, 5)[3]), (0, 255), "{format:?}");
            let plan = Plan { turn: Some(Turn::Half), transparency: false, ..PLAN };
            let opaque = change(&file, &plan).expect("sound").expect("changed");
            let expect = if format == Format::Gif { 255 } else { 0 };
            assert_eq!(pixel(&opaque, format, 35, 5)[3], expect, "{format:?}: only palettes lose it");
        }
    }

    #[test]
    fn what_is_written_besides() {
        let jpeg = picture(Format::Jpeg, 20, 20);
        let has = |file: &[u8], text: &[u8]| file.windows(text.len()).any(|window| window == text);
        assert!(has(&jpeg, b"quality = 75") && size(&jpeg).is_some());
        let gif = picture(Format::Gif, 20, 20);
        let plan = Plan { turn: Some(Turn::Half), interlace: true, ..PLAN };
        let changed = change(&gif, &plan).expect("sound").expect("changed");
        let rows = reader(&changed, Format::Gif).decode().expect("sound").into_rgba8();
        assert_eq!((rows[(2, 0)].0[3], rows[(18, 19)].0[3]), (255, 0), "it is read as it was");
        assert_eq!(interlaced(&[0, 1, 2, 3, 4, 5, 6, 7, 8], 1), [0, 8, 4, 2, 6, 1, 3, 5, 7]);
    }

    #[test]
    fn what_is_no_picture() {
        for format in FORMATS {
            let file = picture(format, 30, 30);
            let plan = Plan { turn: Some(Turn::Half), ..PLAN };
            for end in [0, 1, 10, 30, file.len() / 2] {
                // A JPEG file that is cut off may still be shown in part.
                let changed = change(&file[..end.min(file.len())], &plan);
                assert!(changed.is_err() || format != Format::Png, "{format:?} up to {end}");
            }
        }
        assert_eq!(Format::of(b"GIF88a"), None);
        assert_eq!(size(b"SEE-THIS"), None);
        // A head that speaks of more pixels than memory has room for.
        let mut bomb = picture(Format::Png, 30, 30);
        bomb[16..24].copy_from_slice(&[0, 0, 0x7f, 0xff, 0, 0, 0x7f, 0xff]);
        assert!(change(&bomb, &Plan { turn: Some(Turn::Half), ..PLAN }).is_err());
    }
}
