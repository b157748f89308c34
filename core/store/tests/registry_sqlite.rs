//! The SQLite store of the agent registry: what it keeps, and what it refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails where it fails")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arcp_store::registry::{
    Journal, KeptAgent, KeptLine, KeptSession, KeptUser, RegistryKept, RegistryOp, RegistryStore, Secret,
};
use arcp_store::{RegistrySqliteOptions, SqliteRegistryStore};
use proptest::prelude::*;

const FAR: i64 = i64::MAX / 4;

fn store(path: &Path) -> SqliteRegistryStore {
    SqliteRegistryStore::new(path, RegistrySqliteOptions::default())
}

fn agent(key: u64, id: &str) -> KeptAgent {
    KeptAgent {
        key,
        agent_id: id.into(),
        registration: format!("{{\"agent_id\":\"{id}\"}}"),
        registered_at: 1000 + key.cast_signed(),
        last_seen: 1000 + key.cast_signed(),
        key_hash: key.is_multiple_of(2).then(|| Arc::from(format!("hash-{key}"))),
        metrics: None,
    }
}

fn keep(store: &SqliteRegistryStore, ops: Vec<RegistryOp>) {
    store.submit(ops).wait().unwrap();
}

fn reopened(path: &Path) -> RegistryKept {
    let store = store(path);
    let kept = store.open().unwrap();
    store.close();
    kept
}

/// Copies the files as they are, which is what a process leaves that is killed now.
fn as_if_killed(path: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn everything() -> Vec<RegistryOp> {
    vec![
        RegistryOp::PutAgent(agent(1, "a-1")),
        RegistryOp::PutAgent(KeptAgent { metrics: Some("{}".to_owned()), ..agent(2, "a-2") }),
        RegistryOp::PutMetrics { key: 1, metrics: "{\"total_requests\":1}".to_owned() },
        RegistryOp::LastSeen { seen: vec![(1, 5000), (77, 1)], now: 5001 },
        RegistryOp::UseToken { token_id: "used".into(), expires_at: FAR },
        RegistryOp::UseToken { token_id: "long ago".into(), expires_at: 5 },
        RegistryOp::PutSession(KeptSession {
            id: "s".to_owned(),
            data: "{\"user\":\"u\"}".to_owned(),
            expires_at: FAR,
        }),
        RegistryOp::PutSession(KeptSession { id: "over".to_owned(), data: "{}".to_owned(), expires_at: 5 }),
        RegistryOp::PutUser(KeptUser { name: "u".into(), role: "admin".into(), password_hash: "$argon2id$".into() }),
        RegistryOp::PutSetting { name: "ui".to_owned(), value: "{}".to_owned() },
        RegistryOp::PutSecret { name: "jwt".to_owned(), value: vec![1, 2, 3] },
        RegistryOp::Append { journal: Journal::Logs, line: KeptLine { at: 1, data: "\"one\"".into() }, most: 2 },
        RegistryOp::Append { journal: Journal::Alerts, line: KeptLine { at: 2, data: "\"two\"".into() }, most: 2 },
    ]
}

/// Rules: REG-201
#[test]
fn everything_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/registry.db");
    let store = store(&path);
    assert_eq!(store.open().unwrap(), RegistryKept { epoch: 1, ..RegistryKept::default() });
    keep(&store, everything());
    assert_eq!(store.stats().operations, 13);
    let expected = RegistryKept {
        epoch: 2,
        agents: vec![
            KeptAgent { last_seen: 5000, metrics: Some("{\"total_requests\":1}".to_owned()), ..agent(1, "a-1") },
            KeptAgent { metrics: Some("{}".to_owned()), ..agent(2, "a-2") },
        ],
        last_key: 2,
        last_run: 5001,
        tokens: vec![("used".into(), FAR)],
        sessions: vec![KeptSession { id: "s".into(), data: "{\"user\":\"u\"}".into(), expires_at: FAR }],
        users: vec![KeptUser { name: "u".into(), role: "admin".into(), password_hash: "$argon2id$".into() }],
        settings: vec![("ui".to_owned(), "{}".to_owned())],
        secrets: vec![Secret { name: "jwt".to_owned(), value: vec![1, 2, 3] }],
        logs: vec![KeptLine { at: 1, data: "\"one\"".into() }],
        alerts: vec![KeptLine { at: 2, data: "\"two\"".into() }],
    };
    let killed = as_if_killed(&path);
    assert_eq!(reopened(&killed.path().join("registry.db")), expected);
    store.close();
    assert_eq!(reopened(&path), expected);
    assert!(store.submit(everything()).wait().is_err(), "a closed store refuses");
}

