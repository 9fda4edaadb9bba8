//! MaxMind's older databases of places by address (`GeoIP.dat`).
//!
//! A file is a binary tree, two pointers a node, whose depth is the bit of the address; then the records that its leaves
//! point to; then, after three bytes of 255, the kind of the database and the number of nodes. Nothing in the file is
//! trusted: what points outside of it is no record.

mod places;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

pub use places::{Country, region_name};

/// A database.
#[derive(Clone)]
pub struct Database {
    file: Vec<u8>,
    /// The number of its kind in the file.
    number: u8,
    kind: Kind,
    /// The number of nodes: pointers from here on are leaves.
    nodes: u32,
    /// The bytes of a pointer.
    width: usize,
    v6: bool,
}

/// What a database tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The country.
    Country,
    /// Country, region and city.
    City,
    /// A name: of an organization, a provider, a domain, a network.
    Name,
}

/// Why a file is no database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeoipError {
    /// It is too short.
    Short,
    /// It is of a kind that isn't read.
    Unknown(u8),
}

impl fmt::Display for GeoipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GeoipError::Short => f.write_str("the file is too short"),
            GeoipError::Unknown(number) => write!(f, "a database of type {number}"),
        }
    }
}

impl std::error::Error for GeoipError {}

/// A record of a city.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct City<'a> {
    /// The country.
    pub country: &'static Country,
    /// The code of the region; empty if there is none.
    pub region: &'a [u8],
    /// The name of the city in ISO 8859-1; empty if there is none.
    pub city: &'a [u8],
    /// The postal code; empty if there is none.
    pub postal_code: &'a [u8],
    /// Degrees, ten thousand times.
    pub latitude: i32,
    /// The same.
    pub longitude: i32,
    /// The code of the area of advertising in the United States, else 0.
    pub dma_code: u32,
    /// The code of the telephone area in the United States, else 0.
    pub area_code: u32,
}

impl Database {
    /// Takes a file for a database.
    pub fn new(file: Vec<u8>) -> Result<Database, GeoipError> {
        let Some((number, at)) = structure(&file) else {
            // Files without the end are the oldest: countries.
            let nodes = FIRST_COUNTRY;
            return match file.len() {
                0..6 => Err(GeoipError::Short),
                _ => Ok(Database { file, number: COUNTRY, kind: Kind::Country, nodes, width: 3, v6: false }),
            };
        };
        let (kind, width, v6) = match number {
            COUNTRY | PROXY | NETSPEED | LARGE_COUNTRY => (Kind::Country, 3, false),
            COUNTRY_V6 | LARGE_COUNTRY_V6 => (Kind::Country, 3, true),
            CITY_0 | CITY_1 => (Kind::City, 3, false),
            CITY_0_V6 | CITY_1_V6 => (Kind::City, 3, true),
            ORGANIZATION | PROVIDER | DOMAIN => (Kind::Name, 4, false),
            ORGANIZATION_V6 | PROVIDER_V6 | DOMAIN_V6 => (Kind::Name, 4, true),
            NETWORK => (Kind::Name, 3, false),
            NETWORK_V6 => (Kind::Name, 3, true),
            other => return Err(GeoipError::Unknown(other)),
        };
        let nodes = match (kind, number) {
            (Kind::Country, LARGE_COUNTRY | LARGE_COUNTRY_V6) => FIRST_OF_MANY,
            (Kind::Country, _) => FIRST_COUNTRY,
            _ => pointer(&file, at, 3).ok_or(GeoipError::Short)?,
        };
        Ok(Database { file, number, kind, nodes, width, v6 })
    }

