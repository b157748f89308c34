//! A database with a key: of no use without it, and read by every command with it.

#![cfg(unix)]
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use support::folder::Folder;
use support::{Ran, Running, TOKEN, arcp, fails, finish, one_line, run, session};

const MARKER: &str = "findable-9f3c";

async fn key(folder: &Folder, name: &str) -> String {
    let path = folder.at(name);
    let made = run(&["db", "key", &path]).await;
    assert_eq!((made.status, &*made.stderr), (0, ""), "{made:?}");
    assert!(made.stdout.contains(&path), "{made:?}");
    path
}

/// How often the marker is in any file of this folder.
fn found(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.map(|bytes| bytes.windows(MARKER.len()).filter(|window| *window == MARKER.as_bytes()).count()).sum()
}

async fn echoed(url: &str) -> Ran {
    let input = format!("\"{MARKER}\"");
    let ran = run(&session("submit", url, &["--agent", "echo", "--input", &input, "--idempotency-key", "once"])).await;
    assert_eq!((ran.status, &ran.json()["result"]), (0, &json!({"echoed": MARKER})), "{ran:?}");
    ran
}

/// Rules
#[tokio::test]
async fn an_encrypted_database_shows_nothing_and_every_command_reads_it_with_the_key() {
    let folder = Folder::new("sealed");
    let (db, copy) = (folder.at("arcp.db"), folder.at("copy.db"));
    let key = key(&folder, "arcp.key").await;
    let with_key = ["--db-key-file", &*key];
    let (server, url) = Running::serve_on(&db, &with_key).await;
    let first = echoed(&url).await;
    assert_eq!(found(folder.path()), 0, "while it is served");
    server.kill().await;
    assert_eq!(found(folder.path()), 0, "after a kill");

    // The key by the environment is as good.
    let mut again = arcp(["serve", "--port", "0", "--token", TOKEN, "--db", &db]);
    again.env("ARCP_DB_KEY_FILE", &key);
    let mut server = Running::spawn(again);
    let url = server.err_line().await.strip_prefix("arcp serve listening on ").unwrap().to_owned();
    assert_eq!(echoed(&url).await.job_id(), first.job_id());

    let listed = run(&[&["sessions", "--db", &db, "--output", "json"][..], &with_key].concat()).await;
    assert_eq!(listed.status, 0, "{listed:?}");
    let sessions = listed.json_lines();
    let id = sessions[0]["session"]["session_id"].as_str().unwrap();
    let replayed = run(&[&["replay", "--db", &db, "--session", id][..], &with_key].concat()).await;
    assert!(replayed.status == 0 && replayed.stdout.contains(MARKER), "{replayed:?}");
    let checked = run(&[&["db", "check", "--db", &db, "--output", "json"][..], &with_key].concat()).await;
    assert_eq!((checked.status, &checked.json()["check"]["problems"]), (0, &json!([])), "{checked:?}");
    let copied = run(&[&["db", "backup", "--db", &db, &copy][..], &with_key].concat()).await;
    assert_eq!(copied.status, 0, "{copied:?}");
    let by_environment = finish(arcp(["db", "check", "--db", &copy]).env("ARCP_DB_KEY_FILE", &key)).await;
    assert_eq!(by_environment.status, 0, "{by_environment:?}");
    server.signal("TERM").await;
    assert_eq!(server.end().await.status, 0);
    let small = run(&[&["db", "vacuum", "--db", &db][..], &with_key].concat()).await;
    assert_eq!(small.status, 0, "{small:?}");
    assert_eq!(found(folder.path()), 0, "copied, checked and made small");
}

/// Rules
#[tokio::test]
async fn without_its_key_an_encrypted_database_is_refused_by_every_command() {
    let folder = Folder::new("keyless");
    let (db, plain, copy) = (folder.at("arcp.db"), folder.at("plain.db"), folder.at("copy.db"));
    let (right, wrong) = (key(&folder, "right.key").await, key(&folder, "wrong.key").await);
    for (db, more) in [(&db, &["--db-key-file", &*right][..]), (&plain, &[])] {
        let (server, _) = Running::serve_on(db, more).await;
        server.signal("TERM").await;
        assert_eq!(server.end().await.status, 0);
    }
    for command in [
        &["serve", "--port", "0", "--token", TOKEN][..],
        &["sessions"],
        &["replay", "--session", "sess_XYZ"],
        &["db", "check"],
        &["db", "vacuum"],
        &["db", "backup", &copy],
    ] {
        let line = fails(&[command, &["--db", &db]].concat(), 1).await;
        assert!(line.contains(&format!("{db} is encrypted; name its key with --db-key-file")), "{line}");
        let line = fails(&[command, &["--db", &db, "--db-key-file", &wrong]].concat(), 1).await;
        assert!(line.contains(&format!("{db} is encrypted and does not open with this key")), "{line}");
        let line = fails(&[command, &["--db", &plain, "--db-key-file", &right]].concat(), 1).await;
        assert!(line.contains(&format!("{plain} is not encrypted; open it without a key")), "{line}");
        let line = fails(&[command, &["--db", &db, "--db-key-file", &copy]].concat(), 2).await;
        assert!(line.contains("--db-key-file: the key file") && line.contains("cannot be read"), "{line}");
    }
    let mut sessions = arcp(["sessions", "--db", &db]);
    let line = one_line(&finish(sessions.env("ARCP_DB_KEY_FILE", &copy)).await, 2);
    assert!(line.contains("ARCP_DB_KEY_FILE: the key file"), "{line}");
    let line = fails(&["serve", "--token", TOKEN, "--db", "memory", "--db-key-file", &right], 2).await;
    assert!(line.contains("--db-key-file is about a database file"), "{line}");
    assert!(!Path::new(&copy).exists());
}

/// Rules
#[tokio::test]
async fn a_key_is_made_once_and_kept_from_others() {
    let folder = Folder::new("key");
    let key = key(&folder, "arcp.key").await;
    let text = std::fs::read_to_string(&key).unwrap();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let line = fails(&["db", "key", &key], 1).await;
    assert!(line.contains("never overwritten") && std::fs::read_to_string(&key).unwrap() == text, "{line}");
    let other = folder.at("other.key");
    let told = run(&["db", "key", &other, "--output", "json"]).await;
    assert_eq!((told.status, told.json()), (0, json!({"key": {"file": other}})));
    let line = fails(&["db", "key", &folder.at("none/arcp.key")], 1).await;
    assert!(line.contains("cannot be made"), "{line}");

    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let db = folder.at("arcp.db");
    let serve = ["serve", "--port", "0", "--token", TOKEN, "--db", &db, "--db-key-file", &key];
    let line = fails(&serve, 2).await;
    assert!(line.contains(&format!("run chmod 600 {key}")) && !line.contains(text.trim_end()), "{line}");
    assert!(!Path::new(&db).exists(), "nothing is made without the key");
}
