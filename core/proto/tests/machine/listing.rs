//! Listings under churn, and what a cursor is good for.

use std::collections::BTreeSet;

use arcp_proto::json::RawJson;
use arcp_proto::machine::job::Outcome;
use arcp_proto::machine::policy::SamePrincipal;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::World;

/// One page: its job ids and the cursor after it.
fn page(world: &mut World, name: &str, filter: &Value, limit: u64, cursor: &Value) -> (Vec<String>, Value) {
    let payload = json!({"filter": filter, "limit": limit, "cursor": cursor});
    world.send(name, &json!({"type": "session.list_jobs", "payload": payload})).unwrap();
    loop {
        let (frame, text) = world.take(name).unwrap();
        if frame["type"] == "session.jobs" {
            let jobs = frame["payload"]["jobs"].as_array().unwrap();
            let ids = jobs.iter().map(|job| job["job_id"].as_str().unwrap().to_owned());
            return (ids.collect(), frame["payload"]["next_cursor"].clone());
        }
        assert_ne!(frame["type"], "session.error", "{text}");
    }
}

fn submit(world: &mut World, name: &str) -> String {
    world.send(name, &json!({"type": "job.submit", "payload": {"agent": "echo"}})).unwrap();
    loop {
        let (frame, text) = world.take(name).unwrap();
        if frame["type"] == "job.accepted" {
            return frame["job_id"].as_str().unwrap().to_owned();
        }
        assert_ne!(frame["type"], "session.error", "{text}");
    }
}

/// What happens between two pages.
#[derive(Clone, Debug)]
enum Churn {
    Submit { own: bool },
    Finish(prop::sample::Index),
    Pass(u64),
    StepWall(i64),
}

fn churn() -> impl Strategy<Value = Churn> {
    prop_oneof![
        any::<bool>().prop_map(|own| Churn::Submit { own }),
        any::<prop::sample::Index>().prop_map(Churn::Finish),
        (0_u64..400).prop_map(Churn::Pass),
        (-3_i64..3).prop_map(Churn::StepWall),
    ]
}

/// Jobs of both principals in the order of their acceptance, and what became of them.
struct Run {
    world: World,
    own: Vec<String>,
    jobs: Vec<String>,
}

impl Run {
    fn act(&mut self, churn: &Churn) {
        match churn {
            Churn::Submit { own } => {
                let job_id = submit(&mut self.world, if *own { "A" } else { "B" });
                if *own {
                    self.own.push(job_id.clone());
                }
                self.jobs.push(job_id);
            }
            Churn::Finish(choice) if !self.jobs.is_empty() => {
                if let Ok(job) = self.world.job(choice.get(self.jobs.as_slice()).as_str()) {
                    self.world.finish(job, Outcome::Success(RawJson::null())).unwrap();
                }
            }
            Churn::Finish(_) => {}
            Churn::Pass(ms) => self.world.pass(std::time::Duration::from_millis(*ms)).unwrap(),
            Churn::StepWall(ms) => self.world.clock.step_wall(&json!(ms)).unwrap(),
        }
    }

