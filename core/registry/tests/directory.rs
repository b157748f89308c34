//! The directory against a plain list, over random schedules.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails where it fails")]

use std::sync::Arc;
use std::time::Duration;

use arcp_registry::directory::{
    Caller, Directory, DirectoryConfig, DiscoverFilter, ListFilter, Moment, Refusal, Returning,
};
use arcp_registry::model::{AgentStatus, MetricsUpdate, Registration};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

const TYPES: [&str; 2] = ["testing", "security"];
const SKILLS: [&str; 3] = ["echo", "compute", "file-conversion"];
const TIMEOUT: Duration = Duration::from_secs(60);

fn registration(id: usize, variant: usize) -> Registration {
    let skills: Vec<&str> =
        SKILLS.iter().enumerate().filter(|(at, _)| (variant + 1) >> at & 1 == 1).map(|(_, s)| *s).collect();
    Registration::check(&json!({
        "agent_id": format!("agent-{id}"), "name": format!("name {variant}"), "agent_type": TYPES[variant % 2],
        "endpoint": "http://127.0.0.1:9977/ok", "capabilities": skills,
        "context_brief": "An agent of the random schedule", "version": "1.0.0", "owner": "Owner",
        "public_key": "a-public-key-0123456789abcdefghi", "metadata": {"n": variant}, "communication_mode": "remote",
    }))
    .unwrap()
}

fn directory() -> Directory {
    Directory::new(DirectoryConfig { heartbeat_timeout: TIMEOUT, max_agents: 8, zone: TimeZone::UTC })
}

fn admin() -> Caller {
    Caller::Admin { user: "ARCP".into() }
}

fn agent(id: usize) -> Caller {
    Caller::Agent { agent_id: format!("agent-{id}").into(), key_hash: None }
}

