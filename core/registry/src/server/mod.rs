//! The registry's server: HTTP, WebSockets, tokens, limits.

pub mod auth;
pub mod config;
pub mod dashboard;
mod http;
pub mod metrics;
pub mod outbound;
mod run;
pub mod socket;
mod view;

use std::sync::Arc;
use std::time::Duration;

use arcp_store::registry::{RegistryOp, RegistryStore};
use serde_json::{Value, json};

pub use run::{Running, ServeError, serve, start};

use self::auth::Auth;
use self::config::Config;
use self::dashboard::{Dashboard, DashboardSettings, Embedding};
use self::http::outer::Outer;
use self::http::system::HealthCache;
use self::metrics::Metrics;
use self::outbound::Outbound;
use self::socket::{Limits, Sockets};
use self::view::View;
use crate::service::{Service, ServiceConfig};

/// The version told to clients.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The name under which the store keeps the settings of the dashboard's page.
const DASHBOARD_SETTING: &str = "dashboard";

/// What all requests share.
#[derive(Debug)]
pub struct AppState {
    /// The settings.
    pub config: Config,
    /// The agents.
    pub service: Service,
    /// Tokens, sessions, passwords.
    pub auth: Arc<Auth>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Calls to agents.
    pub outbound: Outbound,
    /// What dashboards show.
    pub dashboard: Dashboard,
    /// WebSockets.
    pub sockets: Sockets,
    outer: Outer,
    health: HealthCache,
}

/// A handle on it.
pub type App = Arc<AppState>;

impl AppState {
    /// Everything but the listening. Blocks for tens of milliseconds.
    ///
    /// # Errors
    /// One sentence with the remedy.
    pub fn new(config: Config, store: Arc<dyn RegistryStore>) -> Result<AppState, String> {
        let service_config = ServiceConfig {
            allowed_types: config.allowed_agent_types.clone(),
            heartbeat_timeout: config.heartbeat_timeout,
            cleanup_interval: config.cleanup_interval,
            zone: config.timezone.clone(),
            ..ServiceConfig::default()
        };
        let service = Service::open(service_config, store).map_err(|error| error.to_string())?;
        let kept = service.take_kept();
        let auth = Arc::new(Auth::new(&config, &service, &kept)?);
        let metrics = Arc::new(Metrics::new(&config, VERSION));
        let dashboard = Dashboard::new(DashboardSettings {
            timezone: config.timezone_name.clone(),
            ping_interval: config.dashboard_ws.ping_interval,
            log_buffer_maxlen: config.log_buffer_maxlen,
            log_message_maxlen: config.log_message_maxlen,
        });
        if let Some((_, text)) = kept.settings.iter().find(|(name, _)| name == DASHBOARD_SETTING)
            && let Ok(ui) = serde_json::from_str::<Value>(text)
        {
            dashboard.set_config(&json!({"ui": ui}));
        }
        let view = View { service: service.clone(), embedding: Embedding::Local };
        let sockets =
            Sockets::new(Limits::from(&config), Arc::new(view), auth.clone(), metrics.clone(), dashboard.clone());
        let outbound = Outbound::new(&config)?;
        let outer = Outer::new(&config, VERSION);
        let health = HealthCache::default();
        Ok(AppState { config, service, auth, metrics, outbound, dashboard, sockets, outer, health })
    }

    /// Keeps the settings of the dashboard's page.
    fn keep_dashboard_settings(&self, ui: &Value) {
        let op = RegistryOp::PutSetting { name: DASHBOARD_SETTING.into(), value: ui.to_string() };
        // Should the store refuse, they last until the server stops.
        drop(self.service.keep(vec![op]));
    }

    /// Does what is due now and then.
    fn tick(&self) {
        self.service.tick(self.service.now());
    }
}

/// Between ticks of the service.
const TICK: Duration = Duration::from_millis(500);