    /// The number of its kind in the file.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// What it tells.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The country of an address; none in databases of other kinds.
    pub fn country(&self, address: IpAddr) -> Option<&'static Country> {
        let leaf = self.leaf(address).filter(|_| self.kind == Kind::Country)?;
        Country::by_number(leaf as usize)
    }

    /// The city of an address; none in databases of other kinds.
    pub fn city(&self, address: IpAddr) -> Option<City<'_>> {
        let record = self.record(address).filter(|_| self.kind == Kind::City)?;
        let (number, rest) = record.split_first()?;
        let country = Country::by_number_or_none(usize::from(*number));
        let (region, rest) = text(rest)?;
        let (city, rest) = text(rest)?;
        let (postal_code, rest) = text(rest)?;
        let degrees = |at| pointer(rest, at, 3).map(|value| value as i32 - 1_800_000);
        let (latitude, longitude) = (degrees(0)?, degrees(3)?);
        let codes = pointer(rest, 6, 3).filter(|_| country.code == "US").unwrap_or(0);
        let (dma_code, area_code) = (codes / 1000, codes % 1000);
        Some(City { country, region, city, postal_code, latitude, longitude, dma_code, area_code })
    }

    /// The name for an address, in ISO 8859-1; none in databases of other kinds.
    pub fn name(&self, address: IpAddr) -> Option<&[u8]> {
        let record = self.record(address).filter(|_| self.kind == Kind::Name)?;
        text(record).map(|(name, _)| name)
    }

    /// The record of an address.
    fn record(&self, address: IpAddr) -> Option<&[u8]> {
        let leaf = self.leaf(address).filter(|leaf| *leaf > 0)? as usize;
        // Leaves count from the end of the tree.
        let tree = 2 * self.width * self.nodes as usize;
        self.file.get(tree.checked_add(leaf)?..)
    }

    /// The leaf of an address, counted from the first one; 0 is none.
    fn leaf(&self, address: IpAddr) -> Option<u32> {
        let (bits, count) = match (address.to_canonical(), self.v6) {
            (IpAddr::V4(ip), false) => (u128::from(ip.to_bits()), 32),
            (IpAddr::V4(ip), true) => (ip.to_ipv6_mapped().to_bits(), 128),
            (IpAddr::V6(ip), true) => (ip.to_bits(), 128),
            (IpAddr::V6(_), false) => (u128::from(Ipv4Addr::BROADCAST.to_bits()), 32),
        };
        let mut node = 0;
        for bit in (0..count).rev() {
            let side = (bits >> bit & 1) as usize;
            node = pointer(&self.file, (2 * node as usize + side) * self.width, self.width)?;
            if node >= self.nodes {
                return Some(node - self.nodes);
            }
        }
        None
    }
}

/// Where the kind of the database stands: its number, and what follows.
fn structure(file: &[u8]) -> Option<(u8, usize)> {
    (0..LONGEST_END).find_map(|back| {
        let at = file.len().checked_sub(3 + back)?;
        let (marks, rest) = file.get(at..)?.split_at_checked(3)?;
        let number = *rest.first().filter(|_| marks == [255; 3])?;
        // The oldest numbers are 105 higher.
        Some((if number >= 106 { number - 105 } else { number }, at + 4))
    })
}

/// A number of three or four bytes, the lowest first.
fn pointer(file: &[u8], at: usize, width: usize) -> Option<u32> {
    let bytes = file.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
}

/// A text that ends with a zero, and what follows.
fn text(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, record.get(..record.len().min(LONGEST_TEXT))?)?;
    Some((&record[..end], &record[end + 1..]))
}

/// How far from the end of a file its structure may begin.
const LONGEST_END: usize = 20;
/// Texts of records aren't longer.
const LONGEST_TEXT: usize = 512;

/// Where countries begin, so many nodes a database of countries may have.
const FIRST_COUNTRY: u32 = 16_776_960;
/// The same where there may be more countries.
const FIRST_OF_MANY: u32 = 16_515_072;

