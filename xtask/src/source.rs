//! Source text as tokens: comments gone, every string literal one token.

use std::path::{Path, PathBuf};

use crate::Result;

/// Whose lexical rules a text follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// C headers.
    C,
    /// Rust.
    Rust,
    /// TypeScript.
    TypeScript,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// Any other single character.
    Mark(char),
    /// The content of a string or character literal.
    Text(String),
    /// An identifier, keyword or number.
    Word(String),
}

impl Token {
    /// The identifier, if this is one.
    pub fn word(&self) -> Option<&str> {
        match self {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Whether this is the identifier `word`.
    pub fn is(&self, word: &str) -> bool {
        self.word() == Some(word)
    }

    /// Whether this is the character `mark`.
    pub fn mark(&self, mark: char) -> bool {
        *self == Token::Mark(mark)
    }
}

/// A token and the line it begins on, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The token.
    pub token: Token,
    /// Its line.
    pub line: usize,
}

/// The tokens of `text`.
pub fn tokens(text: &str, syntax: Syntax) -> Vec<Token> {
    placed(text, syntax).into_iter().map(|placed| placed.token).collect()
}

/// The tokens of `text` with their lines.
pub fn placed(text: &str, syntax: Syntax) -> Vec<Placed> {
    let mut reader = Reader { chars: text.chars().collect(), at: 0, syntax, out: Vec::new() };
    let mut line = 1;
    let mut seen = 0;
    while reader.skip_blank() {
        line += reader.chars[seen..reader.at].iter().filter(|c| **c == '\n').count();
        seen = reader.at;
        let token = reader.next();
        reader.out.push(Placed { token, line });
    }
    reader.out
}

/// The index just past the bracket that closes the one at `open`; the end of the tokens if none does.
pub fn close(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// The files below `directory` whose name ends in one of `endings`, sorted; build outputs and packages are passed over.
pub fn files(directory: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    const PASSED_OVER: [&str; 5] = [".git", ".venv", "dist", "node_modules", "target"];
    let mut found = Vec::new();
    let mut queue = vec![directory.to_path_buf()];
    while let Some(directory) = queue.pop() {
        let listing = std::fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for entry in listing {
            let path = entry.map_err(|error| format!("{}: {error}", directory.display()))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !PASSED_OVER.contains(&name) {
                    queue.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    syntax: Syntax,
    out: Vec<Placed>,
}

impl Reader {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    /// Moves past white space and comments; false at the end of the text.
    fn skip_blank(&mut self) -> bool {
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                (c, _) if c.is_whitespace() => self.at += 1,
                ('/', '/') => {
                    while self.at < self.chars.len() && self.peek(0) != '\n' {
                        self.at += 1;
                    }
                }
                ('/', '*') => self.skip_block_comment(),
                _ => return true,
            }
        }
        false
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') if depth == 0 || self.syntax == Syntax::Rust => {
                    depth += 1;
                    self.at += 2;
                }
                ('*', '/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    fn next(&mut self) -> Token {
        match self.peek(0) {
            '"' => self.quoted('"'),
            '\'' if self.syntax == Syntax::Rust => self.character_or_lifetime(),
            '\'' => self.quoted('\''),
            '`' if self.syntax == Syntax::TypeScript => self.template(),
            '/' if self.syntax == Syntax::TypeScript && self.expects_value() => self.pattern(),
            c if c.is_alphanumeric() || c == '_' => self.word(),
            c => {
                self.at += 1;
                Token::Mark(c)
            }
        }
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
            self.at += 1;
        }
        let word: String = self.chars[start..self.at].iter().collect();
        if self.syntax == Syntax::Rust {
            if matches!(word.as_str(), "r" | "br" | "cr") && self.raw_string_follows() {
                return self.raw_string();
            }
            if matches!(word.as_str(), "b" | "c") && self.peek(0) == '"' {
                return self.quoted('"');
            }
        }
        Token::Word(word)
    }

    fn raw_string_follows(&self) -> bool {
        let hashes = (0..).take_while(|ahead| self.peek(*ahead) == '#').count();
        self.peek(hashes) == '"'
    }

    fn raw_string(&mut self) -> Token {
        let hashes = (0..).take_while(|ahead| self.peek(*ahead) == '#').count();
        self.at += hashes + 1;
        let start = self.at;
        while self.at < self.chars.len() {
            if self.peek(0) == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == '#') {
                break;
            }
            self.at += 1;
        }
        let text = self.chars[start..self.at].iter().collect();
        self.at = (self.at + hashes + 1).min(self.chars.len());
        Token::Text(text)
    }

    fn quoted(&mut self, quote: char) -> Token {
        self.at += 1;
        let start = self.at;
        while self.at < self.chars.len() && self.peek(0) != quote {
            self.at += if self.peek(0) == '\\' { 2 } else { 1 };
        }
        let end = self.at.min(self.chars.len());
        self.at = (end + 1).min(self.chars.len());
        Token::Text(self.chars[start..end].iter().collect())
    }

    fn character_or_lifetime(&mut self) -> Token {
        let is_character = self.peek(1) == '\\' || self.peek(2) == '\'';
        if is_character {
            return self.quoted('\'');
        }
        self.at += 1;
        Token::Mark('\'')
    }

    /// A template literal as one token; code inside `${}` is passed over, nested templates included.
    fn template(&mut self) -> Token {
        let start = self.at + 1;
        self.at = start;
        while self.at < self.chars.len() && self.peek(0) != '`' {
            match (self.peek(0), self.peek(1)) {
                ('\\', _) => self.at += 2,
                ('$', '{') => {
                    let mut depth = 0;
                    while self.skip_blank() {
                        match self.next() {
                            Token::Mark('{') => depth += 1,
                            Token::Mark('}') => depth -= 1,
                            _ => continue,
                        }
                        if depth == 0 {
                            break;
                        }
                    }
                }
                _ => self.at += 1,
            }
        }
        let end = self.at.min(self.chars.len());
        self.at = (end + 1).min(self.chars.len());
        Token::Text(self.chars[start..end].iter().collect())
    }

    /// Whether a `/` here begins a regular expression and not a division.
    fn expects_value(&self) -> bool {
        match self.out.last().map(|placed| &placed.token) {
            None => true,
            Some(Token::Mark(mark)) => !matches!(mark, ')' | ']' | '}'),
            Some(Token::Text(_)) => false,
            Some(Token::Word(word)) => matches!(word.as_str(), "return" | "case" | "typeof"),
        }
    }

    fn pattern(&mut self) -> Token {
        self.at += 1;
        let start = self.at;
        let mut in_class = false;
        while self.at < self.chars.len() && self.peek(0) != '\n' && (in_class || self.peek(0) != '/') {
            match self.peek(0) {
                '[' => in_class = true,
                ']' => in_class = false,
                _ => {}
            }
            self.at += if self.peek(0) == '\\' { 2 } else { 1 };
        }
        let end = self.at.min(self.chars.len());
        self.at = (end + 1).min(self.chars.len());
        Token::Text(self.chars[start..end].iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, syntax: Syntax) -> Vec<String> {
        tokens(text, syntax).iter().filter_map(Token::word).map(str::to_owned).collect()
    }

    #[test]
    fn comments_and_strings_are_not_words() {
        let text = r####"a /* b /* c */ d */ "e" r#"f " g"# b'h' 'i' // j
            k<'l>(b"m", r"n", '\'') o"####;
        assert_eq!(words(text, Syntax::Rust), ["a", "b", "k", "l", "o"]);
    }

    #[test]
    fn templates_and_patterns_are_one_token() {
        let text = "const a = `b ${c(`d`, { e: 1 })} f`; g = /\"[/`]/; h / i; // `";
        assert_eq!(words(text, Syntax::TypeScript), ["const", "a", "g", "h", "i"]);
    }

    #[test]
    fn lines_are_counted_through_comments() {
        let lines: Vec<usize> = placed("a\n/* x\n */ b \"\n\"\nc", Syntax::Rust).iter().map(|p| p.line).collect();
        assert_eq!(lines, [1, 3, 3, 5]);
    }
}
