//! `secure_link`: links that hold for those who got them, and for a time.
//!
//! A link has a hash that only who knows a secret can make. `$secure_link` says whether it fits; what follows from that is
//! left to `if`.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use common::vars::Variable;
use conf::{Args, Directive, Error, Loader, Registry, Result, once};
use expr::vars::{Flags, Template};
use http::HttpProto;
use http::config::core::EVERYWHERE;
use http::module::HttpModule;
use http::request::Request;
use http::request::variables::{Getter, Setup, put, template};
use md5::{Digest, Md5};

use crate::constant_time::equal;

/// The module.
pub struct SecureLink;

const MODULE: &str = "ngx_http_secure_link_module";

conf::table! {
    /// How links are checked.
    pub struct SecureLinkConf, raw SecureLinkRaw, module "ngx_http_secure_link_module", level HTTP Location;

    /// Sets where a link has its hash, and the time until which it holds. `secure_link_md5` says what the hash is made of.
    ///
    /// Form: `secure_link expression`
    ///
    /// - `expression`: a text with variables: the hash, in base64url, and after a comma, if links are to expire, the
    ///   time in seconds since 1970.
    ///
    /// Effect: `$secure_link` is `1` for a link that holds, `0` for one that has expired, and empty for one whose hash is
    /// wrong. Nothing is refused by itself.
    ///
    /// ```nginx
    /// location /downloads/ {
    ///     secure_link $arg_hash,$arg_until;
    ///     secure_link_md5 "$secure_link_expires$uri secret";
    ///     if ($secure_link = "") {
    ///         return 403;
    ///     }
    ///     if ($secure_link = "0") {
    ///         return 410;
    ///     }
    /// }
    /// ```
    "secure_link" in EVERYWHERE, Args::exactly(1), default none,
        set(|raw: &mut SecureLinkRaw, l: &mut Loader<'_>, d: &Directive| {
            once(&raw.link, d)?;
            raw.link = Some(template(l, d)?);
            unmixed(raw, d)
        }) link: Option<Rc<Template>> = None;
    /// Sets what the hash of a link is made of.
    ///
    /// Form: `secure_link_md5 expression`
    ///
    /// - `expression`: a text with variables, whose MD5 hash the link must have. It contains what is protected (`$uri`, for
    ///   instance), a secret, and `$secure_link_expires` if links expire.
    ///
    /// Effect: it is compared with the hash that `secure_link` finds. `$remote_addr` in it makes a link hold for one address.
    ///
    /// Danger: without `$secure_link_expires` in it clients may change the time. MD5 of a secret and a text is no modern
    /// signature: choose a long secret, and put it at the end.
    ///
    /// ```nginx
    /// location /downloads/ {
    ///     secure_link $arg_hash,$arg_until;
    ///     secure_link_md5 "$secure_link_expires$uri secret";
    ///     if ($secure_link != "1") {
    ///         return 403;
    ///     }
    /// }
    /// ```
    "secure_link_md5" in EVERYWHERE, Args::exactly(1), default none,
        set(|raw: &mut SecureLinkRaw, l: &mut Loader<'_>, d: &Directive| {
            once(&raw.md5, d)?;
            raw.md5 = Some(template(l, d)?);
            unmixed(raw, d)
        }) md5: Option<Rc<Template>> = None;
    /// Sets the secret of links that have their hash in the path: `/prefix/hash/link`.
    ///
    /// Form: `secure_link_secret word`
    ///
    /// - `word`: the secret. The hash is that of the link and the word, by MD5, in hexadecimal digits.
    ///
    /// Effect: `$secure_link` is the link of a request whose hash fits, as the client sent it, arguments included; else it
    /// is empty. It can't stand beside `secure_link`, which can also let links expire.
    ///
    /// ```nginx
    /// location /p/ {
    ///     secure_link_secret secret;
    ///     if ($secure_link = "") {
    ///         return 403;
    ///     }
    ///     rewrite ^ /secure/$secure_link;
    /// }
    /// location /secure/ {
    ///     internal;
    /// }
    /// ```
    "secure_link_secret" in EVERYWHERE, Args::exactly(1), default none,
        set(|raw: &mut SecureLinkRaw, _: &mut Loader<'_>, d: &Directive| {
            once(&raw.secret, d)?;
            raw.secret = Some(d.arg(0).text.as_slice().into());
            unmixed(raw, d)
        }) secret: Rc<[u8]> = Rc::new([]);
    finish(finish)
}