fn temporary(id: usize, key: usize, token: usize) -> Caller {
    Caller::Temporary {
        agent_id: format!("agent-{id}").into(),
        agent_type: "testing".into(),
        key_hash: format!("key-{key}").into(),
        token_id: format!("token-{token}").into(),
        expires_at: at(900 + token as i64 * 50),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

#[derive(Clone, Debug)]
enum Who {
    Admin,
    Agent(usize),
    Temporary { id: usize, key: usize, token: usize },
    Public,
}

impl Who {
    fn caller(&self) -> Caller {
        match self {
            Who::Admin => admin(),
            Who::Agent(id) => agent(*id),
            Who::Temporary { id, key, token } => temporary(*id, *key, *token),
            Who::Public => Caller::Public,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Register {
        who: Who,
        id: usize,
        variant: usize,
        kept: bool,
    },
    Unregister {
        who: Who,
        id: usize,
        kept: bool,
    },
    Heartbeat {
        who: Who,
        id: usize,
    },
    Report {
        who: Who,
        id: usize,
        success: bool,
        kept: bool,
    },
    /// The clock goes on; the wall clock also jumps.
    Wait {
        seconds: u64,
        jump: i64,
    },
    CleanUp,
    Restart,
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        2 => Just(Who::Admin),
        3 => (0_usize..5).prop_map(Who::Agent),
        3 => (0_usize..5, 0_usize..3, 0_usize..40).prop_map(|(id, key, token)| Who::Temporary { id, key, token }),
        1 => Just(Who::Public),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0_usize..5;
    let kept = prop::bool::weighted(0.85);
    let step = prop_oneof![
        5 => (who(), id.clone(), 0_usize..7, kept).prop_map(|(who, id, variant, kept)| Step::Register { who, id, variant, kept }),
        2 => (who(), id.clone(), kept).prop_map(|(who, id, kept)| Step::Unregister { who, id, kept }),
        4 => (who(), id.clone()).prop_map(|(who, id)| Step::Heartbeat { who, id }),
        3 => (who(), id, any::<bool>(), kept).prop_map(|(who, id, success, kept)| Step::Report { who, id, success, kept }),
        4 => (0_u64..90, -100_000_i64..100_000).prop_map(|(seconds, jump)| Step::Wait { seconds, jump }),
        1 => Just(Step::CleanUp),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..80)
}

#[derive(Clone, Debug)]
struct Known {
    id: usize,
    variant: usize,
    heard: Duration,
    seen: Timestamp,
    registered: Timestamp,
    key: Option<usize>,
    requests: i64,
}

/// The rules of the contract, one after the other, over a list.
#[derive(Debug, Default)]
struct Model {
    known: Vec<Known>,
    used: Vec<usize>,
    mono: Duration,
}

impl Model {
    fn alive(&self, agent: &Known) -> bool {
        self.mono - agent.heard < TIMEOUT
    }

    fn find(&mut self, id: usize) -> Option<usize> {
        self.known.iter().position(|agent| agent.id == id)
    }

    fn may_register(&self, who: &Who, id: usize) -> Result<(), &'static str> {
        let alive = |id: usize| self.known.iter().any(|agent| agent.id == id && self.alive(agent));
        match who {
            Who::Public => return Err("NotAllowed"),
            Who::Agent(own) if *own != id => return Err("NotYours"),
            _ => {}
        }
        if alive(id) {
            return Err("Duplicate");
        }
        let Who::Temporary { id: own, key, token } = who else { return Ok(()) };
        let holds = |agent: &&Known| agent.key == Some(*key) && self.alive(agent) && agent.id != id;
        if self.known.iter().any(|agent| holds(&agent)) {
            Err("KeyInUse")
        } else if *own != id {
            Err("ForeignToken")
        } else if self.used.contains(token) {
            Err("TokenUsed")
        } else {
            Ok(())
        }
    }

    fn may(&mut self, who: &Who, id: usize) -> Result<usize, &'static str> {
        match who {
            Who::Admin => {}
            Who::Agent(own) if *own == id => {}
            Who::Agent(_) => return Err("NotYours"),
            Who::Temporary { .. } => return Err("TemporaryOnly"),
            Who::Public => return Err("NotAllowed"),
        }
        self.find(id).ok_or("NotFound")
    }

    fn may_unregister(&mut self, who: &Who, id: usize) -> Result<usize, &'static str> {
        let Who::Temporary { id: own, key, .. } = who else { return self.may(who, id) };
        let found = self.find(id);
        let bound = found.is_none_or(|at| self.known[at].key == Some(*key));
        if *own == id && bound { found.ok_or("NotFound") } else { Err("TemporaryOnly") }
    }
}

fn word(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NotFound(_) => "NotFound",
        Refusal::NotAvailable(_) => "NotAvailable",
        Refusal::Duplicate(_) => "Duplicate",
        Refusal::Busy(_) => "Busy",
        Refusal::KeyInUse { .. } => "KeyInUse",
        Refusal::NotYours { .. } => "NotYours",
        Refusal::OtherKey(_) => "OtherKey",
        Refusal::ForeignToken { .. } => "ForeignToken",
        Refusal::TokenUsed => "TokenUsed",
        Refusal::TemporaryOnly => "TemporaryOnly",
        Refusal::NotAllowed => "NotAllowed",
        Refusal::Invalid(_) => "Invalid",
        Refusal::Full(_) => "Full",
        Refusal::NotKept(_) => "NotKept",
    }
}

