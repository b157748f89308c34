//! Credentials made for one job (runtime-protocol section 9.8): who issues and revokes them.

mod endpoint;
mod litellm;
mod upstream;

use std::future::Future;
use std::pin::Pin;

use arcp_proto::Error;
use arcp_proto::json::RawJson;
use arcp_proto::machine::provision::{IssueRequest, Issued, Revocation};
use arcp_proto::message::SecretText;

pub use endpoint::is_for_endpoint;
pub use litellm::{LiteLlmOptions, LiteLlmProvisioner};
pub use upstream::upstream_error;

/// The answer to [`Provisioner::issue`].
pub type IssueFuture = Pin<Box<dyn Future<Output = Result<Vec<Issued>, Error>> + Send>>;

/// The answer to [`Provisioner::revoke`].
pub type RevokeFuture = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Issues credentials for jobs and takes them back.
///
/// The runtime stores the request's intent before it asks, and every handle before a value leaves (D-127, R-9.8.2.6):
/// its durable store is the log of what must still be revoked. It asks again when a revocation fails, with growing
/// pauses (R-9.8.2.5). Both calls may be dropped where they wait when they take too long.
pub trait Provisioner: Send + Sync + 'static {
    /// Credentials for one job; an empty list when its lease needs none. Asked once: a failure refuses the submit.
    fn issue(&self, request: IssueRequest) -> IssueFuture;

    /// Takes one value back, or whatever was issued under an intent. Succeeds when there is nothing to take back (any
    /// more), since it may be asked twice.
    fn revoke(&self, what: Revocation) -> RevokeFuture;

    /// The handle by which a value that an agent made itself can be revoked, for [`crate::JobContext::rotate_credential`].
    /// `None`, as unless it is written, when there is no telling: such a value is then not taken.
    fn handle_for(&self, _value: &SecretText) -> Option<RawJson> {
        None
    }
}
