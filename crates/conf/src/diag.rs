//! Errors for people: nginx's own line, then the source line with a caret and a hint.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::{COMMAND_LINE, Error, Source, Sources, Span};

/// How much of a long line is shown on each side of the place, in bytes.
const AROUND: usize = 80;

/// How diagnostics are written.
#[derive(Clone, Copy, Debug)]
pub struct Style<'a> {
    /// The name that the program goes by: `nginx` or `tidegate`.
    pub program: &'a str,
    /// Whether to show the source line and the hint; without, only nginx's own lines are written.
    pub snippets: bool,
    /// Whether to use a terminal's colours.
    pub color: bool,
}

/// All errors as `[emerg]`, in their order. Each ends with a line break.
pub fn errors(errors: &[Error], sources: &Sources, style: Style<'_>) -> String {
    errors.iter().map(|error| render(error, "emerg", sources, style)).collect()
}

/// All warnings as `[warn]`, in their order. Each ends with a line break.
pub fn warnings(warnings: &[Error], sources: &Sources, style: Style<'_>) -> String {
    warnings.iter().map(|warning| render(warning, "warn", sources, style)).collect()
}

/// nginx's message with its place, without program and level: `unknown directive "x" in /etc/nginx/nginx.conf:3`.
pub fn message(error: &Error, sources: &Sources) -> String {
    let place = error.span.map(|span| sources.place(span)).unwrap_or_default();
    format!("{}{place}", error.message)
}

/// One error at the given level of the error log.
pub fn render(error: &Error, level: &str, sources: &Sources, style: Style<'_>) -> String {
    let mut out = format!("{}: [{level}] {}\n", style.program, message(error, sources));
    if !style.snippets {
        return out;
    }
    let view = error.caret.or(error.span).and_then(|span| {
        let mut view = View::new(sources.file(span)?, span);
        // The first line names the file, unless the place is told in another one.
        view.origin = view.origin.filter(|_| error.span.map(|place| place.file) != Some(span.file));
        Some(view)
    });
    match (view, &error.hint) {
        (Some(view), hint) => {
            out.push_str(&view.draw(level, hint.as_deref(), style.color));
            out.push('\n');
        }
        (None, Some(hint)) => out.push_str(&format!("  hint: {hint}\n")),
        (None, None) => {}
    }
    out
}

/// The part of a line that is shown.
struct View {
    text: String,
    /// The marked part of `text`.
    mark: std::ops::Range<usize>,
    line: usize,
    has_lines: bool,
    /// The file's name.
    origin: Option<String>,
}

impl View {
    fn new(source: &Source, span: Span) -> View {
        let text = &source.text[..];
        let start = (span.start as usize).min(text.len());
        let line_start = memchr::memrchr(b'\n', &text[..start]).map_or(0, |at| at + 1);
        let line_end = memchr::memchr(b'\n', &text[start..]).map_or(text.len(), |at| start + at);
        let end = (span.end as usize).clamp(start, line_end);
        let line = 1 + memchr::memchr_iter(b'\n', &text[..start]).count();
        let before = clip_front(&text[line_start..start]);
        let marked = &text[start..end];
        let after = clip_back(&text[end..line_end]);
        let mut shown = String::from_utf8_lossy(before).into_owned();
        let from = shown.len();
        shown.push_str(&String::from_utf8_lossy(&marked[..marked.len().min(2 * AROUND)]));
        let mark = from..shown.len();
        shown.push_str(String::from_utf8_lossy(after).trim_end());
        let mark = mark.start..mark.end.min(shown.len());
        let origin = Some(source.path.clone());
        View { text: shown, mark, line, has_lines: source.path != COMMAND_LINE, origin }
    }

    fn draw(&self, level: &str, hint: Option<&str>, color: bool) -> String {
        let mark = AnnotationKind::Primary.span(self.mark.clone());
        let mark = match hint {
            Some(hint) => mark.label(hint),
            None => mark,
        };
        let snippet = Snippet::source(self.text.as_str()).line_start(self.line).line_numbering(self.has_lines);
        let snippet = match &self.origin {
            Some(origin) => snippet.path(origin.as_str()),
            None => snippet,
        };
        let level = if level == "warn" { Level::WARNING } else { Level::ERROR };
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let drawn = renderer.render(&[Group::with_level(level).element(snippet.annotation(mark))]);
        drawn.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

fn clip_front(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.len().saturating_sub(AROUND)..]
}

fn clip_back(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(AROUND)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style<'_> = Style { program: "nginx", snippets: true, color: false };

    fn check(text: &str, mark: &str, expect: &str) {
        let (sources, _, _) = crate::parse::parse("/n.conf", text);
        let start = text.find(mark).expect("the mark is in the text") as u32;
        let line = 1 + text[..start as usize].matches('\n').count() as u32;
        let span = Span { line, start, end: start + mark.len() as u32, ..Span::default() };
        let error = Error::place(span, "no").hint("try this");
        assert_eq!(render(&error, "emerg", &sources, STYLE), expect, "{text:?}");
    }

    #[test]
    fn draws() {
        check(
            "http {\n    lisen 80;\n}\n",
            "lisen",
            "nginx: [emerg] no in /n.conf:2\n  |\n2 |     lisen 80;\n  |     ^^^^^ try this\n",
        );
        check("a \"b\nc\";", "\"b\nc\"", "nginx: [emerg] no in /n.conf:1\n  |\n1 | a \"b\n  |   ^^ try this\n");
        check("ä b;", "b", "nginx: [emerg] no in /n.conf:1\n  |\n1 | ä b;\n  |   ^ try this\n");
    }

    #[test]
    fn points_at_the_cause() {
        let text = "http {\n    root a  # here\n}\n";
        let (sources, _, errors) = crate::parse::parse("/n.conf", text);
        let drawn = "  |\n2 |     root a  # here\n  |           ^ is a \";\" missing here?\n";
        let expect = format!("nginx: [emerg] unexpected \"}}\" in /n.conf:3\n{drawn}");
        assert_eq!(super::errors(&errors, &sources, STYLE), expect);
    }

    #[test]
    fn survives_odd_places() {
        let files = crate::MemoryFiles::new([("x", b"a \xff\xfe\xff b;\r\n\t\xc3".as_slice())]);
        let (sources, _, _) = crate::load(&files, std::path::Path::new("x"), Some("g"), &crate::Env::default());
        for file in 0..3 {
            for start in 0..15 {
                for end in 0..15 {
                    let span = Span { file: crate::FileId(file), line: 1, start, end };
                    render(&Error::place(span, "no"), "emerg", &sources, STYLE);
                }
            }
        }
    }

    #[test]
    fn plain() {
        let error = Error::new("no \"events\" section in configuration").hint("add one");
        let sources = Sources::default();
        let line = "nginx: [emerg] no \"events\" section in configuration\n";
        assert_eq!(errors(std::slice::from_ref(&error), &sources, Style { snippets: false, ..STYLE }), line);
        assert_eq!(warnings(&[error], &sources, STYLE), line.replace("emerg", "warn") + "  hint: add one\n");
    }
}
