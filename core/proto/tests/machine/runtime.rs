//! Runtime cases: peers write frames, agents act, time passes; what the machine answers and asks is held against the
//! case. In a case `send` and `receive` are the peer's.

use arcp_proto::json::RawJson;
use arcp_proto::machine::job::{Ending, Outcome};
use arcp_proto::machine::result_stream::ResultOptions;
use arcp_proto::machine::runtime::{Delegation, JobKey, RuntimeEvent};
use arcp_proto::message::LeaseConstraints;
use arcp_proto::{Error, ErrorCode};
use serde_json::{Value, json};

use crate::Result;
use crate::clock::{Clock, millis};
use crate::matcher::{Scope, matches, resolve};
use crate::step::{Step, each};
use crate::world::{World, register, texts};

/// Verbs and what may stand beside them.
const VERBS: &[(&str, &[&str])] = &[
    // Peers.
    ("connect", &[]),
    ("open", &["token", "features", "as"]),
    ("send", &["on", "times"]),
    ("send_text", &["on", "times"]),
    ("send_oversize", &[]),
    ("receive", &["on", "times", "has", "lacks"]),
    ("receive_nothing", &[]),
    ("closed", &[]),
    ("drop", &[]),
    ("stall", &[]),
    ("read", &[]),
    // The rest of the host.
    ("verified", &[]),
    ("advance_ms", &[]),
    ("step_wall_ms", &[]),
    ("next_timeout_ms", &[]),
    ("history", &[]),
    ("store", &[]),
    ("kept", &["records"]),
    ("restart", &[]),
    ("policy", &["told"]),
    // The oldest entry of its action that was not looked at.
    ("audited", &["lacks"]),
    ("audited_nothing", &[]),
    ("shutdown", &[]),
    ("goodbye", &[]),
    ("register", &["refused", "says"]),
    ("default_version", &["of", "refused", "says"]),
    ("live_jobs", &[]),
    // Agents.
    ("submit", &["as", "on", "trace_id", "waits"]),
    ("started", &["with"]),
    ("emit", &["by", "body", "body_text", "times", "refused", "says"]),
    ("delegate", &["by", "as", "detached", "times", "refused", "says"]),
    ("child_ended", &["of", "delegate_id", "result", "error"]),
    ("cancel_child", &["reason"]),
    ("budget", &["is"]),
    ("authorize", &["by", "target", "refused", "says"]),
    ("finish", &["result", "result_text", "error"]),
    // Written through a writer: text, or `bytes`, a list of numbers.
    ("open_result", &["as", "own", "chunk_bytes", "refused", "says"]),
    ("write_result", &["text", "bytes", "times", "refused", "says"]),
    ("flush_result", &[]),
    ("close_result", &["summary", "refused", "says"]),
    ("told_to_end", &["why"]),
    ("ended", &[]),
    ("must_wait", &["is"]),
    ("drained", &[]),
    ("progress", &["issued", "acked"]),
];

/// Plays one case.
pub(crate) fn play(case: &Value) -> Result<()> {
    let mut game = Game { world: World::new(&case["given"])?, scope: Scope::new() };
    each(case, |step| game.step(step))?;
    game.world.wind_down()
}

struct Game {
    world: World,
    scope: Scope,
}

