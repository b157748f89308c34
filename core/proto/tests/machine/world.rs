//! A runtime machine with everything around it: peers, agents, a verifier, a store, clocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use arcp_proto::event::{self, EventKind};
use arcp_proto::feature::Feature;
use arcp_proto::json::RawJson;
use arcp_proto::machine::RuntimeMachine;
use arcp_proto::machine::frame::{Frame, Record};
use arcp_proto::machine::job::{JobStart, Outcome};
use arcp_proto::machine::policy::{Decision, JobFacts, ObservedJob, Policy, PolicyQuestion};
use arcp_proto::machine::result_stream::ResultOptions;
use arcp_proto::machine::runtime::{
    BufferCap, CancelPolicy, ConnKey, Delegated, Delegation, JobKey, OpenedResult, ProfileChoice, RuntimeConfig,
    RuntimeEvent, SessionKey,
};
use arcp_proto::message::PeerInfo;
use arcp_proto::{Error, ErrorCode};
use serde_json::{Map, Value, json};

use crate::Result;
use crate::clock::{Clock, Seeded, millis};
use crate::store::Store;
use crate::witness::Witness;

/// The far end of one connection.
pub(crate) struct Peer {
    pub(crate) key: ConnKey,
    /// Frames that arrived and were not looked at, as values and as text.
    pub(crate) inbox: VecDeque<(Value, String)>,
    pub(crate) session: Option<String>,
    /// The machine asked for the transport's end.
    pub(crate) closing: bool,
    /// The transport is gone.
    gone: bool,
    /// The transport takes nothing: a peer that does not read.
    stalled: bool,
    sent: u64,
}

/// A question for history.
pub(crate) struct Question {
    ticket: u64,
    job_id: Arc<str>,
    after: u64,
    kept: Vec<Arc<Record>>,
}

pub(crate) struct World {
    pub(crate) machine: RuntimeMachine,
    given: Value,
    /// Processes before this one.
    lives: u64,
    pub(crate) clock: Clock,
    pub(crate) peers: BTreeMap<String, Peer>,
    /// What the machine asked of its host and the case has not looked at.
    pub(crate) asked: VecDeque<RuntimeEvent>,
    pub(crate) store: Store,
    pub(crate) witness: Witness,
    policy: Arc<Mutex<Value>>,
    /// Every job that was started.
    started: BTreeMap<Arc<str>, JobKey>,
    ended: BTreeSet<JobKey>,
    /// Results that agents write.
    results: BTreeMap<JobKey, OpenedResult>,
    tokens: BTreeMap<String, String>,
    verifier_waits: bool,
    history_waits: bool,
    /// Whether a policy that is asked is answered by hand.
    pub(crate) policy_waits: bool,
    pub(crate) unverified: VecDeque<ConnKey>,
    /// Questions for history, and what was kept when they were asked.
    pub(crate) unanswered: VecDeque<Question>,
}

/// A policy written down as `{"bob": {"sees": ["alice"], "knows": [], "cancels": [], "not": ["agent"]}}`: whose jobs bob
/// may observe, know of and cancel besides his own, and which agents' jobs he may not see at all.
struct Table(Arc<Mutex<Value>>);

impl Table {
    fn says(&self, principal: &str, what: &str, about: &str) -> bool {
        let table = self.0.lock().unwrap();
        table[principal][what].as_array().is_some_and(|list| list.iter().any(|name| name == about))
    }
}

impl Policy for Table {
    fn may_observe(&self, principal: &str, job: &JobFacts<'_>) -> Decision {
        if self.says(principal, "not", job.agent) {
            Decision::Hidden
        } else if principal == job.principal || self.says(principal, "sees", job.principal) {
            Decision::Allowed
        } else if self.says(principal, "knows", job.principal) {
            Decision::Known
        } else {
            Decision::Hidden
        }
    }

    fn may_cancel(&self, principal: &str, job: &JobFacts<'_>) -> bool {
        self.says(principal, "cancels", job.principal)
    }
}

