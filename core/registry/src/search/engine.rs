//! The search as the service uses it: the index, and a remote embedder when there is one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::document::{text_of, unit};
use super::embedder::{EmbedError, Embedder};
use super::index::{Hit, SearchIndex};
use super::segment::Remote;
use crate::model::{Registration, SearchRequest};

/// Texts sent at once.
const BATCH: usize = 64;
/// Vectors remembered by the hash of their text: 24 MB at 1536 numbers each.
const REMEMBERED: usize = 4_096;
/// A search waits so long for its question's vector, then the table answers.
const QUESTION_TIME: Duration = Duration::from_secs(3);
/// Questions under way at once.
const QUESTIONS: usize = 32;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The search as the service uses it. Cheap to clone; clones are one.
///
/// With a remote embedder, agents get its vectors in the background: until one has its vector, and whenever the service
/// fails, the built-in table answers for it. A vector's similarity is the cosine, as REG-197 has it.
#[derive(Clone, Default)]
pub struct SearchEngine {
    index: Arc<SearchIndex>,
    remote: Option<Arc<Remotes>>,
}

/// How the embedder does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedderHealth {
    /// What embeds; the built-in table when there is no other.
    pub name: String,
    /// Whether it is a service elsewhere.
    pub remote: bool,
    /// Why it fails at present; the built-in table answers meanwhile.
    pub failing: Option<String>,
    /// Agents with a vector.
    pub stored: usize,
    /// Agents that wait for one.
    pub waiting: usize,
}

type Hash = [u8; 32];

struct Remotes {
    embedder: Arc<dyn Embedder>,
    state: Mutex<State>,
    questions: Semaphore,
}

#[derive(Default)]
struct State {
    /// Ids whose text is to be embedded, each once.
    queue: VecDeque<String>,
    waiting: FxHashMap<String, (String, Hash)>,
    /// The text whose vector an agent has.
    embedded: FxHashMap<String, Hash>,
    memory: Memory,
    failure: Option<(EmbedError, Instant)>,
    pause: Duration,
    /// Whether a task fetches vectors.
    working: bool,
}

/// Vectors by the hash of their text; the oldest go first.
#[derive(Default)]
struct Memory {
    vectors: FxHashMap<Hash, Remote>,
    order: VecDeque<Hash>,
}

impl Memory {
    fn put(&mut self, hash: Hash, vector: Remote) {
        if self.vectors.insert(hash, vector).is_none() {
            self.order.push_back(hash);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.vectors.remove(&oldest);
            }
        }
    }
}

impl SearchEngine {
    /// One that reads with the built-in table.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that reads with a service. Its vectors are fetched in the runtime in which agents are inserted or searched.
    pub fn with_embedder(embedder: Arc<dyn Embedder>) -> Self {
        let remotes = Remotes {
            embedder,
            state: Mutex::new(State { pause: FIRST_PAUSE, ..State::default() }),
            questions: Semaphore::new(QUESTIONS),
        };
        Self { index: Arc::default(), remote: Some(Arc::new(remotes)) }
    }

    /// The agents it searches.
    pub fn index(&self) -> &SearchIndex {
        &self.index
    }

    /// Takes an agent in, in the place of the one of the same id. A search that begins after this sees it. Waits for no
    /// service.
    pub fn insert(&self, agent: &Registration) {
        let Some(remotes) = &self.remote else { return self.index.insert(agent) };
        let id = &agent.agent_id;
        let text = text_of(agent);
        let hash = hash(&text);
        let had = self.index.remote_of(id);
        self.index.insert(agent);
        let mut state = remotes.state.lock();
        let known = match state.embedded.get(id) {
            Some(known) if *known == hash => had,
            _ => state.memory.vectors.get(&hash).cloned(),
        };
        if let Some(vector) = known {
            state.embedded.insert(id.clone(), hash);
            state.waiting.remove(id);
            drop(state);
            self.index.set_remote(id, vector);
            return;
        }
        state.embedded.remove(id);
        if state.waiting.insert(id.clone(), (text, hash)).is_none() {
            state.queue.push_back(id.clone());
        }
        drop(state);
        self.work();
    }

    /// Forgets an agent. Whether it was there.
    pub fn remove(&self, id: &str) -> bool {
        if let Some(remotes) = &self.remote {
            let mut state = remotes.state.lock();
            state.embedded.remove(id);
            // Its place in the queue is passed over.
            state.waiting.remove(id);
        }
        self.index.remove(id)
    }

    /// The best agents for a request (REG-197, REG-198): see [`SearchIndex::query`]. With a service, waits for the
    /// question's vector, three seconds at most.
    pub async fn search(
        &self,
        request: &SearchRequest,
        keep: impl Fn(&str) -> bool,
        reputation: impl Fn(&str) -> f32,
    ) -> Vec<Hit> {
        let vector = match &self.remote {
            Some(remotes) => {
                self.work();
                remotes.question(&request.query).await
            }
            None => None,
        };
        self.index.query_with(request, vector, keep, reputation)
    }

