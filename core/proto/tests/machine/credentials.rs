//! Provisioned credentials in virtual time: when they are asked for, who sees them, and that none lives on.

use std::collections::BTreeMap;
use std::time::Duration;

use arcp_proto::error::{Error, ErrorCode};
use arcp_proto::json::RawJson;
use arcp_proto::machine::job::Outcome;
use arcp_proto::machine::provision::{IssueRequest, Issued, Revocation};
use arcp_proto::machine::runtime::{JobKey, RuntimeEvent};
use arcp_proto::message::{Credential, SecretText};
use serde_json::{Value, json};

use crate::world::World;

fn world(extra: &Value) -> World {
    let mut config = json!({"durable": true, "provisions": true, "cancel_grace_ms": 50});
    config.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    World::new(&json!({"config": config})).unwrap()
}

fn issued(id: &str, value: &str) -> Issued {
    let credential = Credential {
        id: id.into(),
        scheme: "bearer".into(),
        value: SecretText::new(value),
        endpoint: "https://gate.example/v1".into(),
        profile: None,
        constraints: None,
    };
    Issued { credential, handle: handle(&format!("h-{}", value.trim_start_matches("sk-"))) }
}

fn handle(name: &str) -> RawJson {
    RawJson::parse(&json!({ "key": name }).to_string()).unwrap()
}

/// What was asked of the provisioner, in order.
fn provisions(world: &mut World) -> Vec<(JobKey, IssueRequest)> {
    let mut all = Vec::new();
    while let Some(asked) = world.asked(|event| match event {
        RuntimeEvent::Provision { job, request } => Some((*job, (**request).clone())),
        _ => None,
    }) {
        all.push(asked);
    }
    all
}

fn revocations(world: &mut World) -> BTreeMap<String, Revocation> {
    let mut all = BTreeMap::new();
    while let Some((id, what)) = world.asked(|event| match event {
        RuntimeEvent::Revoke { id, what, .. } => Some((id.clone(), what.clone())),
        _ => None,
    }) {
        assert!(all.insert(id, what).is_none(), "asked twice at once");
    }
    all
}

/// The handles that are being revoked, answered with success.
fn revoked(world: &mut World) -> Vec<String> {
    let asked = revocations(world);
    let names = asked.values().map(name).collect();
    for id in asked.keys() {
        world.machine.handle_revoked(world.clock.0, id, Ok(()));
    }
    world.settle().unwrap();
    world.store_all().unwrap();
    names
}

fn name(what: &Revocation) -> String {
    match what {
        Revocation::Handle(handle) => {
            serde_json::from_str::<Value>(handle.get()).unwrap()["key"].as_str().unwrap().to_owned()
        }
        Revocation::Intent(intent) => format!("intent {intent}"),
    }
}

fn answer(world: &mut World, job: JobKey, answer: Result<Vec<Issued>, Error>) {
    world.machine.handle_provisioned(world.clock.0, job, answer);
    world.settle().unwrap();
}

fn submit(world: &mut World, name: &str, payload: &Value) -> String {
    let mut members = json!({"agent": "echo"});
    members.as_object_mut().unwrap().extend(payload.as_object().cloned().unwrap_or_default());
    let id = world.send(name, &json!({"type": "job.submit", "payload": members})).unwrap();
    world.store_all().unwrap();
    id
}

/// A job whose agent runs, with these credentials.
fn running(world: &mut World, name: &str, payload: &Value, list: Vec<Issued>) -> (JobKey, Value) {
    submit(world, name, payload);
    let (job, _) = provisions(world).remove(0);
    answer(world, job, Ok(list));
    world.store_all().unwrap();
    let (accepted, text) = world.take(name).unwrap();
    assert_eq!(accepted["type"], "job.accepted", "{text}");
    (job, accepted)
}

fn values(message: &Value) -> Vec<&str> {
    let list = message["payload"]["credentials"].as_array();
    list.into_iter().flatten().map(|one| one["value"].as_str().unwrap()).collect()
}

fn drained(world: &mut World, name: &str) -> Vec<Value> {
    std::iter::from_fn(|| world.take(name).ok().map(|(message, _)| message)).collect()
}

fn resume(world: &mut World, name: &str, welcome: &Value, last: u64) -> Vec<Value> {
    world.connect(name).unwrap();
    let payload = json!({
        "client": {"name": "corpus", "version": "1.0"},
        "auth": {"scheme": "bearer", "token": "tok-alice"},
        "capabilities": {"encodings": ["json"], "features": ["provisioned_credentials"]},
        "resume": {
            "session_id": welcome["session_id"],
            "resume_token": welcome["payload"]["resume_token"],
            "last_event_seq": last,
        },
    });
    world.send(name, &json!({"type": "session.hello", "payload": payload})).unwrap();
    world.store_all().unwrap();
    drained(world, name)
}

