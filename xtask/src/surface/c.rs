//! The surface of the C library: every `arcp_` or `ARCP_` name in its header.

use std::path::Path;

use super::Surface;
use crate::source::{Syntax, Token, tokens};
use crate::{Result, read};

pub(super) fn extract(root: &Path, entries: &[&str]) -> Result<Surface> {
    let mut surface = Surface::default();
    for entry in entries {
        names(&read(root, entry)?, &mut surface);
    }
    Ok(surface)
}

fn names(header: &str, surface: &mut Surface) {
    for word in tokens(header, Syntax::C).iter().filter_map(Token::word) {
        let is_ours = word.starts_with("arcp_") || word.starts_with("ARCP_");
        // The include guard is the header's own business.
        if is_ours && !word.ends_with("_H") {
            surface.top.insert(word.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_code_alone() {
        let mut surface = Surface::default();
        names(
            "#ifndef ARCP_H\n// arcp_no\ntypedef struct arcp_client arcp_client;\nint arcp_go(int x);\n",
            &mut surface,
        );
        assert_eq!(surface.top.into_iter().collect::<Vec<_>>(), ["arcp_client", "arcp_go"]);
    }
}