/// How a runtime is set up: `config`, `agents`, `tokens`, and which answers the case gives by hand.
pub(crate) fn config(settings: &Map<String, Value>) -> Result<RuntimeConfig> {
    let mut config = RuntimeConfig::new(PeerInfo { name: "corpus-runtime".into(), version: "1.1.0".into() });
    config.profile = ProfileChoice::Draft;
    for (name, value) in settings {
        let count = || value.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| format!("{name} is a count"));
        match name.as_str() {
            "features" => config.features = texts(value),
            "heartbeat_ms" => config.heartbeat_interval = millis(value).ok(),
            "handshake_ms" => config.handshake_timeout = millis(value)?,
            "resume_window_ms" => config.resume_window = millis(value)?,
            "retention_ms" => config.retention = millis(value)?,
            "idempotency_ms" => config.idempotency_ttl = millis(value)?,
            "cancel_grace_ms" => config.cancel_grace = millis(value)?,
            "lease_grace_ms" => config.lease_grace = millis(value)?,
            "max_runtime_cap_ms" => config.max_runtime_cap = millis(value)?,
            "max_concurrent_jobs" => config.max_concurrent_jobs = count()?,
            "max_waiting_jobs" => config.max_waiting_jobs = count()?,
            "max_ended_jobs" => config.max_ended_jobs = count()?,
            "max_delegation_depth" => config.max_delegation_depth = count()?,
            "max_live_children" => config.max_live_children = count()?,
            "max_delegated_jobs" => config.max_delegated_jobs = count()?,
            "max_sessions_per_principal" => config.max_sessions_per_principal = count()?,
            "store_high_water" => config.store_high_water = count()?,
            "outgoing_high_water" => config.outgoing_high_water = count()?,
            "buffer_cap_events" => config.buffer_cap = BufferCap { events: count()?, ..config.buffer_cap },
            "buffer_cap_bytes" => config.buffer_cap = BufferCap { bytes: count()?, ..config.buffer_cap },
            "max_messages_per_second" => config.max_messages_per_second = count()?.try_into().unwrap_or(u32::MAX),
            "backpressure_threshold" => config.backpressure_threshold = count()? as u64,
            "cursor_key" => config.cursor_key = Some([u8::try_from(count()?).map_err(|e| e.to_string())?; 32]),
            "idle_windows" => config.idle_windows = count()?.try_into().unwrap_or(u32::MAX),
            "max_message_bytes" => config.limits.max_bytes = count()?,
            "result_chunk_cap" => config.results.chunk = count()?,
            "result_cap" => config.results.total = count()? as u64,
            "inline_result_cap" => config.results.inline = count()?,
            "result_cut" => config.results.cut = count()?,
            "durable" => config.durable = value == true,
            "provisions" => config.provisions = value == true,
            "provision_ms" => config.provision_timeout = millis(value)?,
            "forbid_unnamed_models" => config.forbid_unnamed_models = value == true,
            "cancel_policy" if value == "principal" => config.cancel_policy = CancelPolicy::Principal,
            "profile" if value == "auto" => config.profile = ProfileChoice::Auto,
            "profile" if value == "py-1.1" => config.profile = ProfileChoice::Py11,
            _ => return Err(format!("config has no {name} of {value}")),
        }
    }
    if config.provisions {
        config.features.push(Feature::ProvisionedCredentials.as_str().into());
    }
    Ok(config)
}

fn agents(given: &Value) -> Vec<String> {
    if given["agents"].is_null() { vec!["echo".to_owned()] } else { texts(&given["agents"]) }
}

pub(crate) fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Peer {
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }
}

impl World {
    pub(crate) fn new(given: &Value) -> Result<Self> {
        let none = Map::new();
        let config = config(given["config"].as_object().unwrap_or(&none))?;
        let mut machine = RuntimeMachine::new(config, Box::new(Seeded(0)));
        machine.set_audited(true);
        for agent in agents(given) {
            register(&mut machine, &agent).map_err(|error| error.message)?;
        }
        let policy = Arc::new(Mutex::new(given["policy"].clone()));
        if !given["policy"].is_null() {
            if given["policy_is_asked"] == true {
                machine.set_asked_policy();
            } else {
                machine.set_policy(Box::new(Table(Arc::clone(&policy))));
            }
        }
        let tokens = given["tokens"].as_object().unwrap_or(&none);
        let mut tokens: BTreeMap<String, String> =
            tokens.iter().map(|(token, name)| (token.clone(), name.as_str().unwrap_or_default().to_owned())).collect();
        tokens.entry("tok-alice".into()).or_insert_with(|| "alice".into());
        tokens.entry("tok-bob".into()).or_insert_with(|| "bob".into());
        let mut witness = Witness::default();
        tokens.keys().for_each(|token| witness.keep_secret(token));
        Ok(World {
            machine,
            given: given.clone(),
            lives: 0,
            clock: Clock::new(),
            peers: BTreeMap::new(),
            asked: VecDeque::new(),
            store: Store::with_history_cap(given["history_cap"].as_u64()),
            witness,
            policy,
            started: BTreeMap::new(),
            ended: BTreeSet::new(),
            results: BTreeMap::new(),
            tokens,
            verifier_waits: given["verifier"] == "waits",
            history_waits: given["history"] == "waits",
            policy_waits: false,
            unverified: VecDeque::new(),
            unanswered: VecDeque::new(),
        })
    }

