//! `arcp submit`: runs an agent, shows its events, prints its result.

use std::io::Read;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use arcp::json::Limits;
use arcp::message::Welcome;
use arcp::{Client, Error, ErrorCode, JobHandle, Lease, LeaseConstraints, RawJson, Submit, Timestamp};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::args::{OutputForm, SubmitArgs};
use crate::exit::Failure;
use crate::output::{event_line, indent, member, note, print, print_bytes, result_line, shown};
use crate::screen::Screen;
use crate::session::{self, Cuts};
use crate::signals::Interrupts;

/// Events taken at once.
const BATCH: usize = 256;

/// A cancelled job is waited for so long: the 30 s an agent has to give way, and a little more.
const CANCEL_WAIT: Duration = Duration::from_secs(35);

impl SubmitArgs {
    fn request(&self) -> Result<Submit, Failure> {
        let input = RawJson::parse(&self.read_input()?).map_err(|error| {
            Failure::Usage(format!("--input is not JSON: {}; quote it for the shell, or use @FILE or -", error.message))
        })?;
        let lease_request = Lease::parse(&self.lease)
            .and_then(|_| RawJson::parse(&self.lease))
            .map_err(|error| Failure::Usage(format!("--lease: {}", error.message)))?;
        if let Some(at) = &self.lease_expires_at
            && Timestamp::parse_utc(at).is_none()
        {
            let message = format!("--lease-expires-at \"{at}\" is no UTC time such as 2026-05-13T19:30:00Z");
            return Err(Failure::Usage(message));
        }
        if let Some(key) = &self.idempotency_key
            && !(1..=256).contains(&key.len())
        {
            let message = format!("--idempotency-key must have 1 to 256 bytes, not {}", key.len());
            return Err(Failure::Usage(message));
        }
        Ok(Submit {
            agent: self.agent.clone(),
            input,
            lease_request,
            lease_constraints: self.lease_expires_at.clone().map(|at| LeaseConstraints { expires_at: Some(at) }),
            idempotency_key: self.idempotency_key.clone(),
            max_runtime_sec: self.max_runtime,
            parent_job_id: None,
            delegate_id: None,
        })
    }

    fn read_input(&self) -> Result<String, Failure> {
        let (name, source): (&str, Box<dyn Read>) = match self.input.strip_prefix('@') {
            None if self.input == "-" => ("stdin", Box::new(std::io::stdin().lock())),
            None => return Ok(self.input.clone()),
            Some(path) => match std::fs::File::open(Path::new(path)) {
                Ok(file) => (path, Box::new(file)),
                Err(error) => return Err(Failure::Usage(format!("--input: cannot open {path}: {error}"))),
            },
        };
        // One byte over the limit is enough to be refused.
        let most = u64::try_from(Limits::default().max_bytes).unwrap_or(u64::MAX);
        let mut text = String::new();
        match source.take(most.saturating_add(1)).read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => Err(Failure::Usage(format!("--input: cannot read {name}: {error}"))),
        }
    }
}

pub(crate) async fn run(args: SubmitArgs) -> Result<(), Failure> {
    let request = args.request()?;
    let mut interrupts = Interrupts::new().map_err(|error| Failure::Other(error.to_string()))?;
    let (client, welcome) = session::open(&args.session, &mut interrupts).await?;
    let outcome = follow(&client, &welcome, &args, &request, &mut interrupts).await;
    if !matches!(outcome, Err(Failure::Interrupted(None))) {
        session::close(&client, &mut interrupts).await;
    }
    outcome
}

async fn follow(
    client: &Client,
    welcome: &Welcome,
    args: &SubmitArgs,
    request: &Submit,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    let mut interrupted = false;
    let mut cuts = Cuts::of(client, args.quiet);
    let mut accepted = pin!(client.submit(request, None));
    let job = loop {
        tokio::select! {
            accepted = &mut accepted => break accepted.map_err(|error| refused(error, welcome))?,
            cut = cuts.next() => note(&cut),
            () = interrupts.next() => {
                if interrupted {
                    return Err(Failure::Interrupted(None));
                }
                // A job that may have been started can be cancelled only once its id is known.
                interrupted = true;
            }
        }
    };
    announce(args, &job)?;
    if args.detach && !interrupted {
        return Ok(());
    }
    let mut screen = Screen::new(args.quiet || args.output == OutputForm::Json);
    let mut give_up = None;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if interrupted && give_up.is_none() {
            if !args.quiet {
                screen.line("cancelling the job; Ctrl-C again leaves at once");
            }
            client.cancel_job(job.job_id(), "interrupted by the user").map_err(Failure::of_request)?;
            give_up = Some(Instant::now() + CANCEL_WAIT);
        }
        let more = tokio::select! {
            more = job.next_events(BATCH, &mut batch) => more,
            cut = cuts.next() => {
                screen.line(&cut);
                continue;
            }
            () = interrupts.next() => {
                if interrupted {
                    return Err(Failure::Interrupted(None));
                }
                interrupted = true;
                continue;
            }
            () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => {
                screen.line("the job has not ended yet");
                return Err(Failure::Interrupted(None));
            }
        };
        for event in batch.drain(..) {
            match args.output {
                OutputForm::Text => screen.event(&event),
                OutputForm::Json => print(&member("event", &event_line(&event)))?,
            }
        }
        if !more {
            break;
        }
    }
    drop(screen);
    match job.result().await {
        // What was streamed may be anything, so it is handed on as it came.
        Ok(result) if result.result_id.is_some() && args.output == OutputForm::Text => {
            print_bytes(&job.result_bytes().await.map_err(Failure::of_job)?)
        }
        Ok(result) => {
            let line = result_line(result)?;
            match args.output {
                OutputForm::Text => print(&indent(&line)),
                OutputForm::Json => print(&member("result", &line)),
            }
        }
        Err(Error::Protocol(error)) if interrupted => Err(Failure::Interrupted(Some(error))),
        Err(error) => Err(Failure::of_job(error)),
    }
}

/// The job id, where `--detach` or a second terminal needs it.
fn announce(args: &SubmitArgs, job: &JobHandle) -> Result<(), Failure> {
    match args.output {
        OutputForm::Json => {
            let accepted =
                json!({"job_id": job.job_id(), "agent": job.accepted().and_then(|accepted| accepted.agent.as_deref())});
            print(&member("accepted", &accepted.to_string()))
        }
        OutputForm::Text if args.detach => print(job.job_id()),
        OutputForm::Text => {
            if !args.quiet {
                note(&format!("job {}", shown(job.job_id())));
            }
            Ok(())
        }
    }
}

/// A refusal; of an unknown agent with those there are.
fn refused(error: Error, welcome: &Welcome) -> Failure {
    match Failure::of_request(error) {
        Failure::Refused(mut error) if error.code == ErrorCode::AgentNotAvailable => {
            let names: Vec<&str> = welcome.capabilities.agents.iter().map(|agent| agent.name.as_str()).collect();
            if !names.is_empty() {
                error.message = format!("{}; the runtime hosts: {}", error.message, names.join(", "));
            }
            Failure::Refused(error)
        }
        other => other,
    }
}
