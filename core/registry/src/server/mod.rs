//! The registry's server: HTTP, WebSockets, tokens, limits.

pub mod auth;
pub mod config;
pub mod dashboard;
mod docs;
mod http;
pub mod metrics;
pub mod offline;
pub mod openapi;
pub mod outbound;
mod patience;
mod run;
pub mod socket;

use std::sync::Arc;
use std::time::Duration;

use arcp_store::registry::RegistryStore;
use bytes::Bytes;

pub use run::{Running, ServeError, serve, start};

use self::auth::Auth;
use self::config::{Config, Embeddings};
use self::dashboard::{Dashboard, DashboardSettings, Embedding};
use self::http::outer::Outer;
use self::http::system::HealthCache;
use self::metrics::Metrics;
use self::outbound::Outbound;
use self::socket::{Limits, Sockets};
use crate::search::{RemoteEmbedder, SearchEngine};
use crate::service::{Service, ServiceConfig};

/// The version told to clients.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

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
    /// The OpenAPI document.
    document: Bytes,
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
        let search = search_engine(&config.embeddings)?;
        let service = Service::open(service_config, store, search).map_err(|error| error.to_string())?;
        let kept = service.take_kept();
        let auth = Arc::new(Auth::new(&config, &service, &kept)?);
        let metrics = Arc::new(Metrics::new(&config, VERSION));
        let shown = DashboardSettings {
            timezone: config.timezone_name.clone(),
            ping_interval: config.dashboard_ws.ping_interval,
            log_buffer_maxlen: config.log_buffer_maxlen,
            log_message_maxlen: config.log_message_maxlen,
        };
        let dashboard = Dashboard::restored(shown, service.clone(), &kept);
        let engine = service.search_engine().clone();
        let sockets = Sockets::new(
            Limits::from(&config),
            service.clone(),
            auth.clone(),
            metrics.clone(),
            dashboard.clone(),
            Arc::new(move || embedding(&engine)),
        );
        let outbound = Outbound::new(&config)?;
        let outer = Outer::new(&config, VERSION);
        let health = HealthCache::default();
        let document = openapi::document(&config).to_string().into();
        Ok(AppState { config, service, auth, metrics, outbound, dashboard, sockets, outer, health, document })
    }

    /// Does what is due now and then.
    fn tick(&self) {
        self.service.tick(self.service.now());
    }
}

/// The search with the embedder of the settings (REG-505).
fn search_engine(embeddings: &Embeddings) -> Result<SearchEngine, String> {
    let embedder = match embeddings {
        Embeddings::Local => return Ok(SearchEngine::new()),
        Embeddings::OpenAi { url, model, key } => {
            RemoteEmbedder::open_ai(url, model, key.as_ref().map(|key| key.reveal()))?
        }
        Embeddings::Azure { base, version, deployment, key } => {
            RemoteEmbedder::azure(base, version, deployment, key.reveal())?
        }
    };
    Ok(SearchEngine::with_embedder(Arc::new(embedder)))
}

/// How the search's embedder does, as dashboards show it.
fn embedding(engine: &SearchEngine) -> Embedding {
    let health = engine.health();
    match (health.remote, health.failing) {
        (false, _) => Embedding::Local,
        (true, None) => Embedding::Service,
        (true, Some(_)) => Embedding::ServiceDown,
    }
}

/// Between ticks of the service.
const TICK: Duration = Duration::from_millis(500);
