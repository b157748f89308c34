//! The task behind a client: one connection after the other, until the session is over (D-7).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use arcp_proto::machine::ClientMachine;
use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::connection::{Endpoint, drive};
use crate::error::Error;
use crate::session::Shared;
use crate::token::Token;
use crate::transport::{Received, Reopen, Transport};

/// How long one connection may take to be made, whatever its transport allows itself.
const REOPEN_WAIT: Duration = Duration::from_secs(30);

/// Serves the first connection and every one that replaces it.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut first: impl Transport,
    reopener: Option<Arc<dyn Reopen>>,
    token: Token,
) {
    serve(&shared, &mut first).await;
    drop(first);
    if let Some(reopener) = reopener {
        while until_connect(&shared).await {
            if reopener.is_closed() {
                shared.finish(Error::Closed("the transport was closed".into()));
                break;
            }
            let Some(outcome) = while_open(&shared, connect(&*reopener, &token)).await else { break };
            match outcome {
                Ok((mut transport, token)) => {
                    // What ended the connection before must not end this one.
                    shared.cut.store(false, Ordering::Release);
                    shared.act(|machine, now| machine.connected(now, &token));
                    serve(&shared, &mut transport).await;
                }
                Err(why) => shared.act(|machine, now| machine.connect_failed(now, &why)),
            }
        }
    }
    // Whatever the machine holds, nobody serves it any more.
    shared.finish(Error::Transport("the connection was lost".into()));
}

/// Runs one connection to its end.
async fn serve<T: Transport>(shared: &Arc<Shared>, transport: &mut T) {
    let mut endpoint = ClientEnd { shared, timer: Timer::default() };
    let why = match drive(transport, &mut endpoint, shared.signal()).await {
        Ok(()) => "the runtime closed it".to_owned(),
        Err(error) => error.to_string(),
    };
    shared.act(|machine, now| machine.disconnected(now, &why));
}

async fn connect(reopener: &dyn Reopen, token: &Token) -> Result<(Box<dyn Transport>, Arc<str>), String> {
    let token = token.get().await.map_err(|error| format!("no token for the new connection: {error}"))?;
    match timeout(REOPEN_WAIT, reopener.reopen()).await {
        Ok(Ok(transport)) => Ok((transport, token)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {} s", REOPEN_WAIT.as_secs())),
    }
}

/// Waits until the machine asks for a connection; `false` when the session is over instead.
async fn until_connect(shared: &Arc<Shared>) -> bool {
    let mut timer = Timer::default();
    poll_fn(|cx| {
        shared.signal().register(cx);
        timer.tick(shared, cx);
        if shared.is_over() {
            Poll::Ready(false)
        } else if shared.take_connect() {
            Poll::Ready(true)
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Does this while deadlines go on; `None` when the session is over first.
async fn while_open<T>(shared: &Arc<Shared>, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut timer = Timer::default();
    poll_fn(|cx| {
        shared.signal().register(cx);
        timer.tick(shared, cx);
        if shared.is_over() {
            return Poll::Ready(None);
        }
        work.as_mut().poll(cx).map(Some)
    })
    .await
}

/// The machine's next deadline, armed.
#[derive(Default)]
struct Timer(Option<(Duration, Pin<Box<Sleep>>)>);

impl Timer {
    /// Does what is due, and registers for the next deadline.
    fn tick(&mut self, shared: &Arc<Shared>, cx: &mut Context<'_>) {
        loop {
            let Some(at) = shared.next_timeout() else {
                self.0 = None;
                return;
            };
            let clock = shared.clock();
            let armed = match &mut self.0 {
                Some((armed, sleep)) => {
                    if *armed != at {
                        sleep.as_mut().reset(Instant::from_std(clock.instant(at)));
                        *armed = at;
                    }
                    sleep
                }
                None => &mut self.0.insert((at, Box::pin(sleep_until(clock.instant(at).into())))).1,
            };
            if armed.as_mut().poll(cx).is_pending() {
                return;
            }
            shared.act(ClientMachine::handle_timeout);
        }
    }
}

struct ClientEnd<'a> {
    shared: &'a Arc<Shared>,
    timer: Timer,
}

impl Endpoint for ClientEnd<'_> {
    fn receive(&mut self, received: &mut Vec<Received>) {
        self.shared.act(|machine, now| {
            for message in received.drain(..) {
                match message {
                    Received::Frame(frame) => machine.handle_frame(now, &frame),
                    Received::Oversize => machine.oversize(now),
                }
            }
        });
    }

    fn transmit(&mut self, frames: &mut Vec<Bytes>) {
        self.shared.transmit(frames);
    }

    fn paused(&mut self, cx: &mut Context<'_>) -> bool {
        self.shared.is_full(cx)
    }

    fn abandoned(&mut self) -> bool {
        self.shared.cut.load(Ordering::Acquire)
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.timer.tick(self.shared, cx);
    }
}
