//! Who may come in: tokens of a file, signed ones, and both together.

#![cfg(unix)]
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use support::{Ran, Running, TOKEN, arcp, fails, run};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// `{"alg":"ES256","kid":"k1"}`: only the key set can tell whether the rest is right.
const SIGNED_HEADER: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIn0";

/// A folder of this test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("arcp-access-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn signed(claims: serde_json::Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

async fn start(args: &[&str]) -> (Running, String) {
    listening(Running::start(&[&["serve", "--port", "0", "--db", "memory"], args].concat())).await
}

async fn listening(mut server: Running) -> (Running, String) {
    let line = server.err_line().await;
    let url = line.strip_prefix("arcp serve listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
    (server, url)
}

async fn enter(url: &str, token: &str) -> Ran {
    let ran = run(&["submit", "--url", url, "--token", token, "--agent", "echo", "--quiet"]).await;
    assert!(!ran.stderr.contains(token), "{ran:?}");
    ran
}

async fn admitted(url: &str, token: &str) {
    let ran = enter(url, token).await;
    assert_eq!(ran.status, 0, "{ran:?}");
}

async fn refused(url: &str, token: &str) {
    let ran = enter(url, token).await;
    assert_eq!(ran.status, 4, "{ran:?}");
    assert!(ran.stderr.contains("UNAUTHENTICATED"), "{ran:?}");
}

#[tokio::test]
async fn tokens_of_a_file_signed_ones_and_a_single_one_are_all_taken() {
    let folder = Folder::new("all");
    let tokens = folder.file("tokens", "# who\nme@example.com one\nyou@example.com two\n", 0o600);
    let secret = folder.file("secret", &format!("{SECRET}\n"), 0o600);
    let exp = jsonwebtoken::get_current_timestamp() + 300;
    let good = signed(json!({"email": "me", "aud": "arcp", "iss": "us", "exp": exp}));
    let other = signed(json!({"email": "me", "aud": "other", "iss": "us", "exp": exp}));
    let nobody = signed(json!({"sub": "me", "aud": "arcp", "iss": "us", "exp": exp}));
    let late = signed(json!({"email": "me", "aud": "arcp", "iss": "us", "exp": exp - 320}));
    let rules = [
        "--jwt-audience",
        "arcp",
        "--jwt-audience",
        "arcp2",
        "--jwt-issuer",
        "us",
        "--jwt-principal-claim",
        "email",
        "--jwt-leeway",
        "0",
    ];
    let args = [&["--token", TOKEN, "--tokens", &tokens, "--jwt-secret-file", &secret][..], &rules].concat();
    let (server, url) = start(&args).await;
    for token in ["one", "two", TOKEN, &good] {
        admitted(&url, token).await;
    }
    for token in ["three", "me@example.com", SECRET, &other, &nobody, &late] {
        refused(&url, token).await;
    }
    server.signal("TERM").await;
    let ended = server.end().await;
    assert_eq!((ended.status, &*ended.stderr), (0, ""), "{ended:?}");
}

#[tokio::test]
async fn a_token_of_the_environment_opens_nothing_when_others_are_named() {
    let folder = Folder::new("env");
    let tokens = folder.file("tokens", "me@example.com one\n", 0o600);
    for (named, taken) in [(&["--tokens", &*tokens][..], false), (&[], true)] {
        let mut command = arcp([&["serve", "--port", "0", "--db", "memory"], named].concat());
        command.env("ARCP_TOKEN", TOKEN);
        let (_server, url) = listening(Running::spawn(command)).await;
        if taken { admitted(&url, TOKEN).await } else { refused(&url, TOKEN).await }
    }
}

#[tokio::test]
async fn a_file_of_secrets_that_others_can_read_is_warned_of() {
    let folder = Folder::new("open");
    let tokens = folder.file("tokens", "me@example.com one\n", 0o644);
    let secret = folder.file("secret", SECRET, 0o640);
    let (mut server, url) = start(&["--tokens", &tokens, "--jwt-secret-file", &secret]).await;
    for (option, path) in [("--tokens", &tokens), ("--jwt-secret-file", &secret)] {
        let line = server.err_line().await;
        assert!(
            line.contains("warn") && line.contains(option) && line.contains(&format!("chmod 600 {path}")),
            "{line}"
        );
        assert!(!line.contains("one\n") && !line.contains(SECRET), "{line}");
    }
    admitted(&url, "one").await;
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_told() {
    let folder = Folder::new("bad");
    let short = folder.file("short", "s3cret\n", 0o600);
    let line = fails(&["serve", "--jwt-secret-file", &short], 2).await;
    assert!(line.contains("--jwt-secret-file") && line.contains("at least 32") && !line.contains("s3cret"), "{line}");
    let line = fails(&["serve", "--jwt-public-key", &short], 2).await;
    assert!(line.contains("--jwt-public-key") && line.contains("BEGIN PUBLIC KEY"), "{line}");
    let line = fails(&["serve", "--tokens", &short], 2).await;
    assert!(line.contains("--tokens: line 1") && !line.contains("s3cret"), "{line}");
    let line = fails(&["serve", "--token", TOKEN, "--tls-cert", &short, "--tls-key", &short], 2).await;
    assert!(line.contains("--tls-key") && line.contains("no private key"), "{line}");
}

#[tokio::test]
async fn keys_that_cannot_be_had_are_the_runtimes_own_failure() {
    let (_server, url) = start(&["--jwks-url", "http://127.0.0.1:1/jwks"]).await;
    let ran = enter(&url, &format!("{SIGNED_HEADER}.e30.AAAA")).await;
    assert!(ran.stderr.contains("INTERNAL_ERROR") && !ran.stderr.contains("UNAUTHENTICATED"), "{ran:?}");
    refused(&url, "unknown").await;
}

#[tokio::test]
async fn a_key_set_elsewhere_is_fetched_through_the_proxy_of_the_environment() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let mut command = arcp(["serve", "--port", "0", "--db", "memory", "--jwks-url", "https://issuer.invalid/jwks"]);
    command.env("HTTPS_PROXY", &address).env_remove("NO_PROXY").env_remove("no_proxy").env_remove("https_proxy");
    let (_server, url) = listening(Running::spawn(command)).await;
    let asked = async {
        let (mut stream, _) = proxy.accept().await.unwrap();
        let mut line = [0; 32];
        stream.read_exact(&mut line).await.unwrap();
        String::from_utf8_lossy(&line).into_owned()
    };
    let token = format!("{SIGNED_HEADER}.e30.AAAA");
    let (line, ran) = tokio::join!(tokio::time::timeout(support::BOUND, asked), enter(&url, &token));
    assert_eq!(&line.unwrap()[..26], "CONNECT issuer.invalid:443");
    assert!(ran.stderr.contains("INTERNAL_ERROR"), "{ran:?}");
}
