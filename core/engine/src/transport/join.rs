//! Carries frames between two transports.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Received, Transport, TransportError};

/// Carries messages both ways until either side ends, then closes both.
pub async fn join(mut left: impl Transport, mut right: impl Transport) {
    let (mut to_right, mut to_left) = (Lane::default(), Lane::default());
    poll_fn(|cx| {
        let right_way = to_right.carry(cx, &mut left, &mut right);
        let left_way = to_left.carry(cx, &mut right, &mut left);
        if right_way.is_ready() || left_way.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    poll_fn(|cx| left.poll_close(cx)).await;
    poll_fn(|cx| right.poll_close(cx)).await;
}

/// One direction, with at most one frame in hand: a slow receiver holds back its sender and nobody else.
#[derive(Default)]
struct Lane {
    in_hand: VecDeque<Bytes>,
}

impl Lane {
    /// Ready when the direction has ended.
    fn carry(&mut self, cx: &mut Context<'_>, from: &mut impl Transport, to: &mut impl Transport) -> Poll<()> {
        match self.try_carry(cx, from, to) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) | Err(_) => Poll::Ready(()),
        }
    }

    fn try_carry(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Transport,
        to: &mut impl Transport,
    ) -> Result<Poll<()>, TransportError> {
        loop {
            while !self.in_hand.is_empty() {
                if to.poll_ready(cx)?.is_pending() {
                    return Ok(Poll::Pending);
                }
                if let Some(frame) = self.in_hand.pop_front() {
                    to.start_send(frame)?;
                }
            }
            let flushing = to.poll_flush(cx)?;
            match from.poll_recv(cx) {
                Poll::Ready(Some(Ok(Received::Frame(frame)))) => self.in_hand.push_back(frame),
                Poll::Ready(_) if flushing.is_pending() => return Ok(Poll::Pending),
                Poll::Ready(_) => return Ok(Poll::Ready(())),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }
}
