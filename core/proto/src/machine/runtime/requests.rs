//! What a runtime does with the messages of an open session.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::auditing::Audited;
use super::storage::Gated;
use super::{ConnKey, RuntimeEvent, RuntimeMachine, SessionKey};
use crate::envelope::Head;
use crate::error::{Error, ErrorCode};
use crate::feature::Feature;
use crate::id::IdGenerator;
use crate::machine::audit::SessionEnd;
use crate::machine::frame::Frame;
use crate::machine::job::Ending;
use crate::machine::kept::StoreOp;
use crate::machine::session::Session;
use crate::message::{Cancel, Cancelled, ClientMessage, Closed, Pong, SessionError, kind};
use crate::time::Now;

impl RuntimeMachine {
    pub(super) fn handle_message(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        head: &Head<'_>,
        message: ClientMessage,
    ) {
        let id = &*head.id;
        match message {
            ClientMessage::Ping(ping) => {
                let pong = Pong { ping_nonce: ping.nonce, received_at: Some(now.wall) };
                self.answer(now, conn, kind::SESSION_PONG, None, None, &pong);
            }
            ClientMessage::Pong(_) | ClientMessage::Ignored => {}
            ClientMessage::Ack(ack) => self.handle_ack(key, ack.last_processed_seq),
            ClientMessage::Close(close) => self.handle_close(now, conn, id, close.reason),
            ClientMessage::Bye(bye) => self.handle_close(now, conn, id, Some(bye.reason)),
            ClientMessage::Hello(_) => {
                let error = Error::invalid("this session is open already; session.hello comes once");
                self.answer_error(now, conn, error, Some(id.to_owned()));
            }
            ClientMessage::Unsubscribe(unsubscribe) => self.unsubscribe(key, &unsubscribe.job_id),
            ClientMessage::ListJobs(asked) => self.list_jobs(now, conn, key, id, asked),
            ClientMessage::Submit(_) | ClientMessage::Cancel(_) | ClientMessage::Subscribe(_) => {
                let Some(session) = self.sessions.get_mut(&key) else { return };
                // The same message again has no second effect; over another connection it is asked again
                // because its answer may have been lost (D-17).
                if session.is_repeat(id) {
                    if let Some(frame) = session.answer_again(id, conn) {
                        self.gate(now, Gated::Answer(key, conn, frame));
                    } else {
                        self.ask_again(key, id, conn);
                    }
                    return;
                }
                let audited = match &message {
                    ClientMessage::Submit(submit) => Audited::Submit { agent: submit.agent.clone() },
                    ClientMessage::Cancel(cancel) => Audited::Cancel { job_id: cancel.job_id.clone() },
                    ClientMessage::Subscribe(subscribe) => Audited::Subscribe { job_id: subscribe.job_id.clone() },
                    _ => return,
                };
                let message = match message {
                    ClientMessage::Subscribe(subscribe) if self.must_ask(key, &subscribe.job_id) => {
                        match self.ask_about(conn, key, id, subscribe) {
                            None => return,
                            Some(error) => return self.refuse_subscribe(now, conn, key, id, &audited, error),
                        }
                    }
                    message => message,
                };
                let done = match message {
                    ClientMessage::Submit(submit) => self.submit(now, conn, key, head, submit),
                    ClientMessage::Cancel(cancel) => self.cancel(now, conn, key, id, cancel),
                    ClientMessage::Subscribe(subscribe) => self.subscribe(now, conn, key, id, subscribe, None),
                    _ => Ok(()),
                };
                self.audit_request(now, key, &audited, &done);
                if let Err(error) = done {
                    let refusal = SessionError { error, request_id: Some(id.to_owned()) };
                    self.answer_request(now, conn, key, id, kind::SESSION_ERROR, None, &refusal);
                }
            }
        }
    }

    fn handle_ack(&mut self, key: SessionKey, last_processed_seq: u64) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.features.has(Feature::Ack) {
            let freed = session.log.freed;
            session.ack(last_processed_seq);
            let (id, through) = (Arc::clone(session.id()), session.log.freed);
            if through > freed {
                if self.mirrored {
                    let session_id = Arc::clone(&id);
                    self.events.push_back(RuntimeEvent::MirrorRelease { session_id, through });
                }
                self.keep_durable(|| StoreOp::Free { session: id, through });
            }
            self.events.push_back(RuntimeEvent::Drained(key));
            self.lag_fell(key);
        }
    }

    /// Answers a request that made something: once that is stored, and again if it is asked over another connection
    /// (D-17).
    #[allow(clippy::too_many_arguments, reason = "one message, each part from elsewhere")]
    pub(super) fn answer_request(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        request_id: &str,
        kind: &'static str,
        job: Option<(Arc<str>, Arc<str>)>,
        payload: &impl Serialize,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let frame = answer_frame(&mut self.ids, now, session, kind, job, payload);
        session.remember_answer(request_id, conn, frame.clone());
        self.gate(now, Gated::Answer(key, conn, frame));
    }

    fn handle_close(&mut self, now: Now, conn: ConnKey, id: &str, reason: Option<String>) {
        let closed = Closed { reason: reason.filter(|text| !text.is_empty()), request_id: Some(id.to_owned()) };
        if let Some(key) = self.session_of(conn).map(|(key, _)| key) {
            self.audit_session_end(now, key, SessionEnd::Closed);
        }
        self.gate(now, Gated::Closed(conn, closed));
    }

    pub(super) fn say_closed(&mut self, now: Now, conn: ConnKey, closed: &Closed) {
        self.answer(now, conn, kind::SESSION_CLOSED, None, None, closed);
        self.close_conn(now, conn);
    }

    fn cancel(&mut self, now: Now, conn: ConnKey, key: SessionKey, id: &str, cancel: Cancel) -> Result<(), Error> {
        let job_key = self.visible_job(key, &cancel.job_id, None)?;
        let Some(job) = self.jobs.get(&job_key) else { return Ok(()) };
        if !self.may_cancel(key, job) {
            let message = "only the session that submitted a job may cancel it";
            return Err(Error::new(ErrorCode::PermissionDenied, message));
        }
        let status = job.status;
        let answer = Cancelled {
            job_id: cancel.job_id,
            reason: cancel.reason.clone().filter(|_| !status.is_terminal()),
            current_status: status.is_terminal().then_some(status),
            request_id: Some(id.to_owned()),
        };
        let job = (Arc::clone(&job.start.job_id), Arc::clone(&job.start.trace_id));
        self.answer_request(now, conn, key, id, kind::JOB_CANCELLED, Some(job), &answer);
        let reason = cancel.reason.unwrap_or_else(|| "no reason given".to_owned());
        self.end_job(now, job_key, Ending::Cancelled { reason });
        Ok(())
    }
}

/// A message that answers a request, under a new message id.
pub(super) fn answer_frame(
    ids: &mut IdGenerator,
    now: Now,
    session: &Session,
    kind: &'static str,
    job: Option<(Arc<str>, Arc<str>)>,
    payload: &impl Serialize,
) -> Frame {
    // Serialising our own structs of strings and numbers does not fail.
    let payload = Bytes::from(serde_json::to_vec(payload).unwrap_or_else(|_| b"{}".to_vec()));
    let (job_id, trace_id) = job.unzip();
    let session_id = Some(Arc::clone(session.id()));
    Frame::Message { session_id, kind, id: ids.message_id(now.wall), job_id, trace_id, payload }
}