/// A level that sets one kind of links doesn't inherit the other.
fn finish(conf: &mut SecureLinkConf, parent: Option<&SecureLinkConf>, _: &mut Loader<'_>) -> Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    let same = |a: &Option<Rc<Template>>, b: &Option<Rc<Template>>| match (a, b) {
        (Some(a), Some(b)) => Rc::ptr_eq(a, b),
        _ => a.is_none() && b.is_none(),
    };
    if !Rc::ptr_eq(&conf.secret, &parent.secret) {
        (conf.link, conf.md5) = (None, None);
    } else if !same(&conf.link, &parent.link) || !same(&conf.md5, &parent.md5) {
        conf.secret = Rc::new([]);
    }
    Ok(())
}

fn unmixed(raw: &SecureLinkRaw, d: &Directive) -> Result<()> {
    if raw.secret.is_some() && (raw.link.is_some() || raw.md5.is_some()) {
        let message = "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\"";
        return Err(Error::on(d, message));
    }
    Ok(())
}

impl HttpModule for SecureLink {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<SecureLinkConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        http::variables! { setup, MODULE;
            /// Whether the link of a request holds: `1`, `0` if it has expired, or empty; with `secure_link_secret` the
            /// link itself, or empty.
            "secure_link", Flags::NONE, Getter::Object(Rc::new(Checked));
            /// Until when the link of a request holds, in seconds since 1970, as the client says; for `secure_link_md5`.
            /// Empty if it doesn't expire.
            "secure_link_expires", Flags::NONE, Getter::Plain(expires);
        }
    }
}

/// The end of a link's life, once it has been read.
#[derive(Default)]
struct Expires(Option<Vec<u8>>);

fn expires(r: &mut Request, out: &mut Vec<u8>) -> bool {
    r.find_slot::<Expires>().and_then(|expires| expires.0.as_deref()).is_some_and(|text| put(out, text))
}

/// `$secure_link`: kept once it has been computed, since it is compared with several values.
struct Checked;

impl Variable<HttpProto> for Checked {
    fn value(&self, r: &mut Request, out: &mut Vec<u8>) -> bool {
        secure_link(r, out)
    }
}

fn secure_link(r: &mut Request, out: &mut Vec<u8>) -> bool {
    let location = r.location.clone();
    let conf = location.set.get::<SecureLinkConf>();
    if !conf.secret.is_empty() {
        let uri = r.line.request_uri(&r.head);
        return signed_path(uri, &conf.secret).is_some_and(|link| put(out, link));
    }
    let (Some(link), Some(text)) = (&conf.link, &conf.md5) else { return false };
    let given = r.render(link);
    let Some((hash, until)) = parse(&given) else { return false };
    if let Some(until) = until {
        *r.slot() = Expires(Some(until.text.to_vec()));
    }
    let made: [u8; 16] = Md5::digest(r.render(text)).into();
    let (now, _) = engine::clock::now();
    equal(&hash, &made) && put(out, if until.is_some_and(|until| until.time < now) { b"0" } else { b"1" })
}

/// The time at which a link expires, and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Until<'t> {
    text: &'t [u8],
    time: i64,
}