/// Rules: R-9.8.2.6, R-9.8.2.11
#[test]
fn credentials_are_offered_only_where_they_can_be_kept_secret_and_taken_back() {
    let offered = |given: Value| {
        let mut world = World::new(&given).unwrap();
        let welcome = world.open("a", "tok-alice", None).unwrap();
        let features = welcome["payload"]["capabilities"]["features"].as_array().unwrap().clone();
        features.contains(&json!("provisioned_credentials"))
    };
    assert!(offered(json!({"config": {"durable": true, "provisions": true}})));
    assert!(!offered(json!({"config": {"provisions": true}})));
    assert!(!offered(json!({"config": {"durable": true}})));
    assert!(!offered(json!({"config": {"durable": true, "provisions": true}, "transport": "clear"})));
}

/// Rules: R-9.7.4, R-9.8.2.1, R-9.8.2.6, R-9.8.2.10, R-9.8.2.12
#[test]
fn the_intent_is_stored_before_anything_is_issued_and_the_handle_before_the_value_leaves() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    let lease = json!({"model.use": ["gpt/**"], "cost.budget": ["USD:5"]});
    world.send("a", &json!({"type": "job.submit", "payload": {"agent": "echo", "lease_request": lease}})).unwrap();
    assert!(provisions(&mut world).is_empty());
    world.store_all().unwrap();
    let (job, request) = provisions(&mut world).remove(0);
    assert_eq!(world.store.credentials(), [(request.intent.to_string(), "null".to_owned())]);
    assert_eq!(request.models.as_deref(), Some(&["gpt/**".to_owned()][..]));
    assert_eq!(request.budget.unwrap().to_json(), r#"{"USD":5}"#);
    assert!(world.take("a").is_err() && world.start_of(&request.job_id).is_none());

    answer(&mut world, job, Ok(vec![issued("one", "sk-1"), issued("two", "sk-2")]));
    assert!(world.take("a").is_err() && world.start_of(&request.job_id).is_none());
    world.store_all().unwrap();
    let (accepted, _) = world.take("a").unwrap();
    assert_eq!((accepted["type"].as_str(), values(&accepted)), (Some("job.accepted"), vec!["sk-1", "sk-2"]));
    assert_eq!(accepted["payload"]["credentials"][0]["endpoint"], "https://gate.example/v1");
    let mut kept: Vec<_> = world.store.credentials().into_iter().map(|(_, handle)| handle).collect();
    kept.sort();
    assert_eq!(kept, [r#"{"key":"h-1"}"#, r#"{"key":"h-2"}"#]);
    assert!(!format!("{:?}", world.machine.job(job)).contains("sk-"));
    assert!(world.start_of(&request.job_id).is_some());
    assert!(!world.store.shown().contains("sk-"));

    world.finish(job, Outcome::Success(RawJson::null())).unwrap();
    let mut names = revoked(&mut world);
    names.sort();
    assert_eq!(names, ["h-1", "h-2"]);
    assert_eq!(world.store.credentials(), []);
}

/// Rules: R-9.7.3
#[test]
fn a_lease_that_names_no_model_allows_none_unless_the_setting_says_otherwise() {
    for (setting, expected) in [(true, Some(Vec::new())), (false, None)] {
        let mut world = world(&json!({"forbid_unnamed_models": setting}));
        world.open("a", "tok-alice", None).unwrap();
        submit(&mut world, "a", &json!({"lease_request": {"cost.budget": ["USD:1"]}}));
        let (job, request) = provisions(&mut world).remove(0);
        assert_eq!(request.models, expected);
        answer(&mut world, job, Ok(Vec::new()));
        world.store_all().unwrap();
        let (accepted, _) = world.take("a").unwrap();
        assert_eq!(accepted["payload"].get("credentials"), None);
        let allowed = world.authorize(job, "model.use", "gpt-4o").unwrap();
        assert_eq!(allowed.is_ok(), !setting);
        let spent = RawJson::parse(r#"{"name":"cost.llm","value":1,"unit":"USD"}"#).unwrap();
        world.emit(job, "metric", &spent).unwrap().unwrap();
        let code = world.authorize(job, "model.use", "gpt-4o").unwrap().unwrap_err().code;
        assert_eq!(code, if setting { ErrorCode::PermissionDenied } else { ErrorCode::BudgetExhausted });
    }
}

/// Rules: R-7.1.3
#[test]
fn submits_are_answered_in_order_however_long_each_takes() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    let mut ids = vec![submit(&mut world, "a", &json!({})), submit(&mut world, "a", &json!({}))];
    ids.push(submit(&mut world, "a", &json!({"agent": "nobody"})));
    ids.push(submit(&mut world, "a", &json!({})));
    let asked = provisions(&mut world);
    assert_eq!(asked.len(), 3);
    answer(&mut world, asked[2].0, Ok(vec![issued("c", "sk-3")]));
    answer(&mut world, asked[1].0, Err(Error::internal("no")));
    world.store_all().unwrap();
    assert!(world.take("a").is_err());
    answer(&mut world, asked[0].0, Ok(vec![issued("c", "sk-1")]));
    world.store_all().unwrap();
    let answers = drained(&mut world, "a");
    let shown: Vec<_> = answers.iter().map(|m| m["payload"]["request_id"].as_str().unwrap()).collect();
    assert_eq!(shown, ids);
    let kinds: Vec<_> = answers.iter().map(|m| m["payload"]["code"].as_str().unwrap_or("accepted")).collect();
    assert_eq!(kinds, ["accepted", "INTERNAL_ERROR", "AGENT_NOT_AVAILABLE", "accepted"]);
}

/// Rules: R-7.2.11, R-9.8.2.2
#[test]
fn a_failing_provisioner_leaves_nothing_behind() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    submit(&mut world, "a", &json!({"idempotency_key": "k"}));
    let (job, request) = provisions(&mut world).remove(0);
    answer(&mut world, job, Err(Error::new(ErrorCode::PermissionDenied, "the gateway is closed")));
    world.store_all().unwrap();
    let (refused, _) = world.take("a").unwrap();
    assert_eq!(refused["payload"]["code"], "INTERNAL_ERROR");
    assert!(refused["payload"]["message"].as_str().unwrap().contains("the gateway is closed"));
    assert_eq!((world.machine.live_jobs(), world.machine.job(job).is_some()), (0, false));
    assert_eq!(revoked(&mut world), [format!("intent {}", request.intent)]);
    assert_eq!(world.store.credentials(), []);
    // The key is free: the same submit makes a job.
    let (_, accepted) = running(&mut world, "a", &json!({"idempotency_key": "k"}), vec![issued("c", "sk-1")]);
    assert_eq!(values(&accepted), ["sk-1"]);
}

/// Rules: R-9.8.2.2, R-9.8.2.12
#[test]
fn what_cannot_be_handed_out_is_refused_and_revoked() {
    let twice_one_id = vec![issued("c", "sk-5"), issued("c", "sk-6")];
    let twice_one_value = vec![issued("c", "sk-5"), issued("d", "sk-5")];
    let mut scheme = issued("c", "sk-5");
    scheme.credential.scheme = "basic".into();
    let mut clear = issued("c", "sk-5");
    clear.credential.endpoint = "http://gate.example".into();
    let mut leaky = issued("c", "sk-5");
    leaky.handle = handle("sk-5");
    let mut bare = issued("c", "sk-5");
    bare.handle = RawJson::null();
    for (list, taken_back) in [
        (twice_one_id, vec!["h-5", "h-6"]),
        (twice_one_value, vec!["h-5", "h-5"]),
        (vec![scheme], vec!["h-5"]),
        (vec![clear], vec!["h-5"]),
        // Only the intent is left to revoke these by.
        (vec![leaky], vec![]),
        (vec![bare], vec![]),
    ] {
        let mut world = world(&json!({}));
        world.open("a", "tok-alice", None).unwrap();
        submit(&mut world, "a", &json!({}));
        let (job, request) = provisions(&mut world).remove(0);
        answer(&mut world, job, Ok(list));
        world.store_all().unwrap();
        let (refused, text) = world.take("a").unwrap();
        assert_eq!(refused["payload"]["code"], "INTERNAL_ERROR");
        assert!(!text.contains("sk-") && !world.store.shown().contains("sk-"));
        let mut names = revoked(&mut world);
        names.sort();
        let mut expected: Vec<String> = taken_back.into_iter().map(str::to_owned).collect();
        expected.push(format!("intent {}", request.intent));
        assert_eq!(names, expected);
        assert_eq!(world.store.credentials(), []);
    }
}

/// Rules: R-9.8.2.3
#[test]
fn a_value_that_serves_one_job_is_refused_for_another_and_goes_on_serving_the_first() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    let (first, _) = running(&mut world, "a", &json!({}), vec![issued("c", "sk-1")]);
    submit(&mut world, "a", &json!({}));
    let (job, request) = provisions(&mut world).remove(0);
    answer(&mut world, job, Ok(vec![issued("c", "sk-1"), issued("d", "sk-2")]));
    world.store_all().unwrap();
    assert_eq!(world.take("a").unwrap().0["payload"]["code"], "INTERNAL_ERROR");
    let mut names = revoked(&mut world);
    names.sort();
    assert_eq!(names, ["h-2".to_owned(), format!("intent {}", request.intent)]);
    world.finish(first, Outcome::Success(RawJson::null())).unwrap();
    assert_eq!(revoked(&mut world), ["h-1"]);
    // Not after its job's end either.
    submit(&mut world, "a", &json!({}));
    let (job, _) = provisions(&mut world).remove(0);
    answer(&mut world, job, Ok(vec![issued("c", "sk-1")]));
    world.store_all().unwrap();
    assert!(drained(&mut world, "a").iter().any(|message| message["payload"]["code"] == "INTERNAL_ERROR"));
}

