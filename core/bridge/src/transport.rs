//! Transports and listeners as hosts hold them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use arcp::transport::{MEMORY_FRAMES, Received, Reopen, Reopening};
use arcp::{
    Listener, MemoryTransport, StdioTransport, Transport, TransportError, WebSocketTransport, pair_memory_transports,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};

use crate::core::Core;
use crate::error::{ErrorInfo, ErrorKind};
use crate::options::{ConnectOptions, ListenOptions};
use crate::port::{Port, Value};

/// A transport. The client or runtime that takes it uses it up; closing it cuts it also then.
pub struct TransportHandle {
    transport: Mutex<Option<Box<dyn Transport>>>,
    cut: Arc<Cut>,
    private: bool,
}

/// Cuts a transport that is in use: its user sees the end of the connection.
#[derive(Default)]
struct Cut {
    done: AtomicBool,
    user: Mutex<Option<Waker>>,
}

impl Cut {
    fn make(&self) {
        self.done.store(true, Ordering::Release);
        let user = self.user.lock().take();
        if let Some(user) = user {
            user.wake();
        }
    }

    fn is_made(&self, cx: &Context<'_>) -> bool {
        // Registered before the question, so that no cut is missed.
        let mut user = self.user.lock();
        if !user.as_ref().is_some_and(|user| user.will_wake(cx.waker())) {
            *user = Some(cx.waker().clone());
        }
        drop(user);
        self.done.load(Ordering::Acquire)
    }
}

/// A transport in use.
struct Used {
    transport: Box<dyn Transport>,
    cut: Arc<Cut>,
}

impl Transport for Used {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received, TransportError>>> {
        if self.cut.is_made(cx) { Poll::Ready(None) } else { self.transport.poll_recv(cx) }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_ready(cx)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        self.transport.start_send(frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.transport.poll_close(cx)
    }

    fn is_private(&self) -> bool {
        self.transport.is_private()
    }

    fn reopener(&self) -> Option<Arc<dyn Reopen>> {
        let reopener = self.transport.reopener()?;
        Some(Arc::new(ReopenUsed { reopener, cut: Arc::clone(&self.cut) }))
    }
}

/// A transport the host carries, and what it says of it.
struct Carried {
    ends: MemoryTransport,
    private: bool,
}

impl Transport for Carried {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received, TransportError>>> {
        self.ends.poll_recv(cx)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.ends.poll_ready(cx)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        self.ends.start_send(frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.ends.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.ends.poll_close(cx)
    }

    fn is_private(&self) -> bool {
        self.private
    }
}

/// Connects a transport in use anew, until the host closes it.
struct ReopenUsed {
    reopener: Arc<dyn Reopen>,
    cut: Arc<Cut>,
}

impl Reopen for ReopenUsed {
    fn reopen(&self) -> Reopening<'_> {
        Box::pin(async move {
            let transport = self.reopener.reopen().await?;
            Ok(Box::new(Used { transport, cut: Arc::clone(&self.cut) }) as Box<dyn Transport>)
        })
    }

    fn is_closed(&self) -> bool {
        self.cut.done.load(Ordering::Acquire) || self.reopener.is_closed()
    }
}

impl TransportHandle {
    fn new(transport: impl Transport) -> Self {
        let private = transport.is_private();
        TransportHandle { transport: Mutex::new(Some(Box::new(transport))), cut: Arc::default(), private }
    }

    /// Connects a WebSocket; completes with [`Value::Transport`].
    ///
    /// # Errors
    /// At once for a wrong option; else through the port.
    pub fn connect_websocket(
        core: &Core,
        port: &Port,
        call: u64,
        url: String,
        options: ConnectOptions,
    ) -> Result<(), ErrorInfo> {
        let handle = core.handle()?;
        let options = options.into_options()?;
        port.spawn(&handle, call, async move {
            let transport = WebSocketTransport::connect(&url, options).await?;
            Ok(Value::Transport(Arc::new(TransportHandle::new(transport))))
        });
        Ok(())
    }

