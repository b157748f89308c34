//! What is worth a line in the dashboard's log, and the words for it. Never a token, a key, a password or a PIN.

use super::journal::{Level, Line};

/// Something that happened. `client_ip` is the peer's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are named as the log shows them")]
pub enum Event<'a> {
    /// An administrator came in.
    AdminLogin { user_id: &'a str, client_ip: &'a str },
    /// A user name and password did not fit.
    AdminLoginFailed { user_id: &'a str, client_ip: &'a str },
    /// An administrator left.
    AdminLogout { user_id: &'a str, client_ip: &'a str },
    /// An agent showed its key.
    AgentLogin { agent_id: &'a str, agent_type: &'a str, client_ip: &'a str },
    /// The key of an agent was wrong.
    AgentLoginFailed { agent_id: &'a str, client_ip: &'a str },
    /// A client tried too often and has to wait. `attempt_type`: `login`, `pin`, `general`.
    Lockout { attempt_type: &'a str, client_ip: &'a str, seconds: u64 },
    /// A session's PIN was set.
    PinSet { user_id: &'a str, client_ip: &'a str },
    /// A session's PIN was right.
    PinVerified { user_id: &'a str, client_ip: &'a str },
    /// A session's PIN was wrong.
    PinFailed { user_id: &'a str, client_ip: &'a str },
    /// An endpoint of administrators was used.
    PrivilegedAccess { user_id: &'a str, endpoint: &'a str, client_ip: &'a str },
    /// A role was too low for an endpoint.
    AccessDenied { user_id: &'a str, endpoint: &'a str, client_ip: &'a str },
    /// An agent is new, or is back after it was dead.
    AgentRegistered { agent_id: &'a str, agent_type: &'a str },
    /// An agent was taken out by itself or an administrator.
    AgentUnregistered { agent_id: &'a str },
    /// An agent was taken out after a long silence.
    AgentRemoved { agent_id: &'a str },
    /// An agent missed its heartbeats.
    AgentDead { agent_id: &'a str },
    /// A silent agent sent a heartbeat.
    AgentAlive { agent_id: &'a str },
    /// The store refused a write.
    StorageFailed,
    /// The store takes writes again.
    StorageWorks,
}

impl Event<'_> {
    /// The line of the log.
    pub fn line(self) -> Line {
        use Level::{Critical, Info, Success, Warning};
        let line =
            |level, source, kind: &str, message: String| Line::new(level, source, message).with("event_type", kind);
        match self {
            Event::AdminLogin { user_id, client_ip } => {
                line(Info, "auth", "admin_login_success", format!("Admin login successful: {user_id}"))
                    .with("user_id", user_id)
                    .with("client_ip", client_ip)
            }
            Event::AdminLoginFailed { user_id, client_ip } => {
                line(Warning, "auth", "admin_login_failed", format!("Admin login failed: {user_id}"))
                    .with("user_id", user_id)
                    .with("client_ip", client_ip)
            }
            Event::AdminLogout { user_id, client_ip } => {
                line(Info, "auth", "admin_logout", format!("Admin logged out: {user_id}"))
                    .with("user_id", user_id)
                    .with("client_ip", client_ip)
            }
            Event::AgentLogin { agent_id, agent_type, client_ip } => {
                let text = format!("Agent authenticated successfully: {agent_id} ({agent_type})");
                line(Info, "auth", "agent_login_success", text)
                    .with("agent_type", agent_type)
                    .with("agent_id", agent_id)
                    .with("client_ip", client_ip)
            }
            Event::AgentLoginFailed { agent_id, client_ip } => {
                line(Warning, "auth", "agent_login_failed", format!("Agent authentication failed: {agent_id}"))
                    .with("agent_id", agent_id)
                    .with("client_ip", client_ip)
            }
            Event::Lockout { attempt_type, client_ip, seconds } => {
                let text = format!("Locked out for {seconds} s after too many {attempt_type} attempts: {client_ip}");
                line(Critical, "auth", "lockout", text)
                    .with("attempt_type", attempt_type)
                    .with("client_ip", client_ip)
                    .with("retry_after", seconds)
            }
            Event::PinSet { user_id, client_ip } => {
                line(Info, "auth", "pin_set", format!("Session PIN set: {user_id}"))
                    .with("user_id", user_id)
                    .with("client_ip", client_ip)
            }
            Event::PinVerified { user_id, client_ip } => {
                line(Success, "auth", "pin_verified", format!("Session PIN verified: {user_id}"))
                    .with("user_id", user_id)
                    .with("client_ip", client_ip)
            }
            Event::PinFailed { user_id, client_ip } => {
                line(Warning, "auth", "pin_failed", format!("Session PIN incorrect: {user_id}"))
                    .with("user_id", user_id)
                    .with("client_ip", client_ip)
            }
            Event::PrivilegedAccess { user_id, endpoint, client_ip } => {
                let text = format!("User {user_id} (admin) accessed admin endpoint: {endpoint}");
                line(Info, "auth", "privileged_endpoint_access", text)
                    .with("endpoint", endpoint)
                    .with("user_role", "admin")
                    .with("required_permission", "admin")
                    .with("user_id", user_id)
                    .with("client_ip", client_ip)
            }
            Event::AccessDenied { user_id, endpoint, client_ip } => {
                line(Warning, "auth", "access_denied", format!("Access denied to {user_id}: {endpoint}"))
                    .with("endpoint", endpoint)
                    .with("user_id", user_id)
                    .with("client_ip", client_ip)
            }
            Event::AgentRegistered { agent_id, agent_type } => {
                line(Success, "registry", "agent_registered", format!("Agent registered: {agent_id} ({agent_type})"))
                    .with("agent_id", agent_id)
                    .with("agent_type", agent_type)
            }
            Event::AgentUnregistered { agent_id } => {
                line(Info, "registry", "agent_unregistered", format!("Agent unregistered: {agent_id}"))
                    .with("agent_id", agent_id)
            }
            Event::AgentRemoved { agent_id } => {
                line(Warning, "registry", "agent_removed", format!("Agent removed after a long silence: {agent_id}"))
                    .with("agent_id", agent_id)
            }
            Event::AgentDead { agent_id } => {
                line(Warning, "registry", "agent_dead", format!("Agent missed its heartbeats: {agent_id}"))
                    .with("agent_id", agent_id)
            }
            Event::AgentAlive { agent_id } => {
                line(Info, "registry", "agent_alive", format!("Agent is back: {agent_id}")).with("agent_id", agent_id)
            }
            Event::StorageFailed => line(
                Critical,
                "storage",
                "storage_failed",
                "Storage alert: a write failed - changes are refused until it works again; check the disk".into(),
            ),
            Event::StorageWorks => line(Success, "storage", "storage_works", "Storage takes writes again".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-346
    #[test]
    fn the_words_of_the_published_server() {
        let login = Event::AgentLogin { agent_id: "ws-3", agent_type: "security", client_ip: "127.0.0.1" }.line();
        assert_eq!(login.message, "Agent authenticated successfully: ws-3 (security)");
        assert_eq!((login.level, &*login.source), (Level::Info, "auth"));
        assert_eq!(login.context["event_type"], "agent_login_success");
        assert_eq!(login.context["client_ip"], "127.0.0.1");
        let admin = Event::AdminLogin { user_id: "ARCP", client_ip: "127.0.0.1" }.line();
        assert_eq!(admin.message, "Admin login successful: ARCP");
        let access = Event::PrivilegedAccess { user_id: "ARCP", endpoint: "/tokens/mint", client_ip: "::1" }.line();
        assert_eq!(access.message, "User ARCP (admin) accessed admin endpoint: /tokens/mint");
        assert_eq!(access.context["required_permission"], "admin");
    }
}
