//! The live status page of `GET /dashboard` (REG-142). It comes whole from the program, asks no other host, holds no
//! script or style inside, and shows what agents say as text (REG-408).

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The file.
    pub body: &'static str,
}

/// The Content-Security-Policy of the page and its files.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The file at a path: `/dashboard`, `/static/dashboard.js`, `/static/dashboard.css`.
pub fn asset(path: &str) -> Option<Asset> {
    let (content_type, body) = match path {
        "/dashboard" => ("text/html; charset=utf-8", include_str!("page/index.html")),
        "/static/dashboard.js" => ("text/javascript; charset=utf-8", include_str!("page/dashboard.js")),
        "/static/dashboard.css" => ("text/css; charset=utf-8", include_str!("page/dashboard.css")),
        _ => return None,
    };
    Some(Asset { content_type, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-142, REG-408
    #[test]
    fn the_page_asks_no_other_host_and_writes_no_markup() {
        let page = asset("/dashboard").unwrap().body;
        let script = asset("/static/dashboard.js").unwrap().body;
        let style = asset("/static/dashboard.css").unwrap().body;
        for text in [page, script, style] {
            for foreign in ["http://", "https://", "@import", "url("] {
                assert!(!text.contains(foreign), "{foreign}");
            }
        }
        for unsafe_way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!script.contains(unsafe_way), "{unsafe_way}");
        }
        for inline in ["<style", " style=", " onclick=", " onload=", "<script>"] {
            assert!(!page.contains(inline), "{inline}");
        }
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"));
    }

    /// Rules: REG-142
    #[test]
    fn the_page_names_files_that_exist_and_parts_the_script_uses() {
        let page = asset("/dashboard").unwrap().body;
        let script = asset("/static/dashboard.js").unwrap().body;
        for path in ["/static/dashboard.js", "/static/dashboard.css"] {
            assert!(page.contains(path) && asset(path).is_some(), "{path}");
        }
        for used in script.split("part(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(page.contains(&format!("id=\"{used}\"")), "{used}");
        }
        assert_eq!(asset("/static/../secret"), None);
    }
}