impl Game {
    fn step(&mut self, step: &Value) -> Result<()> {
        let step = Step::read(step, VERBS)?;
        let on = step.text("on").unwrap_or("A");
        match step.verb {
            "restart" => self.world.restart(&texts(step.object)),
            "connect" => self.world.connect(step.name()?),
            "open" => self.open(&step),
            "send" => {
                let message = resolve(step.object, &self.scope)?;
                (0..times(&step)).try_for_each(|_| self.world.send(on, &message).map(|_| ()))
            }
            "send_text" => {
                let text = step.name()?;
                (0..times(&step)).try_for_each(|_| self.world.send_bytes(on, text.as_bytes()))
            }
            "send_oversize" => self.world.oversize(step.name()?),
            "receive" => (0..times(&step)).try_for_each(|_| self.receive(&step, on)),
            "receive_nothing" => {
                let names = step.object.as_array().cloned().unwrap_or_else(|| vec![step.object.clone()]);
                names.iter().try_for_each(|name| {
                    match self.world.peer(name.as_str().unwrap_or_default())?.inbox.front() {
                        Some((_, text)) => Err(format!("{name} received {text}")),
                        None => Ok(()),
                    }
                })
            }
            "closed" => {
                let peer = self.world.peer(step.name()?)?;
                match (peer.closing, peer.inbox.front()) {
                    (true, None) => Ok(()),
                    (true, Some((_, text))) => Err(format!("before the end came {text}")),
                    (false, _) => Err("the connection stays open".into()),
                }
            }
            "drop" => self.world.drop_peer(step.name()?),
            "stall" => self.world.set_stalled(step.name()?, true),
            "read" => self.world.set_stalled(step.name()?, false),
            "verified" => self.verified(step.object),
            "advance_ms" => self.world.pass(millis(step.object)?),
            "step_wall_ms" => self.world.clock.step_wall(step.object),
            "next_timeout_ms" => Clock::check_deadline(step.object, self.world.machine.poll_timeout()),
            "history" => {
                self.world.answer_history(step.object == "late")?;
                self.world.settle()
            }
            "store" => self.store(step.object),
            "kept" => {
                let job_id = self.job_id(step.name()?)?;
                expect(step.get("records"), &json!(self.world.store.kept(&job_id)))
            }
            "policy" => self.world.change_policy(step.object, step.get("told").is_none_or(|told| *told == true)),
            "audited" => self.audited(&step),
            "audited_nothing" => match self.entry_of(step.name()?) {
                Some(entry) => Err(format!("the audit log has {entry}")),
                None => Ok(()),
            },
            "shutdown" => {
                self.world.machine.shutdown(self.world.clock.0, step.name()?);
                self.world.settle()
            }
            "goodbye" => {
                self.world.machine.close_connections(self.world.clock.0, step.name()?);
                self.world.settle()
            }
            "register" => step.check_refusal(register(&mut self.world.machine, step.name()?)),
            "default_version" => {
                step.check_refusal(self.world.machine.set_default_agent_version(step.need("of")?, step.name()?))
            }
            "live_jobs" => expect(Some(step.object), &json!(self.world.machine.live_jobs())),
            _ => self.agent_step(&step, on),
        }
    }

    fn agent_step(&mut self, step: &Step<'_>, on: &str) -> Result<()> {
        match step.verb {
            "submit" => return self.submit(step, on),
            "drained" => {
                let key = self.world.peer(step.name()?)?.key;
                let (session, _) = self.world.machine.session_of(key).ok_or("no session")?;
                return if self.world.drained(session) { Ok(()) } else { Err("nobody was told".into()) };
            }
            "started" => {
                let job_id = self.job_id(step.name()?)?;
                let start = self.world.start_of(&job_id).ok_or("the agent was not started")?;
                let told = json!({
                    "agent": start.agent, "version": start.version, "principal": &*start.principal,
                    "session_id": &*start.session_id, "trace_id": &*start.trace_id, "input": start.input,
                    "input_text": start.input.get(), "max_runtime_sec": start.max_runtime_sec,
                    "lease_constraints": start.lease_constraints, "lease": *start.lease,
                    "parent_job_id": start.parent_job_id.as_deref(),
                });
                return step.get("with").map_or(Ok(()), |with| matches(with, &told, &mut self.scope));
            }
            _ => {}
        }
        let by = ["emit", "authorize", "delegate"].contains(&step.verb);
        let name = if by { step.need("by")? } else { step.name()? };
        let job_id = self.job_id(name)?;
        let job = self.world.job(&job_id)?;
        match step.verb {
            "emit" => {
                let body = match step.text("body_text") {
                    Some(text) => text.to_owned(),
                    None => step.get("body").map_or_else(|| "{}".to_owned(), Value::to_string),
                };
                let body = RawJson::parse(&body).map_err(|error| error.message)?;
                for _ in 0..times(step) {
                    step.check_refusal(self.world.emit(job, step.name()?, &body)?)?;
                }
                Ok(())
            }
            "delegate" => self.delegate(step, job),
            "child_ended" => self.child_ended(step, job),
            "cancel_child" => {
                self.world.machine.cancel_child(self.world.clock.0, job, step.need("reason")?);
                self.world.settle()
            }
            "budget" => {
                let left = self.world.machine.budget_json(job).ok_or("the job has no budget")?;
                let left: Value = serde_json::from_str(left.get()).map_err(|error| error.to_string())?;
                expect(step.get("is"), &left)
            }
            "authorize" => step.check_refusal(self.world.authorize(job, step.name()?, step.need("target")?)?),
            "finish" => {
                let outcome = match (step.get("result"), step.text("result_text"), step.get("error")) {
                    (Some(result), None, None) => Outcome::Success(json_of(&result.to_string())?),
                    (None, Some(text), None) => Outcome::Success(json_of(text)?),
                    (None, None, Some(error)) => Outcome::Failed(error_of(error)?),
                    _ => Outcome::Cancelled,
                };
                self.world.finish(job, outcome)
            }
            "open_result" => {
                let options = ResultOptions {
                    result_id: step.text("own").map(str::to_owned),
                    chunk_bytes: step.get("chunk_bytes").and_then(Value::as_u64).and_then(|n| n.try_into().ok()),
                };
                let opened = self.world.open_result(job, options)?;
                if let Ok(result_id) = &opened {
                    self.scope.insert(step.text("as").unwrap_or("result").to_owned(), json!(result_id));
                }
                step.check_refusal(opened.map(drop))
            }
            "write_result" => {
                let bytes: Vec<u8> =
                    step.get("bytes").and_then(Value::as_array).into_iter().flatten().map(byte).collect();
                let data = step.text("text").ok_or(&*bytes);
                for _ in 0..times(step) {
                    step.check_refusal(self.world.write_result(job, data)?)?;
                }
                Ok(())
            }
            "flush_result" => self.world.flush_result(job),
            "close_result" => step.check_refusal(self.world.close_result(job, step.text("summary"))?),
            "told_to_end" => {
                let ending = self.world.asked(|event| match event {
                    RuntimeEvent::Cancel { job: told, ending } if *told == job => Some(ending.clone()),
                    _ => None,
                });
                let why = match ending.ok_or("the agent was told nothing")? {
                    Ending::Cancelled { reason } => reason,
                    Ending::TimedOut => "timed out".into(),
                    Ending::LeaseExpired => "lease expired".into(),
                };
                expect(step.get("why"), &json!(why))
            }
            "ended" if self.world.has_ended(job) => Ok(()),
            "ended" => Err("the host was not told".into()),
            "must_wait" => expect(step.get("is"), &json!(self.world.machine.must_wait(job))),
            "progress" => {
                let (issued, acked) = self.world.machine.session_progress(job).ok_or("the session is gone")?;
                expect(step.get("issued"), &json!(issued))?;
                expect(step.get("acked"), &json!(acked))
            }
            other => Err(format!("{other} is not played")),
        }
    }

