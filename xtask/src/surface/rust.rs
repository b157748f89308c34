//! The surface of the crate `arcp`: what its `lib.rs` offers, members from the sources of `core/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Surface;
use crate::source::{Syntax, Token, close, files, tokens};
use crate::{Result, read};

pub(super) fn extract(root: &Path, entries: &[&str]) -> Result<Surface> {
    let mut surface = Surface::default();
    for entry in entries {
        surface.top.extend(offered(root, &tokens(&read(root, entry)?, Syntax::Rust))?);
    }
    for file in files(&root.join("core"), &[".rs"])? {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let tokens = tokens(&text, Syntax::Rust);
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let module = match stem {
            "mod" | "lib" => file.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default(),
            other => other,
        };
        for name in offered(root, &tokens)? {
            surface.add_member(module, &name);
        }
        types(&tokens, &mut surface);
        coined(&tokens, &mut surface);
    }
    Ok(surface)
}

/// The public names at the top of a file: items and re-exports, `pub use other::*` followed into `core/`.
fn offered(root: &Path, tokens: &[Token]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at].is("pub") {
            let opens = ['(', '[', '{'].iter().any(|mark| tokens[at].mark(*mark));
            at = if opens { close(tokens, at) } else { at + 1 };
            continue;
        }
        at += 1;
        if tokens.get(at).is_some_and(|token| token.is("use")) {
            let mut leaves = Vec::new();
            at = branch(tokens, at + 1, &[], &mut leaves);
            for (path, name) in leaves {
                if name == "*" {
                    names.extend(behind(root, &path)?);
                } else {
                    names.insert(name);
                }
            }
        } else if let Some((keyword, name, index)) = item(tokens, at) {
            let block = (tokens.get(index + 1)).is_some_and(|token| keyword == "mod" && token.mark('{'));
            if block {
                let inner = offered(root, &tokens[index + 2..close(tokens, index + 1) - 1])?;
                names.extend(inner.into_iter().map(|inner| format!("{name}::{inner}")));
            } else {
                names.insert(name);
            }
            at = index;
        }
    }
    Ok(names)
}

/// The item after a `pub`: its keyword, its name, and where the name stands.
fn item(tokens: &[Token], mut at: usize) -> Option<(&str, String, usize)> {
    loop {
        let keyword = tokens.get(at)?.word()?;
        let next = tokens.get(at + 1)?;
        match keyword {
            "async" | "extern" => at += 1,
            "const" if next.is("fn") || next.is("async") => at += 1,
            "const" | "enum" | "fn" | "mod" | "static" | "struct" | "trait" | "type" | "union" => {
                return Some((keyword, next.word()?.to_owned(), at + 1));
            }
            _ => return None,
        }
    }
}

/// One branch of a use tree from `at`; the answer is where it ends.
fn branch(tokens: &[Token], mut at: usize, prefix: &[String], leaves: &mut Vec<(Vec<String>, String)>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token {
            Token::Word(word) if word == "as" => {
                if let Some(name) = tokens.get(at + 1).and_then(Token::word) {
                    path.pop();
                    path.push(name.to_owned());
                }
                at += 2;
            }
            Token::Word(word) => {
                path.push(word.clone());
                at += 1;
            }
            Token::Mark(':') => at += 1,
            Token::Mark('*') => {
                path.push("*".to_owned());
                at += 1;
            }
            Token::Mark('{') => {
                let end = close(tokens, at);
                at += 1;
                while at < end - 1 {
                    at = branch(tokens, at, &path, leaves);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.mark(',')));
                }
                return end;
            }
            _ => break,
        }
    }
    if path.len() > prefix.len()
        && let Some(name) = path.pop()
    {
        // `a::{self}` offers `a`.
        let name = if name == "self" { path.pop().unwrap_or_default() } else { name };
        leaves.push((path, name));
    }
    at
}

/// What a glob over `path` (`arcp_engine`, `arcp_proto::message`) brings in.
fn behind(root: &Path, path: &[String]) -> Result<BTreeSet<String>> {
    let Some(room) = path.first().and_then(|first| first.strip_prefix("arcp_")) else {
        return Ok(BTreeSet::new());
    };
    let module = path[1..].join("/");
    let candidates = match module.as_str() {
        "" => vec![format!("core/{room}/src/lib.rs")],
        module => vec![format!("core/{room}/src/{module}.rs"), format!("core/{room}/src/{module}/mod.rs")],
    };
    let found = candidates.iter().find(|candidate| root.join(candidate).exists());
    let file = found.ok_or_else(|| format!("`pub use {}::*`: no file for it", path.join("::")))?;
    offered(root, &tokens(&read(root, file)?, Syntax::Rust))
}

/// Fields, variants and methods of every type, wherever its `impl` stands.
fn types(tokens: &[Token], surface: &mut Surface) {
    for at in 0..tokens.len() {
        let Some(keyword) = tokens[at].word() else { continue };
        if !matches!(keyword, "enum" | "impl" | "struct" | "trait") {
            continue;
        }
        let Some(open) = (at..tokens.len()).find(|index| tokens[*index].mark('{') || tokens[*index].mark(';')) else {
            continue;
        };
        if tokens[open].mark(';') {
            continue;
        }
        let header = &tokens[at + 1..open];
        let body = &tokens[open + 1..close(tokens, open) - 1];
        let is_for =
            |index: usize| header[index].is("for") && !header.get(index + 1).is_some_and(|next| next.mark('<'));
        let target = (0..header.len()).find(|index| is_for(*index));
        let owner = if keyword == "impl" {
            target.map_or_else(|| type_name(after_generics(header)), |index| type_name(&header[index + 1..]))
        } else {
            header.first().and_then(Token::word)
        };
        let Some(owner) = owner else { continue };
        let every = keyword == "trait" || target.is_some();
        let found = if keyword == "enum" { variants(body) } else { declared(body, every) };
        for member in found {
            surface.add_member(owner, &member);
        }
    }
}