/// Rules: R-9.8.2.4
#[test]
fn credentials_are_revoked_however_the_job_ends() {
    for ending in ["success", "error", "cancelled", "timed_out", "lease", "shutdown"] {
        let mut world = world(&json!({}));
        world.open("a", "tok-alice", None).unwrap();
        let payload = match ending {
            "timed_out" => json!({"max_runtime_sec": 1}),
            "lease" => json!({"lease_constraints": {"expires_at": "2026-05-13T19:30:01Z"}}),
            _ => json!({}),
        };
        let (job, accepted) = running(&mut world, "a", &payload, vec![issued("c", "sk-1")]);
        match ending {
            "success" => world.finish(job, Outcome::Success(RawJson::null())).unwrap(),
            "error" => world.finish(job, Outcome::Failed(Error::internal("no"))).unwrap(),
            "cancelled" => {
                let cancel = json!({"job_id": accepted["job_id"]});
                world
                    .send("a", &json!({"type": "job.cancel", "job_id": accepted["job_id"], "payload": cancel}))
                    .unwrap();
            }
            "shutdown" => world.machine.shutdown(world.clock.0, "over"),
            _ => {}
        }
        world.pass(Duration::from_secs(5)).unwrap();
        assert!(world.has_ended(job), "{ending}");
        assert_eq!(revoked(&mut world), ["h-1"], "{ending}");
        assert_eq!(world.store.credentials(), [], "{ending}");
    }
}

