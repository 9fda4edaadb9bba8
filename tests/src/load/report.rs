//! What a scenario found, and the table of it.

use super::{Kind, Loss, Totals};

/// The result of one scenario on one program.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What was done.
    pub scenario: String,
    /// To which program.
    pub program: String,
    /// What the clients counted.
    pub totals: Totals,
    /// How many losses the scenario can't be without: what a killed process held.
    pub allowed: u64,
    /// Further figures.
    pub notes: Vec<String>,
    /// What didn't happen as it should.
    pub faults: Vec<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Report {
    /// Whether nothing was lost that need not be, and everything happened as it should.
    pub fn good(&self) -> bool {
        self.faults.is_empty() && self.totals.lost() <= self.allowed && self.totals.all().ok > 0
    }

    /// Everything there is to say, for a test that fails.
    pub fn story(&self) -> String {
        let lines = [&self.faults[..], &self.totals.stories[..]].concat().join("\n");
        format!("{}\n{lines}", markdown(std::slice::from_ref(self)))
    }

    /// The losses that are more than the race of a client that writes just when the server closes the idle connection:
    /// a server that closes can't avoid that race, only one that hands the connection on.
    pub fn lost_beside_race(&self) -> u64 {
        let race = |kind: &Kind| self.totals.of(*kind).of(Loss::Unanswered);
        self.totals.lost() - [Kind::KeepAlive, Kind::Proxied, Kind::Slow].iter().map(race).sum::<u64>()
    }

    fn row(&self) -> String {
        let all = self.totals.all();
        let losses: Vec<String> = Loss::ALL.iter().map(|l| all.of(*l).to_string()).collect();
        let lost = if all.lost() > self.allowed { format!("**{}**", all.lost()) } else { all.lost().to_string() };
        let faults = self.faults.iter().filter_map(|f| f.lines().next()).map(|f| format!("FAULT: {f}"));
        let notes: Vec<String> = self.notes.iter().cloned().chain(faults).collect();
        format!(
            "| {} | {} | {} | {lost} | {} | {} | {} | {:.0} | {} |",
            self.scenario,
            self.program,
            all.ok,
            self.allowed,
            losses.join(" | "),
            all.closed_idle,
            self.seconds,
            notes.join("; ")
        )
    }
}

/// The reports as a Markdown table, and below it which kinds of connections lost something.
pub fn markdown(reports: &[Report]) -> String {
    let losses: Vec<&str> = Loss::ALL.iter().map(|l| l.name()).collect();
    let mut lines = vec![
        format!("| scenario | program | ok | lost | unavoidable | {} | closed idle | s | notes |", losses.join(" | ")),
        format!("|---|---|{}---|", "---:|".repeat(losses.len() + 5)),
    ];
    lines.extend(reports.iter().map(Report::row));
    for report in reports.iter().filter(|r| r.totals.lost() > 0) {
        let kinds = Kind::ALL.iter().map(|k| (k.name(), report.totals.of(*k))).filter(|(_, c)| c.lost() > 0);
        let kinds: Vec<String> = kinds.map(|(name, c)| format!("{name} {}", c.lost())).collect();
        lines.push(format!("\n{}, {}: lost by kind: {}", report.scenario, report.program, kinds.join(", ")));
    }
    lines.join("\n") + "\n"
}
