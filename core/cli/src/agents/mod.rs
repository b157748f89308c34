//! `arcp agents` and `arcp login`: a registry from the command line.

mod access;
mod args;
mod login;
mod logins;
mod table;
mod watch;

use std::io::Read as _;

use arcp::registry::{ListFilter, NewAgent, Operation, Search};
use serde_json::{Map, Value};

pub(crate) use self::args::{AgentsArgs, LoginArgs};
pub(crate) use self::login::run as login;

use self::access::Access;
use self::args::{AgentsCommand, AliveArg, HeartbeatArgs, ListArgs, RegisterArgs, SearchArgs, UnregisterArgs};
use self::table::Cell;
use crate::args::{OutputForm, read_file};
use crate::exit::Failure;
use crate::output::{member, note, print};
use crate::signals::Interrupts;

pub(crate) async fn run(args: AgentsArgs) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new().map_err(|error| Failure::Other(error.to_string()))?;
    match args.command {
        AgentsCommand::Watch(args) => watch::run(&args, &mut interrupts).await,
        AgentsCommand::Register(args) => register(&args, &mut interrupts).await,
        AgentsCommand::Heartbeat(args) => heartbeat(&args, &mut interrupts).await,
        other => tokio::select! {
            outcome = at_once(&other) => outcome,
            () = interrupts.next() => Err(Failure::Interrupted(None)),
        },
    }
}

async fn at_once(command: &AgentsCommand) -> Result<(), Failure> {
    match command {
        AgentsCommand::List(args) => list(args).await,
        AgentsCommand::Search(args) => search(args).await,
        AgentsCommand::Unregister(args) => unregister(args).await,
        AgentsCommand::Get(args) => {
            let access = args.registry.open(Some(&args.agent_id))?;
            let get = Operation::GetAgent { agent_id: args.agent_id.clone(), include_metrics: true };
            show(args.registry.output, &access.perform(get).await?)
        }
        // With an end of their own.
        AgentsCommand::Watch(_) | AgentsCommand::Register(_) | AgentsCommand::Heartbeat(_) => Ok(()),
    }
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let access = args.registry.open(None)?;
    let status = args.status.map(|status| if status == AliveArg::Alive { "alive" } else { "dead" }.to_owned());
    let filter = ListFilter {
        agent_type: args.agent_type.clone(),
        status,
        capabilities: (!args.capability.is_empty()).then(|| args.capability.clone()),
        include_metrics: args.metrics,
    };
    let found = access.perform(Operation::ListAgents(filter)).await?;
    let agents = found.as_array().map(Vec::as_slice).unwrap_or_default();
    if args.registry.output == OutputForm::Json {
        return agents.iter().try_for_each(|agent| print(&member("agent", &agent.to_string())));
    }
    let mut rows = vec![["ID", "NAME", "TYPE", "STATUS", "LAST SEEN", "ENDPOINT"].map(Cell::head)];
    rows.extend(agents.iter().map(|agent| {
        let of = |member| Cell::of(agent, member);
        let status = Cell::status(agent["status"].as_str().unwrap_or_default());
        [of("agent_id"), of("name"), of("agent_type"), status, of("last_seen"), of("endpoint")]
    }));
    table::print(&rows)?;
    if args.metrics {
        for agent in agents.iter().filter(|agent| !agent["metrics"].is_null()) {
            print(&format!("{}: {}", table::text(&agent["agent_id"]), table::text(&agent["metrics"])))?;
        }
    }
    Ok(())
}

async fn search(args: &SearchArgs) -> Result<(), Failure> {
    let access = args.registry.open(None)?;
    let search = Search {
        query: args.query.clone(),
        top_k: args.top_k.into(),
        min_similarity: args.min_similarity,
        capabilities: (!args.capability.is_empty()).then(|| args.capability.clone()),
        weighted: args.weighted,
        agent_type: args.agent_type.clone(),
        public_api: true,
    };
    let found = access.perform(Operation::SearchAgents(search)).await?;
    let found = found.as_array().map(Vec::as_slice).unwrap_or_default();
    if args.registry.output == OutputForm::Json {
        return found.iter().try_for_each(|found| print(&member("found", &found.to_string())));
    }
    let mut rows = vec![["SIMILARITY", "ID", "NAME", "CAPABILITIES", "URL"].map(Cell::head)];
    rows.extend(found.iter().map(|found| {
        let similarity = found["similarity"].as_f64().map_or("-".to_owned(), |number| format!("{number:.3}"));
        let of = |member| Cell::of(found, member);
        [Cell::plain(similarity), of("id"), of("name"), of("capabilities"), of("url")]
    }));
    table::print(&rows)
}