/// The header of an `impl` without its own `<...>`.
fn after_generics(header: &[Token]) -> &[Token] {
    let mut depth = 0usize;
    for (index, token) in header.iter().enumerate() {
        match token {
            Token::Mark('<') => depth += 1,
            Token::Mark('>') => depth = depth.saturating_sub(1),
            _ if depth == 0 => return &header[index..],
            _ => {}
        }
    }
    &[]
}

/// The last segment of the path a type begins with.
fn type_name(tokens: &[Token]) -> Option<&str> {
    let path = tokens.iter().take_while(|token| token.word().is_some() || token.mark(':') || token.mark('&'));
    path.filter_map(Token::word).take_while(|word| *word != "where").last()
}

/// Methods, constants and fields at the body's own depth: the public ones, or all of them.
fn declared(body: &[Token], every: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let public = body[at].is("pub");
        if public || (every && item(body, at).is_some()) {
            let start = at + usize::from(public);
            if let Some((_, name, index)) = item(body, start) {
                found.push(name);
                at = index;
            } else if let (Some(name), Some(true)) =
                (body.get(start).and_then(Token::word), body.get(start + 1).map(|token| token.mark(':')))
            {
                found.push(name.to_owned());
            }
        }
        let opens = body.get(at).is_some_and(|token| ['(', '[', '{'].iter().any(|mark| token.mark(*mark)));
        at = if opens { close(body, at) } else { at + 1 };
    }
    found
}

fn variants(body: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut begins = true;
    while at < body.len() {
        match &body[at] {
            Token::Mark('#') => {
                at = close(body, at + 1);
                continue;
            }
            Token::Word(word) if begins => {
                found.push(word.clone());
                begins = false;
            }
            token => begins = token.mark(','),
        }
        let opens = ['(', '[', '{'].iter().any(|mark| body[at].mark(*mark));
        at = if opens { close(body, at) } else { at + 1 };
    }
    found
}

/// Variants that a macro of the same file writes: `codes! { Name = "TEXT", ...; }` for the enums in `macro_rules! codes`.
fn coined(tokens: &[Token], surface: &mut Surface) {
    let mut enums: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for at in 0..tokens.len() {
        let is_call = tokens.get(at + 1).is_some_and(|token| token.mark('!'));
        let Some(word) = tokens[at].word().filter(|_| is_call) else { continue };
        if word == "macro_rules" {
            let Some(name) = tokens.get(at + 2).and_then(Token::word) else { continue };
            let body = &tokens[at + 3..close(tokens, at + 3)];
            let named = body.windows(2).filter(|pair| pair[0].is("enum")).filter_map(|pair| pair[1].word());
            enums.insert(name, named.collect());
        } else if let Some(owners) = enums.get(word) {
            let body = &tokens[at + 2..close(tokens, at + 2)];
            for triple in body.windows(3) {
                if let [Token::Word(variant), Token::Mark('='), Token::Text(_)] = triple {
                    owners.iter().for_each(|owner| surface.add_member(owner, variant));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(text: &str) -> Vec<String> {
        offered(Path::new(""), &tokens(text, Syntax::Rust)).unwrap().into_iter().collect()
    }

    fn members(text: &str, owner: &str) -> Vec<String> {
        let tokens = tokens(text, Syntax::Rust);
        let mut surface = Surface::default();
        types(&tokens, &mut surface);
        coined(&tokens, &mut surface);
        surface.members.remove(owner).unwrap_or_default().into_iter().collect()
    }

    #[test]
    fn re_exports_are_read_in_every_form() {
        let text = "pub use a::{B, c::{self, D as E}, f::G};\npub use h;\nuse no::No;\npub(crate) use no::No;\n\
                    pub mod i { pub fn j() { pub fn no() {} } }\npub mod k;\npub const fn l() {}\npub const M: u8 = 1;";
        assert_eq!(top(text), ["B", "E", "G", "M", "c", "h", "i::j", "k", "l"]);
    }

    #[test]
    fn members_are_found_wherever_they_stand() {
        let text = "pub struct A<T> { pub x: Vec<T>, y: u8 }\nimpl<T: Into<B>> A<T> { pub async fn f() { struct B { pub z: u8 } }\n\
                    fn no() {} pub(crate) fn nor() {} }\nimpl<T> fmt::Display for A<T> { fn fmt() {} }\n\
                    trait C { fn g(&self); }\nenum D { #[doc = \"no\"] E(u8), F { n: u8 }, G = 3 }";
        assert_eq!(members(text, "A"), ["f", "fmt", "x"]);
        assert_eq!(members(text, "C"), ["g"]);
        assert_eq!(members(text, "D"), ["E", "F", "G"]);
    }

    #[test]
    fn variants_of_a_macro_are_members() {
        let text = "macro_rules! codes { ($($v:ident = $t:literal;)*) => { pub enum Code { $($v,)* Other } }; }\n\
                    codes! { /// One.\n A = \"A_B\"; C = \"C\"; }";
        let found = members(text, "Code");
        assert!(found.contains(&"A".to_owned()) && found.contains(&"C".to_owned()), "{found:?}");
    }
}