    /// Delegates as an agent's own call does, and names the child.
    fn delegate(&mut self, step: &Step<'_>, job: JobKey) -> Result<()> {
        let asked = step.object;
        let part = |name: &str| asked.get(name).map(|value| json_of(&value.to_string())).transpose();
        let expires_at = asked["lease_constraints"]["expires_at"].as_str().map(str::to_owned);
        let delegation = Delegation {
            agent: asked["agent"].as_str().unwrap_or_default().to_owned(),
            input: part("input")?.unwrap_or_else(RawJson::null),
            lease_request: part("lease_request")?.unwrap_or_else(RawJson::empty_object),
            lease_constraints: asked.get("lease_constraints").map(|_| LeaseConstraints { expires_at }),
            delegate_id: asked["delegate_id"].as_str().map(str::to_owned),
            detached: step.get("detached") == Some(&Value::Bool(true)),
        };
        for _ in 0..times(step) {
            let outcome = self.world.delegate(job, &delegation)?;
            if let (Ok(delegated), Some(name)) = (&outcome, step.text("as")) {
                self.scope.insert(name.to_owned(), delegated.accepted.job_id.clone().into());
            }
            step.check_refusal(outcome.map(drop))?;
        }
        Ok(())
    }

    /// The delegating agent was told of this child's end.
    fn child_ended(&mut self, step: &Step<'_>, child: JobKey) -> Result<()> {
        let parent = self.job_id(step.need("of")?)?;
        let parent = self.world.job(&parent)?;
        let told = self.world.asked(|event| match event {
            RuntimeEvent::ChildEnded { parent: told, child: ended, delegate_id, outcome }
                if (*told, *ended) == (parent, child) =>
            {
                Some((delegate_id.clone(), outcome.clone()))
            }
            _ => None,
        });
        let (delegate_id, outcome) = told.ok_or("nobody was told of this end")?;
        expect(step.get("delegate_id"), &json!(delegate_id))?;
        match outcome {
            Ok(result) if step.get("error").is_none() => expect(step.get("result"), &json!(result)),
            Err(error) if step.get("result").is_none() => expect(step.get("error"), &json!(error.code.as_str())),
            other => Err(format!("the child ended with {other:?}")),
        }
    }

    fn entry_of(&mut self, action: &str) -> Option<String> {
        self.world.asked(|event| match event {
            RuntimeEvent::Audit(entry) if entry.action().as_str() == action => Some(entry.to_json()),
            _ => None,
        })
    }

    fn audited(&mut self, step: &Step<'_>) -> Result<()> {
        let action = step.object["action"].as_str().unwrap_or_default();
        let text = self.entry_of(action).ok_or_else(|| format!("no {action} is in the audit log"))?;
        let entry: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        matches(step.object, &entry, &mut self.scope).map_err(|error| format!("{error} in {text}"))?;
        match step.text("lacks") {
            Some(part) if text.contains(part) => Err(format!("{part} is in {text}")),
            _ => Ok(()),
        }
    }

