//! Whether the defaults that the manual shows are those of the code.

use crate::table::DefaultValue;
use crate::{Directive, Loader, Result, Row, Table};

/// What is wrong with the texts of defaults in the loader's registry, one line for each row: every text is read by its
/// row, as if it stood in a configuration, and must give what a configuration without the directive has.
pub fn faults(loader: &mut Loader<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    for table in loader.registry().tables() {
        for row in &table.rows {
            let DefaultValue::Text(text, same) = &row.default else { continue };
            let written = match row.args.block {
                true => format!("{} {{ {text} }}", row.name),
                false => format!("{} {text};", row.name),
            };
            match equal(loader, table, row, &written, *same) {
                Ok(true) => {}
                Ok(false) => faults.push(format!("{}: \"{written}\" isn't what the code has", table.module)),
                Err(error) => faults.push(format!("{}: \"{written}\": {}", table.module, error.message)),
            }
        }
    }
    faults
}

fn equal(
    loader: &mut Loader<'_>,
    table: &Table,
    row: &Row,
    written: &str,
    same: fn(&dyn std::any::Any, &dyn std::any::Any) -> bool,
) -> Result<bool> {
    let (_, directives, errors) = crate::parse::parse("default", written);
    if let Some(error) = errors.into_iter().next() {
        return Err(error);
    }
    let [directive]: &[Directive; 1] = directives[..].try_into().expect("a text of a default is one directive");
    crate::loader::check_args(directive, row)?;
    let mut raw = (table.new_raw)();
    let own = match row.part {
        Some(part) => (part.raw)(&mut *raw),
        None => &mut *raw,
    };
    (row.set)(own, loader, directive)?;
    let read = (table.resolve)(Some(&mut *raw), None, loader)?;
    let coded = (table.resolve)(None, None, loader)?;
    let of_row = |conf| row.part.map_or(conf, |part| (part.conf)(conf));
    Ok(same(of_row(&*read), of_row(&*coded)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Args, Context, Env, Registry, values};

    crate::table! {
        /// A configuration for this test.
        pub(super) struct TestConf, raw TestRaw, module "test", level HTTP Location;

        /// Right.
        "right" in Context::HTTP, Args::exactly(1), default "60s", scalar(values::msec) right: u64 = 60_000;
        /// Wrong.
        "wrong" in Context::HTTP, Args::FLAG, default "off", scalar(values::flag) wrong: bool = true;
        /// Not to be read.
        "odd" in Context::HTTP, Args::exactly(1), default "0 1", scalar(values::number) odd: usize = 0;
        /// Computed.
        "other" in Context::HTTP, Args::exactly(1), default computed("as many as there are"),
            scalar(values::number) other: usize = 0;
    }

    #[test]
    fn finds_what_the_code_has_not() {
        let mut registry = Registry::new();
        registry.add::<TestConf>();
        let mut loader = Loader::new(&registry, Env::default(), Default::default());
        let expect = [
            "test: \"wrong off;\" isn't what the code has",
            "test: \"odd 0 1;\": invalid number of arguments in \"odd\" directive",
        ];
        assert_eq!(faults(&mut loader), expect);
    }
}