/// Rules: R-9.8.2.5
#[test]
fn a_failed_revocation_is_tried_eight_times_with_growing_pauses_then_left_to_operators() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    let (job, _) = running(&mut world, "a", &json!({}), vec![issued("c", "sk-1")]);
    world.finish(job, Outcome::Success(RawJson::null())).unwrap();
    let mut pauses = Vec::new();
    let begun = world.clock.0.mono;
    loop {
        let asked = revocations(&mut world);
        let Some(id) = asked.keys().next() else { break };
        pauses.push((world.clock.0.mono - begun).as_millis());
        world.machine.handle_revoked(world.clock.0, id, Err(Error::internal("gone fishing")));
        world.settle().unwrap();
        for _ in 0..2000 {
            if world.asked.iter().any(|event| matches!(event, RuntimeEvent::Revoke { .. })) {
                break;
            }
            world.pass(Duration::from_millis(100)).unwrap();
        }
    }
    assert_eq!(pauses, [0, 100, 300, 700, 1500, 3100, 6300, 12700]);
    let failed = world.asked(|event| match event {
        RuntimeEvent::RevocationFailed(unrevoked) => Some(unrevoked.clone()),
        _ => None,
    });
    let failed = failed.unwrap();
    assert_eq!(failed.error, "gone fishing");
    assert_eq!(world.machine.unrevoked(), std::slice::from_ref(&failed));
    world.store_all().unwrap();
    assert_eq!(world.store.credentials().len(), 1);
    assert!(world.machine.retry_revocation(&failed.id) && !world.machine.retry_revocation("cred_x"));
    world.settle().unwrap();
    assert_eq!(revoked(&mut world), ["h-1"]);
    assert_eq!((world.store.credentials(), world.machine.outstanding_revocations()), (Vec::new(), 0));
}

/// Rules: R-9.8.2.6
#[test]
fn after_a_restart_everything_that_was_issued_or_meant_to_be_is_revoked() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    running(&mut world, "a", &json!({}), vec![issued("c", "sk-1")]);
    submit(&mut world, "a", &json!({}));
    let (lost, request) = provisions(&mut world).remove(0);
    world.restart(&[]).unwrap();
    let mut names: Vec<_> = revocations(&mut world).iter().map(|(id, what)| (name(what), id.clone())).collect();
    names.sort();
    assert_eq!(names[0].0, "h-1");
    assert_eq!(names[1].0, format!("intent {}", request.intent));
    for (_, id) in &names {
        world.machine.handle_revoked(world.clock.0, id, Ok(()));
    }
    world.settle().unwrap();
    world.store_all().unwrap();
    assert_eq!(world.store.credentials(), []);
    let _ = lost;
}

