//! Browsers that are treated in ways of their own, known by `User-Agent`. Each of them may name others beside itself, so the
//! first one that is found counts: Opera, Internet Explorer, those with Gecko, Chrome, Safari.

use memchr::memmem::find;

/// What follows `MSIE ` in the name of an Internet Explorer.
fn msie(agent: &[u8]) -> Option<&[u8]> {
    let version = agent.get(find(agent, b"MSIE ")? + 5..).unwrap_or_default();
    (version.len() > 2 && find(agent, b"Opera").is_none()).then_some(version)
}

pub(crate) fn is_msie(agent: &[u8]) -> bool {
    msie(agent).is_some()
}

/// Internet Explorer 4 to 6, without the one of Windows XP's service pack 2.
pub(crate) fn is_msie6(agent: &[u8]) -> bool {
    match msie(agent) {
        Some([b'4' | b'5', b'.', ..]) => true,
        Some([b'6', b'.', _, rest @ ..]) => find(rest, b"SV1").is_none(),
        _ => false,
    }
}

fn is_none_of_the_older(agent: &[u8]) -> bool {
    !is_msie(agent) && find(agent, b"Opera").is_none() && find(agent, b"Gecko/").is_none()
}

pub(crate) fn is_chrome(agent: &[u8]) -> bool {
    find(agent, b"Chrome/").is_some() && is_none_of_the_older(agent)
}

/// Safari of macOS.
pub(crate) fn is_safari(agent: &[u8]) -> bool {
    let has = |text: &[u8]| find(agent, text).is_some();
    has(b"Safari/") && has(b"Mac OS X") && !has(b"Chrome/") && is_none_of_the_older(agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_browsers() {
        for (agent, expect) in [
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", true),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)", false),
            ("Mozilla/4.0 (compatible; MSIE 5.5; Windows 98)", true),
            ("Mozilla/4.0 (compatible; MSIE 4.0; Windows 95)", true),
            ("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 5.1)", false),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows 98; en) Opera 8.50", false),
            ("MSIE ", false),
            ("MSIE 6.", false),
            ("curl", false),
        ] {
            assert_eq!(is_msie6(agent.as_bytes()), expect, "{agent}");
        }
    }

    #[test]
    fn browsers_that_name_others() {
        let safari =
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/605 (KHTML, like Gecko) Version/17 Safari/605";
        let chrome =
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/537 (KHTML, like Gecko) Chrome/120 Safari/537";
        let older = ["Opera", "MSIE 7.0;", "Gecko/20100101"].map(|name| format!("{safari} {name}"));
        for (agent, expect) in [(safari, (true, false)), (chrome, (false, true)), ("Safari/605", (false, false))] {
            assert_eq!((is_safari(agent.as_bytes()), is_chrome(agent.as_bytes())), expect, "{agent}");
        }
        for agent in older {
            assert!(!is_safari(agent.as_bytes()) && !is_chrome(format!("{agent} Chrome/1").as_bytes()), "{agent}");
        }
    }
}
