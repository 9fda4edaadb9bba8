//! Networks of either family with values: what `allow`, `set_real_ip_from` and `geo` say of addresses.
//!
//! An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) is looked up as what it is.

use std::net::{IpAddr, Ipv4Addr};

use super::{Address, Ranges};

/// An IPv4 address as configurations have it: its numbers may begin with zeros, and are decimal nevertheless.
pub fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut words = text.split('.');
    for octet in &mut octets {
        let word = words.next().filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        *octet = word.parse().ok()?;
    }
    words.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// A network: the addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// The networks of all addresses.
    pub const ALL: [Network; 2] = [
        Network { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), bits: 0 },
        Network { address: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), bits: 0 },
    ];

    /// `192.0.2.0/24`, `2001:db8::/32`, or an address alone.
    pub fn parse(text: &[u8]) -> Option<Network> {
        let text = std::str::from_utf8(text).ok()?;
        let (address, mask) = text.split_once('/').map_or((text, None), |(address, mask)| (address, Some(mask)));
        let address = parse_ipv4(address).map(IpAddr::V4).or_else(|| address.parse().ok())?;
        let network = Network::from(address);
        match mask {
            None => Some(network),
            Some(mask) if mask.starts_with('+') => None,
            Some(mask) => {
                let bits = mask.parse().ok().filter(|bits| *bits <= network.bits)?;
                Some(Network { bits, ..network })
            }
        }
    }

    /// Whether its address is the first one in it: no bit is set that doesn't count.
    pub fn is_first(self) -> bool {
        self == self.first()
    }

    /// The same network, with its first address.
    pub fn first(self) -> Network {
        let address = match self.address {
            IpAddr::V4(ip) => IpAddr::V4(ip.to_bits().network(self.bits).0.into()),
            IpAddr::V6(ip) => IpAddr::V6(ip.to_bits().network(self.bits).0.into()),
        };
        Network { address, ..self }
    }
}

/// The network of one address.
impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Network {
        Network { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }
}

/// Networks with values.
#[derive(Clone, Debug)]
pub struct Networks<T> {
    v4: Ranges<u32, T>,
    v6: Ranges<u128, T>,
}

/// Ranges of one family, before they are flattened.
type Spans<K, T> = Vec<(K, K, T)>;

impl<T> Networks<T> {
    /// Of the networks that hold an address the one that stands first counts.
    pub fn earlier_wins(rules: impl IntoIterator<Item = (Network, T)>) -> Networks<T> {
        let (v4, v6) = spans(rules.into_iter());
        Networks { v4: Ranges::earlier_wins(v4), v6: Ranges::earlier_wins(v6) }
    }

    /// Of the networks that hold an address the smallest one counts.
    pub fn smallest_wins(rules: impl IntoIterator<Item = (Network, T)>) -> Networks<T> {
        let mut rules: Vec<(Network, T)> = rules.into_iter().collect();
        rules.sort_by_key(|(network, _)| network.bits);
        let (v4, v6) = spans(rules.into_iter());
        Networks { v4: Ranges::later_wins(v4), v6: Ranges::later_wins(v6) }
    }

    /// The value of the network that holds an address.
    pub fn lookup(&self, address: IpAddr) -> Option<&T> {
        match address.to_canonical() {
            IpAddr::V4(ip) => self.v4.lookup_ip(ip),
            IpAddr::V6(ip) => self.v6.lookup_ip(ip),
        }
    }
}

fn spans<T>(rules: impl Iterator<Item = (Network, T)>) -> (Spans<u32, T>, Spans<u128, T>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (Network { address, bits }, value) in rules {
        match address {
            IpAddr::V4(ip) => {
                let (first, last) = ip.to_bits().network(bits);
                v4.push((first, last, value));
            }
            IpAddr::V6(ip) => {
                let (first, last) = ip.to_bits().network(bits);
                v6.push((first, last, value));
            }
        }
    }
    (v4, v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text} is a network"))
    }

    #[test]
    fn parses() {
        for (text, first, is_first) in [
            ("192.0.2.1", "192.0.2.1/32", true),
            ("192.0.2.1/24", "192.0.2.0/24", false),
            ("0.0.0.0/0", "0.0.0.0/0", true),
            ("2001:db8::1/32", "2001:db8::/32", false),
            ("::1", "::1/128", true),
            ("010.001.00.09/08", "10.0.0.0/8", false),
        ] {
            assert_eq!((network(text).first(), network(text).is_first()), (network(first), is_first), "{text}");
        }
        for text in [
            "",
            "localhost",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "::/129",
            "/8",
            "1..2.3",
            "1.2.3.",
            "1.2.3.0256",
            "1.2.3.+4",
            "1.2.3.4.5",
        ] {
            assert_eq!(Network::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_ends_of_networks() {
        let rules =
            [("10.1.0.0/16", "b"), ("10.0.0.0/8", "a"), ("10.1.2.3", "c"), ("10.1.2.3", "d"), ("255.0.0.0/8", "top")];
        let networks = Networks::smallest_wins(rules.iter().map(|(text, value)| (network(text), *value)));
        for (address, expect) in [
            ("9.255.255.255", None),
            ("10.0.0.0", Some("a")),
            ("10.0.255.255", Some("a")),
            ("10.1.0.0", Some("b")),
            ("10.1.2.2", Some("b")),
            ("10.1.2.3", Some("d")),
            ("10.1.2.4", Some("b")),
            ("10.2.0.0", Some("a")),
            ("11.0.0.0", None),
            ("255.255.255.255", Some("top")),
            ("0.0.0.0", None),
        ] {
            assert_eq!(networks.lookup(address.parse().expect("an address")).copied(), expect, "{address}");
        }
    }

    #[test]
    fn precedence() {
        let rules = [("10.0.0.0/8", 'a'), ("10.1.0.0/16", 'b'), ("2001:db8::/32", 'c'), ("::/0", 'd')];
        let rules = || rules.iter().map(|(text, value)| (network(text), *value));
        let (earlier, smallest) = (Networks::earlier_wins(rules()), Networks::smallest_wins(rules()));
        for (address, by_order, by_size) in [
            ("10.1.2.3", Some('a'), Some('b')),
            ("::ffff:10.2.0.0", Some('a'), Some('a')),
            ("2001:db8::1", Some('c'), Some('c')),
            ("::1", Some('d'), Some('d')),
            ("11.0.0.0", None, None),
        ] {
            let ip = address.parse().expect("an address");
            assert_eq!((earlier.lookup(ip).copied(), smallest.lookup(ip).copied()), (by_order, by_size), "{address}");
        }
    }
}
