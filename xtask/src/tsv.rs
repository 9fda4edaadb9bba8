//! Tables with tabs: reference data, results.

/// A table whose first line names its columns.
#[derive(Debug, Default)]
pub(crate) struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Reads a table; rows may be shorter than the first line.
    pub(crate) fn parse(text: &str) -> Table {
        let mut lines = text.lines().map(|l| l.split('\t').map(str::to_string).collect::<Vec<_>>());
        Table { columns: lines.next().unwrap_or_default(), rows: lines.collect() }
    }

    /// Its rows, as functions from a column's name to the cell, empty where there is none.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|cells| Row { columns: &self.columns, cells })
    }
}

/// A row of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    columns: &'a [String],
    cells: &'a [String],
}

impl<'a> Row<'a> {
    /// The cell below that name.
    pub(crate) fn get(&self, column: &str) -> &'a str {
        let at = self.columns.iter().position(|c| c == column);
        at.and_then(|at| self.cells.get(at)).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_by_name() {
        let table = Table::parse("a\tb\n1\t2\n3\n");
        let cells: Vec<_> = table.rows().map(|r| (r.get("a"), r.get("b"), r.get("c"))).collect();
        assert_eq!(cells, [("1", "2", ""), ("3", "", "")]);
    }
}
