//! The tables of `docs/registry` say what the server does.
//!
//! `ARCP_WRITE_DOCS=1 cargo test -p arcp-registry --test docs` writes them anew.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use arcp_registry::problem;
use arcp_registry::server::config::{Kind, SETTINGS, Setting};

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/registry").join(name)
}

/// Compares what stands between the page's two marks, or replaces it.
fn hold(name: &str, mark: &str, wanted: &str) {
    let path = page(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {mark}:begin -->\n"), format!("<!-- {mark}:end -->"));
    let start = text.find(&begin).unwrap() + begin.len();
    let stop = text.find(&end).unwrap();
    if std::env::var_os("ARCP_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{}{wanted}{}", &text[..start], &text[stop..])).unwrap();
        return;
    }
    let line = text[start..stop].lines().zip(wanted.lines()).position(|(is, ought)| is != ought);
    assert!(
        text[start..stop] == *wanted,
        "{name} is not what the program does, from line {line:?} of its generated part; run this test with ARCP_WRITE_DOCS=1"
    );
}

/// Rules: REG-501, REG-502, REG-503, REG-504, REG-505, REG-506, REG-507, REG-508
#[test]
fn every_setting_is_in_the_table() {
    hold("configuration.md", "settings", &settings());
}

/// Rules: REG-100
#[test]
fn every_problem_is_in_the_table() {
    let mut text = String::from("| Status | Slug | Title |\n|---|---|---|\n");
    let mut kinds = problem::Kind::ALL.to_vec();
    kinds.sort_by_key(|kind| (kind.status(), kind.slug()));
    for kind in kinds {
        let _ = writeln!(text, "| {} | `{}` | {} |", kind.status(), kind.slug(), kind.title());
    }
    hold("http.md", "problems", &text);
}

fn settings() -> String {
    let mut text = String::new();
    let mut title = "";
    for setting in SETTINGS.iter().filter(|setting| setting.idle.is_none()) {
        if setting.section.title != title {
            title = setting.section.title;
            let _ = write!(text, "\n## {title}\n\n");
            text +=
                "| Environment | Flag | In the file | Default | Takes | What it does |\n|---|---|---|---|---|---|\n";
        }
        text += &row(setting);
    }
    text += "\n## Known, without effect here\n\n";
    text += "Settings of the published server that are accepted, so that its environment can be used as it is. Each that is set is \
             named when the server starts.\n\n| Environment | Why |\n|---|---|\n";
    for setting in SETTINGS {
        if let Some(why) = setting.idle {
            let _ = writeln!(text, "| `{}` | {why} |", setting.id());
        }
    }
    text + "\n"
}

fn row(setting: &Setting) -> String {
    let names: Vec<String> = setting.env.iter().map(|name| format!("`{name}`")).collect();
    let (about, derived) = match setting.about.split_once(" [default") {
        Some((about, rest)) => {
            (about, Some(rest.trim_start_matches(':').trim_start_matches(' ').trim_end_matches(']').to_owned()))
        }
        None => (setting.about, None),
    };
    let default = derived.unwrap_or_else(|| {
        if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default.replace(',', ", ")) }
    });
    let takes = match setting.kind {
        Kind::Int(least, most, unit) => format!("{least} to {most} {unit}").trim_end().to_owned(),
        Kind::Float(least, most) => format!("{least} to {most}"),
        Kind::Word(words) => words.join(", "),
        other => other.shape(),
    };
    // Secrets are no flags.
    let flag = if setting.kind.is_secret() { String::new() } else { format!("`--{}`", setting.flag()) };
    format!("| {} | {flag} | `{}` | {default} | {takes} | {about} |\n", names.join(", "), setting.key())
}
