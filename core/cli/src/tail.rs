//! `arcp tail`: a job's events and its result, from the first that was kept.

use arcp::{Client, Subscribe};

use crate::args::{OutputForm, TailArgs};
use crate::exit::Failure;
use crate::output::{event_line, member, note, print, result_line};
use crate::session::{self, Cuts};
use crate::signals::Interrupts;

/// Events taken at once.
const BATCH: usize = 256;

pub(crate) async fn run(args: TailArgs) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new().map_err(|error| Failure::Other(error.to_string()))?;
    let (client, _) = session::open(&args.session, &mut interrupts).await?;
    let mut cuts = Cuts::of(&client, false);
    let tell_of_cuts = async {
        loop {
            note(&cuts.next().await);
        }
    };
    let outcome = tokio::select! {
        outcome = follow(&client, &args) => outcome,
        () = tell_of_cuts => Ok(()),
        () = interrupts.next() => Err(Failure::Interrupted(None)),
    };
    session::close(&client, &mut interrupts).await;
    outcome
}

async fn follow(client: &Client, args: &TailArgs) -> Result<(), Failure> {
    let request = Subscribe { job_id: args.job_id.clone(), from_event_seq: args.from_seq, history: true };
    let job = client.subscribe(&request).await.map_err(Failure::of_request)?;
    let show = |name: &str, line: &str| match args.output {
        OutputForm::Text => print(line),
        OutputForm::Json => print(&member(name, line)),
    };
    let mut batch = Vec::with_capacity(BATCH);
    while job.handle().next_events(BATCH, &mut batch).await {
        for event in batch.drain(..) {
            show("event", &event_line(&event))?;
        }
    }
    let result = job.handle().result().await.map_err(Failure::of_job)?;
    show("result", &result_line(result)?)
}
