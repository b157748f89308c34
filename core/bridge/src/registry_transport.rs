//! Requests to a registry that a host carries out with its own HTTP client (D-11).

use std::collections::BTreeMap;
use std::time::Duration;

use arcp::registry::{HttpRequest, HttpResponse, Sending, Transport, TransportFault};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::json;

use crate::host_request::About;
use crate::port::Port;

/// Asks a host for each request.
pub(crate) struct HostTransport {
    port: Port,
}

/// A host's client has a time-out of its own; this one only sees to it that nothing waits for ever.
const GRACE: Duration = Duration::from_secs(5);

/// What a host answers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Response {
        status: u16,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        #[serde(default)]
        body: String,
    },
    Failed {
        failed: Failed,
        #[serde(default)]
        message: String,
    },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Failed {
    Connect,
    Timeout,
    Lost,
    Other,
}

impl HostTransport {
    pub(crate) fn new(port: Port) -> Self {
        HostTransport { port }
    }

    async fn ask(&self, request: &HttpRequest) -> Result<HttpResponse, TransportFault> {
        let headers: BTreeMap<&str, String> = request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let mut arguments = json!({
            "method": request.method.as_str(),
            "url": format!("{}{}", request.origin, request.path),
            "params": request.query,
            "headers": headers,
            "timeout": request.timeout.as_secs_f64(),
        });
        if let Some(body) = &request.body {
            let body = serde_json::from_slice(body).unwrap_or_default();
            arguments["json"] = body;
        }
        let late = |_| TransportFault::Timeout("the HTTP client gave no answer".into());
        let answer = tokio::time::timeout(request.timeout + GRACE, self.port.ask(About::HttpRequest, &arguments)).await;
        let answer = answer.map_err(late)?.map_err(|error| TransportFault::Other(error.message))?;
        // The answer may hold a token, so nothing of it is shown.
        let answer: Answer = serde_json::from_str(&answer)
            .map_err(|_| TransportFault::Other("the HTTP client's answer has another shape".into()))?;
        match answer {
            Answer::Response { status, headers, body } => {
                let read = |(name, value): (String, String)| {
                    HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(&value).ok())
                };
                let headers: HeaderMap = headers.into_iter().filter_map(read).collect();
                Ok(HttpResponse { status, headers, body: body.into() })
            }
            Answer::Failed { failed, message } => Err(match failed {
                Failed::Connect => TransportFault::Connect(message),
                Failed::Timeout => TransportFault::Timeout(message),
                Failed::Lost => TransportFault::Lost { message, stale: false },
                Failed::Other => TransportFault::Other(message),
            }),
        }
    }
}

impl Transport for HostTransport {
    fn send<'a>(&'a self, request: &'a HttpRequest) -> Sending<'a> {
        Box::pin(self.ask(request))
    }
}
