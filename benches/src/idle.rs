//! What a session costs that does nothing: a runtime in a process of its own, and its memory as the system sees it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::peer::Peer;
use crate::server::{Kept, Server, TOKEN};
use crate::{Measured, single_threaded};

/// How this program is called to be the process that is measured.
pub(crate) const SERVE: &str = "--serve-idle";

const SESSIONS: usize = 1000;

/// Sessions open before the first look, so that what a runtime needs once is not counted.
const WARM: usize = 10;

/// KiB of memory per session that was opened and says nothing.
pub(crate) fn sessions() -> Measured {
    raise_limit()?;
    let (mut process, url) = start()?;
    let measured = single_threaded().block_on(async {
        let mut open = Vec::new();
        for _ in 0..WARM {
            open.push(connect(&url).await);
        }
        let before = memory(&process)?;
        for _ in 0..SESSIONS {
            open.push(connect(&url).await);
        }
        let after = memory(&process)?;
        drop(open);
        Ok(vec![(after - before) / SESSIONS as f64])
    });
    process.kill().and_then(|()| process.wait()).map_err(|error| format!("the process did not end: {error}"))?;
    measured
}

async fn connect(url: &str) -> Peer {
    let mut peer = Peer::connect(url, 4096).await;
    peer.open_whole(TOKEN).await;
    peer
}

/// Serves until its standard input closes.
pub(crate) fn serve() {
    raise_limit().unwrap();
    let server = Server::start(Kept::InMemory);
    println!("{}", server.url);
    std::io::stdout().flush().unwrap();
    std::io::stdin().lines().for_each(drop);
}

fn start() -> Result<(Child, String), String> {
    let program = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let mut process = Command::new(program)
        .arg(SERVE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the runtime's process cannot be started: {error}"))?;
    let mut url = String::new();
    let output = process.stdout.take().ok_or("the runtime's process has no output")?;
    BufReader::new(output).read_line(&mut url).map_err(|error| format!("no address: {error}"))?;
    Ok((process, url.trim().to_owned()))
}

/// KiB that belong to the process alone or are its share of what others use too.
fn memory(process: &Child) -> Result<f64, String> {
    let path = format!("/proc/{}/smaps_rollup", process.id());
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or_else(|| format!("{path} has no Pss"))?;
    line.trim().trim_end_matches("kB").trim().parse().map_err(|_| format!("{path}: Pss is \"{}\"", line.trim()))
}

/// A descriptor for every session, as far as the system lets this process go.
fn raise_limit() -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .map_err(|error| format!("the limit of open files cannot be raised: {error}"))
}
