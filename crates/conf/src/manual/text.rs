//! The form of a directive's text, which is the doc comment of its row.
//!
//! In this order, and separated by empty lines:
//!
//! ````text
//! What it does, in one sentence. Further sentences, and paragraphs, if they are needed.
//!
//! Form: `listen address[:port] [parameter ...]`
//!
//! - `ssl`: what this parameter does; its default.
//! - `backlog=number`: …
//!
//! Effect: what changes for whom, and from when on.
//!
//! Cost: what it takes in memory, time, connections.
//!
//! Danger: what goes wrong if it is used wrongly, and how to avoid it.
//!
//! ```nginx
//! listen 443 ssl;
//! ```
//! ````
//!
//! `Form` may be left out where the number of arguments says enough; `Cost` and `Danger` where there is none. What is
//! accepted without effect says so in its first words ([`Text::is_idle`]) and needs nothing else. In a text that several
//! protocols share, "```nginx http stream" begins an example for these alone. Every example is loaded by a test, in a context in which all its directives may stand; relative names are files beside it.

/// A directive's text, in its parts. Lines of a paragraph are joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// What it does: paragraphs.
    pub what: Vec<String>,
    /// How it is written, if the number of its arguments doesn't say enough.
    pub form: Option<String>,
    /// Its parameters, each with what it does.
    pub parameters: Vec<(String, String)>,
    /// What changes.
    pub effect: Option<String>,
    /// What it takes.
    pub cost: Option<String>,
    /// What may go wrong.
    pub danger: Option<String>,
    /// Configurations that use it.
    pub examples: Vec<String>,
}

/// A part of a text; they stand in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    What,
    Form,
    Parameters,
    Effect,
    Cost,
    Danger,
    Example,
}

const LABELS: [(&str, Stage); 4] =
    [("Form:", Stage::Form), ("Effect:", Stage::Effect), ("Cost:", Stage::Cost), ("Danger:", Stage::Danger)];

impl Text {
    /// Reads a doc comment. The error says what isn't in its form.
    pub fn parse(doc: &str) -> Result<Text, String> {
        let mut text = Text::default();
        let mut stage = Stage::What;
        let mut lines = doc.lines().map(str::trim_end).peekable();
        while let Some(line) = lines.next() {
            if line.is_empty() {
                continue;
            }
            if let Some(language) = line.strip_prefix("```") {
                if language != "nginx" {
                    return Err(format!("an example begins with ```nginx, not with {line}"));
                }
                let example: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                text.examples.push(example.join("\n"));
                stage = Stage::Example;
                continue;
            }
            // A paragraph ends with an empty line, before an example, or (a parameter) before the next one.
            let mut paragraph = line.to_owned();
            while let Some(next) = lines.next_if(|next| !next.is_empty() && !next.starts_with("```")) {
                if next.starts_with("- ") {
                    text.put(&paragraph, &mut stage)?;
                    paragraph = next.to_owned();
                } else {
                    paragraph = format!("{paragraph} {}", next.trim_start());
                }
            }
            text.put(&paragraph, &mut stage)?;
        }
        match text.what.is_empty() {
            true => Err("it doesn't say what the directive does".to_owned()),
            false => Ok(text),
        }
    }

    /// Puts a paragraph where its beginning says.
    fn put(&mut self, paragraph: &str, stage: &mut Stage) -> Result<(), String> {
        let label = LABELS.iter().find_map(|(label, of)| Some((*of, paragraph.strip_prefix(label)?.trim())));
        let parameter = paragraph.strip_prefix("- ").map(|rest| (Stage::Parameters, rest));
        let (of, rest) = label.or(parameter).unwrap_or((Stage::What, paragraph));
        if of < *stage || of == *stage && !matches!(of, Stage::What | Stage::Parameters) {
            return Err(format!("\"{paragraph}\" stands too late"));
        }
        *stage = of;
        let rest = rest.to_owned();
        match of {
            Stage::What => self.what.push(rest),
            Stage::Form => {
                let form = rest.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
                self.form = Some(form.ok_or("a form stands in backquotes")?.to_owned());
            }
            Stage::Parameters => {
                let (name, what) = rest.split_once(": ").ok_or_else(|| format!("\"{rest}\" has no colon"))?;
                self.parameters.push((name.to_owned(), what.to_owned()));
            }
            Stage::Effect => self.effect = Some(rest),
            Stage::Cost => self.cost = Some(rest),
            Stage::Danger => self.danger = Some(rest),
            Stage::Example => {}
        }
        Ok(())
    }

    /// Whether it is that of a directive which is accepted and does nothing.
    pub fn is_idle(&self) -> bool {
        self.what
            .first()
            .is_some_and(|what| what.starts_with("Accepted for compatibility") || what.starts_with("Obsolete"))
    }