/// Rules: REG-201
#[test]
fn a_damaged_row_does_not_keep_the_others_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let store = store(&path);
    store.open().unwrap();
    keep(&store, everything());
    store.close();
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(
        "UPDATE agent SET registration = x'7b22ff' WHERE id = 'a-1';
         UPDATE metrics SET data = x'00'; UPDATE session SET data = x'ff'; UPDATE log SET data = CAST(x'ff' AS TEXT);",
    )
    .unwrap();
    drop(conn);
    let kept = reopened(&path);
    assert_eq!(kept.agents.len(), 2);
    assert_eq!(kept.agents[1].registration, agent(2, "a-2").registration);
    assert_eq!((kept.sessions.len(), kept.logs.len()), (1, 1));
}

/// Rules: REG-191
#[test]
fn a_clock_that_was_set_back_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let store = store(&path);
    store.open().unwrap();
    keep(&store, vec![RegistryOp::PutAgent(agent(1, "a-1"))]);
    keep(&store, vec![RegistryOp::LastSeen { seen: vec![(1, FAR)], now: FAR }]);
    keep(&store, vec![RegistryOp::LastSeen { seen: vec![(1, 7000)], now: 7001 }]);
    store.close();
    assert_eq!(reopened(&path).last_run, 7001, "else all agents seem silent since long ago at every start");
}

#[test]
fn what_is_gone_stays_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let store = store(&path);
    store.open().unwrap();
    keep(&store, everything());
    keep(
        &store,
        vec![
            RegistryOp::RemoveAgent { key: 1 },
            RegistryOp::PutMetrics { key: 1, metrics: "{}".to_owned() },
            RegistryOp::PutAgent(KeptAgent { key_hash: Some("hash".into()), ..agent(4, "a-4") }),
            RegistryOp::PutAgent(agent(3, "a-2")),
            RegistryOp::PutAgent(KeptAgent { key_hash: Some("hash".into()), ..agent(5, "a-5") }),
            RegistryOp::ForgetTokens { before: FAR },
            RegistryOp::RemoveSession { id: "s".to_owned() },
            RegistryOp::RemoveUser { name: "u".to_owned() },
            RegistryOp::Clear { journal: Journal::Alerts },
        ],
    );
    for at in 2..6 {
        let line = KeptLine { at, data: "\"more\"".into() };
        keep(&store, vec![RegistryOp::Append { journal: Journal::Logs, line, most: 2 }]);
    }
    drop(store);
    let kept = reopened(&path);
    let holder = KeptAgent { key_hash: Some("hash".into()), ..agent(5, "a-5") };
    assert_eq!(kept.agents, [agent(3, "a-2"), KeptAgent { key_hash: None, ..agent(4, "a-4") }, holder]);
    assert_eq!((kept.last_key, kept.tokens.len(), kept.sessions.len(), kept.users.len()), (5, 0, 0, 0));
    assert_eq!(kept.logs.iter().map(|line| line.at).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(kept.alerts, []);
}

#[test]
fn one_process_has_it_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let first = store(&path);
    first.open().unwrap();
    let refused = store(&path).open().unwrap_err().0;
    assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
    assert!(!refused.contains('\n'));
    assert!(first.open().is_err(), "opened twice");
    drop(first);
    assert_eq!(reopened(&path).epoch, 2);
}

#[test]
fn a_newer_or_foreign_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    reopened(&path);
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA user_version = 99").unwrap();
    let refused = store(&path).open().unwrap_err().0;
    assert!(refused.contains("schema version 99") && refused.contains("newer program"), "{refused}");
    conn.execute_batch("PRAGMA user_version = 1; PRAGMA application_id = 1").unwrap();
    let refused = store(&path).open().unwrap_err().0;
    assert!(refused.contains("not a registry's database"), "{refused}");
    let text = folder.path().join("notes.txt");
    fs::write(&text, "this is no database, and is long enough to be looked at as one".repeat(20)).unwrap();
    assert!(store(&text).open().is_err());
    assert!(fs::read_to_string(&text).unwrap().starts_with("this is no database"));
}