    /// The process dies and another one opens what was stored; jobs of these agents are run again.
    pub(crate) fn restart(&mut self, restartable: &[String]) -> Result<()> {
        let given = self.given.clone();
        let none = Map::new();
        let config = config(given["config"].as_object().unwrap_or(&none))?;
        self.lives += 1;
        self.machine = RuntimeMachine::new(config, Box::new(Seeded(self.lives)));
        self.machine.set_audited(true);
        for agent in agents(&given) {
            register(&mut self.machine, &agent).map_err(|error| error.message)?;
        }
        for peer in self.peers.values_mut() {
            // The next process counts its connections anew.
            peer.key = ConnKey(u64::MAX);
            peer.gone = true;
        }
        self.asked.clear();
        self.started.clear();
        self.ended.clear();
        let kept = self.store.reopen();
        self.machine.restore(self.clock.0, kept).map_err(|error| error.message)?;
        if !given["policy"].is_null() {
            if given["policy_is_asked"] == true {
                self.machine.set_asked_policy();
            } else {
                self.machine.set_policy(Box::new(Table(Arc::clone(&self.policy))));
            }
        }
        self.machine.recover(self.clock.0, |start| restartable.contains(&start.agent_ref()));
        self.settle()
    }

    /// The next process has a provisioner, or has none.
    pub(crate) fn set_provisions(&mut self, provisions: bool) {
        self.given["config"]["provisions"] = provisions.into();
    }

    /// Later connections are in clear.
    pub(crate) fn set_clear(&mut self) {
        self.given["transport"] = "clear".into();
    }

    // ---- connections -------------------------------------------------------------------------------------------

    pub(crate) fn connect(&mut self, name: &str) -> Result<()> {
        let key = self.machine.connected(self.clock.0);
        if self.given["transport"] != "clear" {
            self.machine.mark_secure(key);
        }
        let peer =
            Peer { key, inbox: VecDeque::new(), session: None, closing: false, gone: false, stalled: false, sent: 0 };
        match self.peers.insert(name.to_owned(), peer) {
            Some(old) if !old.gone => Err(format!("connection {name} is in use")),
            _ => Ok(()),
        }
    }

    pub(crate) fn peer(&mut self, name: &str) -> Result<&mut Peer> {
        self.peers.get_mut(name).ok_or_else(|| format!("there is no connection {name:?}"))
    }

    /// Sends an envelope, with the members every envelope has; returns its id.
    pub(crate) fn send(&mut self, name: &str, message: &Value) -> Result<String> {
        let peer = self.peer(name)?;
        peer.sent += 1;
        let mut members = message.as_object().cloned().ok_or("a message is an object")?;
        members.entry("arcp").or_insert_with(|| "1.1".into());
        members.entry("payload").or_insert_with(|| json!({}));
        let id = members.entry("id").or_insert_with(|| format!("{name}-{}", peer.sent).into()).to_string();
        if let Some(session) = &peer.session {
            members.entry("session_id").or_insert_with(|| session.as_str().into());
        }
        self.send_bytes(name, Value::Object(members).to_string().as_bytes())?;
        Ok(id.trim_matches('"').to_owned())
    }

    pub(crate) fn send_bytes(&mut self, name: &str, frame: &[u8]) -> Result<()> {
        let key = self.peer(name)?.key;
        self.machine.handle_frame(self.clock.0, key, frame);
        self.settle()
    }

    /// The host changes its mind about who may see what, and tells the machine, unless it is about to end.
    pub(crate) fn change_policy(&mut self, policy: &Value, told: bool) -> Result<()> {
        *self.policy.lock().unwrap() = policy.clone();
        if told {
            self.machine.policy_changed();
        }
        self.settle()
    }

    pub(crate) fn oversize(&mut self, name: &str) -> Result<()> {
        let key = self.peer(name)?.key;
        self.machine.handle_oversize(self.clock.0, key);
        self.settle()
    }

