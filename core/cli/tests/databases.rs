//! What outlives the process, and a look into it from outside.

#![cfg(unix)]
#![allow(clippy::panic, clippy::print_stderr, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use arcp::store::sqlite::Inspector;
use arcp::{
    JobContext, ListenOptions, Listener, ProtocolError, RawJson, Runtime, RuntimeConfig, RuntimeInfo, SqliteOptions,
    SqliteStore, StaticBearerVerifier,
};
use serde_json::json;
use support::folder::Folder;
use support::{BOUND, Ran, Running, TOKEN, arcp, fails, finish, one_line, run, session};
use tokio::process::Command;
use tokio::time::timeout;

/// Names the database to [`the_process_that_dies`].
const DATABASE: &str = "ARCP_TEST_DATABASE";

/// No test by itself: another test runs it in a process of its own, to kill it. It hosts an agent that never ends.
#[tokio::test]
async fn the_process_that_dies() {
    let Ok(database) = std::env::var(DATABASE) else { return };
    let config = RuntimeConfig::new(RuntimeInfo { name: "doomed".into(), version: "1".into() });
    let verifier = StaticBearerVerifier::new([(TOKEN, "cli-user")]);
    let store = Box::new(SqliteStore::new(database, SqliteOptions::default()));
    let runtime = Runtime::with_store(config, Arc::new(verifier), store).unwrap();
    let endless = |_: RawJson, ctx: JobContext| async move {
        ctx.log("info", "half way").await?;
        std::future::pending::<Result<RawJson, ProtocolError>>().await
    };
    runtime.register_agent("endless", endless).unwrap();
    let listener = Listener::bind(ListenOptions { port: 0, ..ListenOptions::default() }).await.unwrap();
    eprintln!("listening on {}", listener.url());
    timeout(BOUND * 3, runtime.serve(listener)).await.unwrap();
}

async fn doomed(database: &str) -> (Running, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_process_that_dies", "--nocapture"]).env(DATABASE, database).kill_on_drop(true);
    let mut process = Running::spawn(command);
    let line = process.err_line().await;
    let url = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
    (process, url)
}

async fn echoed(url: &str, more: &[&str]) -> Ran {
    let ran = run(&session("submit", url, &[&["--agent", "echo"], more].concat())).await;
    assert_eq!(ran.status, 0, "{ran:?}");
    ran
}

async fn kept(db: &str) -> Vec<serde_json::Value> {
    let ran = run(&["sessions", "--db", db, "--output", "json"]).await;
    assert_eq!((ran.status, &*ran.stderr), (0, ""), "{ran:?}");
    ran.json_lines().into_iter().map(|line| line["session"].clone()).collect()
}

/// Everything `replay` prints of the session.
async fn replayed(db: &str, session: &str, after: &str) -> String {
    let ran = run(&["replay", "--db", db, "--session", session, "--after-seq", after]).await;
    assert_eq!((ran.status, &*ran.stderr), (0, ""), "{ran:?}");
    ran.stdout
}

#[tokio::test]
async fn a_job_that_died_with_its_process_ends_in_a_kept_retryable_error() {
    let folder = Folder::new("died");
    let db = folder.at("arcp.db");
    let (process, url) = doomed(&db).await;
    let submitted = run(&session("submit", &url, &["--agent", "endless", "--detach"])).await;
    let job_id = submitted.stdout.trim();
    let mut tail = Running::start(&session("tail", &url, &["--job-id", job_id]));
    assert!(tail.out_line().await.contains("half way"));
    process.kill().await;

    let (_server, url) = Running::serve_on(&db, &[]).await;
    // At the start already, before anybody has connected.
    let session_id = kept(&db).await[0]["session_id"].as_str().unwrap().to_owned();
    let ended = timeout(BOUND, async {
        loop {
            let frames = replayed(&db, &session_id, "0").await;
            if frames.contains("job.error") {
                return frames;
            }
        }
    });
    let frames = ended.await.expect("the job was not ended");
    let last: serde_json::Value = serde_json::from_str(frames.lines().last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["job_id"]), (&json!("job.error"), &json!(job_id)));
    assert_eq!((&last["payload"]["code"], &last["payload"]["retryable"]), (&json!("INTERNAL_ERROR"), &json!(true)));

    let tailed = run(&session("tail", &url, &["--job-id", job_id])).await;
    assert!(tailed.stdout.contains("half way"), "{tailed:?}");
    assert!(one_line(&tailed, 6).starts_with("arcp: INTERNAL_ERROR: "), "{tailed:?}");
}

