//! What a text begins and ends with if a pattern matches it. A search by the engine costs hundreds of instructions; most
//! texts are ruled out before it by a comparison of their first or last bytes.

use super::ast::{Node, Pattern, Place};

/// How many endings are compared one by one; with more of them the engine is as fast.
const MAX_ENDINGS: usize = 16;

/// The edges of the texts that a pattern can match. Upper and lower case count as the same.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// What all of them begin with.
    begin: Box<[u8]>,
    /// What they end with, one or the other; empty if nothing is known of it.
    endings: Box<[Box<[u8]>]>,
}

impl Edges {
    /// Nothing is known of patterns of characters: letters have more forms there than two.
    pub(super) fn of(pattern: &Pattern) -> Edges {
        if pattern.utf {
            return Edges::default();
        }
        let nodes = match &pattern.root {
            Node::Concat(nodes) => nodes.as_slice(),
            node => std::slice::from_ref(node),
        };
        let begin = match nodes {
            [Node::Place(Place::Start), rest @ ..] => rest.iter().map_while(byte).collect(),
            _ => Box::default(),
        };
        let endings = match nodes {
            [rest @ .., Node::Place(Place::End | Place::VeryEnd)] => endings(rest),
            _ => Vec::new(),
        };
        Edges { begin, endings: endings.into_iter().map(Vec::into_boxed_slice).collect() }
    }

    /// Whether the pattern may match a text.
    #[inline]
    pub(super) fn fit(&self, text: &[u8]) -> bool {
        let begins = text.get(..self.begin.len()).is_some_and(|own| own.eq_ignore_ascii_case(&self.begin));
        // `$` matches before a newline at the end, too.
        begins && (self.endings.is_empty() || text.last() == Some(&b'\n') || self.ends(text))
    }

    fn ends(&self, text: &[u8]) -> bool {
        let has = |ending: &[u8]| {
            let from = text.len().checked_sub(ending.len());
            from.and_then(|from| text.get(from..)).is_some_and(|own| own.eq_ignore_ascii_case(ending))
        };
        self.endings.iter().any(|ending| has(ending))
    }
}

/// The endings of what these nodes match at the end of a text.
fn endings(nodes: &[Node]) -> Vec<Vec<u8>> {
    let mut endings = vec![Vec::new()];
    for node in nodes.iter().rev() {
        let Some(longer) = texts(node).and_then(|texts| joined(&texts, &endings)) else { break };
        endings = longer;
    }
    if endings.iter().any(Vec::is_empty) { Vec::new() } else { endings }
}

/// All texts that a node matches, if they are few.
fn texts(node: &Node) -> Option<Vec<Vec<u8>>> {
    match node {
        Node::Empty => Some(vec![Vec::new()]),
        Node::Char { .. } => Some(vec![vec![byte(node)?]]),
        Node::Group { node, .. } | Node::Atomic(node) => texts(node),
        Node::Repeat { node, min: 0, max: Some(1), .. } => {
            let mut found = texts(node)?;
            found.push(Vec::new());
            Some(found)
        }
        Node::Concat(nodes) => {
            let mut found = vec![Vec::new()];
            for node in nodes {
                found = joined(&found, &texts(node)?)?;
            }
            Some(found)
        }
        Node::Alternatives(nodes) => {
            let mut found = Vec::new();
            for node in nodes {
                found.append(&mut texts(node)?);
            }
            (found.len() <= MAX_ENDINGS).then_some(found)
        }
        _ => None,
    }
}

fn byte(node: &Node) -> Option<u8> {
    match node {
        Node::Char { code, .. } => u8::try_from(*code).ok(),
        _ => None,
    }
}

/// Each of `firsts` with each of `lasts` after it, if these are few.
fn joined(firsts: &[Vec<u8>], lasts: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let few = firsts.len() * lasts.len() <= MAX_ENDINGS;
    few.then(|| firsts.iter().flat_map(|first| lasts.iter().map(move |last| [&first[..], last].concat())).collect())
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn edges(pattern: &str) -> String {
        let pattern = parse(pattern.as_bytes(), false).unwrap_or_else(|problem| panic!("{pattern}: {}", problem.why));
        let Edges { begin, endings } = Edges::of(&pattern);
        let endings: Vec<_> = endings.iter().map(|ending| ending.escape_ascii().to_string()).collect();
        format!("{} {}", begin.escape_ascii(), endings.join(" "))
    }

    #[test]
    fn edges_of_patterns() {
        for (pattern, expect) in [
            (r"^/r1/.*\.(php|phtml)$", "/r1/ .php .phtml"),
            (r"\.(?i:jpe?g|png)$", " .jpeg .jpg .png"),
            (r"^/a$", "/a /a"),
            (r"(/|\.html)\z", " / .html"),
            (r"^/a|/b$", " "),
            (r"^(/a)b", " "),
            (r"\.php(/|$)", " "),
            (r"^/a*$", "/ "),
            (r"/a?$", " /a /"),
            (r"x*$", " "),
            (r"(a|b|c|d)(a|b|c|d|e)$", " a b c d e"),
            (r"(?m)^a$", " "),
            (r"(*UTF)^a$", " "),
            (r"$", " "),
        ] {
            assert_eq!(edges(pattern), expect, "{pattern}");
        }
    }

    #[test]
    fn what_fits() {
        let parsed = parse(br"^/a.*\.php$", false).unwrap_or_else(|problem| panic!("{}", problem.why));
        let edges = Edges::of(&parsed);
        for (text, expect) in [
            ("/a/x.php", true),
            ("/A.PHP", true),
            ("/a.php\n", true),
            ("/a.txt\n", true),
            ("/a.txt", false),
            ("/b.php", false),
            ("/", false),
            ("", false),
            ("php", false),
        ] {
            assert_eq!(edges.fit(text.as_bytes()), expect, "{text:?}");
        }
    }
}
