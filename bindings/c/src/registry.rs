//! A client of an agent registry.

use std::ffi::c_char;

use arcp_bridge::Registry;

use crate::boundary::{Out, free, guard, reference, text};
use crate::core::arcp_core;
use crate::error::{arcp_error, arcp_result};
use crate::port::arcp_port;

/// A client of one registry: requests, retries, credentials, the tokens of several agents.
pub struct arcp_registry {
    registry: Registry,
}

/// Makes a client that has sent nothing yet. `options` is a JSON object: `base_url` (required, such as
/// `http://127.0.0.1:8001`), `timeout` (30 s), `retry_attempts` (3), `retry_delay` (1 s), `max_retry_delay` (60 s),
/// `user_agent`, `fingerprint`, `token`, `agent_key`, `admin_username` with `admin_password` (the last four come from
/// `ARCP_TOKEN`, `ARCP_AGENT_KEY`, `ARCP_ADMIN_USERNAME` and `ARCP_ADMIN_PASSWORD` when absent), `owner`, `ca_file`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_registry_new(
    core: *const arcp_core,
    options: *const c_char,
    registry: *mut *mut arcp_registry,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(registry, "registry")?;
            let options = text(options, "options")?;
            out.give(arcp_registry { registry: Registry::new(&reference(core, "core")?.core, options)? });
            Ok(())
        })
    }
}

/// Does one operation; completes with the registry's answer as JSON. `operation` is the name of one, and `arguments` a JSON
/// object: `health_check`, `get_system_info`, `get_public_stats`, `get_allowed_agent_types` (no arguments);
/// `register_agent` (`agent_id`, `name`, `agent_type`, `endpoint`, `capabilities`, `context_brief`; `agent_key`, `version`,
/// `owner`, `public_key`, `communication_mode`, `metadata` and more), `unregister_agent` (`agent_id`, `agent_key`),
/// `update_heartbeat` (`agent_id`), `keep_alive` (`agent_id`, `interval`: beats until the call is cancelled),
/// `update_metrics` (`agent_id`, `metrics_data`), `get_metrics` (`agent_id`); `get_agent` (`agent_id`, `include_metrics`),
/// `get_public_agent` (`agent_id`), `list_agents` (`agent_type`, `status`, `capabilities`, `include_metrics`),
/// `discover_agents` (`agent_type`, `capabilities`, `limit`, `offset`), `search_agents` (`query`, `top_k`,
/// `min_similarity`, `capabilities`, `weighted`, `agent_type`, `public_api`), `request_agent_connection` (`agent_id`,
/// `user_id`, `user_endpoint`, `display_name`, `additional_info`); `login_admin` (`username`, `password`),
/// `request_temp_token` (`agent_id`, `agent_type`, `agent_key`), `validate_token` (`token`), `refresh_authentication`;
/// `get_system_metrics`, `get_system_stats`, `get_resource_utilization`, `get_metrics_snapshot`.
///
/// Completes with `ARCP_REGISTRY` for what the registry refused and for a registry that cannot be reached: the error's code
/// is the slug of the problem document, such as `agent-not-found`, or empty, and its details have `area`, `kind`, `status`,
/// `cause`, `retry_after`, `problem` and `errors`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_registry_call(
    registry: *const arcp_registry,
    port: *const arcp_port,
    call: u64,
    operation: *const c_char,
    arguments: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (registry, port) = (reference(registry, "registry")?, reference(port, "port")?);
            let (operation, arguments) = (text(operation, "operation")?, text(arguments, "arguments")?);
            Ok(registry.registry.perform(port.bridge(), call, operation, arguments, None)?)
        })
    }
}

/// Frees a registry's client. Calls under way go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_registry_free(registry: *mut arcp_registry) {
    // SAFETY: the header's rules.
    unsafe { free(registry) };
}