#[test]
fn a_runtime_without_a_provisioner_says_what_it_cannot_revoke_and_keeps_it() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    running(&mut world, "a", &json!({}), vec![issued("c", "sk-1")]);
    world.set_provisions(false);
    world.restart(&[]).unwrap();
    assert!(revocations(&mut world).is_empty());
    assert_eq!(world.machine.unrevoked().len(), 1);
    world.store_all().unwrap();
    assert_eq!(world.store.credentials().len(), 1);
}

/// Rules: R-7.6.11, R-9.8.2.8, R-9.8.2.10
#[test]
fn a_rotation_reaches_its_principal_only_and_the_old_value_is_revoked_after_it() {
    let config = json!({"durable": true, "provisions": true});
    let mut world = World::new(&json!({"config": config, "policy": {"bob": {"sees": ["alice"]}}})).unwrap();
    let welcome = world.open("a", "tok-alice", None).unwrap();
    world.open("b", "tok-alice", None).unwrap();
    world.open("other", "tok-bob", None).unwrap();
    let (job, accepted) = running(&mut world, "a", &json!({}), vec![issued("c", "sk-1")]);
    let job_id = accepted["job_id"].as_str().unwrap().to_owned();
    let subscribe = json!({"type": "job.subscribe", "payload": {"job_id": job_id, "history": true}});
    world.send("b", &subscribe).unwrap();
    world.store_all().unwrap();
    assert_eq!(values(&world.take("b").unwrap().0), ["sk-1"]);
    world.send("other", &subscribe).unwrap();
    world.store_all().unwrap();
    assert_eq!(world.take("other").unwrap().0["payload"].get("credentials"), None);

    world.machine.rotate(world.clock.0, &job_id, "c", SecretText::new("sk-2"), handle("h-2")).unwrap();
    world.settle().unwrap();
    assert!(world.take("a").is_err() && revocations(&mut world).is_empty());
    world.store_all().unwrap();
    let told = world.take("a").unwrap().0["payload"]["body"].clone();
    assert_eq!(told, json!({"phase": "credential_rotated", "id": "c", "value": "sk-2"}));
    assert_eq!(world.take("b").unwrap().0["payload"]["body"]["value"], "sk-2");
    let told = world.take("other").unwrap().0["payload"]["body"].clone();
    assert_eq!(told, json!({"phase": "credential_rotated", "id": "c"}));
    assert_eq!(revoked(&mut world), ["h-1"]);
    assert_eq!(
        world.store.credentials().into_iter().map(|(_, handle)| handle).collect::<Vec<_>>(),
        [r#"{"key":"h-2"}"#]
    );
    assert!(!world.store.shown().contains("sk-"));

    // Replayed for the submitter, from memory; a later onlooker finds it without.
    world.drop_peer("a").unwrap();
    let replayed = resume(&mut world, "a2", &welcome, 0);
    assert_eq!(replayed[1]["payload"]["body"]["value"], "sk-2");
    world.open("d", "tok-bob", None).unwrap();
    world.send("d", &subscribe).unwrap();
    world.store_all().unwrap();
    let seen = drained(&mut world, "d");
    assert_eq!(values(&seen[0]), [""; 0]);
    assert_eq!(seen[1]["payload"]["body"].get("value"), None);

    // A second one makes the first one's value void.
    world.machine.rotate(world.clock.0, &job_id, "c", SecretText::new("sk-3"), handle("h-3")).unwrap();
    world.settle().unwrap();
    world.store_all().unwrap();
    assert_eq!(revoked(&mut world), ["h-2"]);
    world.finish(job, Outcome::Success(RawJson::null())).unwrap();
    assert_eq!(revoked(&mut world), ["h-3"]);
    assert_eq!(world.store.credentials(), []);
}

#[test]
fn a_rotation_that_is_not_taken_is_revoked() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    let (job, accepted) = running(&mut world, "a", &json!({}), vec![issued("c", "sk-1")]);
    let job_id = accepted["job_id"].as_str().unwrap().to_owned();
    let rotate = |world: &mut World, id: &str, value: &str, key: &str| {
        let outcome = world.machine.rotate(world.clock.0, &job_id, id, SecretText::new(value), handle(key));
        world.settle().unwrap();
        outcome.unwrap_err().code
    };
    assert_eq!(rotate(&mut world, "nobody", "sk-2", "h-2"), ErrorCode::JobNotFound);
    assert_eq!(revoked(&mut world), ["h-2"]);
    // Its own value still serves.
    assert_eq!(rotate(&mut world, "c", "sk-1", "h-1"), ErrorCode::InvalidRequest);
    assert!(revocations(&mut world).is_empty());
    world.finish(job, Outcome::Success(RawJson::null())).unwrap();
    assert_eq!(revoked(&mut world), ["h-1"]);
    assert_eq!(rotate(&mut world, "c", "sk-4", "h-4"), ErrorCode::JobNotFound);
    assert_eq!(revoked(&mut world), ["h-4"]);
}

