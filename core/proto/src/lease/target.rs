//! One form for each target and pattern, so that no spelling slips past a grant.

use std::borrow::Cow;

/// Beyond this a target is refused, which bounds the time of a check.
const MAX_TARGET_BYTES: usize = 65_536;

/// How a namespace reads its targets and patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `fs.read`, `fs.write`.
    Path,
    /// `net.fetch`.
    Url,
    /// `tool.call`, `agent.delegate`, `model.use`, `x-vendor.…`.
    Name,
    /// `cost.budget`, which grants no operation.
    Budget,
}

impl Kind {
    /// The kind of a namespace, or `None` for one the protocol does not allow.
    pub fn of(namespace: &str) -> Option<Kind> {
        match namespace {
            "fs.read" | "fs.write" => Some(Kind::Path),
            "net.fetch" => Some(Kind::Url),
            "tool.call" | "agent.delegate" | super::MODEL_USE => Some(Kind::Name),
            super::COST_BUDGET => Some(Kind::Budget),
            _ => namespace.strip_prefix("x-vendor.").filter(|rest| !rest.is_empty()).map(|_| Kind::Name),
        }
    }
}

/// The normalised form of a target, or why it is refused, as the end of a sentence about it.
pub fn normalize_target(kind: Kind, target: &str) -> Result<Cow<'_, str>, &'static str> {
    if target.is_empty() {
        return Err("is empty");
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err("is longer than 65536 bytes");
    }
    if target.chars().any(char::is_control) {
        return Err("contains a control character");
    }
    match kind {
        Kind::Path => path_target(target).map(Cow::Owned),
        Kind::Url => url_target(target).map(Cow::Owned),
        Kind::Name if target.split('/').any(|segment| matches!(segment, "." | "..")) => {
            Err("contains a `.` or `..` segment")
        }
        Kind::Name => Ok(Cow::Borrowed(target)),
        Kind::Budget => Err("names no operation: cost.budget holds amounts"),
    }
}

/// The normalised form of a pattern, or why it is refused.
pub(super) fn normalize_pattern(kind: Kind, pattern: &str) -> Result<String, &'static str> {
    if pattern.is_empty() {
        return Err("is empty");
    }
    match kind {
        Kind::Path => path_pattern(pattern),
        Kind::Url => Ok(url_pattern(pattern)),
        Kind::Name | Kind::Budget => Ok(pattern.to_owned()),
    }
}

fn path_target(target: &str) -> Result<String, &'static str> {
    if target.contains('\\') {
        return Err("contains a backslash");
    }
    let absolute = target.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for segment in target.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                if kept.pop().is_none() && !absolute {
                    return Err("climbs above its start");
                }
            }
            _ => kept.push(segment),
        }
    }
    Ok(join_path(absolute, &kept))
}

fn path_pattern(pattern: &str) -> Result<String, &'static str> {
    if pattern.split('/').any(|segment| segment == "..") {
        return Err("contains a `..` segment");
    }
    let absolute = pattern.starts_with('/');
    let kept: Vec<&str> = pattern.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect();
    let path = join_path(absolute, &kept);
    // Dropping this dot would turn "below here" into "anywhere".
    let dotted = pattern.starts_with("./") && path.starts_with("**");
    Ok(if dotted { format!("./{path}") } else { path })
}

fn join_path(absolute: bool, segments: &[&str]) -> String {
    let joined = segments.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// A URL cut where RFC 3986 cuts it: scheme, authority, the rest.
fn split_url(url: &str) -> Option<(String, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    Some((scheme.to_ascii_lowercase(), authority, rest))
}

fn is_scheme(scheme: &str) -> bool {
    scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" | "ws" => Some("80"),
        "https" | "wss" => Some("443"),
        "ftp" => Some("21"),
        _ => None,
    }
}

/// Lower-case host and, when it is written out and not the scheme's own, the port.
fn host_and_port(scheme: &str, authority: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    let Some((host, port)) = authority.rsplit_once(':') else { return authority };
    let single = !host.contains(':') || host.ends_with(']');
    if !single || !port.bytes().all(|b| b.is_ascii_digit()) {
        return authority;
    }
    let plain = port.trim_start_matches('0');
    match plain {
        "" if port.is_empty() => host.to_owned(),
        _ if Some(plain) == default_port(scheme) => host.to_owned(),
        "" => format!("{host}:0"),
        _ => format!("{host}:{plain}"),
    }
}

fn url_target(target: &str) -> Result<String, &'static str> {
    if target.chars().any(char::is_whitespace) {
        return Err("contains a space");
    }
    if target.contains('\\') {
        return Err("contains a backslash");
    }
    let (scheme, authority, rest) = split_url(target).ok_or("has no scheme://")?;
    if !is_scheme(&scheme) {
        return Err("has no scheme://");
    }
    if authority.contains('@') {
        return Err("carries user information");
    }
    let host = host_and_port(&scheme, authority);
    check_host(&scheme, &host)?;
    let rest = rest.split('#').next().unwrap_or_default();
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let path = remove_dot_segments(path);
    Ok(match query {
        Some(query) => format!("{scheme}://{host}{path}?{query}"),
        None => format!("{scheme}://{host}{path}"),
    })
}

/// Refuses hosts that clients read in different ways, since one of them may lead elsewhere.
fn check_host(scheme: &str, host: &str) -> Result<(), &'static str> {
    let name = match host.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((_, after)) => after,
            None => return Err("has an unclosed `[` in its host"),
        },
        None if host.is_empty() && default_port(scheme).is_some() => return Err("has no host"),
        None if host.contains('%') => return Err("has a percent escape in its host"),
        None => host,
    };
    match name.split_once(':') {
        Some((_, port)) if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) => Err("has a bad port"),
        _ => Ok(()),
    }
}

/// Resolves `.` and `..`, also written with `%2e`; always begins with `/`.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        let dots = dots_of(segment);
        ends_in_directory = dots > 0;
        match dots {
            0 => kept.push(segment),
            1 => {}
            _ => {
                kept.pop();
            }
        }
    }
    if ends_in_directory {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

/// 1 for `.`, 2 for `..`, 0 for any other segment.
fn dots_of(segment: &str) -> usize {
    match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
        "." => 1,
        ".." => 2,
        _ => 0,
    }
}

fn url_pattern(pattern: &str) -> String {
    let Some((scheme, authority, rest)) = split_url(pattern) else { return pattern.to_owned() };
    let host = host_and_port(&scheme, authority);
    // A `**` in the host may reach into the path, so there is no empty path to complete.
    let slash = if rest.starts_with('/') || authority.contains("**") { "" } else { "/" };
    format!("{scheme}://{host}{slash}{rest}")
}