    fn open(&mut self, step: &Step<'_>) -> Result<()> {
        let name = step.name()?;
        let welcome = self.world.open(name, step.text("token").unwrap_or("tok-alice"), step.get("features"))?;
        self.scope.insert(step.text("as").unwrap_or(name).to_owned(), welcome["session_id"].clone());
        Ok(())
    }

    fn receive(&mut self, step: &Step<'_>, on: &str) -> Result<()> {
        let (frame, text) = self.world.take(on)?;
        matches(step.object, &frame, &mut self.scope).map_err(|error| format!("{error} in {text}"))?;
        match (step.text("has"), step.text("lacks")) {
            (Some(part), _) if !text.contains(part) => Err(format!("{part} is not in {text}")),
            (_, Some(part)) if text.contains(part) => Err(format!("{part} is in {text}")),
            _ => Ok(()),
        }
    }

    fn verified(&mut self, verdict: &Value) -> Result<()> {
        let conn = self.world.unverified.pop_front().ok_or("no token waits for the verifier")?;
        let verdict = match verdict.as_str() {
            Some(principal) => Ok(principal.to_owned()),
            None => Err(error_of(verdict)?),
        };
        self.world.machine.handle_verified(self.world.clock.0, conn, verdict.map(Into::into));
        self.world.settle()
    }

    /// How many of the waiting records are kept now, or of the waiting operations; `"all"`, or why none is.
    fn store(&mut self, answer: &Value) -> Result<()> {
        let last = self.world.store.last_waiting().ok_or("nothing waits for the store")?;
        match answer {
            Value::String(_) => self.world.store_all(),
            Value::Number(_) => {
                let place = usize::try_from(answer.as_u64().unwrap_or_default()).unwrap_or_default();
                let upto = self.world.store.through(place).ok_or("fewer records wait for the store")?;
                self.world.stored(upto, Ok(()))
            }
            count if count["operations"].is_u64() => {
                let place = usize::try_from(count["operations"].as_u64().unwrap_or_default()).unwrap_or_default();
                let waiting = self.world.store.waiting.get(place.wrapping_sub(1));
                let upto = waiting.map(|(ticket, _)| *ticket).ok_or("fewer operations wait for the store")?;
                self.world.stored(upto, Ok(()))
            }
            fault => self.world.stored(last, Err(fault["fails"].as_str().unwrap_or_default().to_owned())),
        }
    }

    /// Submits, takes the acceptance and the start, and names the job.
    fn submit(&mut self, step: &Step<'_>, on: &str) -> Result<()> {
        let mut message = json!({"type": "job.submit", "payload": resolve(step.object, &self.scope)?});
        if let Some(trace_id) = step.text("trace_id") {
            message["trace_id"] = trace_id.into();
        }
        let id = self.world.send(on, &message)?;
        self.world.store_all()?;
        let (accepted, text) = self.world.take(on)?;
        if accepted["type"] != "job.accepted" || accepted["payload"]["request_id"] != id {
            return Err(format!("not accepted: {text}"));
        }
        let job_id = accepted["job_id"].clone();
        let waits = self.world.start_of(job_id.as_str().unwrap_or_default()).is_none();
        expect(step.get("waits"), &json!(waits))?;
        self.scope.insert(step.text("as").unwrap_or("job").to_owned(), job_id);
        Ok(())
    }

    fn job_id(&self, name: &str) -> Result<String> {
        let job_id = self.scope.get(name).and_then(Value::as_str);
        job_id.map(str::to_owned).ok_or_else(|| format!("no job is named {name:?}"))
    }
}

fn byte(number: &Value) -> u8 {
    u8::try_from(number.as_u64().unwrap_or_default()).unwrap_or_default()
}

fn times(step: &Step<'_>) -> u64 {
    step.get("times").and_then(Value::as_u64).unwrap_or(1)
}

fn expect(expected: Option<&Value>, found: &Value) -> Result<()> {
    match expected {
        Some(expected) if expected != found => Err(format!("found {found}, expected {expected}")),
        _ => Ok(()),
    }
}

fn json_of(text: &str) -> Result<RawJson> {
    RawJson::parse(text).map_err(|error| error.message)
}

fn error_of(error: &Value) -> Result<Error> {
    let code = error["code"].as_str().ok_or("an error needs a code")?;
    let made = Error::new(ErrorCode::parse(code), error["message"].as_str().unwrap_or("it failed"));
    match error.get("details") {
        Some(details) => Ok(made.with_details(json_of(&details.to_string())?)),
        None => Ok(made),
    }
}
