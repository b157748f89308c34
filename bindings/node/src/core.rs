//! The one core of the process, shared by the main thread and every worker.

use std::time::Duration;

use arcp_bridge::{Core, ErrorInfo};
use napi::Env;
use napi_derive::napi;
use parking_lot::Mutex;

/// How long the last JavaScript thread to end waits for the core's threads.
const SHUTDOWN: Duration = Duration::from_millis(500);

static SHARED: Mutex<Shared> = Mutex::new(Shared { core: None, environments: 0 });

struct Shared {
    core: Option<Core>,
    environments: usize,
}

/// The core, started at first use.
pub(crate) fn core() -> Result<Core, ErrorInfo> {
    let mut shared = SHARED.lock();
    if let Some(core) = &shared.core {
        return Ok(core.clone());
    }
    let core = Core::new(0)?;
    shared.core = Some(core.clone());
    Ok(core)
}

/// Counts this JavaScript thread in. When the last one ends, the core's threads end before the process goes on.
#[napi]
pub(crate) fn attach(env: Env) -> napi::Result<()> {
    SHARED.lock().environments += 1;
    env.add_env_cleanup_hook((), |()| detach())?;
    Ok(())
}

fn detach() {
    let last = {
        let mut shared = SHARED.lock();
        shared.environments -= 1;
        if shared.environments == 0 { shared.core.take() } else { None }
    };
    if let Some(core) = last {
        core.shutdown(SHUTDOWN);
    }
}
