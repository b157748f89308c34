//! Who looks at which job, and how far each has come.

use std::sync::Arc;

use super::result::Assembly;
use super::stash::Stashed;
use super::{ClientEvent, ClientMachine, HandleKey, JobEvent, MAX_ASSEMBLED, State};
use crate::error::Error;
use crate::event::ResultChunk;
use crate::message::JobResult;
use crate::time::Now;

/// The handles of one job.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) views: Vec<View>,
    /// Whether the job belongs to this session, so that its numbers are those of the submitting session.
    pub(super) own: bool,
}

/// One handle.
#[derive(Debug)]
pub(super) struct View {
    pub(super) key: HandleKey,
    /// The last number delivered, in the space of the session that submitted the job.
    pub(super) source_seq: u64,
    /// Something was delivered that did not say its number in that space.
    pub(super) unplaced: bool,
    /// The application stopped following.
    pub(super) left: bool,
    by_chunks: bool,
    assembly: Option<Box<Assembly>>,
}

impl View {
    fn new(key: HandleKey, source_seq: u64) -> Self {
        View { key, source_seq, unplaced: false, left: false, by_chunks: false, assembly: None }
    }
}

impl ClientMachine {
    /// A handle of a session that was resumed by [`ClientMachine::resume`], for a job of it (D-24). What came for the job
    /// since then follows; a job that had ended before has nothing to say here any more.
    pub fn job(&mut self, now: Now, job_id: &str) -> HandleKey {
        let handle = self.open_handle(job_id, true, self.link.resumed_from);
        self.deliver_stashed(now, job_id, handle);
        if self.link.is_py11 && self.link.took_up && self.state == State::Open {
            self.follow_live(now, &Arc::from(job_id));
        }
        handle
    }

    /// The jobs this session knows of: those with handles, and those something came for since an explicit resume.
    pub fn jobs(&self) -> Vec<String> {
        let known = self.routes.keys().chain(self.stash.jobs());
        known.map(|job_id| job_id.as_ref().to_owned()).collect()
    }

    /// The application takes the chunks of a streamed result itself: nothing is put together in memory.
    pub fn leave_chunks(&mut self, handle: HandleKey) {
        let assembled = &mut self.assembled;
        if let Some(route) = self.jobs.get(&handle).and_then(|job_id| self.routes.get_mut(job_id))
            && let Some(view) = route.views.iter_mut().find(|view| view.key == handle)
        {
            view.by_chunks = true;
            if let Some(assembly) = &mut view.assembly {
                *assembled -= assembly.held();
                assembly.leave_to_application();
            }
        }
    }

    /// Nobody looks at this handle any more.
    pub fn forget(&mut self, handle: HandleKey) {
        if let Some(job_id) = self.jobs.remove(&handle)
            && let Some(route) = self.routes.get_mut(&job_id)
        {
            if let Some(at) = route.views.iter().position(|view| view.key == handle) {
                let view = route.views.remove(at);
                self.assembled -= view.assembly.map_or(0, |assembly| assembly.held());
            }
            if route.views.is_empty() {
                self.routes.remove(&job_id);
            }
        }
    }

    pub(super) fn view(&mut self, job_id: &str, handle: HandleKey) -> Option<&mut View> {
        self.routes.get_mut(job_id)?.views.iter_mut().find(|view| view.key == handle)
    }

    /// Whether this client took up a session it did not begin, so that [`ClientMachine::job`] has something to give.
    pub fn took_up(&self) -> bool {
        self.link.took_up
    }

    pub(super) fn open_handle(&mut self, job_id: &str, own: bool, source_seq: u64) -> HandleKey {
        let handle = HandleKey(self.fresh_key());
        let job_id: Arc<str> = job_id.into();
        self.jobs.insert(handle, Arc::clone(&job_id));
        let route = self.routes.entry(job_id).or_default();
        route.own |= own;
        route.views.push(View::new(handle, source_seq));
        handle
    }

    /// Hands an event to every handle of its job that has not had it. `false` when nobody will take it.
    pub(super) fn deliver(
        &mut self,
        job_id: &str,
        event: &JobEvent,
        source: Option<u64>,
        chunk: Option<&ResultChunk>,
        only: Option<HandleKey>,
    ) -> bool {
        let Some(route) = self.routes.get_mut(job_id) else { return false };
        let source = source.or_else(|| route.own.then_some(event.event_seq));
        let mut delivered = false;
        for view in &mut route.views {
            if only.is_some_and(|only| only != view.key) {
                continue;
            }
            match source {
                Some(source) if source <= view.source_seq => continue,
                Some(source) => view.source_seq = source,
                None => view.unplaced = true,
            }
            if let Some(chunk) = chunk {
                let assembly = view.assembly.get_or_insert_with(|| Box::new(Assembly::new(view.by_chunks)));
                let others = self.assembled - assembly.held();
                assembly.take(chunk, self.config.max_result_bytes.min(MAX_ASSEMBLED.saturating_sub(others)));
                self.assembled = others + assembly.held();
            }
            self.events.push_back(ClientEvent::Event(view.key, event.clone()));
            delivered = true;
        }
        delivered
    }

    /// What came for a job before its first handle existed.
    pub(super) fn deliver_stashed(&mut self, now: Now, job_id: &str, handle: HandleKey) {
        let Some(share) = self.stash.take(job_id) else { return };
        if share.missed > 0 {
            self.events.push_back(ClientEvent::Missed(handle, share.missed));
        }
        for what in share.kept {
            match what {
                Stashed::Event(event, source, chunk) => {
                    if !self.deliver(job_id, &event, source, chunk.as_ref(), Some(handle)) {
                        self.processed(now, event.position);
                    }
                }
                Stashed::End(outcome) => self.end_handles(job_id, outcome),
            }
        }
    }

    pub(super) fn end_handles(&mut self, job_id: &str, outcome: Result<Box<JobResult>, Error>) {
        let views = self.routes.remove(job_id).unwrap_or_default().views;
        for view in views {
            self.jobs.remove(&view.key);
            self.assembled -= view.assembly.as_ref().map_or(0, |assembly| assembly.held());
            let outcome = match &outcome {
                // An inline result is whole by itself.
                Ok(result) if result.result_id.is_some() => {
                    let assembly = view.assembly.unwrap_or_else(|| Box::new(Assembly::new(view.by_chunks)));
                    match assembly.finish(result) {
                        Ok(Some(bytes)) => {
                            self.events.push_back(ClientEvent::Assembled(view.key, bytes));
                            Ok(result.clone())
                        }
                        Ok(None) => Ok(result.clone()),
                        Err(error) => Err(error),
                    }
                }
                other => (*other).clone(),
            };
            self.events.push_back(ClientEvent::Ended(view.key, outcome));
        }
    }
}
