//! `arcp cancel`: asks for a job's end and says what came of it.

use serde_json::json;

use crate::args::{CancelArgs, OutputForm};
use crate::exit::Failure;
use crate::output::{member, print};
use crate::session;
use crate::signals::Interrupts;

pub(crate) async fn run(args: CancelArgs) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new().map_err(|error| Failure::Other(error.to_string()))?;
    let (client, _) = session::open(&args.session, &mut interrupts).await?;
    let outcome = tokio::select! {
        outcome = client.cancel_job_acknowledged(&args.job_id, &args.reason) => outcome.map_err(Failure::of_request),
        () = interrupts.next() => Err(Failure::Interrupted(None)),
    };
    session::close(&client, &mut interrupts).await;
    let ended = outcome?.map(|status| status.as_str());
    match (args.output, ended) {
        (OutputForm::Json, _) => {
            print(&member("cancel", &json!({"job_id": args.job_id, "already_ended": ended}).to_string()))
        }
        (OutputForm::Text, None) => print(&format!("{} is being cancelled", args.job_id)),
        (OutputForm::Text, Some(status)) => print(&format!("{} had already ended: {status}", args.job_id)),
    }
}
