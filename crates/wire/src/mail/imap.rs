//! Commands of IMAP before the login (RFC 9051 §6.1, §6.2), with quoted strings and literals.
//!
//! What differs from nginx: a literal that doesn't fit is refused before it is sent (nginx asks for it, and waits), one
//! that belongs to an invalid command is passed over, and a command can't hold NUL.

use buf::Secret;

use super::{Line, LineEnd, skip_spaces, split_word, text};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What the client calls it.
    pub tag: Vec<u8>,
    /// What it asks for.
    pub verb: Verb,
}

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// To log in with a name and a password.
    Login(Vec<u8>, Secret),
    /// To log in by a mechanism, perhaps with its first response.
    Authenticate(Vec<u8>, Option<Secret>),
    /// What the server can do.
    Capability,
    /// Nothing.
    Noop,
    /// TLS.
    StartTls,
    /// The end.
    Logout,
}

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Not enough yet.
    More,
    /// The client waits for leave to send a literal.
    Continue,
    /// Something was passed over; there may be more.
    Skipped,
    /// A command.
    Command(Command),
    /// Not a command, with the tag that it has or none.
    Invalid(Vec<u8>),
    /// A command that is longer than the limit, with the tag that it has or none. What follows it isn't understood.
    TooLong(Vec<u8>),
}

/// Reads commands.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    /// Of a command: up to where its literals go.
    literals: usize,
    end: LineEnd,
    /// The rest of an invalid command is passed over: so many bytes of a literal, and then a line.
    passing: Option<u64>,
}

/// What the lines of a command so far are.
enum Parsed {
    Whole(Command),
    /// A literal of so many bytes follows; whether the client waits for leave.
    Literal(u64, bool),
    Invalid,
}

impl Parser {
    /// Reads a command at the beginning of `input`, which has at most `limit` bytes; and how many bytes are done with.
    pub fn step(&mut self, input: &[u8], limit: usize) -> (usize, Event) {
        if let Some(left) = self.passing {
            return self.pass(left, input, limit);
        }
        loop {
            if input.len() < self.literals {
                return (0, Event::More);
            }
            let end = match self.find_end(input, limit) {
                Line::Whole(end) => end,
                Line::More => return (0, Event::More),
                // Of what is always there by now, however the bytes came.
                Line::TooLong => {
                    return (0, Event::TooLong(tag_of(input.get(..limit).unwrap_or(input)).to_vec()));
                }
            };
            let (lines, last) =
                (input.get(..end).unwrap_or_default(), input.get(self.literals..end).unwrap_or_default());
            match parse(lines) {
                Parsed::Whole(command) => {
                    *self = Parser::default();
                    return (end, Event::Command(command));
                }
                Parsed::Invalid => return self.invalid(lines, last, end, limit),
                Parsed::Literal(length, waits) => {
                    let fits = usize::try_from(length).ok().filter(|length| *length < limit.saturating_sub(end));
                    let Some(length) = fits else { return self.invalid(lines, last, end, limit) };
                    (self.literals, self.end) = (end + length, LineEnd::default());
                    if waits {
                        return (0, Event::Continue);
                    }
                }
            }
        }
    }

    /// The end of the line that follows the last literal.
    fn find_end(&mut self, input: &[u8], limit: usize) -> Line {
        let line = input.get(self.literals..).unwrap_or_default();
        match self.end.find(line, limit.saturating_sub(self.literals)) {
            Line::Whole(end) => Line::Whole(self.literals + end),
            other => other,
        }
    }

    /// What follows an invalid command on its way already is no command either.
    fn invalid(&mut self, lines: &[u8], last: &[u8], end: usize, limit: usize) -> (usize, Event) {
        let tag = tag_of(lines).to_vec();
        *self = Parser { passing: unasked_literal(last), ..Parser::default() };
        match self.passing {
            Some(length) if length > limit as u64 => (end, Event::TooLong(tag)),
            _ => (end, Event::Invalid(tag)),
        }
    }

    fn pass(&mut self, left: u64, input: &[u8], limit: usize) -> (usize, Event) {
        if left > 0 {
            let now = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.passing = Some(left - now as u64);
            return (now, if now == 0 { Event::More } else { Event::Skipped });
        }
        match self.end.find(input, limit) {
            Line::More => (0, Event::More),
            Line::TooLong => (0, Event::TooLong(Vec::new())),
            Line::Whole(end) => {
                let passing = unasked_literal(input.get(..end).unwrap_or_default());
                *self = Parser { passing, ..Parser::default() };
                let too_long = passing.is_some_and(|length| length > limit as u64);
                (end, if too_long { Event::TooLong(Vec::new()) } else { Event::Skipped })
            }
        }
    }
}

