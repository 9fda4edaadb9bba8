//! Lookup tables: names, networks, shares.