    /// Of alice's jobs those that are kept.
    fn kept(&self) -> BTreeSet<String> {
        let kept = |job_id: &&String| match self.world.job(job_id) {
            Ok(job) => self.world.machine.job(job).is_some(),
            // It waits for a slot.
            Err(_) => true,
        };
        self.own.iter().filter(kept).cloned().collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Rules: R-6.6.9
    #[test]
    fn pages_neither_repeat_nor_skip_a_job_that_was_there_throughout(
        before in prop::collection::vec(churn(), 0..40),
        between in prop::collection::vec(prop::collection::vec(churn(), 0..6), 0..40),
        limit in 1_u64..5,
        widened: bool,
    ) {
        let mut given = json!({"config": {
            "retention_ms": 900, "resume_window_ms": 900, "max_concurrent_jobs": 8, "max_ended_jobs": 6, "idle_windows": 0,
        }});
        if widened {
            // Nobody sees more than before, but every listing passes over the jobs of all.
            given["policy"] = json!({"nobody": {"sees": ["alice"]}});
        }
        let mut run = Run { world: World::new(&given).unwrap(), own: Vec::new(), jobs: Vec::new() };
        run.world.open("A", "tok-alice", Some(&json!(["list_jobs"]))).unwrap();
        run.world.open("B", "tok-bob", Some(&json!([]))).unwrap();
        before.iter().for_each(|churn| run.act(churn));
        let mut throughout = run.kept();
        let (mut seen, mut cursor, mut pauses) = (Vec::new(), Value::Null, between.iter());
        loop {
            let (ids, next) = page(&mut run.world, "A", &json!({}), limit, &cursor);
            prop_assert!(ids.len() as u64 <= limit);
            prop_assert!(next.is_null() || !ids.is_empty(), "an empty page in the middle");
            seen.extend(ids);
            prop_assert!(seen.len() <= run.own.len(), "pages without end");
            if next.is_null() {
                break;
            }
            cursor = next;
            pauses.next().into_iter().flatten().for_each(|churn| run.act(churn));
            let kept = run.kept();
            throughout.retain(|job_id| kept.contains(job_id));
        }
        let distinct: BTreeSet<_> = seen.iter().cloned().collect();
        prop_assert_eq!(distinct.len(), seen.len(), "a job came twice");
        prop_assert!(throughout.is_subset(&distinct), "skipped: {:?}", throughout.difference(&distinct));
        prop_assert!(seen.iter().all(|job_id| run.own.contains(job_id)), "somebody else's job");
        run.world.leave_nothing().unwrap();
    }
}

#[test]
fn a_page_looks_at_a_bounded_number_of_hidden_jobs_and_says_where_to_go_on() {
    let given = json!({
        "config": {"max_concurrent_jobs": 1, "max_waiting_jobs": 30_000},
        "policy": {"bob": {"sees": ["carol"]}}, "tokens": {"tok-carol": "carol"},
    });
    let mut world = World::new(&given).unwrap();
    for (name, token) in [("A", "tok-alice"), ("B", "tok-bob"), ("C", "tok-carol")] {
        world.open(name, token, None).unwrap();
    }
    let first = submit(&mut world, "C");
    (0..10_500).for_each(|_| drop(submit(&mut world, "A")));
    let last = submit(&mut world, "C");
    let (ids, cursor) = page(&mut world, "B", &json!({}), 100, &Value::Null);
    assert_eq!(ids, [first]);
    let (ids, cursor) = page(&mut world, "B", &json!({}), 100, &cursor);
    assert_eq!((ids, cursor), (vec![last], Value::Null));
    // Whose page costs only itself is not bounded so.
    let (ids, _) = page(&mut world, "A", &json!({"status": ["pending"]}), 1000, &Value::Null);
    assert_eq!(ids.len(), 1000);
}

#[test]
fn what_has_ended_does_not_stand_in_the_way_of_what_runs_and_what_is_forgotten_of_nothing() {
    let given = |kept: u64| json!({"config": {"max_concurrent_jobs": 1, "max_ended_jobs": kept}});
    for (kept, filter, expected) in [(20_000, json!({"status": ["running"]}), 1), (3, json!({}), 4)] {
        let mut world = World::new(&given(kept)).unwrap();
        world.open("A", "tok-alice", Some(&json!(["list_jobs"]))).unwrap();
        for _ in 0..10_100 {
            let job_id = submit(&mut world, "A");
            let job = world.job(&job_id).unwrap();
            world.asked.clear();
            world.finish(job, Outcome::Success(RawJson::null())).unwrap();
        }
        let running = submit(&mut world, "A");
        let (ids, cursor) = page(&mut world, "A", &filter, 100, &Value::Null);
        assert_eq!((ids.len(), ids.last(), cursor), (expected, Some(&running), Value::Null));
    }
}

#[test]
fn a_new_policy_ends_the_subscriptions_of_the_old_one() {
    let mut world = World::new(&json!({"policy": {"bob": {"sees": ["alice"]}}})).unwrap();
    world.open("A", "tok-alice", None).unwrap();
    world.open("B", "tok-bob", None).unwrap();
    let job_id = submit(&mut world, "A");
    world.send("B", &json!({"type": "job.subscribe", "payload": {"job_id": job_id}})).unwrap();
    assert_eq!(world.take("B").unwrap().0["type"], "job.subscribed");
    world.machine.set_policy(Box::new(SamePrincipal));
    let job = world.job(&job_id).unwrap();
    world.emit(job, "thought", &RawJson::parse(r#"{"text":"mine"}"#).unwrap()).unwrap().unwrap();
    assert_eq!(world.take("A").unwrap().0["type"], "job.event");
    assert!(world.take("B").is_err());
}

#[test]
fn a_cursor_outlives_its_runtime_with_its_key() {
    let cursor_under = |key: u64| {
        let mut world = World::new(&json!({"config": {"cursor_key": key}})).unwrap();
        world.open("A", "tok-alice", None).unwrap();
        let jobs = [submit(&mut world, "A"), submit(&mut world, "A")];
        let (_, cursor) = page(&mut world, "A", &json!({}), 1, &Value::Null);
        (world, jobs, cursor)
    };
    let (_, _, cursor) = cursor_under(1);
    // The same schedule makes the same ids.
    let (mut again, jobs, _) = cursor_under(1);
    assert_eq!(page(&mut again, "A", &json!({}), 9, &cursor), (vec![jobs[1].clone()], Value::Null));
    assert_eq!(again.machine.cursor_key(), [1; 32]);
    let (mut other, _, _) = cursor_under(2);
    other.send("A", &json!({"type": "session.list_jobs", "payload": {"cursor": cursor}})).unwrap();
    let (refusal, _) = other.take("A").unwrap();
    assert_eq!(refusal["payload"]["code"], "INVALID_REQUEST");
}
