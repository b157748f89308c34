//! Whose tokens `arcp serve` takes: one given by itself, a file of them, and signed ones.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arcp::{ChainVerifier, JwksOptions, JwtKey, JwtOptions, JwtVerifier, StaticBearerVerifier, Verifier};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::args::{ServeArgs, read_file};
use crate::exit::Failure;

/// Signed tokens (JWT) that are taken.
#[derive(Args)]
#[group(id = "jwt")]
pub(crate) struct JwtArgs {
    /// Take tokens signed (HS256, HS384, HS512) with the secret in this file, at least 32 bytes
    #[arg(long, value_name = "FILE", conflicts_with_all = ["jwt_public_key", "jwks_url"])]
    jwt_secret_file: Option<PathBuf>,
    /// Take tokens signed with the private key of this public one (PEM; RSA, P-256, P-384 or Ed25519)
    #[arg(long, value_name = "FILE", conflicts_with = "jwks_url")]
    jwt_public_key: Option<PathBuf>,
    /// Take tokens signed with a key of the set at this URL, https unless it is on this machine; fetched anew every 5
    /// minutes and when a token names an unknown key
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    jwks_url: Option<String>,
    /// Signed tokens must be for this audience; may be repeated, then any of them [default: tokens without one]
    #[arg(long, value_name = "AUDIENCE", value_parser = NonEmptyStringValueParser::new())]
    jwt_audience: Vec<String>,
    /// Signed tokens must be from this issuer [default: any]
    #[arg(long, value_name = "ISSUER", value_parser = NonEmptyStringValueParser::new())]
    jwt_issuer: Option<String>,
    /// The claim of a signed token that says who it belongs to [default: sub]
    #[arg(long, value_name = "CLAIM", value_parser = NonEmptyStringValueParser::new())]
    jwt_principal_claim: Option<String>,
    /// By how much clocks may differ when a signed token's times are judged, up to 3600 [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3600))]
    jwt_leeway: Option<u64>,
}

impl JwtArgs {
    fn verifier(&self) -> Result<Option<JwtVerifier>, Failure> {
        let (option, key) = match (&self.jwt_secret_file, &self.jwt_public_key, &self.jwks_url) {
            (Some(path), ..) => {
                let secret = std::fs::read(path).map_err(|error| unreadable("--jwt-secret-file", path, &error))?;
                ("--jwt-secret-file", JwtKey::Secret(without_line_break(secret)))
            }
            (_, Some(path), _) => {
                ("--jwt-public-key", JwtKey::PublicKeyPem(read_file("--jwt-public-key", path)?.into_bytes()))
            }
            (.., Some(url)) => ("--jwks-url", JwtKey::Jwks(JwksOptions::new(url))),
            (None, None, None) => return self.no_key().map(|()| None),
        };
        let mut options = JwtOptions { audience: self.jwt_audience.clone(), ..JwtOptions::new(key) };
        options.issuer.clone_from(&self.jwt_issuer);
        if let Some(claim) = &self.jwt_principal_claim {
            options.principal_claim.clone_from(claim);
        }
        if let Some(leeway) = self.jwt_leeway {
            options.leeway = Duration::from_secs(leeway);
        }
        JwtVerifier::new(options).map(Some).map_err(|error| Failure::Usage(format!("{option}: {error}")))
    }

    /// Rules for signed tokens are of no use when none are taken.
    fn no_key(&self) -> Result<(), Failure> {
        let idle = [
            ("--jwt-audience", !self.jwt_audience.is_empty()),
            ("--jwt-issuer", self.jwt_issuer.is_some()),
            ("--jwt-principal-claim", self.jwt_principal_claim.is_some()),
            ("--jwt-leeway", self.jwt_leeway.is_some()),
        ];
        match idle.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(Failure::Usage(format!(
                "{option} is about signed tokens: give --jwt-secret-file, --jwt-public-key or --jwks-url with it"
            ))),
            None => Ok(()),
        }
    }
}

