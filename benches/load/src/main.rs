//! Asks a registry as fast as it answers, from one thread, and says how fast that was.
//!
//! One JSON object on stdin says what to do, one on stdout what came of it. It writes requests that were put together
//! before it began and reads no more of an answer than where it ends, so that it is not what is measured.

mod http;
mod sockets;

use std::io::Read;
use std::process::ExitCode;

use serde::Deserialize;

/// What to do.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Task {
    /// Requests over keep-alive connections.
    Http(http::Task),
    /// One change to many public sockets.
    Sockets(sockets::Task),
}

fn main() -> ExitCode {
    match run() {
        Ok(text) => {
            #[expect(clippy::print_stdout, reason = "the result of the program")]
            {
                println!("{text}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the failure of the program")]
            {
                eprintln!("arcp-load: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let task: Task = serde_json::from_str(&text)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match task {
            Task::Http(task) => http::run(task).await,
            Task::Sockets(task) => sockets::run(task).await,
        }
    })
}
