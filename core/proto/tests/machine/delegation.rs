//! Random trees of delegations with random costs: whatever is delegated, spent, finished, cancelled and left, every counter
//! is its cap less what its job and all below it have spent, and no child may more than its parent.

use std::collections::BTreeMap;
use std::time::Duration;

use arcp_proto::decimal::Decimal;
use arcp_proto::event::EventKind;
use arcp_proto::json::RawJson;
use arcp_proto::lease::{Child, Lease, Parent, is_subset};
use arcp_proto::machine::job::Outcome;
use arcp_proto::machine::runtime::{Delegation, JobKey};
use arcp_proto::message::LeaseConstraints;
use arcp_proto::time::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::Result;
use crate::world::World;

const CURRENCIES: [&str; 2] = ["EUR", "USD"];

/// A job as the schedule knows it.
struct Node {
    key: JobKey,
    parent: Option<usize>,
    detached: bool,
    /// Cents by currency.
    caps: BTreeMap<&'static str, i64>,
    spent: BTreeMap<&'static str, i64>,
    /// Whether its agent has ended, as far as the schedule made it.
    finished: bool,
}

struct Run {
    world: World,
    nodes: Vec<Node>,
}

fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

fn lease(choice: u8, caps: &BTreeMap<&'static str, i64>) -> Value {
    let tools = [json!(["a.*", "b.**"]), json!(["a.x", "b.y.*"]), json!(["**"]), json!(["a.*"])];
    let amounts: Vec<String> = caps.iter().map(|(unit, cents)| format!("{unit}:{}", money(*cents))).collect();
    let mut lease = json!({"agent.delegate": ["*"], "tool.call": tools[usize::from(choice % 4)]});
    if !amounts.is_empty() {
        lease["cost.budget"] = json!(amounts);
    }
    lease
}

fn caps(choice: u8, amount: u8) -> BTreeMap<&'static str, i64> {
    let chosen = CURRENCIES.iter().enumerate().filter(|(place, _)| choice & (1 << place) != 0);
    chosen.map(|(place, unit)| (*unit, i64::from(amount) * (place as i64 + 1))).collect()
}

fn expires_at(choice: u8) -> Option<String> {
    (choice.is_multiple_of(3)).then(|| format!("2026-05-13T2{}:00:00Z", choice % 4))
}

impl Run {
    fn new(durable: bool) -> Result<Self> {
        let config = json!({"durable": durable, "max_concurrent_jobs": 4, "max_ended_jobs": 4, "max_live_children": 3, "retention_ms": 5000,
            "resume_window_ms": 5000, "cancel_grace_ms": 2000, "heartbeat_ms": 3_600_000});
        let mut world = World::new(&json!({ "config": config }))?;
        world.open("A", "tok-alice", Some(&json!(["cost.budget"])))?;
        Ok(Run { world, nodes: Vec::new() })
    }

    fn act(&mut self, (op, who, what, amount): (u8, u8, u8, u8)) -> Result<()> {
        let chosen = usize::from(who).checked_rem(self.nodes.len());
        match (op, chosen) {
            (0 | 1, _) => self.submit(chosen.filter(|_| op == 1), what, amount)?,
            (2..=6, Some(node)) => self.delegate(node, what, amount)?,
            (7..=11, Some(node)) => self.spend(node, what, i64::from(amount))?,
            (12, Some(node)) => {
                let key = self.nodes[node].key;
                self.nodes[node].finished = true;
                self.world.finish(key, Outcome::Success(RawJson::null()))?;
            }
            (13, Some(node)) => {
                let key = self.nodes[node].key;
                self.world.machine.cancel_child(self.world.clock.0, key, "enough");
                self.world.settle()?;
            }
            (14, _) => self.world.pass(Duration::from_millis(u64::from(amount) * 20))?,
            _ => {}
        }
        self.world.store_all()?;
        self.world.peer("A")?.inbox.clear();
        self.check()
    }

    fn add(&mut self, job_id: &str, parent: Option<usize>, detached: bool, caps: BTreeMap<&'static str, i64>) {
        // A job that waits for a slot has no key here yet, and takes no part.
        if let Ok(key) = self.world.job(job_id) {
            self.nodes.push(Node { key, parent, detached, caps, spent: BTreeMap::new(), finished: false });
        }
    }

    /// A client's own job, perhaps with a parent.
    fn submit(&mut self, parent: Option<usize>, what: u8, amount: u8) -> Result<()> {
        let caps = caps(what, amount);
        let mut payload = json!({"agent": "echo", "lease_request": lease(what / 4, &caps)});
        if let Some(text) = expires_at(what) {
            payload["lease_constraints"] = json!({ "expires_at": text });
        }
        if let Some(job) = parent.and_then(|parent| self.world.machine.job(self.nodes[parent].key)) {
            payload["parent_job_id"] = json!(*job.start().job_id);
        } else if parent.is_some() {
            return Ok(());
        }
        self.world.peer("A")?.inbox.clear();
        self.world.send("A", &json!({"type": "job.submit", "payload": payload}))?;
        self.world.store_all()?;
        let (answer, _) = self.world.take("A")?;
        if answer["type"] == "job.accepted" {
            self.add(answer["job_id"].as_str().unwrap_or_default(), parent, false, caps);
        }
        Ok(())
    }

