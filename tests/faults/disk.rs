//! Disks that take no more, and files that may not be written.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use crate::raw::Raw;
use crate::support::{BOUND, Chance, Place, connected, order, port_of, printed, until};
use crate::ticks::end_of;

/// A limit on file sizes (4 or 8 MiB, as the shell counts) stands in for the disk; what is beyond it fails and does not kill.
const LITTLE_ROOM: [&str; 3] = ["sh", "-c", "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\""];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_nothing_is_acknowledged_that_is_not_kept() {
    let (place, mut chance) = (Place::new(), Chance::new("full disk"));
    let db = place.db();
    let mut server = place.serve(&LITTLE_ROOM, "ticker:runtime", 0, 1, &["--db", &db]);
    let url = server.listening().await;
    let client = connected(&url).await;
    let mut raw = Raw::new(&url, chance.split());
    raw.submit("chatter", &json!({"bytes": 64 << 20}), "big");
    let talking = tokio::spawn(async move {
        while raw.jobs.is_empty() || raw.ended.is_empty() {
            raw.connection(|raw| !raw.ended.is_empty()).await;
        }
        raw
    });
    let (error, file) = ("events cannot be stored", "arcp.db");
    until("an error names the file", async || {
        place.said().lines().any(|line| line.contains(error) && line.contains(file))
    })
    .await;
    // It is not accepted before it is kept, and is asked again until it is.
    let late = order("echo", &json!("late"), Some("late"));
    let mut submitting = tokio::spawn({
        let client = client.clone();
        async move { client.submit(&late, None).await.unwrap() }
    });
    assert!(timeout(Duration::from_secs(2), &mut submitting).await.is_err());
    server.kill().await;
    let checked = printed(&["db", "check", "--db", &db, "--output", "json"]).await;
    let checked: serde_json::Value = serde_json::from_str(&checked).unwrap();
    assert_eq!((&checked["check"]["jobs"], &checked["check"]["problems"]), (&json!(1), &json!([])), "{checked}");

    // With room again both go on: every message the client by hand had seen comes again as it was, or it fails.
    let mut server = place.serve(&[], "ticker:runtime", port_of(&url), 2, &["--db", &db]);
    server.listening().await;
    let late = timeout(BOUND, submitting).await.unwrap().unwrap();
    assert_eq!(end_of(&late).await, Ok(json!("late")));
    let raw = timeout(BOUND, talking).await.unwrap().unwrap();
    raw.check();
    let last = raw.frames.last_key_value().unwrap().1;
    assert!(last.contains("INTERNAL_ERROR") && last.contains("\"retryable\":true"), "{last}");
    assert!(raw.frames.len() > 50 && raw.resumes > 0, "{} messages", raw.frames.len());
    server.stop().await;
}

/// The program alone, which another user can be given a copy of.
fn native() -> PathBuf {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("arcp");
    assert!(program.exists(), "{} is missing: run `make test-faults`", program.display());
    program
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_refused_in_a_sentence_and_can_still_be_read() {
    let place = Place::new();
    let (shut, db) = (place.at("shut"), place.at("shut/arcp.db"));
    let mode = |path: &str, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    std::fs::create_dir(&shut).unwrap();
    let mut server = place.serve(&[], "ticker:runtime", 0, 1, &["--db", &db]);
    connected(&server.listening().await).await.close("done").await;
    server.stop().await;
    mode(&db, 0o444);
    // Nothing stops the superuser, so another user tries.
    let is_root = Command::new("id").arg("-u").output().await.unwrap().stdout == b"0\n";
    let program = if is_root { Path::new(&place.at("arcp")).to_owned() } else { native() };
    if is_root {
        std::fs::copy(native(), &program).unwrap();
        mode(&place.at(""), 0o755);
    }
    let run = async |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).current_dir("/").kill_on_drop(true);
        if is_root {
            command.uid(65534);
        }
        let output = timeout(BOUND, command.output()).await.expect("it goes on").unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (folder_mode, remedy) in [(0o777, "make it writable"), (0o555, "make its folder writable")] {
        // Left behind by whoever had the file before.
        std::fs::remove_file(format!("{db}.lock")).unwrap();
        mode(&shut, folder_mode);
        let (status, out, error) = run(&["serve", "--port", "0", "--token", "tok", "--db", &db]).await;
        assert_eq!((status, &*out, error.lines().count()), (Some(1), "", 1), "{error}");
        assert!(error.contains("--db") && error.contains(&db) && error.contains(remedy), "{error}");
    }
    let (status, out, error) = run(&["sessions", "--db", &db, "--output", "json"]).await;
    mode(&shut, 0o755);
    assert_eq!((status, out.lines().count(), &*error), (Some(0), 1, ""));
}