    /// How the embedder does.
    pub fn health(&self) -> EmbedderHealth {
        let Some(remotes) = &self.remote else {
            let name = super::embedder::WordTable.name().to_owned();
            return EmbedderHealth { name, remote: false, failing: None, stored: self.index.len(), waiting: 0 };
        };
        let state = remotes.state.lock();
        EmbedderHealth {
            name: remotes.embedder.name().to_owned(),
            remote: true,
            failing: state.failure.as_ref().map(|(error, _)| error.to_string()),
            stored: state.embedded.len(),
            waiting: state.waiting.len(),
        }
    }

    /// Starts what fetches vectors, unless it runs or there is nothing to fetch.
    fn work(&self) {
        let Some(remotes) = &self.remote else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        {
            let mut state = remotes.state.lock();
            if state.working || state.waiting.is_empty() {
                return;
            }
            state.working = true;
        }
        let (index, working) = (Arc::downgrade(&self.index), Working(Some(Arc::clone(remotes))));
        runtime.spawn(async move {
            let mut working = working;
            let Some(remotes) = working.0.clone() else { return };
            let mut most = BATCH;
            loop {
                let batch = remotes.batch(most);
                if batch.is_empty() {
                    // Noted as ended in the same moment as nothing was found to wait.
                    working.0 = None;
                    break;
                }
                let texts: Vec<String> = batch.iter().map(|(_, text, _)| text.clone()).collect();
                let outcome = remotes.embedder.embed(&texts).await;
                let Some(index) = index.upgrade() else { break };
                match outcome {
                    Ok(vectors) => {
                        remotes.succeeded();
                        remotes.store(&index, batch, vectors);
                        most = (most * 2).min(BATCH);
                    }
                    // One text may spoil the batch it is in; alone it is left to the table.
                    Err(EmbedError::Status(400 | 413 | 422)) if texts.len() > 1 => {
                        remotes.give_back(batch);
                        most = texts.len() / 2;
                    }
                    Err(EmbedError::Status(status @ (400 | 413 | 422))) => {
                        warn!(agent_id = batch[0].0, status, "the embedding service refuses an agent's text");
                    }
                    Err(error) => {
                        remotes.give_back(batch);
                        drop(index);
                        let pause = remotes.failed(&error);
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        });
    }
}

/// Lets the next worker start when this one ends before its work does.
struct Working(Option<Arc<Remotes>>);

impl Drop for Working {
    fn drop(&mut self) {
        if let Some(remotes) = &self.0 {
            remotes.state.lock().working = false;
        }
    }
}

impl Remotes {
    fn batch(&self, most: usize) -> Vec<(String, String, Hash)> {
        let mut state = self.state.lock();
        let mut batch = Vec::new();
        while batch.len() < most.max(1) {
            let Some(id) = state.queue.pop_front() else { break };
            if let Some((text, hash)) = state.waiting.remove(&id) {
                batch.push((id, text, hash));
            }
        }
        state.working = !batch.is_empty();
        batch
    }

    fn give_back(&self, batch: Vec<(String, String, Hash)>) {
        let mut state = self.state.lock();
        for (id, text, hash) in batch.into_iter().rev() {
            // What was registered anew meanwhile waits already.
            if !state.waiting.contains_key(&id) {
                state.waiting.insert(id.clone(), (text, hash));
                state.queue.push_front(id);
            }
        }
    }

    fn store(&self, index: &SearchIndex, batch: Vec<(String, String, Hash)>, vectors: Vec<Vec<f32>>) {
        for ((id, _, hash), mut vector) in batch.into_iter().zip(vectors) {
            unit(&mut vector);
            let vector: Remote = vector.into();
            let mut state = self.state.lock();
            state.memory.put(hash, Arc::clone(&vector));
            // Another text waits when the agent was registered anew; then this vector is of the past.
            if !state.waiting.contains_key(&id) && index.set_remote(&id, vector) {
                state.embedded.insert(id, hash);
            }
        }
    }

    fn succeeded(&self) {
        let mut state = self.state.lock();
        state.pause = FIRST_PAUSE;
        if state.failure.take().is_some() {
            info!(embedder = self.embedder.name(), "the embedding service answers again");
        }
    }

    /// Notes a failure; how long to leave the service alone.
    fn failed(&self, error: &EmbedError) -> Duration {
        let mut state = self.state.lock();
        let pause = state.pause;
        state.pause = (pause * 2).min(LONGEST_PAUSE);
        if state.failure.is_none() {
            warn!(embedder = self.embedder.name(), %error, "the embedding service fails; the built-in table answers");
        }
        state.failure = Some((error.clone(), Instant::now() + pause));
        pause
    }

    /// The vector of a question, or none when it is not to be had soon.
    async fn question(&self, query: &str) -> Option<Remote> {
        let hash = hash(query);
        {
            let state = self.state.lock();
            if let Some(vector) = state.memory.vectors.get(&hash) {
                return Some(Arc::clone(vector));
            }
            if state.failure.as_ref().is_some_and(|(_, until)| Instant::now() < *until) {
                return None;
            }
        }
        let _turn = self.questions.try_acquire().ok()?;
        let texts = [query.to_owned()];
        let outcome = match timeout(QUESTION_TIME, self.embedder.embed(&texts)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(EmbedError::Timeout),
        };
        match outcome {
            Ok(mut vectors) => {
                self.succeeded();
                let mut vector = vectors.pop()?;
                unit(&mut vector);
                let vector: Remote = vector.into();
                self.state.lock().memory.put(hash, Arc::clone(&vector));
                Some(vector)
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}