    /// Connects, says hello and takes the welcome, which is returned.
    pub(crate) fn open(&mut self, name: &str, token: &str, features: Option<&Value>) -> Result<Value> {
        self.connect(name)?;
        let all: Vec<&str> = Feature::ALL.into_iter().map(Feature::as_str).collect();
        let features = features.cloned().unwrap_or_else(|| json!(all));
        let payload = json!({
            "client": {"name": "corpus", "version": "1.0"},
            "auth": {"scheme": "bearer", "token": token},
            "capabilities": {"encodings": ["json"], "features": features},
        });
        self.send(name, &json!({"type": "session.hello", "payload": payload}))?;
        self.store_all()?;
        let (welcome, text) = self.take(name)?;
        if welcome["type"] != "session.welcome" {
            return Err(format!("{name} was not welcomed: {text}"));
        }
        Ok(welcome)
    }

    /// The transport breaks.
    pub(crate) fn drop_peer(&mut self, name: &str) -> Result<()> {
        let peer = self.peer(name)?;
        peer.gone = true;
        let key = peer.key;
        self.machine.disconnected(self.clock.0, key);
        self.settle()
    }

    pub(crate) fn set_stalled(&mut self, name: &str, stalled: bool) -> Result<()> {
        self.peer(name)?.stalled = stalled;
        self.settle()
    }

    /// The next frame that arrived.
    pub(crate) fn take(&mut self, name: &str) -> Result<(Value, String)> {
        self.peer(name)?.inbox.pop_front().ok_or_else(|| format!("nothing arrived at {name}"))
    }

    // ---- what the machine asks ---------------------------------------------------------------------------------

    /// Does what the machine asks of its host until it asks for nothing more.
    pub(crate) fn settle(&mut self) -> Result<()> {
        loop {
            while let Some((ticket, op)) = self.machine.poll_store() {
                self.store.take(ticket, op)?;
            }
            if !self.machine.config().durable {
                self.store.waiting.clear();
            }
            self.transmit()?;
            let Some(event) = self.machine.poll_event() else { return Ok(()) };
            match event {
                RuntimeEvent::Writable(_) => {}
                RuntimeEvent::Verify { conn, token } if !self.verifier_waits => {
                    let unknown = || Error::new(ErrorCode::Unauthenticated, "the token is not accepted");
                    let verdict = self.tokens.get(&token.0).cloned().ok_or_else(unknown);
                    self.machine.handle_verified(self.clock.0, conn, verdict.map(Into::into));
                }
                RuntimeEvent::Verify { conn, .. } => self.unverified.push_back(conn),
                RuntimeEvent::Judge { ticket, question } if !self.policy_waits => {
                    let verdicts = self.judge(&question);
                    self.machine.handle_verdicts(self.clock.0, ticket, Ok(verdicts));
                }
                RuntimeEvent::ReadHistory { ticket, job_id, after_source_seq } => {
                    let kept = self.store.history(&job_id, after_source_seq);
                    self.unanswered.push_back(Question { ticket, job_id, after: after_source_seq, kept });
                    if !self.history_waits {
                        self.answer_history(false)?;
                    }
                }
                RuntimeEvent::Close(conn) => {
                    let peer = self.peers.values_mut().find(|peer| peer.key == conn).ok_or("Close of nothing")?;
                    if std::mem::replace(&mut peer.closing, true) {
                        return Err("a connection is closed twice".into());
                    }
                }
                RuntimeEvent::Ended(job) if !self.ended.insert(job) => return Err(format!("{job:?} ended twice")),
                RuntimeEvent::Start { job, ref start } => {
                    if self.started.insert(Arc::clone(&start.job_id), job).is_some() {
                        return Err(format!("{} was started twice", start.job_id));
                    }
                    self.asked.push_back(event);
                }
                event => self.asked.push_back(event),
            }
        }
    }

    /// What the table says to a policy's question.
    pub(crate) fn judge(&self, question: &PolicyQuestion) -> Vec<Decision> {
        let table = Table(Arc::clone(&self.policy));
        let decide = |job: &ObservedJob| {
            let facts = JobFacts {
                job_id: &job.job_id,
                principal: &job.principal,
                session_id: &job.session_id,
                agent: &job.agent,
                version: job.version.as_deref(),
                created_at: job.created_at,
            };
            table.may_observe(&question.principal, &facts)
        };
        question.jobs.iter().map(decide).collect()
    }

    /// Answers the oldest question with what was kept when it was asked, or `late`: with what is kept by now.
    pub(crate) fn answer_history(&mut self, late: bool) -> Result<()> {
        let Question { ticket, job_id, after, kept } = self.unanswered.pop_front().ok_or("nobody asked for history")?;
        let records = if late { self.store.history(&job_id, after) } else { kept };
        self.machine.handle_history(self.clock.0, ticket, &records);
        Ok(())
    }