impl ServeArgs {
    /// Everybody who may come in, asked in the order: one token, the file, signed ones.
    pub(crate) fn verifier(&self) -> Result<ChainVerifier, Failure> {
        let mut links: Vec<Arc<dyn Verifier>> = Vec::new();
        let file = self.tokens.as_deref().map(|path| read_tokens(&read_file("--tokens", path)?, path)).transpose()?;
        let signed = self.jwt.verifier()?;
        // A token that the environment happens to hold opens nothing when others were named.
        if self.token.is_given() || (file.is_none() && signed.is_none()) {
            links.push(Arc::new(StaticBearerVerifier::new([(self.token.read()?, self.principal.clone())])));
        }
        if let Some(tokens) = file {
            links.push(Arc::new(StaticBearerVerifier::new(tokens)));
        }
        if let Some(signed) = signed {
            links.push(Arc::new(signed));
        }
        Ok(ChainVerifier::new(links))
    }

    /// Says which files with secrets others on this machine can read.
    pub(crate) fn warn_of_open_files(&self) {
        let secret = [
            ("--tokens", &self.tokens),
            ("--jwt-secret-file", &self.jwt.jwt_secret_file),
            ("--tls-key", &self.tls_key),
        ];
        for (option, path) in secret {
            if let Some(path) = path.as_deref().filter(|path| others_can_read(path)) {
                let path = path.display();
                tracing::warn!("{option}: other users of this machine can read {path}: chmod 600 {path}");
            }
        }
    }
}

/// Reads lines of a principal and a token. Errors name the line, never what stands there.
fn read_tokens(text: &str, path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let wrong = |line: usize, why: &str| Failure::Usage(format!("--tokens: line {line} of {} {why}", path.display()));
    let mut tokens = Vec::new();
    let mut seen = HashSet::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(principal), Some(token), None) = (words.next(), words.next(), words.next()) else {
            return Err(wrong(number, "must be a principal and a token, such as me@example.com TOKEN"));
        };
        if !seen.insert(token) {
            return Err(wrong(number, "repeats a token; give each principal its own"));
        }
        tokens.push((token.to_owned(), principal.to_owned()));
    }
    if tokens.is_empty() {
        return Err(Failure::Usage(format!(
            "--tokens: {} holds no token; write one line per token, such as me@example.com TOKEN",
            path.display()
        )));
    }
    Ok(tokens)
}

fn unreadable(option: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::Usage(format!("{option}: cannot read {}: {error}", path.display()))
}

/// The line break that ends a file is not part of the secret.
fn without_line_break(mut secret: Vec<u8>) -> Vec<u8> {
    while secret.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
        secret.pop();
    }
    secret
}

#[cfg(unix)]
fn others_can_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o044 != 0)
}

/// Elsewhere access is not a matter of a few bits.
#[cfg(not(unix))]
fn others_can_read(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use super::*;

    fn tokens(text: &str) -> Result<Vec<(String, String)>, String> {
        read_tokens(text, Path::new("file")).map_err(|error| match error {
            Failure::Usage(told) => told,
            _ => String::new(),
        })
    }

    #[test]
    fn a_file_of_tokens_has_one_on_each_line() {
        let read = tokens("# who\n\nme  t1\r\n\tyou t2  \n#you t3").unwrap();
        assert_eq!(read, [("t1".into(), "me".into()), ("t2".into(), "you".into())]);
        for (text, expected) in [
            ("me s3cret\nyou", "line 2"),
            ("me s3cret x", "line 1"),
            ("me s3cret\n\nyou s3cret", "line 3"),
            ("# none\n", "no token"),
            ("", "no token"),
        ] {
            let told = tokens(text).unwrap_err();
            assert!(told.contains(expected) && !told.contains("s3cret"), "{told}");
        }
    }

    #[test]
    fn the_end_of_a_line_is_no_secret() {
        assert_eq!(without_line_break(b"abc\r\n\n".to_vec()), b"abc");
        assert_eq!(without_line_break(b"\nabc ".to_vec()), b"\nabc ");
    }
}