/// The length of the literal that follows a line without leave (RFC 7888).
fn unasked_literal(line: &[u8]) -> Option<u64> {
    let digits = text(line).strip_suffix(b"+}")?;
    let at = memchr::memrchr(b'{', digits)?;
    number(digits.get(at + 1..)?)
}

/// A number; one that is too large is the largest.
fn number(digits: &[u8]) -> Option<u64> {
    let add = |number: u64, byte: &u8| number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
    let good = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    good.then(|| digits.iter().fold(0, add))
}

/// The tag at the beginning of a command (§9); empty if there is none.
fn tag_of(input: &[u8]) -> &[u8] {
    let is_part = |byte: &u8| matches!(byte, b'!'..=b'~') && !b"(){%*\"\\+".contains(byte);
    let length = input.iter().take_while(|byte| is_part(byte)).count();
    match input.get(length) {
        Some(b' ') => input.get(..length).unwrap_or_default(),
        _ => b"",
    }
}

/// Reads the lines of a command, with its literals in them.
fn parse(lines: &[u8]) -> Parsed {
    let tag = tag_of(lines);
    if tag.is_empty() {
        return Parsed::Invalid;
    }
    let rest = skip_spaces(lines.get(tag.len()..).unwrap_or_default());
    let length = rest.iter().take_while(|byte| byte.is_ascii_graphic()).count();
    let (word, rest) = rest.split_at(length);
    let command = |verb: Verb| Parsed::Whole(Command { tag: tag.to_vec(), verb });
    let verb = match &*word.to_ascii_uppercase() {
        b"LOGIN" => {
            return login(rest).map_or_else(|parsed| parsed, |(user, password)| command(Verb::Login(user, password)));
        }
        b"AUTHENTICATE" => return authenticate(rest).map_or(Parsed::Invalid, command),
        b"CAPABILITY" => Verb::Capability,
        b"NOOP" => Verb::Noop,
        b"STARTTLS" => Verb::StartTls,
        b"LOGOUT" => Verb::Logout,
        _ => return Parsed::Invalid,
    };
    // As nginx does: what follows these is ignored.
    let is_text = text(rest).iter().all(|byte| !byte.is_ascii_control()) && unasked_literal(rest).is_none();
    if is_text { command(verb) } else { Parsed::Invalid }
}

fn authenticate(rest: &[u8]) -> Option<Verb> {
    let arguments = text(rest).strip_prefix(b" ")?;
    let (mechanism, rest) = split_word(skip_spaces(arguments));
    let (initial, rest) = split_word(rest);
    let good = !mechanism.is_empty() && rest.is_empty() && arguments.iter().all(|byte| !byte.is_ascii_control());
    good.then(|| Verb::Authenticate(mechanism.to_vec(), (!initial.is_empty()).then(|| initial.into())))
}

/// Name and password; else what the lines are.
fn login(rest: &[u8]) -> Result<(Vec<u8>, Secret), Parsed> {
    let (user, rest) = argument(rest)?;
    let (password, rest) = argument(rest)?;
    let password = Secret::from(password);
    if text(rest).iter().any(|byte| *byte != b' ') { Err(Parsed::Invalid) } else { Ok((user, password)) }
}

/// A string after spaces (§9: astring), and what follows it.
fn argument(rest: &[u8]) -> Result<(Vec<u8>, &[u8]), Parsed> {
    let rest = skip_spaces(rest.strip_prefix(b" ").ok_or(Parsed::Invalid)?);
    match rest.first() {
        Some(b'"') => quoted(rest.get(1..).unwrap_or_default()).ok_or(Parsed::Invalid),
        Some(b'{') => literal(rest),
        _ => {
            // nginx takes more than atoms: names and passwords that should be quoted aren't always.
            let length = rest.iter().take_while(|byte| !matches!(byte, 0 | b' ' | b'\r' | b'\n')).count();
            let (atom, rest) = rest.split_at(length);
            if atom.is_empty() { Err(Parsed::Invalid) } else { Ok((atom.to_vec(), rest)) }
        }
    }
}