    /// Two connected ends in this process.
    pub fn memory_pair() -> (TransportHandle, TransportHandle) {
        let (left, right) = pair_memory_transports();
        (TransportHandle::new(left), TransportHandle::new(right))
    }

    /// This process's standard input and output. What else it prints goes to standard error from then on (Unix).
    ///
    /// # Errors
    /// When the core is gone.
    pub fn std_streams(core: &Core, max_line_bytes: usize) -> Result<TransportHandle, ErrorInfo> {
        let handle = core.handle()?;
        let _inside = handle.enter();
        Ok(TransportHandle::new(StdioTransport::from_std_streams(max_line_bytes)))
    }

    /// A transport whose messages the host carries itself: what is sent on one side is received on the other. `private`
    /// is the host's word that secrets may travel over it (R-9.8.2.11).
    pub fn foreign(private: bool) -> (TransportHandle, Frames) {
        let (ours, theirs) = pair_memory_transports();
        (TransportHandle::new(Carried { ends: ours, private }), Frames::new(theirs))
    }

    /// Whether it was encrypted, or within this machine, when it was made.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Whether a client, runtime or [`Frames`] has taken it.
    pub fn is_used(&self) -> bool {
        self.transport.lock().is_none()
    }

    /// Ends the connection without a word, also while a client or runtime uses it. Idempotent.
    pub fn close(&self) {
        drop(self.transport.lock().take());
        self.cut.make();
    }

    pub(crate) fn take(&self) -> Result<Box<dyn Transport>, ErrorInfo> {
        let transport = self.transport.lock().take().ok_or_else(|| {
            ErrorInfo::local(ErrorKind::Closed, "this transport is closed or in use already; make a new one")
        })?;
        Ok(Box::new(Used { transport, cut: Arc::clone(&self.cut) }))
    }

    /// Lets the host send and receive by itself, instead of a client or runtime.
    ///
    /// # Errors
    /// When the transport is used already or the core is gone.
    pub fn into_frames(&self, core: &Core) -> Result<Frames, ErrorInfo> {
        let handle = core.handle()?;
        let transport = self.take()?;
        let (ours, theirs) = pair_memory_transports();
        handle.spawn(arcp::transport::join(transport, ours));
        Ok(Frames::new(theirs))
    }
}

/// Messages in the host's own hands, bounded both ways.
pub struct Frames {
    incoming: Arc<AsyncMutex<mpsc::Receiver<Bytes>>>,
    outgoing: Mutex<Option<mpsc::Sender<Bytes>>>,
}

impl Frames {
    fn new(transport: MemoryTransport) -> Self {
        let (incoming, outgoing) = transport.into_queues();
        Frames { incoming: Arc::new(AsyncMutex::new(incoming)), outgoing: Mutex::new(outgoing) }
    }

    /// Sends one message if there is room; `false` when there is not: then use [`Frames::send`].
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when either side has closed.
    pub fn try_send(&self, frame: &str) -> Result<bool, ErrorInfo> {
        let outgoing = self.outgoing.lock();
        let Some(outgoing) = &*outgoing else { return Err(closed()) };
        match outgoing.try_send(Bytes::copy_from_slice(frame.as_bytes())) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(closed()),
        }
    }

    /// Sends one message; completes when it is queued.
    ///
    /// # Errors
    /// At once when closed; else through the port.
    pub fn send(&self, core: &Core, port: &Port, call: u64, frame: String) -> Result<(), ErrorInfo> {
        let handle = core.handle()?;
        let outgoing = self.outgoing.lock().clone().ok_or_else(closed)?;
        port.spawn(&handle, call, async move {
            outgoing.send(frame.into()).await.map_err(|_| closed())?;
            Ok(Value::Nothing)
        });
        Ok(())
    }

