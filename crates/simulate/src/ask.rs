//! What a client asks for, and what it may be told.

use crate::content::{FILES, Key};
use crate::dice::Dice;

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Its number, in the field `X-Id`: unlike that of any other request of the run.
    pub id: u64,
    /// What it wants.
    pub place: Place,
    /// How.
    pub method: Method,
    /// The length of its body.
    pub body: Option<u64>,
    /// Whether the body is sent in chunks (HTTP/1) or without Content-Length (HTTP/2).
    pub chunked: bool,
    /// Whether the body waits for 100 Continue.
    pub expects: bool,
    /// The first and last byte that are wanted.
    pub range: Option<(u64, u64)>,
    /// Whether it takes gzip.
    pub gzip: bool,
    /// Whether it has the file's current version, and says so.
    pub fresh: bool,
    /// Whether it is of HTTP/1.0.
    pub old: bool,
    /// Whether the connection is to end after it.
    pub last: bool,
    /// The key that limits count it under.
    pub limit_key: u64,
}

/// The methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
}

impl Method {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(usize),
    /// The same by another name, which is rewritten.
    Rewritten(usize),
    /// The same at a limited rate.
    Throttled(usize),
    /// The same, with so many at a time for a key.
    Counted(usize),
    /// The same, with so many in a second for a key.
    Rated(usize),
    /// Nothing.
    Missing,
    /// A text of the configuration.
    Text,
    /// A redirect.
    Moved,
    /// A connection that is closed without a response.
    Dropped,
    /// A body that is too large.
    TooLarge,
    /// A backend's response.
    Backend(Route, How, u64),
    /// A backend that changes to another protocol, and sends back so many bytes.
    Tunnel(u64),
    /// A backend where nobody listens.
    Refused,
    /// A backend that says nothing, not even that it isn't there.
    Silent,
}

/// Which way a request is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To a group of servers, with buffers.
    Group,
    /// To another group, without buffers for request and response.
    Unbuffered,
    /// To one server.
    Direct,
    /// To one server over TLS.
    Secure,
}

/// How a backend treats a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Well, with Content-Length.
    Well,
    /// In chunks.
    Chunked,
    /// With a body that ends with the connection.
    ToTheEnd,
    /// In pieces, with pauses.
    Slowly,
    /// After a while.
    Late,
    /// Before it has read the request's body, which it never does.
    Early,
    /// With a part before it has read the request's body, and the rest afterwards.
    Halfway,
    /// After an interim response.
    Interim,
    /// With status 404 and a page of its own.
    NotFound,
    /// With status 500.
    Failed,
    /// With a head that isn't one.
    Nonsense,
    /// With a part of a head, and the end.
    HalfHead,
    /// With a part of a body, and the end.
    HalfBody,
    /// With a part of a body, and a reset.
    ResetBody,
    /// Never.
    Never,
    /// With the end at once; the next time well.
    SecondTime,
    /// With more bytes than it said.
    TooMuch,
    /// By changing to a protocol in which everything is sent back.
    Switch,
}

impl How {
    /// All of them, the good ones first.
    pub const ALL: [How; 18] = [
        How::Well,
        How::Chunked,
        How::ToTheEnd,
        How::Slowly,
        How::Late,
        How::Interim,
        How::NotFound,
        How::Early,
        How::Halfway,
        How::Failed,
        How::Nonsense,
        How::HalfHead,
        How::HalfBody,
        How::ResetBody,
        How::Never,
        How::SecondTime,
        How::TooMuch,
        How::Switch,
    ];

    /// Its place in [`How::ALL`], by which it travels.
    pub fn number(self) -> usize {
        How::ALL.iter().position(|how| *how == self).unwrap_or(0)
    }

    /// So many of them are good: the client gets a whole response if nothing else fails.
    const GOOD: usize = 9;
}

impl Ask {
    /// A GET.
    pub fn get(id: u64, place: Place) -> Ask {
        Ask {
            id,
            place,
            method: Method::Get,
            body: None,
            chunked: false,
            expects: false,
            range: None,
            gzip: false,
            fresh: false,
            old: false,
            last: false,
            limit_key: 0,
        }
    }

    /// Rolls one; `calm`: only what can't fail by itself.
    pub fn roll(id: u64, dice: &mut Dice, calm: bool) -> Ask {
        let place = Place::roll(dice, calm);
        let method = match dice.below(10) {
            0 => Method::Head,
            1..3 => Method::Post,
            _ => Method::Get,
        };
        let takes_body = matches!(place, Place::Backend(..) | Place::Refused | Place::Silent | Place::TooLarge);
        let method = match place {
            Place::TooLarge => Method::Post,
            Place::Tunnel(_) => Method::Get,
            _ if method == Method::Post && !takes_body => Method::Get,
            _ => method,
        };
        let sizes = [0, 1, 200, 5000, 20_000, 70_000];
        let body = (method == Method::Post).then(|| match place {
            Place::TooLarge => MAX_BODY + 1 + dice.below(1000),
            _ => dice.of(&sizes),
        });
        let (gzip, is_tunnel) = (dice.percent(30), matches!(place, Place::Tunnel(_)));
        let length = place.file().map_or(0, |file| FILES[file]);
        let range = (length > 0 && !gzip && dice.percent(30)).then(|| {
            let first = dice.below(length);
            (first, dice.between(first, length - 1))
        });
        Ask {
            id,
            place,
            method,
            body,
            chunked: dice.percent(40),
            expects: dice.percent(20),
            range,
            gzip,
            fresh: range.is_none() && place.file().is_some() && dice.percent(10),
            old: body.is_none() && !is_tunnel && dice.percent(5),
            last: !is_tunnel && dice.percent(10),
            limit_key: dice.below(2),
        }
    }