    /// Every frame is read from its real bytes.
    fn transmit(&mut self) -> Result<()> {
        let mut frames: Vec<Frame> = Vec::new();
        for peer in self.peers.values_mut().filter(|peer| !peer.stalled && !peer.gone) {
            self.machine.poll_transmit(self.clock.0, peer.key, usize::MAX, &mut frames);
            for frame in frames.drain(..) {
                let mut bytes = Vec::new();
                frame.write(&mut bytes);
                let text = String::from_utf8(bytes).map_err(|_| "a frame is not UTF-8")?;
                let value: Value = serde_json::from_str(&text).map_err(|e| format!("{e} in {text}"))?;
                self.witness.saw(&value, &text)?;
                if value["type"] == "session.welcome" {
                    peer.session = value["session_id"].as_str().map(str::to_owned);
                    let token = value["payload"]["resume_token"].as_str().unwrap_or_default();
                    self.witness.keep_secret(token);
                }
                peer.inbox.push_back((value, text));
            }
        }
        Ok(())
    }

    /// Takes the first thing asked for which `pick` has an answer.
    pub(crate) fn asked<T>(&mut self, pick: impl Fn(&RuntimeEvent) -> Option<T>) -> Option<T> {
        let place = self.asked.iter().position(|event| pick(event).is_some())?;
        pick(&self.asked.remove(place)?)
    }

    /// The start of this job, if the machine has asked for it.
    pub(crate) fn start_of(&mut self, job_id: &str) -> Option<Arc<JobStart>> {
        self.asked(|event| match event {
            RuntimeEvent::Start { start, .. } if *start.job_id == *job_id => Some(Arc::clone(start)),
            _ => None,
        })
    }

    pub(crate) fn drained(&mut self, session: SessionKey) -> bool {
        self.asked(|event| matches!(event, RuntimeEvent::Drained(key) if *key == session).then_some(())).is_some()
    }

    /// A job whose agent runs: the youngest, since a job waits for its children.
    pub(crate) fn alive(&self) -> Option<JobKey> {
        self.started.values().copied().filter(|job| !self.ended.contains(job)).max()
    }

    pub(crate) fn has_ended(&self, job: JobKey) -> bool {
        self.ended.contains(&job)
    }

    // ---- time and agents ---------------------------------------------------------------------------------------

