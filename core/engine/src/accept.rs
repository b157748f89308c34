//! One connection of a runtime: frames in, frames out, and word when it is gone.

use std::sync::Arc;

use arcp_proto::machine::frame::Frame;
use arcp_proto::machine::runtime::ConnKey;
use bytes::{Bytes, BytesMut};

use crate::connection::Endpoint;
use crate::host::Shared;
use crate::span;
use crate::transport::Received;

/// Frames of this many bytes are not copied once more to share a buffer with others.
const OWN_BUFFER: usize = 16 << 10;

/// Frames a connection takes from the machine under one lock.
const TRANSMIT_BATCH: usize = 256;

/// Tells the machine that a connection is gone, also when the task is dropped.
pub(crate) struct ConnGuard<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) conn: ConnKey,
}

impl Drop for ConnGuard<'_> {
    fn drop(&mut self) {
        self.shared.signals.lock().remove(&self.conn);
        self.shared.closed.notify_waiters();
        self.shared.act(|machine, now| machine.disconnected(now, self.conn));
    }
}

pub(crate) struct ServerEnd<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) conn: ConnKey,
    pub(crate) frames: Vec<Frame>,
    pub(crate) text: BytesMut,
    /// The session's span, while it has no id.
    pub(crate) unnamed: Option<&'a span::Guarded>,
}

impl Endpoint for ServerEnd<'_> {
    fn receive(&mut self, received: &mut Vec<Received>) {
        let conn = self.conn;
        self.shared.act(|machine, now| {
            for message in received.drain(..) {
                match message {
                    Received::Frame(frame) => machine.handle_frame(now, conn, &frame),
                    Received::Oversize => machine.handle_oversize(now, conn),
                }
            }
        });
    }

    fn transmit(&mut self, frames: &mut Vec<Bytes>) {
        self.shared.act(|machine, now| machine.poll_transmit(now, self.conn, TRANSMIT_BATCH, &mut self.frames));
        if let Some(span) = self.unnamed
            && let Some(id) = self.shared.peek(|machine| machine.session_of(self.conn).map(|(_, s)| Arc::clone(s.id())))
        {
            span.record("arcp.session_id", &id);
            self.unnamed = None;
        }
        // Written outside the lock, into one buffer that every frame of the batch is cut from.
        for frame in self.frames.drain(..) {
            let mut text = Vec::with_capacity(frame.cost() + 320);
            frame.write(&mut text);
            if text.len() >= OWN_BUFFER {
                frames.push(text.into());
                continue;
            }
            self.text.extend_from_slice(&text);
            frames.push(self.text.split().freeze());
        }
    }
}