/// Rules: R-7.2.10
#[test]
fn a_repeat_shows_what_still_works_and_only_where_it_may() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    world.open("plain", "tok-alice", Some(&json!(["ack"]))).unwrap();
    let (job, _) = running(&mut world, "a", &json!({"idempotency_key": "k"}), vec![issued("c", "sk-1")]);
    submit(&mut world, "a", &json!({"idempotency_key": "k"}));
    assert_eq!(values(&world.take("a").unwrap().0), ["sk-1"]);
    submit(&mut world, "plain", &json!({"idempotency_key": "k"}));
    assert_eq!(values(&world.take("plain").unwrap().0), [""; 0]);
    world.finish(job, Outcome::Success(RawJson::null())).unwrap();
    revoked(&mut world);
    drained(&mut world, "a");
    submit(&mut world, "a", &json!({"idempotency_key": "k"}));
    let repeat = world.take("a").unwrap().0;
    assert_eq!((repeat["type"].as_str(), values(&repeat)), (Some("job.accepted"), vec![]));
}

#[test]
fn a_first_acceptance_carries_its_credentials_though_the_job_is_over_but_not_over_another_connection() {
    for lost in [false, true] {
        let mut world = world(&json!({}));
        let welcome = world.open("a", "tok-alice", None).unwrap();
        world.set_stalled("a", true).unwrap();
        submit(&mut world, "a", &json!({"idempotency_key": "k"}));
        let (job, _) = provisions(&mut world).remove(0);
        answer(&mut world, job, Ok(vec![issued("c", "sk-1")]));
        world.store_all().unwrap();
        world.finish(job, Outcome::Success(RawJson::null())).unwrap();
        assert_eq!(revoked(&mut world), ["h-1"]);
        // Anybody else gets a repeat, and that shows nothing that works no more.
        world.open("b", "tok-alice", None).unwrap();
        submit(&mut world, "b", &json!({"idempotency_key": "k"}));
        let repeat = world.take("b").unwrap().0;
        assert_eq!((repeat["type"].as_str(), values(&repeat)), (Some("job.accepted"), vec![]));
        if lost {
            world.drop_peer("a").unwrap();
            let seen = resume(&mut world, "a2", &welcome, 0);
            assert_eq!((seen[1]["type"].as_str(), values(&seen[1])), (Some("job.accepted"), vec![]));
        } else {
            world.set_stalled("a", false).unwrap();
            assert_eq!(values(&world.take("a").unwrap().0), ["sk-1"]);
        }
    }
}

/// Rules: R-9.8.2.11
#[test]
fn a_resume_over_a_transport_in_clear_shows_no_value() {
    let mut world = world(&json!({}));
    let welcome = world.open("a", "tok-alice", None).unwrap();
    let (_, accepted) = running(&mut world, "a", &json!({}), vec![issued("c", "sk-1")]);
    let job_id = accepted["job_id"].as_str().unwrap().to_owned();
    world.machine.rotate(world.clock.0, &job_id, "c", SecretText::new("sk-2"), handle("h-2")).unwrap();
    world.settle().unwrap();
    world.store_all().unwrap();
    world.drop_peer("a").unwrap();
    world.set_clear();
    let seen = resume(&mut world, "a2", &welcome, 0);
    assert_eq!(seen[0]["payload"]["capabilities"]["features"], json!([]));
    assert!(seen.len() == 2 && !format!("{seen:?}").contains("sk-"), "{seen:?}");
}

#[test]
fn a_provisioner_that_never_answers_costs_the_submit_and_what_comes_late_is_revoked() {
    let mut world = world(&json!({"provision_ms": 2000}));
    world.open("a", "tok-alice", None).unwrap();
    submit(&mut world, "a", &json!({}));
    let (job, request) = provisions(&mut world).remove(0);
    world.pass(Duration::from_secs(2)).unwrap();
    world.store_all().unwrap();
    assert_eq!(world.take("a").unwrap().0["payload"]["code"], "INTERNAL_ERROR");
    assert_eq!(revoked(&mut world), [format!("intent {}", request.intent)]);
    answer(&mut world, job, Ok(vec![issued("c", "sk-1")]));
    assert_eq!(revoked(&mut world), ["h-1"]);
    assert_eq!(world.store.credentials(), []);
}

