//! The countries and regions that databases have by number and code. Regions have codes of FIPS 10-4, those of the United
//! States and Canada of ISO 3166-2.

use std::sync::LazyLock;

/// A country, or what counts as one.
#[derive(Debug, PartialEq, Eq)]
pub struct Country {
    /// Two letters.
    pub code: &'static str,
    /// Three letters.
    pub code3: &'static str,
    /// Two letters.
    pub continent: &'static str,
    /// In English.
    pub name: &'static str,
}

impl Country {
    /// The country of that number; none for 0.
    pub(super) fn by_number(number: usize) -> Option<&'static Country> {
        COUNTRIES.get(number).filter(|_| number > 0)
    }

    /// The same; for 0, and for numbers that aren't known, what stands for no country.
    pub(super) fn by_number_or_none(number: usize) -> &'static Country {
        COUNTRIES.get(number).unwrap_or(&COUNTRIES[0])
    }
}

/// The name of a region of a country.
pub fn region_name(country: &[u8], region: &[u8]) -> Option<&'static str> {
    let at = REGIONS.binary_search_by(|line| (line.0.as_bytes(), line.1.as_bytes()).cmp(&(country, region))).ok()?;
    REGIONS.get(at).map(|line| line.2)
}

/// By number.
static COUNTRIES: LazyLock<Vec<Country>> = LazyLock::new(|| {
    let lines = include_str!("countries.tsv").lines();
    let parts = |line: &'static str| {
        let mut parts = line.split('\t');
        let mut next = || parts.next().unwrap_or_default();
        Country { code: next(), code3: next(), continent: next(), name: next() }
    };
    lines.map(parts).collect()
});

/// Country, code and name, in order.
static REGIONS: LazyLock<Vec<(&str, &str, &str)>> = LazyLock::new(|| {
    let lines = include_str!("regions.tsv").lines();
    let mut regions: Vec<_> = lines
        .filter_map(|line| {
            let (country, rest) = line.split_once('\t')?;
            let (region, name) = rest.split_once('\t')?;
            Some((country, region, name))
        })
        .collect();
    regions.sort_unstable();
    regions
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        assert_eq!((COUNTRIES.len(), REGIONS.len()), (256, 4107));
        assert!(COUNTRIES.iter().all(|country| country.code.len() == 2 && !country.name.is_empty()));
        for (country, region, expect) in
            [("RU", "48", Some("Moscow City")), ("US", "NY", Some("New York")), ("US", "??", None), ("", "", None)]
        {
            assert_eq!(region_name(country.as_bytes(), region.as_bytes()), expect, "{country} {region}");
        }
    }
}