    /// Lets time pass, stopping at every deadline on the way.
    pub(crate) fn pass(&mut self, time: std::time::Duration) -> Result<()> {
        let until = self.clock.0.mono + time;
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= until) {
            self.clock.pass_to(at);
            self.machine.handle_timeout(self.clock.0);
            self.settle()?;
        }
        self.clock.pass_to(until);
        Ok(())
    }

    pub(crate) fn job(&self, job_id: &str) -> Result<JobKey> {
        self.started.get(job_id).copied().ok_or_else(|| format!("{job_id} was not started"))
    }

    /// As an agent's emitter does: the body is checked, then handed to the machine.
    pub(crate) fn emit(&mut self, job: JobKey, kind: &str, body: &RawJson) -> Result<Result<(), Error>> {
        let outcome = event::check_emitted(kind, body)
            .and_then(|()| self.machine.emit(self.clock.0, job, &EventKind::parse(kind), body));
        self.settle()?;
        Ok(outcome)
    }

    /// As an agent's own call does.
    pub(crate) fn delegate(&mut self, job: JobKey, delegation: &Delegation) -> Result<Result<Delegated, Error>> {
        let outcome = self.machine.delegate(self.clock.0, job, delegation);
        self.settle()?;
        Ok(outcome)
    }

    pub(crate) fn authorize(&mut self, job: JobKey, namespace: &str, target: &str) -> Result<Result<(), Error>> {
        let outcome = self.machine.authorize(self.clock.0, job, namespace, target);
        self.settle()?;
        Ok(outcome)
    }

    /// Opens a job's result; returns its id.
    pub(crate) fn open_result(&mut self, job: JobKey, options: ResultOptions) -> Result<Result<String, Error>> {
        let opened = self.machine.open_result(self.clock.0, job, options);
        self.settle()?;
        Ok(opened.map(|opened| {
            let result_id = opened.cutter.result_id().to_owned();
            self.results.insert(job, opened);
            result_id
        }))
    }

    /// As a writer does: cuts text, or bytes, and hands part after part to the machine.
    pub(crate) fn write_result(&mut self, job: JobKey, data: Result<&str, &[u8]>) -> Result<Result<(), Error>> {
        let now = self.clock.0;
        let OpenedResult { cutter, inline } = self.results.get_mut(&job).ok_or("no result is open")?;
        let (mut text, mut bytes) = (data.unwrap_or_default(), data.err().unwrap_or_default());
        let mut outcome = Ok(());
        if *inline {
            outcome = self.machine.collect_result(job, [text.as_bytes(), bytes].concat().as_slice());
        } else {
            while outcome.is_ok() && !(text.is_empty() && bytes.is_empty()) {
                let part;
                if text.is_empty() {
                    (part, bytes) = cutter.next_bytes(now.wall, bytes);
                } else {
                    (part, text) = cutter.next_text(now.wall, text);
                }
                outcome = self.machine.write_result(now, job, part);
            }
        }
        self.settle()?;
        Ok(outcome)
    }

    pub(crate) fn flush_result(&mut self, job: JobKey) -> Result<()> {
        self.machine.flush_result(self.clock.0, job);
        self.settle()
    }

    pub(crate) fn close_result(&mut self, job: JobKey, summary: Option<&str>) -> Result<Result<(), Error>> {
        let outcome = self.machine.close_result(self.clock.0, job, summary);
        self.settle()?;
        Ok(outcome)
    }

    pub(crate) fn finish(&mut self, job: JobKey, outcome: Outcome) -> Result<()> {
        self.machine.finish(self.clock.0, job, outcome);
        self.settle()
    }

    pub(crate) fn stored(&mut self, upto: u64, outcome: Result<(), String>) -> Result<()> {
        if outcome.is_ok() {
            self.store.write(upto);
        }
        self.machine.handle_stored(self.clock.0, upto, outcome);
        self.settle()
    }

    /// Everything that waits for the store is kept.
    pub(crate) fn store_all(&mut self) -> Result<()> {
        while let Some(last) = self.store.last_waiting() {
            self.stored(last, Ok(()))?;
        }
        Ok(())
    }

    // ---- the end -----------------------------------------------------------------------------------------------

    /// Nothing may be left unread; then everybody leaves, every agent ends, every window passes, and nothing may
    /// remain of it.
    pub(crate) fn wind_down(mut self) -> Result<()> {
        for (name, peer) in &self.peers {
            if let Some((_, text)) = peer.inbox.front() {
                return Err(format!("nobody expected this at {name}: {text}"));
            }
        }
        if let Some(event) =
            self.asked.iter().find(|event| matches!(event, RuntimeEvent::Start { .. } | RuntimeEvent::Cancel { .. }))
        {
            return Err(format!("nobody expected {event:?}"));
        }
        self.leave_nothing()
    }

    pub(crate) fn leave_nothing(&mut self) -> Result<()> {
        let names: Vec<String> = self.peers.keys().cloned().collect();
        for name in &names {
            self.drop_peer(name)?;
        }
        self.history_waits = false;
        // Ending one job may start a waiting one.
        while let Some(job) = self.alive() {
            self.finish(job, Outcome::Cancelled)?;
            if self.alive().is_none() {
                self.store_all()?;
            }
        }
        self.store_all()?;
        while !self.unanswered.is_empty() {
            self.answer_history(false)?;
            self.settle()?;
        }
        for _ in 0..10_000 {
            let Some(at) = self.machine.poll_timeout() else { break };
            self.clock.pass_to(at);
            self.machine.handle_timeout(self.clock.0);
            self.settle()?;
            self.store_all()?;
        }
        if let Some(at) = self.machine.poll_timeout() {
            return Err(format!("a timer is left at {at:?} with nobody there"));
        }
        if self.machine.live_jobs() != 0 {
            return Err(format!("{} jobs are left alive", self.machine.live_jobs()));
        }
        match self.started.iter().find(|(job_id, job)| {
            self.machine.job(**job).is_some() || !self.store.has_forgotten(job_id) || self.store.kept(job_id) != 0
        }) {
            Some((job_id, _)) => Err(format!("{job_id} is still kept after its retention")),
            None => Ok(()),
        }
    }
}

pub(crate) fn register(machine: &mut RuntimeMachine, agent: &str) -> Result<(), Error> {
    match agent.split_once('@') {
        Some((name, version)) => machine.register_agent(name, Some(version)),
        None => machine.register_agent(agent, None),
    }
}