#[tokio::test]
async fn a_follower_goes_on_when_a_killed_server_is_back() {
    let folder = Folder::new("back");
    let db = folder.at("arcp.db");
    let (process, url) = doomed(&db).await;
    let submit = session("submit", &url, &["--agent", "endless", "--output", "json", "--reconnect", "20"]);
    let mut submit = Running::start(&submit);
    let job_id = submit.out_line().await;
    assert!(submit.out_line().await.contains("half way"));
    process.kill().await;
    let port = url.trim_start_matches("ws://127.0.0.1:").trim_end_matches("/arcp");
    let mut server =
        Running::start(&["serve", "--port", port, "--token", TOKEN, "--db", &db, "--synchronous", "normal"]);
    assert!(server.err_line().await.contains(port));
    let ended = submit.end().await;
    assert!(one_line(&ended, 6).starts_with("arcp: INTERNAL_ERROR: "), "{ended:?}");
    // The event came once, the end after it.
    assert_eq!(ended.json_lines().len(), 1, "{ended:?}");
    assert_eq!(ended.json()["error"]["retryable"], true);
    let job_id = serde_json::from_str::<serde_json::Value>(&job_id).unwrap()["accepted"]["job_id"].clone();
    let listed = run(&session("jobs", &url, &["--status", "error", "--output", "json"])).await;
    assert_eq!(listed.json()["job"]["job_id"], job_id);
}

#[tokio::test]
async fn jobs_and_keys_survive_a_killed_server() {
    let folder = Folder::new("killed");
    let db = folder.at("deep/er/arcp.db");
    let (server, url) = Running::serve_on(&db, &["--synchronous", "full", "--db-quota", "1G"]).await;
    let once = ["--input", "[1.10]", "--idempotency-key", "week-19"];
    let first = echoed(&url, &once).await;
    server.kill().await;
    let (server, url) = Running::serve_on(&db, &[]).await;
    let again = echoed(&url, &once).await;
    assert_eq!((first.job_id(), first.json()), (again.job_id(), again.json()));
    let tailed = run(&session("tail", &url, &["--job-id", first.job_id()])).await;
    assert_eq!(tailed.json_lines().last(), Some(&first.json()));
    server.signal("TERM").await;
    let ended = server.end().await;
    assert_eq!((ended.status, &*ended.stderr), (0, ""), "{ended:?}");
    // Let go of in good order: nothing is left in the log.
    assert!(!Path::new(&format!("{db}-wal")).exists());
}

#[tokio::test]
async fn a_token_is_in_no_file() {
    let folder = Folder::new("secrets");
    let db = folder.at("arcp.db");
    let (server, url) = Running::serve_on(&db, &[]).await;
    echoed(&url, &["--input", "\"findable\""]).await;
    let found = |text: &str| {
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
        files
            .map(|file| std::fs::read(file).unwrap())
            .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    assert!(found("findable") && !found(TOKEN));
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{file:?}");
    }
    server.kill().await;
    assert!(found("findable") && !found(TOKEN));
}

