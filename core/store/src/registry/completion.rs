//! The answer of a store that is yet to come: a future, or something to wait for.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Why operations were not kept: one sentence with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotKept(pub Arc<str>);

type Outcome = Result<(), NotKept>;

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    settled: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ready once the operations are kept, or are not and never will be. Dropping it changes nothing for them.
#[derive(Debug)]
pub struct Completion(Place);

#[derive(Debug)]
enum Place {
    Ready(Outcome),
    Waiting(Arc<Shared>),
}

/// Settles a [`Completion`]. Dropped without an outcome, it tells that the store is gone.
#[derive(Debug)]
pub struct Promise(Option<Arc<Shared>>);

impl Completion {
    /// One that is settled already.
    pub fn ready(outcome: Result<(), NotKept>) -> Completion {
        Completion(Place::Ready(outcome))
    }

    /// One to be settled.
    pub fn pending() -> (Promise, Completion) {
        let shared = Arc::<Shared>::default();
        (Promise(Some(Arc::clone(&shared))), Completion(Place::Waiting(shared)))
    }

    /// The outcome, if there is one yet.
    pub fn peek(&self) -> Option<Result<(), NotKept>> {
        match &self.0 {
            Place::Ready(outcome) => Some(outcome.clone()),
            Place::Waiting(shared) => shared.lock().outcome.clone(),
        }
    }

    /// Blocks until there is an outcome.
    ///
    /// # Errors
    /// When the operations are not kept.
    pub fn wait(self) -> Result<(), NotKept> {
        match self.0 {
            Place::Ready(outcome) => outcome,
            Place::Waiting(shared) => {
                let mut state = shared.lock();
                loop {
                    if let Some(outcome) = state.outcome.clone() {
                        return outcome;
                    }
                    state = shared.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Future for Completion {
    type Output = Result<(), NotKept>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &self.0 {
            Place::Ready(outcome) => Poll::Ready(outcome.clone()),
            Place::Waiting(shared) => {
                let mut state = shared.lock();
                if let Some(outcome) = &state.outcome {
                    return Poll::Ready(outcome.clone());
                }
                if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    state.waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Promise {
    /// Tells the outcome.
    pub fn settle(mut self, outcome: Result<(), NotKept>) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Outcome) {
        let Some(shared) = self.0.take() else { return };
        let waker = {
            let mut state = shared.lock();
            state.outcome = Some(outcome);
            state.waker.take()
        };
        shared.settled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.tell(Err(NotKept("the store is closed".into())));
    }
}
