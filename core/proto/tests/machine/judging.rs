//! A policy that is asked and answers later: what waits for it, and what does not.

use arcp_proto::Error;
use arcp_proto::json::RawJson;
use arcp_proto::machine::policy::{Decision, Observing, PolicyQuestion};
use arcp_proto::machine::runtime::RuntimeEvent;
use serde_json::{Value, json};

use crate::world::World;

fn world(policy: Value) -> World {
    let tokens = json!({"tok-carol": "carol"});
    let mut world = World::new(&json!({"policy": policy, "policy_is_asked": true, "tokens": tokens})).unwrap();
    for (name, token) in [("A", "tok-alice"), ("B", "tok-bob"), ("C", "tok-carol")] {
        world.open(name, token, None).unwrap();
    }
    world.policy_waits = true;
    world
}

fn submit(world: &mut World, name: &str) -> String {
    world.send(name, &json!({"type": "job.submit", "payload": {"agent": "echo"}})).unwrap();
    next(world, name, "job.accepted")["job_id"].as_str().unwrap().to_owned()
}

fn next(world: &mut World, name: &str, kind: &str) -> Value {
    let (frame, text) = world.take(name).unwrap();
    assert_eq!(frame["type"], kind, "{text}");
    frame
}

fn question(world: &mut World) -> (u64, PolicyQuestion) {
    world
        .asked(|event| match event {
            RuntimeEvent::Judge { ticket, question } => Some((*ticket, (**question).clone())),
            _ => None,
        })
        .unwrap()
}

fn answer(world: &mut World, ticket: u64, verdicts: Result<Vec<Decision>, Error>) {
    world.machine.handle_verdicts(world.clock.0, ticket, verdicts);
    world.settle().unwrap();
}

fn subscribe(world: &mut World, name: &str, job_id: &str) {
    world.send(name, &json!({"type": "job.subscribe", "payload": {"job_id": job_id}})).unwrap();
}