    /// Which parts a directive's text lacks; `takes_values`: whether it takes other arguments than `on` and `off`.
    pub fn lacks(&self, takes_values: bool) -> Vec<&'static str> {
        let parts = [
            ("parameters", takes_values && self.parameters.is_empty()),
            ("effect", self.effect.is_none()),
            ("example", self.examples.is_empty()),
        ];
        let lacking = parts.into_iter().filter(|(_, lacks)| *lacks && !self.is_idle());
        lacking.map(|(part, _)| part).collect()
    }

    /// For a terminal.
    pub fn plain(&self) -> String {
        let mut out = String::new();
        for (at, paragraph) in self.what.iter().enumerate() {
            out.push_str(if at > 0 { "\n" } else { "" });
            wrap(&mut out, 0, paragraph);
        }
        if !self.parameters.is_empty() {
            out.push_str("\nParameters:\n");
        }
        for (name, what) in &self.parameters {
            out.push_str(&format!("  {}\n", name.replace('`', "")));
            wrap(&mut out, 6, what);
        }
        for (label, part) in self.labelled() {
            out.push('\n');
            wrap(&mut out, 0, &format!("{label}: {part}"));
        }
        for example in &self.examples {
            out.push_str("\nExample:\n");
            for line in example.lines() {
                out.push_str(format!("    {line}").trim_end());
                out.push('\n');
            }
        }
        out
    }

    /// For the pages of the manual.
    pub fn markdown(&self) -> String {
        let mut out = self.what.join("\n\n") + "\n";
        if !self.parameters.is_empty() {
            out.push_str("\nParameters:\n\n");
        }
        for (name, what) in &self.parameters {
            out.push_str(&format!("- {name}: {what}\n"));
        }
        for (label, part) in self.labelled() {
            out.push_str(&format!("\n**{label}:** {part}\n"));
        }
        for example in &self.examples {
            out.push_str(&format!("\n```nginx\n{example}\n```\n"));
        }
        out
    }

    fn labelled(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let parts = [("Effect", &self.effect), ("Cost", &self.cost), ("Danger", &self.danger)];
        parts.into_iter().filter_map(|(label, part)| Some((label, part.as_deref()?)))
    }
}

/// Appends a paragraph in lines of a terminal's width, indented.
fn wrap(out: &mut String, indent: usize, paragraph: &str) {
    const WIDTH: usize = 84;
    let mut column = 0;
    for word in paragraph.split(' ') {
        let width = word.chars().count();
        match column {
            0 => out.push_str(&" ".repeat(indent)),
            _ if column + 1 + width > WIDTH => {
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                column = 0;
            }
            _ => out.push(' '),
        }
        column = if column == 0 { indent + width } else { column + 1 + width };
        out.push_str(word);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "Sets a thing.\nIt is large.\n\nMore.\n\nForm: `thing size [fast]`\n\n- `size`: how large\n  it is.\n\
                         - `fast`: sooner.\n\nEffect: it is there.\n\nCost: memory.\n\nDanger: none\nat all.\n\n```nginx\n\
                         thing {\n    x;\n}\n\nthing 8k fast;\n```\n";

    #[test]
    fn parts() {
        let text = Text::parse(WHOLE).expect("it is in the form");
        let owned = |text: &str| text.to_owned();
        let expect = Text {
            what: vec![owned("Sets a thing. It is large."), owned("More.")],
            form: Some(owned("thing size [fast]")),
            parameters: vec![(owned("`size`"), owned("how large it is.")), (owned("`fast`"), owned("sooner."))],
            effect: Some(owned("it is there.")),
            cost: Some(owned("memory.")),
            danger: Some(owned("none at all.")),
            examples: vec![owned("thing {\n    x;\n}\n\nthing 8k fast;")],
        };
        assert_eq!(text, expect);
        let plain = "Sets a thing. It is large.\n\nMore.\n\nParameters:\n  size\n      how large it is.\n  fast\n      sooner.\n\n\
                     Effect: it is there.\n\nCost: memory.\n\nDanger: none at all.\n\nExample:\n    thing {\n        x;\n    }\n\n    thing 8k \
                     fast;\n";
        assert_eq!(text.plain(), plain);
        assert!(
            text.markdown()
                .ends_with("\n**Danger:** none at all.\n\n```nginx\nthing {\n    x;\n}\n\nthing 8k fast;\n```\n")
        );
        assert!(text.lacks(true).is_empty());
    }

    #[test]
    fn what_is_not_in_the_form() {
        for (doc, expect) in [
            ("", "it doesn't say what the directive does"),
            ("Does it.\n\nCost: a.\n\nEffect: b.", "\"Effect: b.\" stands too late"),
            ("Does it.\n\nEffect: a.\n\nEffect: b.", "\"Effect: b.\" stands too late"),
            ("Does it.\n\nEffect: a.\n\nMore.", "\"More.\" stands too late"),
            ("Does it.\n\n- `a` b", "\"`a` b\" has no colon"),
            ("Does it.\n\nForm: a b", "a form stands in backquotes"),
            ("Does it.\n\n```\na;\n```", "an example begins with ```nginx, not with ```"),
        ] {
            assert_eq!(Text::parse(doc), Err(expect.to_owned()), "{doc}");
        }
    }

    #[test]
    fn what_is_lacking() {
        let check = |doc: &str, takes_values: bool, expect: &[&str]| {
            assert_eq!(Text::parse(doc).expect("it is in the form").lacks(takes_values), expect, "{doc}");
        };
        check("Does it.", true, &["parameters", "effect", "example"]);
        check("Does it.\n\nEffect: a.", false, &["example"]);
        check("Accepted for compatibility: nothing.", true, &[]);
    }
}
