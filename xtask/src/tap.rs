//! What a test file prints (the Test Anything Protocol), judged.

/// How a file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Result {
    /// Every planned subtest ran and none failed.
    Pass,
    /// The same, with subtests marked TODO that failed as expected.
    Todo,
    /// The file skipped itself.
    Skip,
    /// Anything else.
    Fail,
}

impl Result {
    /// Its name in result tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Result::Pass => "pass",
            Result::Todo => "todo",
            Result::Skip => "skip",
            Result::Fail => "fail",
        }
    }
}

/// What a file's output says.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    /// How it ended.
    pub result: Result,
    /// Subtests planned.
    pub planned: usize,
    /// Subtests that passed, those marked SKIP or TODO not counted.
    pub ok: usize,
    /// Subtests marked SKIP.
    pub skipped: usize,
    /// Subtests marked TODO.
    pub todo: usize,
    /// What failed, or why the file skipped itself.
    pub note: String,
}

#[derive(Debug, Default)]
struct Seen {
    planned: Option<usize>,
    why_skip: String,
    bail: Option<String>,
    lines: usize,
    ok: usize,
    skipped: usize,
    todo: usize,
    todo_ok: usize,
    bad: Vec<String>,
}

/// Judges the output of a file that exited with `code` (none: it was ended by a signal or the time limit).
pub(crate) fn judge(text: &str, code: Option<i32>) -> Verdict {
    let mut seen = Seen::default();
    text.lines().for_each(|line| seen.take(line));
    let complete = seen.planned == Some(seen.lines) && seen.bad.is_empty() && code == Some(0) && seen.bail.is_none();
    let result = match seen.planned {
        Some(0) => Result::Skip,
        Some(_) if complete && seen.todo > seen.todo_ok => Result::Todo,
        Some(_) if complete => Result::Pass,
        _ => Result::Fail,
    };
    let note = seen.note(result, code);
    Verdict { result, planned: seen.planned.unwrap_or(0), ok: seen.ok, skipped: seen.skipped, todo: seen.todo, note }
}

impl Seen {
    fn take(&mut self, line: &str) {
        if let Some(plan) = line.strip_prefix("1..") {
            let (count, why) = plan.split_once('#').unwrap_or((plan, ""));
            self.planned = count.trim().parse().ok();
            let why = why.trim();
            let lower = why.to_ascii_lowercase();
            let word = if lower.starts_with("skip") { why.find(' ').unwrap_or(why.len()) } else { 0 };
            self.why_skip = why[word..].trim().to_string();
        } else if let Some(why) = line.strip_prefix("Bail out!") {
            self.bail = Some(why.trim().to_string());
        } else if let Some(rest) = line.strip_prefix("not ok") {
            self.subtest(rest, false);
        } else if let Some(rest) = line.strip_prefix("ok") {
            self.subtest(rest, true);
        }
    }

    fn subtest(&mut self, rest: &str, passed: bool) {
        if rest.starts_with(|c: char| c.is_alphanumeric()) {
            return;
        }
        self.lines += 1;
        let (name, mark) = rest.rsplit_once("# ").unwrap_or((rest, ""));
        let mark = mark.trim().to_ascii_lowercase();
        if mark.starts_with("skip") || mark.starts_with("todo & skip") {
            self.skipped += 1;
        } else if mark.starts_with("todo") {
            self.todo += 1;
            self.todo_ok += usize::from(passed);
        } else if passed {
            self.ok += 1;
        } else {
            self.bad.push(name.trim().replacen(" - ", " ", 1));
        }
    }

    fn note(&self, result: Result, code: Option<i32>) -> String {
        let mut notes = Vec::new();
        match result {
            Result::Skip => notes.push(self.why_skip.clone()),
            Result::Fail => {
                notes.extend(self.bail.iter().map(|why| format!("bail out: {why}")));
                if !self.bad.is_empty() {
                    notes.push(format!("failed {}", self.bad.join("; ")));
                }
                match self.planned {
                    None => notes.push("no plan".to_string()),
                    Some(n) if n != self.lines => notes.push(format!("ran {} of {n}", self.lines)),
                    Some(_) => {}
                }
                match code {
                    Some(0) => {}
                    Some(code) if self.bad.is_empty() => notes.push(format!("exit {code}")),
                    Some(_) => {}
                    None => notes.push("ended by a signal".to_string()),
                }
            }
            Result::Pass | Result::Todo => {}
        }
        notes.join("; ").chars().filter(|c| !c.is_control()).take(600).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let cases = [
            ("1..2\nok 1 - a\nok 2 - b\n", Some(0), Result::Pass, 2, ""),
            ("1..2\nok 1 - a\nnot ok 2 - b # TODO later\n", Some(0), Result::Todo, 1, ""),
            ("1..2\nok 1 - a\nok 2 # skip not here\n", Some(0), Result::Pass, 1, ""),
            ("1..0 # SKIP no module\n", Some(0), Result::Skip, 0, "no module"),
            ("1..2\nok 1 - a\nnot ok 2 - b c\n", Some(1), Result::Fail, 1, "failed 2 b c"),
            ("1..3\nok 1 - a\n", Some(255), Result::Fail, 1, "ran 1 of 3; exit 255"),
            ("", None, Result::Fail, 0, "no plan; ended by a signal"),
            ("1..1\nok 1 - uses # inside\n", Some(0), Result::Pass, 1, ""),
            ("1..1\nBail out! dead\n", Some(0), Result::Fail, 0, "bail out: dead; ran 0 of 1"),
        ];
        for (text, code, result, ok, note) in cases {
            let verdict = judge(text, code);
            assert_eq!((verdict.result, verdict.ok, verdict.note.as_str()), (result, ok, note), "{text}");
        }
    }
}
