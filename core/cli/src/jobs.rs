//! `arcp jobs`: the jobs this principal may see.

use arcp::Client;
use arcp::message::{JobEntry, JobFilter, JobStatus, ListJobs};

use crate::args::{JobsArgs, OutputForm, StatusArg};
use crate::exit::Failure;
use crate::output::{columns, member, print, shown};
use crate::session;
use crate::signals::Interrupts;

impl StatusArg {
    fn status(self) -> JobStatus {
        match self {
            StatusArg::Pending => JobStatus::Pending,
            StatusArg::Running => JobStatus::Running,
            StatusArg::Success => JobStatus::Success,
            StatusArg::Error => JobStatus::Error,
            StatusArg::Cancelled => JobStatus::Cancelled,
            StatusArg::TimedOut => JobStatus::TimedOut,
        }
    }
}

pub(crate) async fn run(args: JobsArgs) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new().map_err(|error| Failure::Other(error.to_string()))?;
    let (client, _) = session::open(&args.session, &mut interrupts).await?;
    let outcome = tokio::select! {
        outcome = list(&client, &args) => outcome,
        () = interrupts.next() => Err(Failure::Interrupted(None)),
    };
    session::close(&client, &mut interrupts).await;
    outcome
}

async fn list(client: &Client, args: &JobsArgs) -> Result<(), Failure> {
    let status = args.status.iter().map(|status| status.status().as_str().to_owned()).collect::<Vec<_>>();
    let filter =
        JobFilter { status: (!status.is_empty()).then_some(status), agent: args.agent.clone(), ..JobFilter::default() };
    let mut request = ListJobs { filter: Some(filter), limit: Some(args.limit), cursor: None };
    let mut rows = vec![["JOB", "AGENT", "STATUS", "CREATED", "LAST-SEQ"].map(str::to_owned)];
    loop {
        let page = client.list_jobs(&request).await.map_err(Failure::of_request)?;
        for job in &page.jobs {
            match args.output {
                OutputForm::Text => rows.push(row(job)),
                OutputForm::Json => print(&member("job", &json(job)?))?,
            }
        }
        // A page may be the last although it is full, and a cursor that does not move would never end.
        match page.next_cursor {
            Some(cursor) if args.all && request.cursor.as_ref() != Some(&cursor) => request.cursor = Some(cursor),
            _ => break,
        }
    }
    match args.output {
        OutputForm::Text => columns(&rows).iter().try_for_each(|line| print(line)),
        OutputForm::Json => Ok(()),
    }
}

fn row(job: &JobEntry) -> [String; 5] {
    [
        shown(&job.job_id).into_owned(),
        shown(&job.agent).into_owned(),
        job.status.as_str().to_owned(),
        job.created_at.to_string(),
        job.last_event_seq.to_string(),
    ]
}

fn json(job: &JobEntry) -> Result<String, Failure> {
    serde_json::to_string(job).map_err(|error| Failure::Other(format!("a job cannot be written: {error}")))
}