#[test]
fn a_full_disk_refuses_and_then_keeps_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let options = RegistrySqliteOptions { quota_bytes: Some(400 * 1024), ..RegistrySqliteOptions::default() };
    let store = SqliteRegistryStore::new(&path, options);
    store.open().unwrap();
    let large = |key: u64| KeptAgent { registration: "x".repeat(20_000), ..agent(key, &format!("a-{key}")) };
    let mut kept = Vec::new();
    let refused = loop {
        let key = kept.len() as u64 + 1;
        match store.submit(vec![RegistryOp::PutAgent(large(key))]).wait() {
            Ok(()) => kept.push(key),
            Err(why) => break why.to_string(),
        }
    };
    assert!(refused.contains("quota is 409600 bytes") && refused.contains("unregister agents"), "{refused}");
    assert!(store.stats().failing);
    // Together with one that does not fit, the one that makes room is carried out.
    let wide = store.submit(vec![RegistryOp::PutAgent(KeptAgent { registration: "y".repeat(900_000), ..large(900) })]);
    let room = store.submit(vec![RegistryOp::RemoveAgent { key: 1 }, RegistryOp::RemoveAgent { key: 2 }]);
    assert!(wide.wait().is_err());
    room.wait().unwrap();
    kept.retain(|key| *key > 2);
    let next = 500;
    keep(&store, vec![RegistryOp::PutAgent(large(next))]);
    kept.push(next);
    assert!(!store.stats().failing);
    drop(store);
    let keys: Vec<u64> = reopened(&path).agents.iter().map(|agent| agent.key).collect();
    assert_eq!(keys, kept);
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Remove(usize),
    Metrics(usize, u32),
    Seen(usize, i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0_usize..6;
    let step = prop_oneof![
        4 => id.clone().prop_map(Step::Put),
        2 => id.clone().prop_map(Step::Remove),
        3 => (id.clone(), any::<u32>()).prop_map(|(id, n)| Step::Metrics(id, n)),
        3 => (id, 2000_i64..9000).prop_map(|(id, at)| Step::Seen(id, at)),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_keeps_what_a_plain_list_keeps(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        let mut open = store(&path);
        open.open().unwrap();
        let mut model: Vec<KeptAgent> = Vec::new();
        let mut last_key = 0;
        let mut epoch = 1;
        for step in steps {
            let find = |model: &[KeptAgent], id: usize| model.iter().position(|agent| *agent.agent_id == format!("a-{id}"));
            let op = match step {
                Step::Put(id) => {
                    last_key += 1;
                    let agent = agent(last_key, &format!("a-{id}"));
                    model.retain(|other| other.agent_id != agent.agent_id);
                    model.push(agent.clone());
                    RegistryOp::PutAgent(agent)
                }
                Step::Remove(id) => {
                    let key = find(&model, id).map_or(9999, |at| model.remove(at).key);
                    RegistryOp::RemoveAgent { key }
                }
                Step::Metrics(id, n) => {
                    let metrics = n.to_string();
                    let at = find(&model, id);
                    let key = at.map_or(9999, |at| model[at].key);
                    if let Some(at) = at {
                        model[at].metrics = Some(metrics.clone());
                    }
                    RegistryOp::PutMetrics { key, metrics }
                }
                Step::Seen(id, time) => {
                    let at = find(&model, id);
                    let key = at.map_or(9999, |at| model[at].key);
                    if let Some(at) = at {
                        model[at].last_seen = time;
                    }
                    RegistryOp::LastSeen { seen: vec![(key, time)], now: time }
                }
                Step::Reopen => {
                    drop(open);
                    open = store(&path);
                    epoch += 1;
                    let kept = open.open().unwrap();
                    prop_assert_eq!(kept.epoch, epoch);
                    prop_assert_eq!(&kept.agents, &model);
                    continue;
                }
            };
            drop(open.submit(vec![op]));
        }
        drop(open);
        let kept = reopened(&path);
        prop_assert_eq!(&kept.agents, &model);
        prop_assert!(kept.last_key >= last_key);
    }
}