/// Compares everything one can look at.
fn compare(directory: &Directory, model: &Model) -> Result<(), TestCaseError> {
    let ids = |agents: Vec<&Known>| agents.iter().map(|agent| format!("agent-{}", agent.id)).collect::<Vec<_>>();
    let seen = |agents: &[arcp_registry::directory::AgentView]| {
        agents.iter().map(|agent| agent.agent_id().to_string()).collect::<Vec<_>>()
    };
    let listed = directory.list(&ListFilter::default());
    prop_assert_eq!(seen(&listed), ids(model.known.iter().collect()));
    for (view, known) in listed.iter().zip(&model.known) {
        let status = if model.alive(known) { AgentStatus::Alive } else { AgentStatus::Dead };
        prop_assert_eq!((view.status, view.last_seen, view.registered_at()), (status, known.seen, known.registered));
        prop_assert_eq!(view.figures().total_requests, known.requests);
        let (features, policy_tags) = (Some(Vec::new()), Some(Vec::new()));
        let sent = Registration { features, policy_tags, ..registration(known.id, known.variant) };
        prop_assert_eq!(view.registration(), sent);
    }
    let has =
        |agent: &Known, skill: &str| registration(agent.id, agent.variant).capabilities.iter().any(|s| s == skill);
    for agent_type in [None, Some("testing"), Some("security"), Some("other")] {
        for skills in [vec![], vec!["echo"], vec!["echo", "compute"], vec!["unknown"]] {
            let of_type = |agent: &&Known| agent_type.is_none_or(|wanted| TYPES[agent.variant % 2] == wanted);
            let live = model.known.iter().filter(of_type).filter(|agent| model.alive(agent));
            let expected = ids(live.filter(|agent| skills.iter().all(|skill| has(agent, skill))).collect());
            let filter = DiscoverFilter {
                agent_type: agent_type.map(str::to_owned),
                capabilities: skills.iter().map(|skill| (*skill).to_owned()).collect(),
            };
            let page = directory.discover(&filter, 2, 1);
            let wanted: Vec<String> = expected.iter().skip(1).take(2).cloned().collect();
            prop_assert_eq!(seen(&page.agents), wanted);
            // With more than one condition, nobody counts further than the page.
            let conditions = usize::from(agent_type.is_some()) + skills.len();
            let total = if conditions > 1 { expected.len().min(3) } else { expected.len() };
            prop_assert_eq!(page.total, total);
            let any = model.known.iter().filter(of_type).filter(|agent| {
                !model.alive(agent) && (skills.is_empty() || skills.iter().any(|skill| has(agent, skill)))
            });
            let filter = ListFilter {
                agent_type: filter.agent_type,
                status: Some("dead".into()),
                capabilities: filter.capabilities,
            };
            prop_assert_eq!(seen(&directory.list(&filter)), ids(any.collect()));
        }
    }
    let stats = directory.stats();
    let alive = model.known.iter().filter(|agent| model.alive(agent)).count();
    prop_assert_eq!((stats.total, stats.alive, stats.dead), (model.known.len(), alive, model.known.len() - alive));
    prop_assert_eq!(stats.types.values().sum::<usize>(), stats.total);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    /// Rules: REG-170, REG-171, REG-174, REG-175, REG-178, REG-183, REG-190, REG-191, REG-192, REG-193
    #[test]
    fn it_does_what_a_plain_list_does(steps in steps()) {
        let mut directory = directory();
        let mut model = Model::default();
        let mut wall = at(0);
        for step in steps {
            let now = Moment { mono: model.mono, wall };
            match step {
                Step::Register { who, id, variant, kept } => {
                    let expected = model.may_register(&who, id);
                    let sent = registration(id, variant);
                    match directory.begin_register(&who.caller(), &sent, now) {
                        Err(refusal) => prop_assert_eq!(Err(word(&refusal)), expected),
                        Ok(reservation) => {
                            prop_assert_eq!(Ok(()), expected);
                            // Until it is decided, the id is taken.
                            let again = directory.begin_register(&admin(), &sent, now).err();
                            prop_assert_eq!(again.as_ref().map(word), Some("Busy"));
                            if kept {
                                let former = model.find(id).map(|at| model.known.remove(at));
                                let key = match &who {
                                    Who::Temporary { key, token, .. } => {
                                        model.used.push(*token);
                                        // The key leaves whom it had before.
                                        Some(*key)
                                    }
                                    Who::Agent(_) => former.and_then(|former| former.key),
                                    _ => None,
                                };
                                model.known.iter_mut().filter(|agent| agent.key == key).for_each(|agent| agent.key = None);
                                model.known.push(Known { id, variant, heard: model.mono, seen: wall, registered: wall, key, requests: 0 });
                                directory.finish_register(reservation);
                            } else {
                                directory.abandon_register(reservation);
                            }
                        }
                    }
                }
                Step::Unregister { who, id, kept } => {
                    let expected = model.may_unregister(&who, id);
                    match directory.begin_unregister(&who.caller(), &format!("agent-{id}")) {
                        Err(refusal) => prop_assert_eq!(Some(word(&refusal)), expected.err()),
                        Ok(leaving) => {
                            let place = expected.unwrap();
                            if kept {
                                model.known.remove(place);
                                prop_assert!(directory.finish_unregister(leaving).is_some());
                            } else {
                                directory.abandon_unregister(leaving);
                            }
                        }
                    }
                }
                Step::Heartbeat { who, id } => {
                    let expected = model.may(&who, id);
                    match directory.heartbeat(&who.caller(), &format!("agent-{id}"), now) {
                        Err(refusal) => prop_assert_eq!(Some(word(&refusal)), expected.err()),
                        Ok((seen, revived)) => {
                            let place = expected.unwrap();
                            prop_assert_eq!(seen, wall);
                            prop_assert_eq!(revived.is_some(), !model.alive(&model.known[place]));
                            (model.known[place].heard, model.known[place].seen) = (model.mono, wall);
                        }
                    }
                }
                Step::Report { who, id, success, kept } => {
                    let expected = model.may(&who, id);
                    match directory.report_metrics(&who.caller(), &format!("agent-{id}"), 0.2, success, now) {
                        Err(refusal) => prop_assert_eq!(Some(word(&refusal)), expected.err()),
                        Ok(counted) if kept => {
                            model.known[expected.unwrap()].requests += 1;
                            drop(counted);
                        }
                        Ok(counted) => directory.abandon_metrics(counted),
                    }
                }
                Step::Wait { seconds, jump } => {
                    let before: Vec<usize> = model.known.iter().filter(|agent| model.alive(agent)).map(|agent| agent.id).collect();
                    model.mono += Duration::from_secs(seconds);
                    wall = wall.checked_add(SignedDuration::from_secs(jump)).unwrap();
                    let mut died: Vec<String> = directory.expire(model.mono).iter().map(|agent| agent.agent_id().to_string()).collect();
                    died.sort();
                    let gone = model.known.iter().filter(|agent| before.contains(&agent.id) && !model.alive(agent));
                    let mut expected: Vec<String> = gone.map(|agent| format!("agent-{}", agent.id)).collect();
                    expected.sort();
                    prop_assert_eq!(died, expected);
                    prop_assert_eq!(directory.expire(model.mono).len(), 0);
                }
                Step::CleanUp => {
                    let mut removed: Vec<String> = directory.clean_up(model.mono, 100).iter().map(|(_, agent)| agent.agent_id().to_string()).collect();
                    let mono = model.mono;
                    let (stay, gone): (Vec<Known>, Vec<Known>) = model.known.drain(..).partition(|agent| mono - agent.heard <= TIMEOUT * 2);
                    model.known = stay;
                    let mut expected: Vec<String> = gone.iter().map(|agent| format!("agent-{}", agent.id)).collect();
                    removed.sort();
 expected.sort();
                    prop_assert_eq!(removed, expected);
                }
                Step::Restart => {
                    // The wall clock ran evenly before, as far as the store can tell.
                    let silent = |known: &Known| model.mono - known.heard;
                    let heard = |known: &Known| wall.checked_sub(SignedDuration::try_from(silent(known)).unwrap()).unwrap();
                    let listed = directory.list(&ListFilter::default());
                    let returning = listed.iter().zip(&model.known).zip(1..).map(|((view, known), key)| Returning {
                        key,
                        registration: view.registration(),
                        registered_at: view.registered_at(),
                        last_seen: heard(known),
                        key_hash: known.key.map(|key| Arc::from(format!("key-{key}"))),
                        figures: Some(view.figures()),
                    });
                    let tokens = model.used.iter().map(|token| (Arc::from(format!("token-{token}")), at(1_000_000_000)));
                    let mut next = self::directory();
                    let start = Moment { mono: model.mono, wall: at(1_000_000) };
                    next.restore(returning.collect(), tokens.collect(), 1000, wall, start);
                    directory = next;
                    let (mono, seen): (Duration, Vec<Timestamp>) = (model.mono, model.known.iter().map(heard).collect());
                    for (known, seen) in model.known.iter_mut().zip(seen) {
                        known.seen = seen;
                        // Whoever lived has a whole time-out again.
                        if mono - known.heard < TIMEOUT {
                            known.heard = mono;
                        }
                    }
                    prop_assert_eq!(directory.expire(mono).len(), 0);
                }
            }
            compare(&directory, &model)?;
        }
    }
}

