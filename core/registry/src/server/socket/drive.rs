//! The loop that every socket runs: what it decided is done, then it waits for a message, a change, or a time.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::frame::SharedFrame;
use super::ledger::{Ledger, over};
use super::message::{Now, unix_now};
use super::wire::{Gone, Received, Wire};

/// No timer is set further ahead.
const FAR: Duration = Duration::from_secs(3600);

/// What a socket does next.
#[derive(Debug)]
pub(super) enum Step {
    /// Send it.
    Send(SharedFrame),
    /// Nothing to send; go on.
    Quiet,
    /// Close with this code and reason.
    Close(u16, &'static str),
}

/// A machine with what it needs of the world.
pub(super) trait Session: Send {
    /// A message came.
    fn text(&mut self, now: Now, text: &str);
    /// Its time came.
    fn timeout(&mut self, now: Now);
    /// When to call `timeout`.
    fn next_timeout(&self) -> Duration;
    /// When the next message may be read, if not now.
    fn held_until(&self, now: Duration) -> Option<Duration>;
    /// Waits for a change that this socket is to tell. Safe to cancel; never resolves when nothing changes any more.
    fn news(&mut self) -> impl Future<Output = ()> + Send;
    /// `news` resolved.
    fn told(&mut self, now: Now);
    /// Does the next thing the machine decided; `None` when there is none left.
    fn next(&mut self, now: Now) -> impl Future<Output = Option<Step>> + Send;
}

/// Time since the server began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Clock(Instant::now())
    }

    pub(super) fn now(self) -> Now {
        Now { mono: self.0.elapsed(), unix: unix_now() }
    }

    /// The instant of a time of this clock, at most an hour ahead.
    fn at(self, time: Duration) -> Instant {
        self.0 + time.min(self.0.elapsed() + FAR)
    }
}

/// Why a socket ended, for the log of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client left, or was told to.
    Closed,
    /// It did not take what was sent.
    TooSlow,
    /// The server stops.
    Stopped,
}

/// Runs a socket to its end.
pub(super) async fn drive<S, M>(
    mut wire: Wire<S>,
    session: &mut M,
    clock: Clock,
    ledger: &Ledger,
    mut stop: watch::Receiver<bool>,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    M: Session,
{
    loop {
        while let Some(step) = session.next(clock.now()).await {
            match step {
                Step::Quiet => {}
                Step::Send(frame) => {
                    let mut hold = ledger.hold(&frame);
                    let sent = tokio::select! {
                        sent = wire.send(&frame) => sent,
                        // No close frame can follow a part of another.
                        () = over(hold.as_mut()) => return End::TooSlow,
                    };
                    match sent {
                        Ok(()) => {}
                        Err(Gone::Lost) => return End::Closed,
                        Err(Gone::TooSlow) => {
                            let reason = "Too slow: a message was not taken in time";
                            wire.close(1008, Cow::Borrowed(reason)).await;
                            return End::TooSlow;
                        }
                    }
                }
                Step::Close(code, reason) => {
                    wire.close(code, Cow::Borrowed(reason)).await;
                    return End::Closed;
                }
            }
        }
        let held = session.held_until(clock.now().mono);
        let wake = clock.at(held.unwrap_or(Duration::MAX).min(session.next_timeout()));
        tokio::select! {
            // Ends also when the server is gone.
            () = stopped(&mut stop) => {
                wire.close(1001, Cow::Borrowed("The server is shutting down")).await;
                return End::Stopped;
            }
            received = wire.receive(), if held.is_none() => match received {
                Received::Text(text) => session.text(clock.now(), &text),
                Received::Control => {}
                Received::Closed => {
                    wire.finish().await;
                    return End::Closed;
                }
                Received::Broken(code, reason) => {
                    wire.close(code, Cow::Borrowed(reason)).await;
                    return End::Closed;
                }
            },
            () = session.news() => session.told(clock.now()),
            () = sleep_until(wake) => session.timeout(clock.now()),
        }
    }
}

/// Waits for the end of the server.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender gone is the end too.
    drop(stop.wait_for(|stopped| *stopped).await);
}