fn think(world: &mut World, job_id: &str) {
    let job = world.job(job_id).unwrap();
    world.emit(job, "thought", &RawJson::parse(r#"{"text":"hm"}"#).unwrap()).unwrap().unwrap();
}

/// Rules: R-7.6.12, R-7.6.13
#[test]
fn a_subscribe_waits_for_the_verdict_and_goes_by_it() {
    for (verdict, expected) in [
        (Ok(vec![Decision::Allowed]), "job.subscribed"),
        (Ok(vec![Decision::Known]), "PERMISSION_DENIED"),
        (Ok(vec![Decision::Hidden]), "JOB_NOT_FOUND"),
        (Ok(vec![]), "JOB_NOT_FOUND"),
        (Err(Error::internal("the policy gave no answer")), "INTERNAL_ERROR"),
    ] {
        let mut world = world(json!({}));
        let job_id = submit(&mut world, "A");
        subscribe(&mut world, "B", &job_id);
        assert!(world.take("B").is_err(), "nothing is said before the policy has spoken");
        let (ticket, question) = question(&mut world);
        let job = &question.jobs[0];
        assert_eq!((&*question.principal, question.observing, &*job.job_id), ("bob", Observing::Subscribe, &*job_id));
        assert_eq!((&*job.principal, job.agent.as_str(), question.jobs.len()), ("alice", "echo", 1));
        answer(&mut world, ticket, verdict);
        let (frame, text) = world.take("B").unwrap();
        assert!(frame["type"] == expected || frame["payload"]["code"] == expected, "{text}");
        think(&mut world, &job_id);
        assert_eq!(world.take("B").is_ok(), expected == "job.subscribed");
    }
}

/// Rules: R-7.6.13
#[test]
fn what_does_not_exist_and_what_is_ones_own_asks_nobody() {
    let mut world = world(json!({}));
    let job_id = submit(&mut world, "A");
    subscribe(&mut world, "A", &job_id);
    next(&mut world, "A", "job.subscribed");
    subscribe(&mut world, "B", "job_01J00000000000000000000000");
    let refusal = next(&mut world, "B", "session.error");
    assert_eq!(refusal["payload"]["code"], "JOB_NOT_FOUND");
    assert!(world.asked(|event| matches!(event, RuntimeEvent::Judge { .. }).then_some(())).is_none());
}

/// Rules: R-7.4.3, R-7.4.4
#[test]
fn a_cancel_asks_nobody_and_is_refused_as_the_asker_knows_of_the_job() {
    let mut world = world(json!({}));
    let job_id = submit(&mut world, "A");
    subscribe(&mut world, "B", &job_id);
    let (ticket, _) = question(&mut world);
    answer(&mut world, ticket, Ok(vec![Decision::Allowed]));
    next(&mut world, "B", "job.subscribed");
    for (name, code) in [("B", "PERMISSION_DENIED"), ("C", "JOB_NOT_FOUND")] {
        world.send(name, &json!({"type": "job.cancel", "job_id": job_id, "payload": {"job_id": job_id}})).unwrap();
        assert_eq!(next(&mut world, name, "session.error")["payload"]["code"], code);
    }
    assert!(world.asked(|event| matches!(event, RuntimeEvent::Judge { .. }).then_some(())).is_none());
}

#[test]
fn an_unsubscribe_that_overtakes_the_verdict_holds() {
    let mut world = world(json!({}));
    let job_id = submit(&mut world, "A");
    subscribe(&mut world, "B", &job_id);
    world.send("B", &json!({"type": "job.unsubscribe", "payload": {"job_id": job_id}})).unwrap();
    subscribe(&mut world, "C", &job_id);
    for _ in 0..2 {
        let (ticket, _) = question(&mut world);
        answer(&mut world, ticket, Ok(vec![Decision::Allowed]));
    }
    next(&mut world, "B", "job.subscribed");
    next(&mut world, "C", "job.subscribed");
    think(&mut world, &job_id);
    next(&mut world, "C", "job.event");
    assert!(world.take("B").is_err());
}

/// Rules: R-7.6.24
#[test]
fn a_changed_policy_is_asked_about_the_subscriptions_that_live() {
    for refused in [Ok(vec![Decision::Hidden]), Err(Error::internal("the policy gave no answer"))] {
        let mut world = world(json!({}));
        let job_id = submit(&mut world, "A");
        for name in ["B", "C"] {
            subscribe(&mut world, name, &job_id);
            let (ticket, _) = question(&mut world);
            answer(&mut world, ticket, Ok(vec![Decision::Allowed]));
            next(&mut world, name, "job.subscribed");
        }
        world.machine.policy_changed();
        world.settle().unwrap();
        for _ in 0..2 {
            let (ticket, question) = question(&mut world);
            let verdict = if *question.principal == *"bob" { refused.clone() } else { Ok(vec![Decision::Allowed]) };
            answer(&mut world, ticket, verdict);
        }
        think(&mut world, &job_id);
        next(&mut world, "A", "job.event");
        next(&mut world, "C", "job.event");
        assert!(world.take("B").is_err());
    }
}

fn pages(given: &Value, filter: &Value, limit: u64) -> Vec<Vec<usize>> {
    let mut world = World::new(given).unwrap();
    for (name, token) in [("A", "tok-alice"), ("B", "tok-bob"), ("C", "tok-carol")] {
        world.open(name, token, None).unwrap();
    }
    let jobs: Vec<String> = (0..300).map(|n| submit(&mut world, ["A", "B", "A", "C", "A"][n % 5])).collect();
    let (mut cursor, mut pages) = (Value::Null, Vec::new());
    loop {
        let payload = json!({"filter": filter, "limit": limit, "cursor": cursor});
        world.send("B", &json!({"type": "session.list_jobs", "payload": payload})).unwrap();
        let page = next(&mut world, "B", "session.jobs");
        let place = |job: &Value| jobs.iter().position(|id| job["job_id"] == id.as_str()).unwrap();
        pages.push(page["payload"]["jobs"].as_array().unwrap().iter().map(place).collect());
        cursor = page["payload"]["next_cursor"].clone();
        if cursor.is_null() {
            return pages;
        }
    }
}

/// Rules: R-6.6.3, R-6.6.8
#[test]
fn an_asked_policy_gives_the_pages_of_one_that_answers_at_once() {
    let given = |asked: bool| {
        json!({
            "config": {"max_concurrent_jobs": 400, "max_sessions_per_principal": 8},
            "policy": {"bob": {"sees": ["carol"], "knows": ["alice"]}}, "policy_is_asked": asked,
            "tokens": {"tok-carol": "carol"},
        })
    };
    for (filter, limit) in [(json!({}), 7), (json!({}), 120), (json!({"status": ["running"]}), 1000)] {
        let pages_then = pages(&given(true), &filter, limit);
        assert_eq!(pages_then, pages(&given(false), &filter, limit));
        assert_eq!(pages_then.iter().map(Vec::len).sum::<usize>(), 120);
    }
}

#[test]
fn a_listing_fails_with_its_policy_and_a_session_has_so_many_questions() {
    let mut world = world(json!({}));
    submit(&mut world, "A");
    world.send("B", &json!({"type": "session.list_jobs", "payload": {}})).unwrap();
    let (ticket, asked) = question(&mut world);
    assert_eq!(asked.observing, Observing::List);
    answer(&mut world, ticket, Err(Error::internal("the policy gave no answer")));
    assert_eq!(next(&mut world, "B", "session.error")["payload"]["code"], "INTERNAL_ERROR");
    for _ in 0..65 {
        world.send("B", &json!({"type": "session.list_jobs", "payload": {}})).unwrap();
    }
    assert_eq!(next(&mut world, "B", "session.error")["payload"]["code"], "INTERNAL_ERROR");
    assert!(world.take("B").is_err());
    for _ in 0..64 {
        let (ticket, _) = question(&mut world);
        answer(&mut world, ticket, Ok(vec![Decision::Hidden]));
        assert_eq!(next(&mut world, "B", "session.jobs")["payload"]["jobs"], json!([]));
    }
}

#[test]
fn a_page_that_waited_for_the_policy_shows_nothing_that_is_not_stored() {
    let given = json!({"config": {"durable": true}, "policy": {}, "policy_is_asked": true});
    let mut world = World::new(&given).unwrap();
    world.policy_waits = true;
    for (name, token) in [("A", "tok-alice"), ("B", "tok-bob")] {
        world.open(name, token, None).unwrap();
    }
    world.send("A", &json!({"type": "job.submit", "payload": {"agent": "echo"}})).unwrap();
    world.store_all().unwrap();
    world.send("B", &json!({"type": "session.list_jobs", "payload": {}})).unwrap();
    let (ticket, _) = question(&mut world);
    world.send("B", &json!({"type": "job.submit", "payload": {"agent": "echo"}})).unwrap();
    answer(&mut world, ticket, Ok(vec![Decision::Hidden]));
    assert!(world.take("B").is_err());
    world.store_all().unwrap();
    let own = next(&mut world, "B", "job.accepted")["job_id"].clone();
    let page = next(&mut world, "B", "session.jobs");
    assert_eq!(page["payload"]["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(page["payload"]["jobs"][0]["job_id"], own);
}

/// Rules: R-7.6.24
#[test]
fn after_a_restart_a_history_that_is_owed_waits_for_the_verdict() {
    for (policy, expected) in [(json!({"bob": {"sees": ["alice"]}}), 1), (json!({}), 0)] {
        let given = json!({
            "config": {"durable": true}, "policy": {"bob": {"sees": ["alice"]}}, "policy_is_asked": true,
            "history": "waits",
        });
        let mut world = World::new(&given).unwrap();
        world.open("A", "tok-alice", None).unwrap();
        let welcome = world.open("B", "tok-bob", None).unwrap()["payload"].clone();
        world.send("A", &json!({"type": "job.submit", "payload": {"agent": "echo"}})).unwrap();
        world.store_all().unwrap();
        let job_id = next(&mut world, "A", "job.accepted")["job_id"].as_str().unwrap().to_owned();
        think(&mut world, &job_id);
        world.store_all().unwrap();
        let subscribe = json!({"type": "job.subscribe", "payload": {"job_id": job_id, "history": true}});
        world.send("B", &subscribe).unwrap();
        world.store_all().unwrap();
        next(&mut world, "B", "job.subscribed");
        world.change_policy(&policy, false).unwrap();
        world.unanswered.clear();
        world.restart(&["echo".into()]).unwrap();
        world.store_all().unwrap();
        while !world.unanswered.is_empty() {
            world.answer_history(false).unwrap();
        }
        world.store_all().unwrap();
        let resume = json!({
            "session_id": welcome["session_id"], "resume_token": welcome["resume_token"], "last_event_seq": 0,
        });
        world.connect("C").unwrap();
        let payload = json!({
            "client": {"name": "corpus", "version": "1.0"}, "auth": {"scheme": "bearer", "token": "tok-bob"},
            "capabilities": {"features": ["subscribe"]}, "resume": resume,
        });
        world.send("C", &json!({"type": "session.hello", "session_id": null, "payload": payload})).unwrap();
        world.store_all().unwrap();
        next(&mut world, "C", "session.welcome");
        let mut events = 0;
        while let Ok((frame, _)) = world.take("C") {
            events += usize::from(frame["type"] == "job.event");
        }
        assert_eq!(events, expected);
    }
}

/// Subscribe, unsubscribe, subscribe again: the client wants to follow. Verdicts come in order.
#[test]
fn a_second_subscribe_after_an_unsubscribe_holds() {
    let mut world = world(json!({}));
    let job_id = submit(&mut world, "A");
    subscribe(&mut world, "B", &job_id);
    world.send("B", &json!({"type": "job.unsubscribe", "payload": {"job_id": job_id}})).unwrap();
    subscribe(&mut world, "B", &job_id);
    for _ in 0..2 {
        let (ticket, _) = question(&mut world);
        answer(&mut world, ticket, Ok(vec![Decision::Allowed]));
    }
    next(&mut world, "B", "job.subscribed");
    next(&mut world, "B", "job.subscribed");
    think(&mut world, &job_id);
    next(&mut world, "B", "job.event");
}

/// The same, verdicts in the other order.
#[test]
fn a_second_subscribe_holds_whichever_verdict_is_first() {
    let mut world = world(json!({}));
    let job_id = submit(&mut world, "A");
    subscribe(&mut world, "B", &job_id);
    world.send("B", &json!({"type": "job.unsubscribe", "payload": {"job_id": job_id}})).unwrap();
    subscribe(&mut world, "B", &job_id);
    let (first, _) = question(&mut world);
    let (second, _) = question(&mut world);
    answer(&mut world, second, Ok(vec![Decision::Allowed]));
    answer(&mut world, first, Ok(vec![Decision::Allowed]));
    next(&mut world, "B", "job.subscribed");
    next(&mut world, "B", "job.subscribed");
    think(&mut world, &job_id);
    next(&mut world, "B", "job.event");
}

/// The policy answered, then changed and said so; the old answer arrives last.
#[test]
fn a_verdict_from_before_a_change_of_policy_is_not_trusted() {
    let mut world = world(json!({}));
    let job_id = submit(&mut world, "A");
    subscribe(&mut world, "B", &job_id);
    let (old, _) = question(&mut world);
    world.machine.policy_changed();
    world.settle().unwrap();
    answer(&mut world, old, Ok(vec![Decision::Allowed]));
    // Whoever is asked from here on hears the new policy: nobody.
    while let Some((ticket, asked)) = world.asked(|event| match event {
        RuntimeEvent::Judge { ticket, question } => Some((*ticket, question.jobs.len())),
        _ => None,
    }) {
        answer(&mut world, ticket, Ok(vec![Decision::Hidden; asked]));
    }
    think(&mut world, &job_id);
    while let Ok((frame, text)) = world.take("B") {
        assert_ne!(frame["type"], "job.event", "{text}");
    }
}

/// One new job per question: the listing is never answered.
#[test]
fn a_listing_ends_although_jobs_keep_coming() {
    let given = json!({
        "config": {"max_concurrent_jobs": 4000, "max_sessions_per_principal": 8, "max_messages_per_second": 0},
        "policy": {}, "policy_is_asked": true,
    });
    let mut world = World::new(&given).unwrap();
    for (name, token) in [("A", "tok-alice"), ("B", "tok-bob")] {
        world.open(name, token, None).unwrap();
    }
    world.policy_waits = true;
    submit(&mut world, "A");
    world.send("B", &json!({"type": "session.list_jobs", "payload": {"filter": {"status": ["running"]}}})).unwrap();
    for round in 0..500 {
        let asked = world.asked(|event| match event {
            RuntimeEvent::Judge { ticket, question } => Some((*ticket, question.jobs.len())),
            _ => None,
        });
        let Some((ticket, asked)) = asked else { break };
        world.pass(std::time::Duration::from_millis(20)).unwrap();
        // The earlier jobs end, one begins: never more than one is running.
        while let Some(job) = world.alive() {
            finish(&mut world, job);
        }
        world.peer("A").unwrap().inbox.clear();
        submit(&mut world, "A");
        answer(&mut world, ticket, Ok(vec![Decision::Hidden; asked]));
        assert!(round < 300, "300 questions and no page");
    }
    next(&mut world, "B", "session.jobs");
}

fn finish(world: &mut World, job: arcp_proto::machine::runtime::JobKey) {
    world.finish(job, arcp_proto::machine::job::Outcome::Success(RawJson::parse("1").unwrap())).unwrap();
}

/// After a restart the retention of an ended job is over before the policy has spoken.
#[test]
fn what_is_forgotten_before_the_verdict_reaches_nobody() {
    let given = json!({
        "config": {"durable": true, "retention_ms": 300000, "resume_window_ms": 300000}, "policy": {"bob": {"sees": ["alice"]}},
        "policy_is_asked": true, "history": "waits",
    });
    let mut world = World::new(&given).unwrap();
    world.open("A", "tok-alice", Some(&json!([]))).unwrap();
    let welcome = world.open("B", "tok-bob", Some(&json!(["subscribe"]))).unwrap()["payload"].clone();
    world.send("A", &json!({"type": "job.submit", "payload": {"agent": "echo"}})).unwrap();
    world.store_all().unwrap();
    let job_id = next(&mut world, "A", "job.accepted")["job_id"].as_str().unwrap().to_owned();
    think(&mut world, &job_id);
    let job = world.job(&job_id).unwrap();
    finish(&mut world, job);
    world.store_all().unwrap();
    world.pass(std::time::Duration::from_secs(290)).unwrap();
    let subscribe = json!({"type": "job.subscribe", "payload": {"job_id": job_id, "history": true}});
    world.send("B", &subscribe).unwrap();
    world.store_all().unwrap();
    next(&mut world, "B", "job.subscribed");
    world.drop_peer("B").unwrap();
    world.store_all().unwrap();
    world.change_policy(&json!({}), false).unwrap();
    world.unanswered.clear();
    world.policy_waits = true;
    world.restart(&["echo".into()]).unwrap();
    world.store_all().unwrap();
    world.pass(std::time::Duration::from_secs(20)).unwrap();
    world.store_all().unwrap();
    while let Some((ticket, asked)) = world.asked(|event| match event {
        RuntimeEvent::Judge { ticket, question } => Some((*ticket, question.jobs.len())),
        _ => None,
    }) {
        answer(&mut world, ticket, Ok(vec![Decision::Hidden; asked]));
    }
    world.store_all().unwrap();
    let resume = json!({
        "session_id": welcome["session_id"], "resume_token": welcome["resume_token"], "last_event_seq": 0,
    });
    world.connect("C").unwrap();
    let payload = json!({
        "client": {"name": "corpus", "version": "1.0"}, "auth": {"scheme": "bearer", "token": "tok-bob"},
        "capabilities": {"features": ["subscribe"]}, "resume": resume,
    });
    world.send("C", &json!({"type": "session.hello", "session_id": null, "payload": payload})).unwrap();
    world.store_all().unwrap();
    while let Ok((frame, text)) = world.take("C") {
        assert!(frame["type"] != "job.result" && frame["type"] != "job.error", "{text}");
    }
}
