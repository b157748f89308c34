//! The surface of the npm package: the exports of its entry file, members of classes and interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Surface;
use crate::source::{Syntax, Token, close, files, tokens};
use crate::{Result, read};

const DECLARATIONS: [&str; 8] = ["class", "const", "enum", "function", "interface", "let", "namespace", "type"];
const MODIFIERS: [&str; 10] =
    ["abstract", "async", "declare", "default", "get", "override", "public", "readonly", "set", "static"];

pub(super) fn extract(root: &Path, entries: &[&str]) -> Result<Surface> {
    let mut surface = Surface::default();
    let mut bases = BTreeMap::new();
    for entry in entries {
        surface.top.extend(exports(root, entry)?);
        let directory = root.join(entry).parent().map(Path::to_path_buf).unwrap_or_default();
        for file in files(&directory, &[".ts"])? {
            let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            types(&tokens(&text, Syntax::TypeScript), &mut surface, &mut bases);
        }
    }
    surface.inherit(&bases);
    Ok(surface)
}

/// The names a file exports, `export * from "./other.js"` followed.
fn exports(root: &Path, path: &str) -> Result<BTreeSet<String>> {
    let tokens = tokens(&read(root, path)?, Syntax::TypeScript);
    let mut names = BTreeSet::new();
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| token.is("export")) {
        let mut rest = &tokens[at + 1..];
        if let [Token::Word(word), Token::Mark('{' | '*'), ..] = rest
            && word == "type"
        {
            rest = &rest[1..];
        }
        match rest {
            [Token::Mark('{'), ..] => names.extend(listed(&rest[1..close(rest, 0) - 1])),
            [Token::Mark('*'), Token::Word(word), Token::Text(from), ..] if word == "from" => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                let file = from.trim_start_matches("./").trim_end_matches(".js");
                names.extend(exports(root, &format!("{directory}/{file}.ts"))?);
            }
            [Token::Mark('*'), Token::Word(word), Token::Word(name), ..] if word == "as" => {
                names.insert(name.clone());
            }
            _ => names.extend(declared(rest)),
        }
    }
    Ok(names)
}

/// The names of `{ a, type b, c as d }`.
fn listed(tokens: &[Token]) -> Vec<String> {
    let items = tokens.split(|token| token.mark(','));
    items.filter_map(|item| item.last().and_then(Token::word).map(str::to_owned)).collect()
}

fn declared(tokens: &[Token]) -> Option<String> {
    let mut words = tokens.iter().skip_while(|token| token.word().is_some_and(|word| MODIFIERS.contains(&word)));
    let keyword = words.next()?.word()?;
    let name = words.find(|token| !token.mark('*'))?.word()?;
    DECLARATIONS.contains(&keyword).then(|| name.to_owned())
}

/// Members of every class and interface in a file.
fn types(tokens: &[Token], surface: &mut Surface, bases: &mut BTreeMap<String, Vec<String>>) {
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| token.is("class") || token.is("interface")) {
        let Some(name) = tokens.get(at + 1).and_then(Token::word) else { continue };
        let Some(open) = (at..tokens.len()).find(|index| tokens[*index].mark('{')) else { continue };
        let header = &tokens[at + 2..open];
        let parents = header.windows(2).filter(|pair| pair[0].is("extends") || pair[0].is("implements"));
        let parents = parents.filter_map(|pair| pair[1].word().map(str::to_owned));
        bases.entry(name.to_owned()).or_default().extend(parents);
        for member in members(&tokens[open + 1..close(tokens, open) - 1]) {
            surface.add_member(name, &member);
        }
    }
}

/// The public names a class body declares at its own depth.
fn members(body: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut begins = true;
    while at < body.len() {
        if begins {
            while body[at..].first().and_then(Token::word).is_some_and(|word| MODIFIERS.contains(&word))
                && body.get(at + 1).is_some_and(|next| next.word().is_some() || next.mark('*'))
            {
                at += 1 + usize::from(body[at + 1].mark('*'));
            }
            let follows = body.get(at + 1);
            let is_declaration =
                follows.is_none_or(|next| ['(', ':', '<', '?', '=', ';', '!'].iter().any(|m| next.mark(*m)));
            if let (Some(name), true) = (body[at].word(), is_declaration)
                && name != "constructor"
                && !name.starts_with('_')
            {
                found.push(name.to_owned());
            }
        }
        // A body that closes ends a method; so does a semicolon a field or a signature.
        let was_block = body[at].mark('{');
        let was_bracket = was_block || body[at].mark('(') || body[at].mark('[');
        begins = body[at].mark(';');
        at = if was_bracket { close(body, at) } else { at + 1 };
        begins |= was_block;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_shows_what_is_public() {
        let text = "export class A<T> extends B implements C {\n  readonly x: { y: number } = f({ z: 1 });\n  #hidden = 1;\n\
                    private secret = 2;\n  static async open(url: string): Promise<void> { const q = 1; }\n  get done(): T {}\n\
                    async *events(): AsyncIterable<T> {}\n  constructor(a: number) { super(); }\n}\ninterface C { later?: number; go(): void }";
        let (mut surface, mut bases) = (Surface::default(), BTreeMap::new());
        types(&tokens(text, Syntax::TypeScript), &mut surface, &mut bases);
        surface.inherit(&bases);
        let members: Vec<_> = surface.members["A"].iter().map(String::as_str).collect();
        assert_eq!(members, ["done", "events", "go", "later", "open", "x"]);
    }

    #[test]
    fn exports_are_read_in_every_form() {
        let read = |text: &str| {
            let tokens = tokens(text, Syntax::TypeScript);
            declared(&tokens[1..])
        };
        assert_eq!(read("export async function* f() {}").as_deref(), Some("f"));
        assert_eq!(read("export default abstract class A {}").as_deref(), Some("A"));
        assert_eq!(read("export type T = string;").as_deref(), Some("T"));
        assert_eq!(listed(&tokens("a, type b, c as d,", Syntax::TypeScript)), ["a", "b", "d"]);
    }
}