async fn register(args: &RegisterArgs, interrupts: &mut Interrupts) -> Result<(), Failure> {
    let fields = agent_fields(&args.agent)?;
    let agent_id = fields.get("agent_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    // Not the token stored for that agent: it registers anew.
    let access = args.registry.open(None)?;
    let new = Operation::RegisterAgent(NewAgent { agent_key: args.key.read()?, fields });
    let registered = tokio::select! {
        registered = access.perform(new) => registered?,
        () = interrupts.next() => return Err(Failure::Interrupted(None)),
    };
    if let Some((token, _)) = access.client.token() {
        let stored = access.remember(|login| {
            login.agents.insert(agent_id.clone(), token.expose().to_owned());
        });
        if let Err(failure) = stored {
            note(&format!("the agent's token is not stored: {}", failure.message()));
        }
    }
    show(args.registry.output, &registered)?;
    if !args.keep_alive {
        return Ok(());
    }
    note("kept alive until Ctrl-C");
    tokio::select! {
        error = access.client.keep_alive(&agent_id, args.every) => return Err(error.into()),
        () = interrupts.next() => {}
    }
    tokio::select! {
        outcome = leave(&access, &agent_id, None) => outcome.map(drop),
        () = interrupts.next() => Err(Failure::Interrupted(None)),
    }
}

/// The members of a JSON object given as text, `@FILE` or `-`.
fn agent_fields(given: &str) -> Result<Map<String, Value>, Failure> {
    let text = match given.strip_prefix('@') {
        Some(path) => read_file("the agent", std::path::Path::new(path))?,
        None if given == "-" => {
            let mut text = String::new();
            let read = std::io::stdin().lock().read_to_string(&mut text);
            read.map_err(|error| Failure::Usage(format!("the agent: cannot read stdin: {error}")))?;
            text
        }
        None => given.to_owned(),
    };
    let fields: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("the agent must be a JSON object, @FILE or -: {error}")))?;
    if fields.contains_key("agent_key") {
        let told = "the key does not belong to the agent's JSON; give --agent-key-file, or set ARCP_AGENT_KEY";
        return Err(Failure::Usage(told.into()));
    }
    Ok(fields)
}

async fn unregister(args: &UnregisterArgs) -> Result<(), Failure> {
    let access = args.registry.open(Some(&args.agent_id))?;
    let done = leave(&access, &args.agent_id, args.key.read()?).await?;
    match args.registry.output {
        OutputForm::Json => print(&member("unregistered", &done.to_string())),
        OutputForm::Text => print(&format!("{} is unregistered", crate::output::shown(&args.agent_id))),
    }
}

async fn leave(access: &Access, agent_id: &str, key: Option<arcp::registry::Secret>) -> Result<Value, Failure> {
    let leave = Operation::UnregisterAgent { agent_id: agent_id.to_owned(), agent_key: key };
    let done = access.perform(leave).await?;
    let forgotten = access.remember(|login| {
        login.agents.remove(agent_id);
    });
    if let Err(failure) = forgotten {
        note(&format!("the agent's token is still stored: {}", failure.message()));
    }
    Ok(done)
}

async fn heartbeat(args: &HeartbeatArgs, interrupts: &mut Interrupts) -> Result<(), Failure> {
    let access = args.registry.open(Some(&args.agent_id))?;
    let once = async {
        let beat = Operation::UpdateHeartbeat { agent_id: args.agent_id.clone() };
        let done = access.perform(beat).await?;
        match args.registry.output {
            OutputForm::Json => print(&member("heartbeat", &done.to_string())),
            OutputForm::Text => print(&format!("last seen {}", table::text(&done["last_seen"]))),
        }
    };
    tokio::select! {
        outcome = once => outcome?,
        () = interrupts.next() => return Err(Failure::Interrupted(None)),
    }
    let Some(every) = args.every else { return Ok(()) };
    tokio::select! {
        error = access.client.keep_alive(&args.agent_id, every) => Err(error.into()),
        () = interrupts.next() => Ok(()),
    }
}

fn show(form: OutputForm, agent: &Value) -> Result<(), Failure> {
    match form {
        OutputForm::Json => print(&member("agent", &agent.to_string())),
        OutputForm::Text => table::agent(agent),
    }
}