/// `hash` or `hash,time`.
fn parse(given: &[u8]) -> Option<([u8; 16], Option<Until<'_>>)> {
    /// The characters of a hash, with padding.
    const LONGEST: usize = 24;
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::RequireNone)
            .with_decode_allow_trailing_bits(true),
    );
    let comma = memchr::memchr(b',', given);
    let encoded = &given[..comma.unwrap_or(given.len())];
    let until = match comma {
        Some(comma) => {
            let text = &given[comma + 1..];
            let time = buf::parse::parse_number(text).and_then(|time| i64::try_from(time).ok());
            Some(Until { text, time: time.filter(|time| *time > 0)? })
        }
        None => None,
    };
    let padding = encoded.iter().rev().take_while(|&&byte| byte == b'=').count();
    let digits = Some(&encoded[..encoded.len() - padding]).filter(|_| encoded.len() <= LONGEST)?;
    let mut decoded = [0; LONGEST / 4 * 3];
    let len = BASE64.decode_slice(digits, &mut decoded).ok()?;
    Some((decoded[..len].try_into().ok()?, until))
}

/// The link in `/prefix/hash/link`, if the hash fits.
fn signed_path<'u>(uri: &'u [u8], secret: &[u8]) -> Option<&'u [u8]> {
    let mut parts = uri.splitn(4, |&byte| byte == b'/');
    let (Some(b""), Some(_), Some(hash), Some(link)) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let made: [u8; 16] = Md5::new().chain_update(link).chain_update(secret).finalize().into();
    (!link.is_empty() && equal(&buf::hex::decode(hash)?, &made)).then_some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_times() {
        let hash = "DwAR_ZL33om4nyGskTVd3A";
        let expect: [u8; 16] = Md5::digest("2147483647 x").into();
        for (text, until) in [
            (hash.to_owned(), Some(None)),
            (format!("{hash}=="), Some(None)),
            (format!("{hash}="), Some(None)),
            (format!("{hash},2147483647"), Some(Some(2_147_483_647))),
            (format!("{hash}==,1"), Some(Some(1))),
            (format!("{hash},"), None),
            (format!("{hash},0"), None),
            (format!("{hash},-5"), None),
            (format!("{hash},1x"), None),
            (format!("{hash},1,2"), None),
            (format!("{hash},99999999999999999999999"), None),
            (format!("{hash},9223372036854775808"), None),
            (format!("{hash}==="), None),
            (format!("{hash}QQ"), None),
            (hash.replace('_', "/"), None),
            (String::new(), None),
            (",1".to_owned(), None),
        ] {
            let parsed = parse(text.as_bytes()).map(|(hash, until)| (hash, until.map(|until| until.time)));
            assert_eq!(parsed, until.map(|until| (expect, until)), "{text}");
        }
    }

    #[test]
    fn paths() {
        for (uri, expect) in [
            ("/p/5e814704a28d9bc1914ff19fa0c4a00a/link", Some("link")),
            ("/p/5E814704A28D9BC1914FF19FA0C4A00A/link", Some("link")),
            ("/another/5e814704a28d9bc1914ff19fa0c4a00a/link", Some("link")),
            ("/p/583f0840cc67bbd8ff3f2ed4d18ae048/link?a=b", Some("link?a=b")),
            ("/p/80d0001ed01edd2b8df6d81c5287f841/dir/link", Some("dir/link")),
            ("/p/5e814704a28d9bc1914ff19fa0c4a00a/linkx", None),
            ("/p/5e814704a28d9bc1914ff19fa0c4a00b/link", None),
            ("/p/5e814704a28d9bc1914ff19fa0c4a00a0/link", None),
            ("/p/5e814704a28d9bc1914ff19fa0c4a00/link", None),
            ("/p/5e814704a28d9bc1914ff19fa0c4a0/link", None),
            ("/p/5e814704a28d9bc1914ff19fa0c4a0+a/link", None),
            ("/p/x/5e814704a28d9bc1914ff19fa0c4a00a/link", None),
            // The hash of the secret alone.
            ("/p/5ebe2294ecd0e0f08eab7690d2a6ee69/", None),
            ("/p/5ebe2294ecd0e0f08eab7690d2a6ee69", None),
            ("/p/", None),
            ("/p", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(signed_path(uri.as_bytes(), b"secret"), expect.map(str::as_bytes), "{uri}");
        }
    }
}