#[tokio::test]
async fn sessions_and_replay_read_beside_the_server_and_after_it() {
    let folder = Folder::new("beside");
    let db = folder.at("arcp.db");
    let (server, url) = Running::serve_on(&db, &["--principal", "me@example.com"]).await;
    let submitted = echoed(&url, &["--input", "1"]).await;

    let sessions = kept(&db).await;
    assert_eq!(sessions.len(), 1);
    let id = sessions[0]["session_id"].as_str().unwrap();
    assert_eq!(sessions[0]["principal"], "me@example.com");
    assert_eq!(sessions[0]["jobs"], json!([submitted.job_id()]));
    assert_eq!((&sessions[0]["last_event_seq"], &sessions[0]["kept"]), (&json!(2), &json!(2)));
    let table = run(&["sessions", "--db", &db]).await;
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert!(lines[0].starts_with("SESSION ") && lines[0].ends_with("  JOBS"), "{table:?}");
    assert!(lines[1].starts_with(id) && lines[1].contains("  me@example.com  ") && lines.len() == 2, "{table:?}");

    let frames = replayed(&db, id, "0").await;
    let types: Vec<String> = frames
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types, ["job.event", "job.result"]);
    assert_eq!(replayed(&db, id, "1").await.lines().collect::<Vec<_>>(), frames.lines().skip(1).collect::<Vec<_>>());
    assert_eq!(replayed(&db, id, "2").await, "");
    let wrapped = run(&["replay", "--db", &db, "--session", id, "--output", "json"]).await;
    let expected: String = frames.lines().map(|frame| format!("{{\"frame\":{frame}}}\n")).collect();
    assert_eq!(wrapped.stdout, expected);

    let unknown = fails(&["replay", "--db", &db, "--session", "sess_XYZ"], 5).await;
    assert!(unknown.contains("sess_XYZ") && unknown.contains(&format!("arcp sessions --db {db}")), "{unknown}");
    let told = run(&["replay", "--db", &db, "--session", "sess_XYZ", "--output", "json"]).await;
    assert_eq!(told.json()["error"]["code"], "not_found");

    server.kill().await;
    assert_eq!(replayed(&db, id, "0").await, frames);
    let (server, _) = Running::serve_on(&db, &[]).await;
    server.signal("TERM").await;
    assert_eq!(server.end().await.status, 0);
    assert_eq!(replayed(&db, id, "0").await, frames);
}

#[tokio::test]
async fn a_database_belongs_to_one_server() {
    let folder = Folder::new("two");
    let db = folder.at("arcp.db");
    let (server, url) = Running::serve_on(&db, &[]).await;
    let serve = ["serve", "--port", "0", "--token", TOKEN, "--db", &db];
    let line = fails(&serve, 1).await;
    assert!(line.contains(&db) && line.contains("pid"), "{line}");
    let line = fails(&["db", "vacuum", "--db", &db], 1).await;
    assert!(line.contains("pid"), "{line}");
    echoed(&url, &[]).await;
    server.kill().await;
    Running::serve_on(&db, &[]).await;
}

#[tokio::test]
async fn a_missing_file_stays_missing() {
    let folder = Folder::new("missing");
    let db = folder.at("none.db");
    let copy = folder.at("copy.db");
    for command in [
        &["sessions"][..],
        &["replay", "--session", "sess_XYZ", "--after-seq", "0"],
        &["db", "check"],
        &["db", "vacuum"],
        &["db", "backup", &copy],
    ] {
        let line = fails(&[command, &["--db", &db]].concat(), 2).await;
        assert!(line.contains(&format!("no database at {db}")) && line.contains("arcp serve --db"), "{line}");
    }
    // Nor is the default made by looking.
    let mut sessions = arcp(["sessions"]);
    let line = one_line(&finish(sessions.env("HOME", folder.path())).await, 2);
    assert!(line.contains("arcp.db") && line.contains("name it with --db"), "{line}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_of_something_else_is_left_alone() {
    let folder = Folder::new("else");
    let notes = folder.at("notes.txt");
    let text = "no database at all, but a text that is long enough to be looked at as one\n".repeat(20);
    std::fs::write(&notes, &text).unwrap();
    for command in [
        &["sessions", "--db", &*notes][..],
        &["db", "check", "--db", &notes],
        &["serve", "--token", TOKEN, "--db", &notes],
    ] {
        let line = fails(command, 1).await;
        assert!(line.contains(&notes) && line.contains("another file"), "{line}");
    }
    let line = fails(&["serve", "--token", TOKEN, "--db", folder.path().to_str().unwrap()], 1).await;
    assert!(line.contains("is a folder"), "{line}");
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), text);
}

