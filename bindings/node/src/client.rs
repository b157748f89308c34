//! A client.

use arcp_bridge::{Client, ClientOptions, TokenChoice};
use napi_derive::napi;

use crate::core::core;
use crate::error::thrown;
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

    /// Completes with the welcome; uses the transport up.
    #[napi]
    pub fn connect(
        &self,
        port: &NativePort,
        call: i64,
        transport: &NativeTransport,
        token: String,
    ) -> napi::Result<()> {
        thrown(self.client.connect(&port.port, number(call), &transport.transport, TokenChoice::Fixed(token), None))
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
