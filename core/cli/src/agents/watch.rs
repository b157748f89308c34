//! `arcp agents watch`: who comes and goes, live.

use std::collections::BTreeMap;

use arcp::registry::{ListFilter, Operation, RegistrySocket, SocketKind, SocketOptions};
use clap::builder::styling::{AnsiColor, Style};
use serde_json::Value;

use super::access::Access;
use super::args::WatchArgs;
use super::table::{styled, text};
use crate::args::OutputForm;
use crate::exit::Failure;
use crate::output::{member, note, print, shown};
use crate::signals::Interrupts;

/// What is known of an agent while it lives.
#[derive(Clone, PartialEq)]
struct Known {
    name: String,
    agent_type: String,
    registered_at: String,
}

pub(crate) async fn run(args: &WatchArgs, interrupts: &mut Interrupts) -> Result<(), Failure> {
    let access = args.registry.open(None)?;
    let socket = access.client.open_socket(SocketKind::Public, SocketOptions::default())?;
    tokio::select! {
        outcome = follow(args, &access, &socket) => outcome,
        // How one stops watching.
        () = interrupts.next() => Ok(()),
    }
}

async fn follow(args: &WatchArgs, access: &Access, socket: &RegistrySocket) -> Result<(), Failure> {
    let mut living = None;
    while let Some(message) = socket.next().await {
        let message = message?;
        if args.registry.output == OutputForm::Json {
            print(&member("message", &message))?;
            continue;
        }
        let message: Value = serde_json::from_str(&message).unwrap_or_default();
        match message["type"].as_str() {
            Some("welcome") => {
                // Also after a lost connection: what was missed meanwhile shows up as changes.
                let filter = ListFilter { status: Some("alive".into()), ..ListFilter::default() };
                let found = access.perform(Operation::ListAgents(filter)).await?;
                let now = known(args, &found);
                match living.replace(now.clone()) {
                    None => note(&format!("{} agents are alive at {}; Ctrl-C ends", now.len(), shown(&access.url))),
                    Some(before) => tell(&before, &now)?,
                }
            }
            Some("agents_update") => {
                let now = known(args, &message["data"]["agents"]);
                if let Some(before) = living.replace(now.clone()) {
                    tell(&before, &now)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn known(args: &WatchArgs, agents: &Value) -> BTreeMap<String, Known> {
    let wanted = |agent: &&Value| {
        let is_alive = agent["status"].as_str().is_none_or(|status| status == "alive");
        let agent_type = agent["agent_type"].as_str().unwrap_or_default();
        is_alive && args.agent_type.as_ref().is_none_or(|wanted| agent_type.eq_ignore_ascii_case(wanted))
    };
    let entry = |agent: &Value| {
        let known = Known {
            name: text(&agent["name"]),
            agent_type: text(&agent["agent_type"]),
            // One of the two ways a time is written separates it by a blank (REG-203).
            registered_at: text(&agent["registered_at"]).replace(' ', "T"),
        };
        (text(&agent["agent_id"]), known)
    };
    agents.as_array().into_iter().flatten().filter(wanted).map(entry).collect()
}

fn tell(before: &BTreeMap<String, Known>, now: &BTreeMap<String, Known>) -> Result<(), Failure> {
    for (id, known) in before {
        if !now.contains_key(id) {
            line(AnsiColor::Red.on_default(), "gone", id, known)?;
        }
    }
    for (id, known) in now {
        match before.get(id) {
            None => line(AnsiColor::Green.on_default(), "alive", id, known)?,
            Some(old) if old != known => line(AnsiColor::Yellow.on_default(), "changed", id, known)?,
            Some(_) => {}
        }
    }
    Ok(())
}

fn line(style: Style, what: &str, id: &str, known: &Known) -> Result<(), Failure> {
    let time = jiff::ZonedDateTime::now().strftime("%H:%M:%S");
    styled(&format!("{time}  {style}{what:7}{style:#}  {id}  {}  {}\n", known.agent_type, known.name))
}
