//! The surface of the Python package: `__all__` of its public modules, members from sources and stubs.

use std::collections::BTreeMap;
use std::path::Path;

use super::Surface;
use crate::source::files;
use crate::{Result, read};

/// `entries` are module names; names of modules other than `arcp` carry the module (`runtime.Job`), unless `arcp`
/// offers them as well.
pub(super) fn extract(root: &Path, entries: &[&str]) -> Result<Surface> {
    let mut surface = Surface::default();
    for module in entries {
        let (path, text) = source_of(root, module)?;
        let names = exported(&text).ok_or_else(|| format!("{path}: no `__all__` with its names written out"))?;
        let prefix = module.strip_prefix("arcp").unwrap_or(module).trim_start_matches('.');
        for name in names {
            if prefix.is_empty() {
                surface.top.insert(name);
            } else if !surface.top.contains(&name) {
                surface.top.insert(format!("{prefix}.{name}"));
            }
        }
    }
    let mut bases = BTreeMap::new();
    for file in files(&root.join("python/arcp"), &[".py", ".pyi"])? {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        classes(&text, &mut surface, &mut bases);
    }
    surface.inherit(&bases);
    Ok(surface)
}

/// The stub of a module if it has one, for its names are then written out there; else its source.
fn source_of(root: &Path, module: &str) -> Result<(String, String)> {
    let stem = format!("python/{}", module.replace('.', "/"));
    for path in ["/__init__.pyi", "/__init__.py", ".pyi", ".py"].map(|ending| format!("{stem}{ending}")) {
        if root.join(&path).exists() {
            let text = read(root, &path)?;
            if exported(&text).is_some() {
                return Ok((path, text));
            }
        }
    }
    Err(format!("{stem}.py: no such module, or no `__all__` with its names written out"))
}

/// The strings of every `__all__ = [...]` and `__all__ += [...]`; none if one of them is computed.
fn exported(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices("__all__").filter(|(at, _)| *at == 0 || text[..*at].ends_with('\n')) {
        let list = text[at..].split_once('=')?.1.trim_start().strip_prefix(['[', '('])?;
        let list = &list[..list.find([']', ')'])?];
        for line in list.lines() {
            let code = line.split('#').next().unwrap_or_default();
            for item in code.split(',').map(str::trim).filter(|item| !item.is_empty()) {
                names.push(item.strip_prefix(['"', '\''])?.trim_end_matches(['"', '\'']).to_owned());
            }
        }
    }
    names.retain(|name| !name.starts_with("__"));
    (!names.is_empty()).then_some(names)
}

fn classes(text: &str, surface: &mut Surface, bases: &mut BTreeMap<String, Vec<String>>) {
    let mut class: Option<String> = None;
    for line in without_docs(text).lines() {
        if let Some(rest) = line.strip_prefix("class ") {
            let name = identifier(rest);
            let arguments = rest.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
            let named = arguments.map_or("", |(list, _)| list).split(',');
            let parents = named.map(|base| base.split('[').next().unwrap_or_default().trim());
            let parents = parents.map(|base| base.rsplit('.').next().unwrap_or(base).to_owned());
            bases.entry(name.to_owned()).or_default().extend(parents);
            class = Some(name.to_owned());
        } else if !line.is_empty() && !line.starts_with([' ', ')', '#', '\t']) {
            class = None;
        } else if let (Some(class), Some(member)) = (&class, member(line)) {
            surface.add_member(class, member);
        }
    }
}

/// The name a line of a class body defines: a method, an annotated attribute or an assigned one.
fn member(line: &str) -> Option<&str> {
    let body = line.strip_prefix("    ").filter(|body| !body.starts_with(' '))?;
    let body = body.strip_prefix("async ").unwrap_or(body);
    if let Some(definition) = body.strip_prefix("def ") {
        return Some(identifier(definition));
    }
    let name = identifier(body);
    let rest = body[name.len()..].trim_start();
    (!name.is_empty() && (rest.starts_with(':') || rest.starts_with("= "))).then_some(name)
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The text without what stands between triple quotes.
fn without_docs(text: &str) -> String {
    text.split("\"\"\"").step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_read_in_parts() {
        let text = "import x\n__all__ = [\n    \"A\",  # \"no\"\n    'B', \"__version__\",\n]\n__all__ += [\"C\"]\n";
        assert_eq!(exported(text).unwrap(), ["A", "B", "C"]);
        assert_eq!(exported("__all__: list[str] = [\"A\"]").unwrap(), ["A"]);
        assert_eq!(exported("__all__ = list(NAMES)"), None);
        assert_eq!(exported("__all__ = [*NAMES]"), None);
    }

    #[test]
    fn members_come_with_those_of_the_base() {
        let text = "class A(Generic[T]):\n    \"\"\"Doc.\n\nclass No:\n    \"\"\"\n    x: int\n    def f(self) -> None:\n        y = 1\n\
                    class B(m.A):\n    async def g(\n        self,\n    ) -> None: ...\n    alias = 3\ndef h():\n    z = 1\n";
        let (mut surface, mut bases) = (Surface::default(), BTreeMap::new());
        classes(text, &mut surface, &mut bases);
        surface.inherit(&bases);
        assert_eq!(surface.members["A"].iter().collect::<Vec<_>>(), ["f", "x"]);
        assert_eq!(surface.members["B"].iter().collect::<Vec<_>>(), ["alias", "f", "g", "x"]);
        assert!(!surface.members.contains_key("No"));
    }
}