fn registered(directory: &mut Directory, caller: &Caller, id: usize, now: Moment) -> Result<(), Refusal> {
    let reservation = directory.begin_register(caller, &registration(id, 0), now)?;
    directory.finish_register(reservation);
    Ok(())
}

fn moment(second: u64) -> Moment {
    Moment { mono: Duration::from_secs(second), wall: at(second as i64) }
}

/// Rules: REG-193
#[test]
fn a_key_registers_one_live_agent() {
    let mut directory = directory();
    registered(&mut directory, &temporary(1, 7, 1), 1, moment(0)).unwrap();
    let refused = registered(&mut directory, &temporary(2, 7, 2), 2, moment(1)).unwrap_err();
    assert_eq!(word(&refused), "KeyInUse");
    assert!(refused.to_string().contains("'agent-1'"));
    directory.expire(moment(100).mono);
    registered(&mut directory, &temporary(2, 7, 2), 2, moment(100)).unwrap();
    // The first comes back by its own token, and does not take the key along.
    directory.heartbeat(&agent(1), "agent-1", moment(101)).unwrap();
    directory.begin_unregister(&temporary(2, 7, 3), "agent-2").unwrap();
    let refused = registered(&mut directory, &temporary(3, 7, 4), 3, moment(102)).unwrap_err();
    assert_eq!(word(&refused), "KeyInUse");
}

