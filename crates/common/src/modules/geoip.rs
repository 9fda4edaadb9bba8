//! `geoip_country`, `geoip_city`, `geoip_org`: where an address is, by MaxMind's older databases.
//!
//! A database is read at the start and kept in memory; each variable is a walk down its tree.

use std::cell::{OnceCell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use conf::values::{conf_path, invalid_parameter};
use conf::{Args, Directive, Error, Level, Loader, Registry, Result};
use expr::vars::Flags;
use wire::geoip::{City, Country, Database, GeoipError, Kind, region_name};

use super::Module;
use super::realip::Forwarders;
use crate::vars::text::{number, put, put_some, show};
use crate::vars::{Definition, Getter, Setup, Variable, add};
use crate::{Facts, Proto};

/// The module.
pub struct Geoip;

conf::table! {
    /// Which databases there are.
    pub struct GeoipConf of P: Proto, raw GeoipRaw,
        at P::tables().geoip, block P::PLACES.block, level Level::Main;

    /// Names a database of countries, for `$geoip_country_code` and its kin.
    ///
    /// Form: `geoip_country file [utf8]`
    ///
    /// - `file`: a database of MaxMind's older kind (`.dat`), for IPv4 or IPv6.
    /// - `utf8`: names are given in UTF-8.
    ///
    /// Effect: the variables have what the database says of the client's address.
    ///
    /// Cost: the database is kept in memory.
    ///
    /// Danger: MaxMind has ended these databases in 2019; `geoip2` reads those of today.
    ///
    /// ```nginx
    /// geoip_country countries.dat;
    /// ```
    "geoip_country" in P::PLACES.block, Args::between(1, 2), default none,
        set(|_: &mut GeoipRaw, loader: &mut Loader<'_>, d: &Directive| open::<P>(loader, d, Kind::Country)) country: () = ();
    /// Names a database of cities, for `$geoip_city` and its kin.
    ///
    /// Form: `geoip_city file [utf8]`
    ///
    /// - `file`: a database of MaxMind's older kind (`.dat`), for IPv4 or IPv6.
    /// - `utf8`: names are given in UTF-8; without it in ISO 8859-1, as the database has them.
    ///
    /// Effect: the variables have what the database says of the client's address.
    ///
    /// Cost: the database is kept in memory.
    ///
    /// Danger: MaxMind has ended these databases in 2019; `geoip2` reads those of today.
    ///
    /// ```nginx
    /// geoip_city cities.dat utf8;
    /// ```
    "geoip_city" in P::PLACES.block, Args::between(1, 2), default none,
        set(|_: &mut GeoipRaw, loader: &mut Loader<'_>, d: &Directive| open::<P>(loader, d, Kind::City)) city: () = ();
    /// Names a database of organizations, for `$geoip_org`.
    ///
    /// Form: `geoip_org file [utf8]`
    ///
    /// - `file`: a database of MaxMind's older kind (`.dat`): of organizations, providers, domains or networks.
    /// - `utf8`: names are given in UTF-8; without it in ISO 8859-1, as the database has them.
    ///
    /// Effect: the variable has what the database says of the client's address.
    ///
    /// Cost: the database is kept in memory.
    ///
    /// ```nginx
    /// geoip_org organizations.dat;
    /// ```
    "geoip_org" in P::PLACES.block, Args::between(1, 2), default none,
        set(|_: &mut GeoipRaw, loader: &mut Loader<'_>, d: &Directive| open::<P>(loader, d, Kind::Name)) org: () = ();
}

/// The databases of a protocol, for its variables.
#[derive(Default)]
pub struct Geoips {
    country: OnceCell<Opened>,
    city: OnceCell<Opened>,
    org: OnceCell<Opened>,
    /// The proxies that name clients.
    pub proxies: RefCell<Forwarders>,
}

struct Opened {
    database: Database,
    utf8: bool,
}

/// The databases of the configuration that is being read.
pub fn databases<P: Proto>(loader: &mut Loader<'_>) -> Rc<Geoips> {
    loader.store.entry::<Setup<P>>().part::<Rc<Geoips>>().clone()
}

fn open<P: Proto>(loader: &mut Loader<'_>, d: &Directive, kind: Kind) -> Result<()> {
    let utf8 = match d.args.get(1) {
        None => false,
        Some(word) if *word == "utf8" => true,
        Some(word) => return Err(invalid_parameter(word)),
    };
    let all = databases::<P>(loader);
    let (place, what) = match kind {
        Kind::Country => (&all.country, "GeoIP"),
        Kind::City => (&all.city, "GeoIP City"),
        Kind::Name => (&all.org, "GeoIP"),
    };
    if place.get().is_some() {
        return Err(conf::table::duplicate(d));
    }
    let (path, name) = (conf_path(loader, d)?, d.arg(0).lossy().into_owned());
    let failed = || Error::at(d.arg(0), format!("GeoIP_open(\"{name}\") failed"));
    let file = std::fs::read(&path).map_err(|error| failed().hint(error.to_string()))?;
    let wrong = |number| Error::at(d.arg(0), format!("invalid {what} database \"{name}\" type:{number}"));
    let database = Database::new(file).map_err(|error| match error {
        GeoipError::Short => failed().hint(error.to_string()),
        GeoipError::Unknown(number) => wrong(number),
    })?;
    if database.kind() != kind {
        return Err(wrong(database.number()));
    }
    // It was empty a moment ago.
    let _ = place.set(Opened { database, utf8 });
    Ok(())
}

impl<P: Proto> Module<P> for Geoip {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<GeoipConf<P>>();
    }

    fn variables(&self, setup: &mut Setup<P>) {
        let (module, all) = (P::tables().geoip.module(), setup.part::<Rc<Geoips>>().clone());
        for (name, of, text) in COUNTRY.iter().copied() {
            define(setup, name, module, text, Ask { all: all.clone(), of: Of::Country(of) });
        }
        for (name, of, text) in CITY.iter().copied() {
            define(setup, name, module, text, Ask { all: all.clone(), of: Of::City(of) });
        }
        let text = "The organization of the client's address, by the database of `geoip_org`. Empty if that has none.";
        define(setup, "geoip_org", module, text, Ask { all, of: Of::Org });
    }
}

fn define<P: Proto>(setup: &mut Setup<P>, name: &str, module: &'static str, text: &'static str, ask: Ask) {
    let definition = Definition { getter: Getter::Object(Rc::new(ask)), setter: None, module, text };
    add(setup, name, Flags::NONE, definition);
}

/// A variable: what it asks of the databases.
struct Ask {
    all: Rc<Geoips>,
    of: Of,
}

enum Of {
    Country(OfCountry),
    City(OfCity),
    Org,
}

type OfCountry = fn(&Country) -> &'static str;
/// The last argument says whether text is to be UTF-8.
type OfCity = fn(&City<'_>, &mut Vec<u8>, bool) -> bool;

const COUNTRY: &[(&str, OfCountry, &str)] = &[
    (
        "geoip_country_code",
        |country| country.code,
        "The code of the client's country, two letters, by the database of `geoip_country`. Empty if that has none.",
    ),
    (
        "geoip_country_code3",
        |country| country.code3,
        "The code of the client's country, three letters, by the database of `geoip_country`. Empty if that has none.",
    ),
    (
        "geoip_country_name",
        |country| country.name,
        "The name of the client's country, by the database of `geoip_country`. Empty if that has none.",
    ),
];

const CITY: &[(&str, OfCity, &str)] = &[
    (
        "geoip_city_continent_code",
        |city, out, _| put(out, city.country.continent.as_bytes()),
        "The code of the client's continent, two letters, by the database of `geoip_city`. Empty if that has none.",
    ),
    (
        "geoip_city_country_code",
        |city, out, _| put(out, city.country.code.as_bytes()),
        "The code of the client's country, two letters, by the database of `geoip_city`. Empty if that has none.",
    ),
    (
        "geoip_city_country_code3",
        |city, out, _| put(out, city.country.code3.as_bytes()),
        "The code of the client's country, three letters, by the database of `geoip_city`. Empty if that has none.",
    ),
    (
        "geoip_city_country_name",
        |city, out, _| put(out, city.country.name.as_bytes()),
        "The name of the client's country, by the database of `geoip_city`. Empty if that has none.",
    ),
    (
        "geoip_region",
        |city, out, _| put_some(out, city.region),
        "The code of the client's region, by the database of `geoip_city`. Empty if that has none.",
    ),
    (
        "geoip_region_name",
        |city, out, _| {
            region_name(city.country.code.as_bytes(), city.region).is_some_and(|name| put(out, name.as_bytes()))
        },
        "The name of the client's region, by the database of `geoip_city`. Empty if that has none.",
    ),
    (
        "geoip_city",
        |city, out, utf8| put_text(out, city.city, utf8),
        "The name of the client's city, by the database of `geoip_city`. Empty if that has none.",
    ),
    (
        "geoip_postal_code",
        |city, out, utf8| put_text(out, city.postal_code, utf8),
        "The postal code of the client's place, by the database of `geoip_city`. Empty if that has none.",
    ),
    (
        "geoip_latitude",
        |city, out, _| show(out, format_args!("{:.4}", f64::from(city.latitude) / 10_000.0)),
        "The latitude of the client's place in degrees, by the database of `geoip_city`. Empty if that has none.",
    ),
    (
        "geoip_longitude",
        |city, out, _| show(out, format_args!("{:.4}", f64::from(city.longitude) / 10_000.0)),
        "The longitude of the client's place in degrees, by the database of `geoip_city`. Empty if that has none.",
    ),
    (
        "geoip_dma_code",
        |city, out, _| number(out, city.dma_code.into()),
        "The code of the client's area of advertising in the United States, else 0, by the database of `geoip_city`. \
         Empty if that doesn't know the address.",
    ),
    (
        "geoip_area_code",
        |city, out, _| number(out, city.area_code.into()),
        "The code of the client's telephone area in the United States, else 0, by the database of `geoip_city`. Empty \
         if that doesn't know the address.",
    ),
];

/// Appends a text of ISO 8859-1; one that is empty is none.
fn put_text(out: &mut Vec<u8>, text: &[u8], utf8: bool) -> bool {
    if !utf8 {
        return put_some(out, text);
    }
    let text: String = text.iter().map(|byte| char::from(*byte)).collect();
    put_some(out, text.as_bytes())
}

impl<P: Proto> Variable<P> for Ask {
    fn value(&self, session: &mut P::Session, out: &mut Vec<u8>) -> bool {
        let place = match self.of {
            Of::Country(_) => &self.all.country,
            Of::City(_) => &self.all.city,
            Of::Org => &self.all.org,
        };
        let Some(Opened { database, utf8 }) = place.get() else { return false };
        let address = self.all.client(session);
        match self.of {
            Of::Country(of) => database.country(address).is_some_and(|country| put(out, of(country).as_bytes())),
            Of::City(of) => database.city(address).is_some_and(|city| of(&city, out, *utf8)),
            Of::Org => database.name(address).is_some_and(|name| put_text(out, name, *utf8)),
        }
    }
}

impl Geoips {
    /// The address that is looked up: the client's, or the one that a trusted proxy names.
    fn client(&self, session: &impl Facts) -> IpAddr {
        client(session, &self.proxies)
    }
}

/// The client's address, or the one that a trusted proxy names. Clients on unix sockets have that of everybody.
pub(super) fn client(session: &impl Facts, proxies: &RefCell<Forwarders>) -> IpAddr {
    let peer = session.peer().ip().unwrap_or(IpAddr::V4(Ipv4Addr::BROADCAST));
    proxies.borrow().client(session, peer)
}