const COUNTRY: u8 = 1;
const CITY_1: u8 = 2;
const PROVIDER: u8 = 4;
const ORGANIZATION: u8 = 5;
const CITY_0: u8 = 6;
const PROXY: u8 = 8;
const NETWORK: u8 = 9;
const NETSPEED: u8 = 10;
const DOMAIN: u8 = 11;
const COUNTRY_V6: u8 = 12;
const LARGE_COUNTRY: u8 = 17;
const LARGE_COUNTRY_V6: u8 = 18;
const NETWORK_V6: u8 = 21;
const PROVIDER_V6: u8 = 22;
const ORGANIZATION_V6: u8 = 23;
const DOMAIN_V6: u8 = 24;
const CITY_1_V6: u8 = 30;
const CITY_0_V6: u8 = 31;

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("kind", &self.kind).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree in which one address has a leaf and all others have none.
    fn tree(address: Ipv4Addr, width: usize, none: u32, leaf: u32) -> Vec<u8> {
        let mut file = Vec::new();
        for depth in 0..32 {
            let next = if depth == 31 { leaf } else { depth + 1 };
            let sides = if address.to_bits() >> (31 - depth) & 1 == 1 { [none, next] } else { [next, none] };
            sides.iter().for_each(|side| file.extend_from_slice(&side.to_le_bytes()[..width]));
        }
        file
    }

    const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    #[test]
    fn countries() {
        let mut file = tree(HERE, 3, FIRST_COUNTRY, FIRST_COUNTRY + 185);
        for end in [&b""[..], b"\0\0\0\xff\xff\xff\x01", b"\xff\xff\xff\x6a"] {
            let whole = [&file[..], end].concat();
            let database = Database::new(whole).expect("a database");
            let country = database.country(HERE.into()).expect("a country");
            assert_eq!((country.code, country.code3, country.continent), ("RU", "RUS", "EU"));
            assert_eq!(country.name, "Russian Federation");
            assert_eq!(database.country(Ipv4Addr::LOCALHOST.into()), None);
            assert_eq!(database.country(HERE.to_ipv6_mapped().into()), Some(country));
            assert_eq!((database.city(HERE.into()), database.name(HERE.into())), (None, None));
        }
        file.truncate(100);
        let cut = Database::new(file).expect("a database");
        assert_eq!(cut.country(HERE.into()), None);
    }

    #[test]
    fn cities() {
        let mut file = tree(HERE, 3, 32, 33);
        file.push(0);
        file.push(225);
        file.extend_from_slice(b"CA\0Mountain View\094043\0");
        for number in [1_800_000 + 374_192, 1_800_000 - 1_220_574, 807_650_u32] {
            file.extend_from_slice(&number.to_le_bytes()[..3]);
        }
        file.extend_from_slice(b"\xff\xff\xff\x02\x20\0\0");
        let database = Database::new(file).expect("a database");
        let city = database.city(HERE.into()).expect("a city");
        assert_eq!((city.country.code, city.region, city.city), ("US", &b"CA"[..], &b"Mountain View"[..]));
        assert_eq!((city.postal_code, city.latitude, city.longitude), (&b"94043"[..], 374_192, -1_220_574));
        assert_eq!((city.dma_code, city.area_code), (807, 650));
        assert_eq!(region_name(b"US", b"CA"), Some("California"));
        assert_eq!(database.city(Ipv4Addr::LOCALHOST.into()), None);
    }

    #[test]
    fn names() {
        let mut file = tree(HERE, 4, 32, 33);
        file.extend_from_slice(b"\0Tidegate\0\xff\xff\xff\x05\x20\0\0");
        let database = Database::new(file).expect("a database");
        assert_eq!(database.name(HERE.into()), Some(&b"Tidegate"[..]));
        assert_eq!(database.name(Ipv4Addr::LOCALHOST.into()), None);
    }

    #[test]
    fn what_is_no_database() {
        assert_eq!(Database::new(b"\0".to_vec()).err(), Some(GeoipError::Short));
        assert_eq!(Database::new(b"abc\xff\xff\xff\x07".to_vec()).err(), Some(GeoipError::Unknown(7)));
        assert_eq!(Database::new(b"abc\xff\xff\xff\x02".to_vec()).err(), Some(GeoipError::Short));
    }
}
