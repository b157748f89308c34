//! A client.

use arcp_bridge::{Client, ClientOptions, TokenChoice};
use napi::Either;
use napi_derive::napi;

use crate::core::core;
use crate::error::thrown;
use crate::job::NativeJob;
use crate::port::{NativePort, number};
use crate::transport::NativeTransport;

/// One session with a runtime.
#[napi]
pub struct NativeClient {
    client: Client,
}

#[napi]
impl NativeClient {
    /// `options` is the JSON of [`ClientOptions`].
    #[napi(constructor)]
    pub fn new(options: String) -> napi::Result<Self> {
        let client = ClientOptions::from_json(&options).and_then(|options| Client::new(&core()?, options));
        Ok(NativeClient { client: thrown(client)? })
    }

    /// Completes with the welcome; uses the transport up. `token` is the token, or the port to ask for it; `resume` is the
    /// JSON of the session to take up.
    #[napi]
    pub fn connect(
        &self,
        port: &NativePort,
        call: i64,
        transport: &NativeTransport,
        token: Either<String, &NativePort>,
        resume: Option<String>,
    ) -> napi::Result<()> {
        let token = match token {
            Either::A(token) => TokenChoice::Fixed(token),
            Either::B(asked) => TokenChoice::Host(asked.port.clone()),
        };
        thrown(self.client.connect(&port.port, number(call), &transport.transport, token, resume.as_deref()))
    }

    /// JSON of the welcome, while the session is open.
    #[napi]
    pub fn welcome(&self) -> Option<String> {
        self.client.welcome()
    }

    /// A job of a session that was taken up.
    #[napi]
    pub fn job(&self, job_id: String) -> napi::Result<NativeJob> {
        Ok(NativeJob::new(thrown(self.client.job(&job_id))?))
    }

    /// Ids of the jobs this session knows of.
    #[napi]
    pub fn jobs(&self) -> Vec<String> {
        self.client.jobs()
    }

    /// Completes with one page of jobs.
    #[napi]
    pub fn list_jobs(&self, port: &NativePort, call: i64, request: String) -> napi::Result<()> {
        thrown(self.client.list_jobs(&port.port, number(call), &request))
    }

    /// What both sides support, in the client's order.
    #[napi]
    pub fn negotiated_features(&self) -> Vec<String> {
        self.client.negotiated_features()
    }

    /// The highest `event_seq` received.
    #[napi]
    pub fn latest_event_seq(&self) -> i64 {
        i64::try_from(self.client.latest_event_seq()).unwrap_or(i64::MAX)
    }

    /// Completes with a [`crate::job::NativeJob`].
    #[napi]
    pub fn submit(&self, port: &NativePort, call: i64, request: String) -> napi::Result<()> {
        thrown(self.client.submit(&port.port, number(call), &request))
    }

    /// Completes with a [`crate::job::NativeJob`].
    #[napi]
    pub fn subscribe(&self, port: &NativePort, call: i64, request: String) -> napi::Result<()> {
        thrown(self.client.subscribe(&port.port, number(call), &request))
    }

    /// Returns at once.
    #[napi]
    pub fn unsubscribe(&self, job_id: String) {
        self.client.unsubscribe(&job_id);
    }

    /// Returns at once.
    #[napi]
    pub fn cancel_job(&self, job_id: String, reason: String) -> napi::Result<()> {
        thrown(self.client.cancel_job(&job_id, &reason))
    }

    /// Returns at once.
    #[napi]
    pub fn ack(&self, last_processed_seq: i64) {
        self.client.ack(number(last_processed_seq));
    }

    /// Completes within bounded time.
    #[napi]
    pub fn close(&self, port: &NativePort, call: i64, reason: String) -> napi::Result<()> {
        thrown(self.client.close(&port.port, number(call), reason))
    }
}