    /// Receives up to `max` messages; completes with [`Value::Frames`], empty at the end.
    ///
    /// # Errors
    /// At once when the core is gone.
    pub fn recv(&self, core: &Core, port: &Port, call: u64, max: usize) -> Result<(), ErrorInfo> {
        let handle = core.handle()?;
        let incoming = Arc::clone(&self.incoming);
        port.spawn(&handle, call, async move {
            let mut batch = Vec::new();
            incoming.lock().await.recv_many(&mut batch, max.clamp(1, MEMORY_FRAMES)).await;
            let text = |frame: Bytes| String::from_utf8_lossy(&frame).into_owned();
            Ok(Value::Frames(batch.into_iter().map(text).collect()))
        });
        Ok(())
    }

    /// Ends the sending side; the other side sees the end once it has taken what waits.
    pub fn close(&self) {
        self.outgoing.lock().take();
    }
}

fn closed() -> ErrorInfo {
    ErrorInfo::local(ErrorKind::Closed, "the transport is closed")
}

/// A listener that accepts WebSocket connections.
pub struct ListenerHandle {
    address: SocketAddr,
    url: String,
    listener: Arc<AsyncMutex<Option<Listener>>>,
    closed: Arc<Notify>,
}

impl ListenerHandle {
    /// Binds; completes with [`Value::Listener`].
    ///
    /// # Errors
    /// At once for a wrong option; else through the port.
    pub fn bind(core: &Core, port: &Port, call: u64, options: ListenOptions) -> Result<(), ErrorInfo> {
        let handle = core.handle()?;
        let options = options.into_options()?;
        port.spawn(&handle, call, async move {
            let listener = Listener::bind(options).await?;
            Ok(Value::Listener(Arc::new(ListenerHandle {
                address: listener.address(),
                url: listener.url().to_owned(),
                listener: Arc::new(AsyncMutex::new(Some(listener))),
                closed: Arc::new(Notify::new()),
            })))
        });
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client connects to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes one connection; completes with [`Value::Transport`], or as closed.
    ///
    /// # Errors
    /// At once when the core is gone; else through the port.
    pub fn accept(&self, core: &Core, port: &Port, call: u64) -> Result<(), ErrorInfo> {
        let handle = core.handle()?;
        let (listener, over) = (Arc::clone(&self.listener), Arc::clone(&self.closed));
        port.spawn(&handle, call, async move {
            // Registered before the lock is waited for, so that no close is missed.
            let over = over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            let next = async {
                match listener.lock().await.as_mut() {
                    Some(listener) => listener.accept().await,
                    None => None,
                }
            };
            tokio::select! {
                Some(transport) = next => Ok(Value::Transport(Arc::new(TransportHandle::new(transport)))),
                () = over => {
                    listener.lock().await.take();
                    Err(ErrorInfo::local(ErrorKind::Closed, "the listener is closed"))
                }
                else => Err(ErrorInfo::local(ErrorKind::Closed, "the listener is closed")),
            }
        });
        Ok(())
    }

    /// Stops listening; accepted connections go on. Idempotent.
    pub fn close(&self) {
        if let Ok(mut listener) = self.listener.try_lock() {
            listener.take();
        }
        self.closed.notify_one();
        self.closed.notify_waiters();
    }

    /// Hands every connection to a runtime until the listener is closed.
    pub(crate) fn serve(&self, runtime: arcp::Runtime) -> Result<impl Future<Output = ()> + Send + use<>, ErrorInfo> {
        let taken = self.listener.try_lock().ok().and_then(|mut listener| listener.take());
        let listener = taken.ok_or_else(|| {
            ErrorInfo::local(ErrorKind::Closed, "this listener is closed or serves already; bind another")
        })?;
        let over = Arc::clone(&self.closed);
        Ok(async move {
            tokio::select! {
                () = runtime.serve(listener) => {}
                () = over.notified() => {}
            }
        })
    }
}