#[test]
fn one_key_makes_one_job_while_its_first_submit_waits() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    world.open("b", "tok-alice", None).unwrap();
    submit(&mut world, "a", &json!({"idempotency_key": "k"}));
    submit(&mut world, "b", &json!({"idempotency_key": "k"}));
    submit(&mut world, "a", &json!({"idempotency_key": "k"}));
    let mut asked = provisions(&mut world);
    assert_eq!(asked.len(), 1);
    answer(&mut world, asked.remove(0).0, Ok(vec![issued("c", "sk-1")]));
    world.store_all().unwrap();
    assert!(provisions(&mut world).is_empty());
    let mut answers = drained(&mut world, "a");
    answers.extend(drained(&mut world, "b"));
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|m| m["job_id"] == answers[0]["job_id"] && values(m) == ["sk-1"]));
}

#[test]
fn a_submit_asked_again_over_another_connection_while_it_waits_is_answered_there() {
    let mut world = world(&json!({}));
    let welcome = world.open("a", "tok-alice", None).unwrap();
    let id = submit(&mut world, "a", &json!({}));
    let (job, _) = provisions(&mut world).remove(0);
    world.drop_peer("a").unwrap();
    resume(&mut world, "a2", &welcome, 0);
    world.send("a2", &json!({"type": "job.submit", "id": id, "payload": {"agent": "echo"}})).unwrap();
    assert!(provisions(&mut world).is_empty());
    answer(&mut world, job, Ok(vec![issued("c", "sk-1")]));
    world.store_all().unwrap();
    assert_eq!(values(&world.take("a2").unwrap().0), ["sk-1"]);
}

#[test]
fn a_submit_asked_again_over_a_transport_in_clear_is_accepted_without_its_credentials() {
    let mut world = world(&json!({}));
    let welcome = world.open("a", "tok-alice", None).unwrap();
    let id = submit(&mut world, "a", &json!({}));
    let (job, _) = provisions(&mut world).remove(0);
    world.drop_peer("a").unwrap();
    world.set_clear();
    resume(&mut world, "a2", &welcome, 0);
    world.send("a2", &json!({"type": "job.submit", "id": id, "payload": {"agent": "echo"}})).unwrap();
    answer(&mut world, job, Ok(vec![issued("c", "sk-1")]));
    world.store_all().unwrap();
    let accepted = world.take("a2").unwrap().0;
    assert_eq!((accepted["type"].as_str(), values(&accepted)), (Some("job.accepted"), vec![]));
    world.finish(job, Outcome::Success(RawJson::null())).unwrap();
    assert_eq!(revoked(&mut world), ["h-1"]);
}

/// Rules: R-9.8.2.9
#[test]
fn a_child_whose_parent_ended_meanwhile_is_refused_and_its_credentials_revoked() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    let (parent, accepted) = running(&mut world, "a", &json!({}), vec![issued("c", "sk-1")]);
    submit(&mut world, "a", &json!({"parent_job_id": accepted["job_id"]}));
    let (child, request) = provisions(&mut world).remove(0);
    assert_eq!(request.parent_job_id.as_deref(), accepted["job_id"].as_str());
    world.finish(parent, Outcome::Success(RawJson::null())).unwrap();
    assert_eq!(revoked(&mut world), ["h-1"]);
    answer(&mut world, child, Ok(vec![issued("c", "sk-2")]));
    world.store_all().unwrap();
    assert_eq!(revoked(&mut world), ["h-2"]);
    assert_eq!((world.machine.live_jobs(), world.store.credentials()), (0, Vec::new()));
    assert!(drained(&mut world, "a").iter().any(|message| message["type"] == "session.error"));
}

/// Rules: R-9.8.2.9
#[test]
fn a_childs_credentials_lie_within_its_lease_and_end_with_its_parent() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    let wide = json!({"model.use": ["gpt/**"], "cost.budget": ["USD:5"], "agent.delegate": ["echo"]});
    let payload = json!({"lease_request": wide, "lease_constraints": {"expires_at": "2026-05-13T20:30:00Z"}});
    let (parent, accepted) = running(&mut world, "a", &payload, vec![issued("c", "sk-1")]);
    let narrow = json!({"model.use": ["gpt/small"], "cost.budget": ["USD:1"]});
    submit(&mut world, "a", &json!({"parent_job_id": accepted["job_id"], "lease_request": narrow}));
    let (child, request) = provisions(&mut world).remove(0);
    assert_eq!(request.models.as_deref(), Some(&["gpt/small".to_owned()][..]));
    assert_eq!(request.budget.as_ref().unwrap().to_json(), r#"{"USD":1}"#);
    assert_eq!(request.expires_at.map(|at| at.to_string()).as_deref(), Some("2026-05-13T20:30:00.000Z"));
    answer(&mut world, child, Ok(vec![issued("c", "sk-2")]));
    world.store_all().unwrap();
    assert!(drained(&mut world, "a").iter().any(|message| values(message) == ["sk-2"]));
    world.finish(parent, Outcome::Success(RawJson::null())).unwrap();
    world.pass(Duration::from_secs(60)).unwrap();
    let mut names = revoked(&mut world);
    names.sort();
    assert_eq!((names, world.store.credentials()), (vec!["h-1".to_owned(), "h-2".to_owned()], Vec::new()));
}