#[tokio::test]
async fn a_database_is_copied_checked_and_made_small() {
    let folder = Folder::new("care");
    let (db, copy) = (folder.at("arcp.db"), folder.at("copy.db"));
    let (server, url) = Running::serve_on(&db, &[]).await;
    let input = format!("\"{}\"", "x".repeat(30_000));
    for _ in 0..4 {
        echoed(&url, &["--input", &input]).await;
    }
    let backed_up = run(&["db", "backup", "--db", &db, &copy]).await;
    assert_eq!((backed_up.status, backed_up.stdout), (0, format!("copied {db} to {copy}\n")));
    assert_eq!(kept(&copy).await, kept(&db).await);
    let line = fails(&["db", "backup", "--db", &db, &copy], 1).await;
    assert!(line.contains("exists"), "{line}");

    let checked = run(&["db", "check", "--db", &db, "--output", "json"]).await;
    assert_eq!(checked.status, 0, "{checked:?}");
    let report = &checked.json()["check"];
    assert_eq!((&report["sessions"], &report["jobs"], &report["records"]), (&json!(4), &json!(4), &json!(8)));
    assert_eq!(report["problems"], json!([]));

    server.signal("TERM").await;
    assert_eq!(server.end().await.status, 0);
    let small = run(&["db", "vacuum", "--db", &db, "--output", "json"]).await;
    assert_eq!(small.status, 0, "{small:?}");
    let size = std::fs::metadata(&db).unwrap().len();
    assert_eq!(small.json()["vacuum"]["bytes_after"], json!(size));
    assert_eq!(kept(&db).await.len(), 4);

    // A page of a result, overwritten.
    let mut bytes = std::fs::read(&copy).unwrap();
    let at = bytes.windows(64).rposition(|window| window == [b'x'; 64]).unwrap();
    bytes[at..at + 64].fill(b'y');
    std::fs::write(&copy, bytes).unwrap();
    let damaged = run(&["db", "check", "--db", &copy]).await;
    assert!(one_line(&damaged, 1).contains("is damaged"), "{damaged:?}");
    assert!(damaged.stdout.lines().count() >= 2, "{damaged:?}");
    let told = run(&["db", "check", "--db", &copy, "--output", "json"]).await;
    let lines = told.json_lines();
    assert!(!lines[0]["check"]["problems"].as_array().unwrap().is_empty(), "{told:?}");
    assert_eq!(lines[1]["error"]["code"], "failed");
}

#[tokio::test]
async fn a_quota_is_warned_of_before_it_is_reached_and_then_holds() {
    let folder = Folder::new("quota");
    let db = folder.at("arcp.db");
    let (mut server, url) = Running::serve_on(&db, &["--db-quota", "1M"]).await;
    let input = folder.at("input.json");
    std::fs::write(&input, format!("\"{}\"", "x".repeat(210_000))).unwrap();
    let input = format!("@{input}");
    // Each is kept twice, as input and as result.
    echoed(&url, &["--input", &input, "--quiet"]).await;
    echoed(&url, &["--input", &input, "--quiet"]).await;
    let line = server.err_line().await;
    assert!(line.starts_with("arcp: warn: the quota is nearly used") && line.contains(&db), "{line}");
    let submit = session("submit", &url, &["--agent", "echo", "--input", &input, "--quiet", "--idempotency-key", "k"]);
    let waiting = Running::start(&submit);
    let line = server.err_line().await;
    assert!(line.contains("no space left") && line.contains("1048576") && line.contains("raise the quota"), "{line}");
    waiting.kill().await;
    // Nothing of it was acknowledged, and what was kept is sound.
    let checked = run(&["db", "check", "--db", &db, "--output", "json"]).await;
    assert_eq!((checked.status, &checked.json()["check"]["jobs"]), (0, &json!(2)), "{checked:?}");
}