    /// Whether it may be tried again.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.method != Method::Post
    }

    /// The target with its arguments.
    pub fn target(&self) -> String {
        let path = match self.place {
            Place::File(n) => format!("/files/{n}"),
            Place::Rewritten(n) => format!("/old/{n}"),
            Place::Throttled(n) => format!("/slow/{n}"),
            Place::Counted(n) => format!("/counted/{n}"),
            Place::Rated(n) => format!("/rated/{n}"),
            Place::Missing => "/files/none".to_owned(),
            Place::Text => "/text".to_owned(),
            Place::TooLarge => "/direct/".to_owned(),
            Place::Moved => "/moved".to_owned(),
            Place::Dropped => "/dropped".to_owned(),
            Place::Backend(route, how, length) => {
                let route = match route {
                    Route::Group => "group",
                    Route::Unbuffered => "unbuffered",
                    Route::Direct => "direct",
                    Route::Secure => "secure",
                };
                return format!("/{route}/?how={}&length={length}&k={}", how.number(), self.limit_key);
            }
            Place::Tunnel(length) => {
                return format!("/tunnel/?how={}&length={length}&k={}", How::Switch.number(), self.limit_key);
            }
            Place::Refused => "/refused".to_owned(),
            Place::Silent => "/silent".to_owned(),
        };
        format!("{path}?k={}", self.limit_key)
    }

    /// The statuses that it may get, the one that it gets if nothing fails first.
    pub fn statuses(&self) -> &'static [u16] {
        match self.place {
            Place::TooLarge => &[413, 502, 504],
            Place::File(_) | Place::Rewritten(_) | Place::Throttled(_) => self.of_file(),
            Place::Counted(_) | Place::Rated(_) => match self.of_file() {
                [200, ..] => &[200, 503],
                [206, ..] => &[206, 503],
                _ => &[304, 503],
            },
            Place::Missing => &[404],
            Place::Text => &[200],
            Place::Moved => &[302],
            Place::Dropped => &[],
            Place::Backend(_, How::NotFound, _) => &[404, 502, 504],
            Place::Backend(_, How::Failed, _) => &[500, 502, 504],
            Place::Backend(_, How::Never, _) => &[504, 502],
            Place::Backend(_, How::Nonsense | How::HalfHead, _) => &[502, 504],
            Place::Backend(..) => &[200, 502, 504],
            Place::Tunnel(_) => &[101, 502, 504],
            Place::Refused => &[502, 504],
            Place::Silent => &[504, 502],
        }
    }

    fn of_file(&self) -> &'static [u16] {
        match (self.fresh, self.range) {
            (true, _) => &[304],
            (_, Some(_)) => &[206],
            _ => &[200],
        }
    }

    /// Whether it gets the first of its statuses and the whole body, if nothing fails but what it asks for.
    pub(crate) fn is_sure(&self) -> bool {
        match self.place {
            Place::Backend(_, how, _) => how.number() < How::GOOD,
            Place::Counted(_) | Place::Rated(_) | Place::Dropped | Place::TooLarge => false,
            _ => true,
        }
    }

    /// The body of a response with this status: whose bytes, from where, how many. `None`: a page that isn't looked at.
    pub fn content(&self, status: u16) -> Option<(Key, u64, u64)> {
        match (self.place, status) {
            (Place::Backend(_, how, length), 200 | 404) if (status == 404) == (how == How::NotFound) => {
                Some((Key::Response(self.id), 0, length))
            }
            (Place::Tunnel(length), 101) => Some((Key::Request(self.id), 0, length)),
            (place, 200) => place.file().map(|file| (Key::File(file), 0, FILES[file])),
            (place, 206) => {
                let (first, last) = self.range?;
                place.file().map(|file| (Key::File(file), first, last - first + 1))
            }
            _ => None,
        }
    }
}

impl Place {
    fn roll(dice: &mut Dice, calm: bool) -> Place {
        let file = dice.below(FILES.len() as u64) as usize;
        match dice.below(20) {
            0..4 => Place::File(file),
            4 => Place::Rewritten(file),
            5 => Place::Throttled(file),
            6 => Place::Counted(file),
            7 => Place::Rated(file),
            8 => Place::Missing,
            9 => Place::Text,
            10 if calm => dice.of(&[Place::Moved, Place::Dropped]),
            10 => dice.of(&[Place::Moved, Place::Dropped, Place::TooLarge]),
            11 if !calm => dice.of(&[Place::Refused, Place::Silent]),
            12 => Place::Tunnel(dice.of(&[0, 1, 5000, 60_000])),
            _ => {
                let how = dice.of(if calm { &How::ALL[..How::GOOD] } else { &How::ALL[..How::ALL.len() - 1] });
                let length = dice.of(&[0, 1, 300, 4096, 9000, 33_000, 120_000]);
                Place::Backend(dice.of(&[Route::Group, Route::Unbuffered, Route::Direct, Route::Secure]), how, length)
            }
        }
    }

    /// The file that is asked for.
    pub fn file(self) -> Option<usize> {
        match self {
            Place::File(n) | Place::Rewritten(n) | Place::Throttled(n) | Place::Counted(n) | Place::Rated(n) => Some(n),
            _ => None,
        }
    }
}

/// `client_max_body_size`.
pub(crate) const MAX_BODY: u64 = 100_000;