/// Rules: R-9.8.3.2
#[test]
fn a_credential_that_names_no_limits_takes_none_from_its_job() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    let lease = json!({"model.use": ["gpt/**"], "cost.budget": ["USD:1"]});
    let payload = json!({"lease_request": lease, "lease_constraints": {"expires_at": "2026-05-13T19:31:00Z"}});
    let (job, accepted) = running(&mut world, "a", &payload, vec![issued("c", "sk-1")]);
    assert_eq!(accepted["payload"]["credentials"][0].get("constraints"), None);
    let refusal = |world: &mut World, target| world.authorize(job, "model.use", target).unwrap().err().map(|e| e.code);
    assert_eq!(refusal(&mut world, "gpt/small"), None);
    assert_eq!(refusal(&mut world, "other/small"), Some(ErrorCode::PermissionDenied));
    let spent = RawJson::parse(r#"{"name":"cost.llm","value":1,"unit":"USD"}"#).unwrap();
    world.emit(job, "metric", &spent).unwrap().unwrap();
    assert_eq!(refusal(&mut world, "gpt/small"), Some(ErrorCode::BudgetExhausted));
    world.pass(Duration::from_secs(60)).unwrap();
    assert_eq!(refusal(&mut world, "gpt/small"), Some(ErrorCode::LeaseExpired));
    assert_eq!(revoked(&mut world), [""; 0]);
    world.finish(job, Outcome::Cancelled).unwrap();
    assert_eq!(revoked(&mut world), ["h-1"]);
}

#[test]
fn a_session_that_is_gone_gets_no_job_and_leaves_no_credential() {
    let mut world = world(&json!({"resume_window_ms": 1000}));
    world.open("a", "tok-alice", None).unwrap();
    submit(&mut world, "a", &json!({}));
    submit(&mut world, "a", &json!({}));
    let asked = provisions(&mut world);
    // The second is ready, and waits for the first.
    answer(&mut world, asked[1].0, Ok(vec![issued("c", "sk-2")]));
    world.drop_peer("a").unwrap();
    world.pass(Duration::from_secs(2)).unwrap();
    assert_eq!(revoked(&mut world), ["h-2"]);
    answer(&mut world, asked[0].0, Ok(vec![issued("c", "sk-1")]));
    assert_eq!(revoked(&mut world), ["h-1"]);
    assert_eq!((world.machine.live_jobs(), world.store.credentials()), (0, Vec::new()));
    world.leave_nothing().unwrap();
}

#[test]
fn a_runtime_that_closes_accepts_no_job_that_waited() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    submit(&mut world, "a", &json!({}));
    let (job, _) = provisions(&mut world).remove(0);
    world.machine.shutdown(world.clock.0, "over");
    answer(&mut world, job, Ok(vec![issued("c", "sk-1")]));
    world.store_all().unwrap();
    assert_eq!(world.take("a").unwrap().0["payload"]["code"], "INTERNAL_ERROR");
    assert_eq!(revoked(&mut world), ["h-1"]);
}

#[test]
fn an_agent_cannot_tell_of_a_rotation_itself() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    let (job, _) = running(&mut world, "a", &json!({}), vec![issued("c", "sk-1")]);
    let body = RawJson::parse(r#"{"phase":"credential_rotated","id":"c","value":"sk-9"}"#).unwrap();
    let error = world.emit(job, "status", &body).unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(!world.store.shown().contains("sk-9") && !error.message.contains("sk-9"));
}

#[test]
fn nothing_remains_after_many_jobs() {
    let mut world = world(&json!({}));
    world.open("a", "tok-alice", None).unwrap();
    for round in 0..200 {
        let (job, _) = running(&mut world, "a", &json!({}), vec![issued("c", &format!("sk-{round}"))]);
        world.finish(job, Outcome::Success(RawJson::null())).unwrap();
        assert_eq!(revoked(&mut world), [format!("h-{round}")]);
        drained(&mut world, "a");
    }
    assert_eq!((world.store.credentials(), world.machine.outstanding_revocations()), (Vec::new(), 0));
    world.leave_nothing().unwrap();
}
