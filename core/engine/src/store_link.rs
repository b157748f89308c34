//! The way back from a store to its runtime.

use std::sync::{Arc, OnceLock, Weak};

use arcp_proto::machine::frame::Record;
use arcp_store::StoreSink;

use crate::host::Shared;
use crate::span::say;

/// The way back from a store to its runtime, which it does not keep alive.
#[derive(Default)]
pub(crate) struct StoreLink {
    pub(crate) shared: OnceLock<Weak<Shared>>,
}

impl StoreLink {
    pub(crate) fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.get().and_then(Weak::upgrade)
    }
}

impl StoreSink for StoreLink {
    fn stored(&self, ticket: u64, outcome: Result<(), String>) {
        if let Err(fault) = &outcome {
            say(|| tracing::error!(%fault, "events cannot be stored"));
        }
        if let Some(shared) = self.shared() {
            shared.notes.stored(ticket, shared.clock.now().mono, &outcome);
            shared.act(|machine, now| machine.handle_stored(now, ticket, outcome));
        }
    }

    fn history(&self, request: u64, records: Vec<Arc<Record>>) {
        if let Some(shared) = self.shared() {
            shared.act(|machine, now| machine.handle_history(now, request, &records));
        }
    }

    fn taken_over(&self) {
        say(|| tracing::error!("another process has taken over the store; this runtime stops"));
        if let Some(shared) = self.shared() {
            shared.notes.stopping();
            shared.act(|machine, now| {
                machine.shutdown(now, "another runtime has taken over");
                machine.close_connections(now, "another runtime has taken over");
            });
        }
    }
}
