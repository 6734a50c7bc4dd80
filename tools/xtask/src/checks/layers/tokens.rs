//! Splits Rust source into words and marks, just enough to find paths and `use` declarations.

/// A token and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub line: usize,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An identifier or a keyword.
    Word(String),
    /// `::`
    Path,
    /// Any other punctuation character.
    Mark(char),
}

impl Token {
    pub fn is_word(&self, text: &str) -> bool {
        matches!(&self.kind, Kind::Word(word) if word == text)
    }

    pub fn is_mark(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }
}

/// Splits a file into tokens. Drops comments, literals and lifetimes.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut reader = Reader { rest: text, line: 1 };
    let mut found = Vec::new();
    while let Some(next) = reader.rest.chars().next() {
        let line = reader.line;
        let kind = if reader.rest.starts_with("//") {
            reader.skip_until("\n");
            continue;
        } else if reader.rest.starts_with("/*") {
            reader.skip_comment();
            continue;
        } else if next.is_alphanumeric() || next == '_' {
            let word = reader.word();
            if reader.skip_prefixed_literal(&word) || word.starts_with(|first: char| first.is_ascii_digit()) {
                continue;
            }
            // A raw identifier such as `r#type`: the word follows.
            if word == "r" && reader.rest.starts_with('#') {
                reader.skip(1);
                continue;
            }
            Kind::Word(word)
        } else if reader.rest.starts_with("::") {
            reader.skip(2);
            Kind::Path
        } else {
            match next {
                '"' => {
                    reader.skip_string();
                    continue;
                }
                '\'' => {
                    reader.skip_character_or_lifetime();
                    continue;
                }
                _ => reader.skip(next.len_utf8()),
            }
            if next.is_whitespace() {
                continue;
            }
            Kind::Mark(next)
        };
        found.push(Token { line, kind });
    }
    found
}

/// Removes items and fields that are compiled only for tests (`#[cfg(test)]`).
pub fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut rest = &tokens[..];
    while let Some(token) = rest.first() {
        match after_cfg_test(rest) {
            Some(item) => rest = after_item(item),
            None => {
                kept.push(token.clone());
                rest = &rest[1..];
            }
        }
    }
    kept
}

fn after_cfg_test(tokens: &[Token]) -> Option<&[Token]> {
    let [hash, open, cfg, parenthesis, test, closed, end, rest @ ..] = tokens else { return None };
    let is_cfg = hash.is_mark('#') && open.is_mark('[') && cfg.is_word("cfg") && parenthesis.is_mark('(');
    (is_cfg && test.is_word("test") && closed.is_mark(')') && end.is_mark(']')).then_some(rest)
}

/// Skips one item: up to its semicolon, or over its block; a `use` always up to the semicolon.
fn after_item(tokens: &[Token]) -> &[Token] {
    let (mut depth, mut is_use) = (0_usize, false);
    for (at, token) in tokens.iter().enumerate() {
        match &token.kind {
            Kind::Word(word) if word == "use" && depth == 0 => is_use = true,
            Kind::Mark('(' | '[' | '{') => depth += 1,
            Kind::Mark(mark @ (')' | ']' | '}')) => {
                // The item was the last field, and this bracket ends its parent.
                if depth == 0 {
                    return &tokens[at..];
                }
                depth -= 1;
                if depth == 0 && *mark == '}' && !is_use {
                    return &tokens[at + 1..];
                }
            }
            Kind::Mark(';') if depth == 0 => return &tokens[at + 1..],
            _ => {}
        }
    }
    &[]
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn skip(&mut self, bytes: usize) {
        let (skipped, rest) = self.rest.split_at(bytes);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }

    /// Skips up to and including `end`, or the whole rest.
    fn skip_until(&mut self, end: &str) {
        self.skip(self.rest.find(end).map_or(self.rest.len(), |at| at + end.len()));
    }

    fn word(&mut self) -> String {
        let len = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let word = self.rest[..len].to_owned();
        self.skip(len);
        word
    }

    fn skip_comment(&mut self) {
        self.skip(2);
        let mut depth = 1;
        while depth > 0 && !self.rest.is_empty() {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.skip(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.skip(2);
            } else {
                self.skip(self.rest.chars().next().map_or(1, char::len_utf8));
            }
        }
    }

    /// Skips a string that starts with the next quotation mark.
    fn skip_string(&mut self) {
        self.skip(1);
        while let Some(at) = self.rest.find(['"', '\\']) {
            let escape = self.rest[at..].starts_with('\\');
            self.skip(at + 1);
            if !escape {
                return;
            }
            self.skip(self.rest.chars().next().map_or(0, char::len_utf8));
        }
        self.skip(self.rest.len());
    }

    /// Skips the literal after a prefix `b`, `c`, `r`, `br` or `cr`; returns false if there is none.
    fn skip_prefixed_literal(&mut self, prefix: &str) -> bool {
        match prefix {
            "b" | "c" if self.rest.starts_with('"') => self.skip_string(),
            "b" if self.rest.starts_with('\'') => self.skip_character_or_lifetime(),
            "r" | "br" | "cr" => {
                let hashes = self.rest.len() - self.rest.trim_start_matches('#').len();
                if !self.rest[hashes..].starts_with('"') {
                    return false;
                }
                self.skip(hashes + 1);
                self.skip_until(&format!("\"{}", "#".repeat(hashes)));
            }
            _ => return false,
        }
        true
    }

    fn skip_character_or_lifetime(&mut self) {
        let mut characters = self.rest[1..].chars();
        let (first, second) = (characters.next(), characters.next());
        match (first, second) {
            (Some('\\'), Some(escaped)) => {
                self.skip(2 + escaped.len_utf8());
                self.skip_until("'");
            }
            (Some(character), Some('\'')) => self.skip(2 + character.len_utf8()),
            _ => self.skip(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let tokens = without_tests(tokens(text)).into_iter();
        tokens.filter_map(|token| if let Kind::Word(word) = token.kind { Some(word) } else { None }).collect()
    }

    #[test]
    fn comments_and_literals_are_dropped() {
        let text = r##"a /* b /* c */ d */ "e \" f" // g
            'h' '\'' b'i' b"j" r#"k " l"# br"m" 'lifetime 0x10_u8 r#type n"##;
        assert_eq!(words(text), ["a", "lifetime", "type", "n"]);
    }

    #[test]
    fn a_token_knows_its_line() {
        let found = tokens("/* one\ntwo */ \"three\nfour\"\nhere");
        assert_eq!(found, [Token { line: 4, kind: Kind::Word("here".into()) }]);
    }

    #[test]
    fn items_for_tests_only_are_dropped() {
        let text = "a; #[cfg(test)] use b::{c, d}; e; #[cfg(test)] #[allow(x)] fn f(g: u8) -> [u8; 2] { h } i \
                    #[cfg(test)] mod j; k { #[cfg(test)] l } m";
        assert_eq!(words(text), ["a", "e", "i", "k", "m"]);
    }
}