    fn delegate(&mut self, parent: usize, what: u8, amount: u8) -> Result<()> {
        let caps = caps(what, amount);
        let delegation = Delegation {
            agent: "echo".into(),
            input: RawJson::null(),
            lease_request: RawJson::parse(&lease(what / 4, &caps).to_string()).map_err(|error| error.message)?,
            lease_constraints: Some(LeaseConstraints { expires_at: expires_at(what) }),
            delegate_id: None,
            detached: what >= 192,
        };
        let over = self.over_budget(parent, &caps);
        let outcome = self.world.delegate(self.nodes[parent].key, &delegation)?;
        self.world.store_all()?;
        if let Ok(delegated) = outcome {
            if let Some(reason) = over {
                return Err(format!("a child was granted {caps:?} though {reason}"));
            }
            self.add(&delegated.accepted.job_id, Some(parent), delegation.detached, caps);
        }
        Ok(())
    }

    /// Why these caps are too much for somebody above.
    fn over_budget(&self, parent: usize, caps: &BTreeMap<&'static str, i64>) -> Option<String> {
        let mut above = Some(parent);
        while let Some(node) = above {
            for (unit, cap) in caps {
                if self.left(node, unit).is_some_and(|left| *cap > left) {
                    return Some(format!("number {node} above has {:?} {unit} left", self.left(node, unit)));
                }
            }
            above = self.nodes[node].parent;
        }
        None
    }

    fn spend(&mut self, node: usize, what: u8, cents: i64) -> Result<()> {
        let unit = CURRENCIES[usize::from(what % 2)];
        let cents = if what.is_multiple_of(16) { -cents } else { cents };
        let body = json!({"name": "cost.x", "value": 0, "unit": unit}).to_string();
        let body = body.replace("\"value\":0", &format!("\"value\":{}", money(cents)));
        let key = self.nodes[node].key;
        let live = self.world.machine.job(key).is_some_and(|job| !job.status().is_terminal());
        let taken = live && !self.nodes[node].finished;
        let body = RawJson::parse(&body).map_err(|error| error.message)?;
        self.world.machine.emit(self.world.clock.0, key, &EventKind::Metric, &body).map_err(|error| error.message)?;
        self.world.settle()?;
        if taken && cents > 0 {
            *self.nodes[node].spent.entry(unit).or_default() += cents;
        }
        Ok(())
    }

    /// What a job and everything below it have spent.
    fn spent_below(&self, node: usize, unit: &str) -> i64 {
        let children = (0..self.nodes.len()).filter(|child| self.nodes[*child].parent == Some(node));
        let below: i64 = children.map(|child| self.spent_below(child, unit)).sum();
        self.nodes[node].spent.get(unit).copied().unwrap_or_default() + below
    }

    fn left(&self, node: usize, unit: &str) -> Option<i64> {
        self.nodes[node].caps.get(unit).map(|cap| cap - self.spent_below(node, unit))
    }

    fn check(&self) -> Result<()> {
        let is_live = |key| self.world.machine.job(key).is_some_and(|job| !job.status().is_terminal());
        for (place, node) in self.nodes.iter().enumerate() {
            let Some(job) = self.world.machine.job(node.key) else {
                let heir = self.nodes.iter().find(|child| child.parent == Some(place) && is_live(child.key));
                match heir {
                    Some(_) => return Err(format!("number {place} was forgotten while a child of it lives")),
                    None => continue,
                }
            };
            let counters = self.world.machine.budget_json(node.key);
            let counters: BTreeMap<String, Box<serde_json::value::RawValue>> = counters
                .map_or(Ok(BTreeMap::new()), |text| serde_json::from_str(text.get()))
                .map_err(|e| e.to_string())?;
            for unit in CURRENCIES {
                let found = counters.get(unit).map(|left| Decimal::parse_json(left.get()).map_err(|e| e.message));
                let expected = self.left(place, unit).map(|left| Decimal::parse_json(&money(left)).unwrap());
                if found.transpose()? != expected {
                    return Err(format!("number {place} has {counters:?}, expected {expected:?} {unit}"));
                }
            }
            let Some((above, parent)) =
                node.parent.and_then(|above| Some((above, self.world.machine.job(self.nodes[above].key)?)))
            else {
                continue;
            };
            let end = |lease: Option<&LeaseConstraints>| {
                lease.and_then(|lease| lease.expires_at.as_deref()).and_then(Timestamp::parse)
            };
            let (held, given) =
                (end(parent.start().lease_constraints.as_ref()), end(job.start().lease_constraints.as_ref()));
            let (wide, narrow): (&Lease, &Lease) = (&parent.start().lease, &job.start().lease);
            is_subset(
                Child { lease: narrow, expires_at: given },
                Parent { lease: wide, expires_at: held, remaining: None },
            )
            .map_err(|error| format!("number {place} may more than number {above}: {}", error.message))?;
            if held.is_some() && given.is_none() {
                return Err(format!("number {place} has no end, number {above} has"));
            }
            if parent.status().is_terminal() && !job.status().is_terminal() && !node.detached {
                return Err(format!("number {place} outlives number {above}"));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn counters_agree_with_what_was_spent_below_them(
        durable: bool,
        steps in prop::collection::vec((0..15u8, any::<u8>(), any::<u8>(), any::<u8>()), 1..80)
    ) {
        let mut run = Run::new(durable).unwrap();
        // A tree to begin with, large enough for what follows.
        for step in [(0, 0, 7, 255), (2, 0, 3, 200), (2, 1, 4, 0), (2, 2, 7, 60)].into_iter().chain(steps.iter().copied()) {
            if let Err(error) = run.act(step) {
                prop_assert!(false, "{error}\nat {step:?} of {steps:?}");
            }
        }
        if let Err(error) = run.world.leave_nothing() {
            prop_assert!(false, "{error}\nafter {steps:?}");
        }
    }
}