#[tokio::test]
async fn the_default_database_is_in_the_users_state_folder() {
    let folder = Folder::new("default");
    let (home, state) = (folder.at("home"), folder.at("state"));
    let places = if cfg!(target_vendor = "apple") {
        vec![(None, format!("{home}/Library/Application Support/arcp/arcp.db"))]
    } else {
        vec![
            (None, format!("{home}/.local/state/arcp/arcp.db")),
            (Some(&*state), format!("{state}/arcp/arcp.db")),
            // No place at all unless it begins at the root.
            (Some("state"), format!("{home}/.local/state/arcp/arcp.db")),
        ]
    };
    for (xdg, place) in places {
        let set = |mut command: Command| {
            command.env("HOME", &home);
            xdg.map(|xdg| command.env("XDG_STATE_HOME", xdg));
            command
        };
        let mut server = Running::spawn(set(arcp(["serve", "--port", "0", "--token", TOKEN])));
        let url = server.err_line().await.strip_prefix("arcp serve listening on ").unwrap().to_owned();
        assert_eq!(server.err_line().await, format!("arcp serve keeps sessions and jobs in {place}"));
        echoed(&url, &[]).await;
        assert!(finish(&mut set(arcp(["sessions"]))).await.stdout.lines().count() >= 2);
        assert!(Inspector::open(&place).is_ok());
        server.signal("INT").await;
        assert_eq!(server.end().await.status, 0);
    }
}

#[tokio::test]
async fn limits_reach_the_runtime() {
    let (_server, url) =
        Running::serve(&["--max-sessions-per-principal", "1", "--resume-window", "60", "--retention", "1"]).await;
    use arcp::{Client, ClientConfig, ClientInfo, ConnectOptions, WebSocketTransport};
    let transport = WebSocketTransport::connect(&url, ConnectOptions::default()).await.unwrap();
    let client = Client::new(ClientConfig::new(ClientInfo { name: "client".into(), version: "1".into() }));
    let welcome = client.connect(transport, TOKEN).await.unwrap();
    assert_eq!(welcome.resume_window_sec, 60);
    let refused = run(&session("submit", &url, &["--agent", "echo"])).await;
    assert!(refused.status == 5 || refused.status == 4, "{refused:?}");
    client.close("done").await;
    echoed(&url, &[]).await;
}

#[tokio::test]
async fn an_app_is_told_what_it_was_given() {
    let told = |args: &[&str]| match arcp_cli::run(args.iter().map(Into::into).collect()) {
        arcp_cli::Outcome::ServeApp(app) => serde_json::from_str::<serde_json::Value>(&app.options_json).unwrap(),
        other => panic!("{other:?}"),
    };
    let bare = told(&["arcp", "serve", "--app", "a:b"]);
    assert!(bare.get("db").is_none() && bare.get("synchronous").is_none(), "{bare}");
    let given = told(&["arcp", "serve", "--app", "a:b", "--db", "x.db", "--synchronous", "full"]);
    assert_eq!((&given["db"], &given["synchronous"]), (&json!("x.db"), &json!("full")));
    assert_eq!(told(&["arcp", "serve", "--app", "a:b", "--db", "memory"])["db"], "memory");
    let sealed = told(&["arcp", "serve", "--app", "a:b", "--db", "x.db", "--db-key-file", "x.key"]);
    assert_eq!((&sealed["db_key_file"], given.get("db_key_file")), (&json!("x.key"), None));
}

#[tokio::test]
async fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = run(&["completions", shell]).await;
        assert_eq!((ran.status, &*ran.stderr), (0, ""));
        assert!(ran.stdout.contains("idempotency-key") && ran.stdout.contains("vacuum"), "{shell}");
    }
}