/// Rules: REG-133
#[test]
fn a_temporary_token_registers_its_agent_once() {
    let mut directory = directory();
    let token = temporary(1, 0, 0);
    assert_eq!(word(&registered(&mut directory, &token, 2, moment(0)).unwrap_err()), "ForeignToken");
    let reservation = directory.begin_register(&token, &registration(1, 0), moment(0)).unwrap();
    directory.abandon_register(reservation);
    registered(&mut directory, &token, 1, moment(1)).unwrap();
    assert_eq!(word(&directory.heartbeat(&token, "agent-1", moment(1)).unwrap_err()), "TemporaryOnly");
    directory.expire(moment(100).mono);
    assert_eq!(word(&registered(&mut directory, &token, 1, moment(100)).unwrap_err()), "TokenUsed");
    assert!(!directory.forget_tokens(at(899)));
    assert!(directory.forget_tokens(at(900)));
}

/// Rules: REG-176
#[test]
fn metrics_belong_to_registered_agents_and_to_themselves() {
    let mut directory = directory();
    let update = MetricsUpdate::check(&json!({"reputation_score": 10})).unwrap();
    assert_eq!(word(&directory.set_metrics(&agent(1), "agent-1", &update, moment(0)).unwrap_err()), "NotFound");
    registered(&mut directory, &admin(), 1, moment(0)).unwrap();
    assert_eq!(word(&directory.set_metrics(&agent(2), "agent-1", &update, moment(0)).unwrap_err()), "NotYours");
    assert_eq!(word(&directory.report_metrics(&agent(2), "agent-1", 1.0, true, moment(0)).unwrap_err()), "NotYours");
    let counted = directory.set_metrics(&agent(1), "agent-1", &update, moment(3)).unwrap();
    assert_eq!(counted.agent.reputation(), 1.0);
    // Metrics are no heartbeat.
    assert_eq!(directory.agent("agent-1").unwrap().last_seen, at(0));
    directory.abandon_metrics(counted);
    assert_eq!(directory.agent("agent-1").unwrap().figures().reputation_score, 0.0);
}

/// Rules: REG-191
#[test]
fn a_step_of_the_wall_clock_changes_nothing() {
    let mut directory = directory();
    registered(&mut directory, &admin(), 1, moment(0)).unwrap();
    for (second, wall) in [(29, at(-1_000_000)), (30, at(1_000_000))] {
        directory.heartbeat(&agent(1), "agent-1", Moment { mono: Duration::from_secs(second), wall }).unwrap();
    }
    assert_eq!(directory.expire(Duration::from_secs(89)).len(), 0);
    assert_eq!(directory.clean_up(Duration::from_secs(89), 10).len(), 0);
    assert_eq!(directory.expire(Duration::from_secs(90)).len(), 1);
    assert_eq!(directory.clean_up(Duration::from_secs(150), 10).len(), 0);
    assert_eq!(directory.clean_up(Duration::from_secs(151), 10).len(), 1);
    assert_eq!(directory.stats().total, 0);
}

#[test]
fn there_is_a_bound_to_agents() {
    let mut directory = directory();
    for id in 0..8 {
        registered(&mut directory, &admin(), id, moment(0)).unwrap();
    }
    assert_eq!(word(&registered(&mut directory, &admin(), 8, moment(0)).unwrap_err()), "Full");
    directory.expire(moment(100).mono);
    registered(&mut directory, &admin(), 3, moment(100)).unwrap();
}

/// An agent that is removed while it registers anew is left to that.
#[test]
fn clean_up_leaves_alone_who_is_coming_back() {
    let mut directory = directory();
    registered(&mut directory, &admin(), 1, moment(0)).unwrap();
    registered(&mut directory, &admin(), 2, moment(0)).unwrap();
    directory.expire(moment(60).mono);
    let reservation = directory.begin_register(&agent(1), &registration(1, 1), moment(500)).unwrap();
    let gone = directory.clean_up(moment(500).mono, 10);
    assert_eq!(gone.iter().map(|(_, agent)| agent.agent_id().to_string()).collect::<Vec<_>>(), ["agent-2"]);
    let view = directory.finish_register(reservation);
    assert_eq!((view.status, directory.stats().total), (AgentStatus::Alive, 1));
}