fn quoted(rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    // It may be a password: it must not leave copies behind by growing.
    let mut value = Vec::with_capacity(rest.len());
    let mut bytes = rest.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        let byte = match byte {
            b'"' => return Some((value, rest.get(at + 1..)?)),
            b'\\' => *bytes.next()?.1,
            byte => byte,
        };
        if matches!(byte, 0 | b'\r' | b'\n') {
            return None;
        }
        value.push(byte);
    }
    None
}

fn literal(rest: &[u8]) -> Result<(Vec<u8>, &[u8]), Parsed> {
    let line_end = memchr::memchr(b'\n', rest).ok_or(Parsed::Invalid)? + 1;
    let (line, rest) = rest.split_at(line_end);
    let inner = text(line).strip_prefix(b"{").and_then(|inner| inner.strip_suffix(b"}")).ok_or(Parsed::Invalid)?;
    let (digits, waits) = inner.strip_suffix(b"+").map_or((inner, true), |digits| (digits, false));
    let length = number(digits).ok_or(Parsed::Invalid)?;
    if rest.is_empty() {
        return Err(Parsed::Literal(length, waits));
    }
    // The parser has waited for all of it.
    let whole = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (value, rest) = whole.filter(|(value, _)| !value.contains(&0)).ok_or(Parsed::Invalid)?;
    Ok((value.to_vec(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a client's bytes mean, cut into pieces of `size`, as a text: events in their order.
    fn read(input: &[u8], size: usize, limit: usize) -> String {
        let (mut parser, mut held, mut shown) = (Parser::default(), Vec::new(), Vec::new());
        for piece in input.chunks(size) {
            held.extend_from_slice(piece);
            loop {
                let (used, event) = parser.step(&held, limit);
                held.drain(..used);
                shown.push(match event {
                    Event::More => break,
                    Event::Skipped => continue,
                    Event::Continue => "+".to_owned(),
                    Event::Invalid(tag) => format!("{}?", String::from_utf8_lossy(&tag)),
                    Event::TooLong(tag) => {
                        shown.push(format!("{}!", String::from_utf8_lossy(&tag)));
                        return shown.join(" ");
                    }
                    Event::Command(Command { tag, verb }) => {
                        format!("{}:{}", String::from_utf8_lossy(&tag), show(&verb))
                    }
                });
            }
        }
        shown.join(" ")
    }

    fn show(verb: &Verb) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match verb {
            Verb::Login(user, password) => format!("login[{}][{}]", text(user), text(password)),
            Verb::Authenticate(mechanism, None) => format!("auth[{}]", text(mechanism)),
            Verb::Authenticate(mechanism, Some(first)) => format!("auth[{}][{}]", text(mechanism), text(first)),
            other => format!("{other:?}").to_ascii_lowercase(),
        }
    }

    fn check(input: &str, expect: &str) {
        for size in 1..=input.len() {
            assert_eq!(read(input.as_bytes(), size, 64), expect, "{input:?} by {size}");
        }
    }

    #[test]
    fn commands() {
        check("a NOOP\r\n", "a:noop");
        check("a noop\nb  Logout \r\n", "a:noop b:logout");
        check("a CAPABILITY x\r\na STARTTLS\r\n", "a:capability a:starttls");
        check("a AUTHENTICATE PLAIN\r\n", "a:auth[PLAIN]");
        check("a AUTHENTICATE plain =\r\n", "a:auth[plain][=]");
        check("a AUTHENTICATE\r\na AUTHENTICATE x y z\r\n", "a? a?");
        check("\r\na\r\n NOOP\r\n* NOOP\r\na+b NOOP\r\n", "? ? ? ? ?");
        check("a FOO\r\na LOGINX a b\r\na \r\n", "a? a? a?");
        check("a NO\0OP\r\na NOOP \0\r\na NOOP \r\r\n", "a? a? a?");
    }

    #[test]
    fn logins() {
        check("a LOGIN u p\r\n", "a:login[u][p]");
        check("a LOGIN  u  p \r\n", "a:login[u][p]");
        check(r#"a LOGIN "u \"\\" "p\x""#, "");
        check("a LOGIN \"u \\\"\\\\\" \"p\\x\"\r\n", "a:login[u \"\\][px]");
        check("a LOGIN \"\" \"\"\r\n", "a:login[][]");
        check("a LOGIN u\\\"v p\"q\r\n", "a:login[u\\\"v][p\"q]");
        check("a LOGIN\r\na LOGIN u\r\na LOGIN u p q\r\na LOGIN \"u p\r\na LOGIN \"u\"p q\r\n", "a? a? a? a? a?");
        check("a LOGIN \"u\0\" p\r\na LOGIN u p\0\r\n", "a? a?");
        check("a LOGIN \"u\\\r\n\" p\r\n", "a? ?");
    }

    #[test]
    fn literals() {
        check("a LOGIN {1}\r\nu {2}\r\npp\r\n", "+ + a:login[u][pp]");
        check("a LOGIN {1+}\r\nu {4+}\r\np\r\nq\r\nb NOOP\r\n", "a:login[u][p\r\nq] b:noop");
        check("a LOGIN {0}\r\n x\r\n", "+ a:login[][x]");
        check("a LOGIN {}\r\na LOGIN {x}\r\na LOGIN {1}x\r\na LOGIN {-1}\r\na LOGIN {1++}\r\n", "a? a? a? a? a?");
        check("a LOGIN {1+}\r\n\0 x\r\n", "a?");
        check("a LOGIN {1+}\r\nxy p\r\n", "a?");
        // Those that don't fit.
        check("a LOGIN {64}\r\nb NOOP\r\n", "a? b:noop");
        check("a LOGIN {4294967296}\r\nb NOOP\r\n", "a? b:noop");
        check("a LOGIN {99999999999999999999999}\r\nb NOOP\r\n", "a? b:noop");
        check("a LOGIN {65+}\r\nb NOOP\r\n", "a!");
        check("a LOGIN {99999999999999999999999+}\r\nb NOOP\r\n", "a!");
    }

    /// What belongs to an invalid command is no command.
    #[test]
    fn literals_of_invalid_commands() {
        check("a FOO {8+}\r\nb NOOP\r\n\r\nc NOOP\r\n", "a? c:noop");
        check("a FOO {8+}\r\nb NOOP\r\n {8+}\r\nb NOOP\r\n x\r\nc NOOP\r\n", "a? c:noop");
        check("a NOOP {8+}\r\nb NOOP\r\n\r\nc NOOP\r\n", "a? c:noop");
        check("a LOGIN {60+}\r\n", "a?");
        check("a FOO {8}\r\nb NOOP\r\n", "a? b:noop");
        check("a FOO {65+}\r\n", "a!");
        check("a FOO {1+}\r\nx {65+}\r\n", "a? !");
    }

    #[test]
    fn limits() {
        let long = "a NOOP ".to_owned() + &"x".repeat(80);
        check(&long, "a!");
        check(&"x".repeat(64), "!");
        check(&format!("{} NOOP\r\n", "x".repeat(65)), "!");
        check(&format!("a LOGIN {{1+}}\r\nu {}\r\n", "p".repeat(64)), "a!");
    }

    proptest! {
        #[test]
        fn the_same_however_it_is_cut(
            input in "([ab]( (NOOP|LOGIN|FOO|AUTHENTICATE))?( ([uv\"\\\\]{0,3}|\\{[0-9]{1,2}\\+?\\}))*(\r?\n|[a\r\0]))*",
            size in 1usize..9,
        ) {
            prop_assert_eq!(read(input.as_bytes(), size, 48), read(input.as_bytes(), input.len().max(1), 48));
        }

        #[test]
        fn any_name_and_password_can_be_told(user in "[^\0]{0,12}", password in "[^\0]{0,12}") {
            let literals = format!("t LOGIN {{{}+}}\r\n{user} {{{}+}}\r\n{password}\r\n", user.len(), password.len());
            let login = Command { tag: b"t".to_vec(), verb: Verb::Login(user.clone().into(), password.clone().into_bytes().into()) };
            prop_assert_eq!(Parser::default().step(literals.as_bytes(), 1000), (literals.len(), Event::Command(login.clone())));
            if super::super::is_clean(user.as_bytes()) && super::super::is_clean(password.as_bytes()) {
                let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
                let quoted = format!("t LOGIN \"{}\" \"{}\"\r\n", quote(&user), quote(&password));
                prop_assert_eq!(Parser::default().step(quoted.as_bytes(), 1000), (quoted.len(), Event::Command(login)));
            }
        }
    }
}
