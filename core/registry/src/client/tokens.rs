//! The tokens one client holds: one per agent, one of the administrator, and the last one obtained (D-31).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use indexmap::IndexMap;
use serde::Deserialize;
use tokio::time::Instant;

use super::options::Secret;

/// What a request is about, which says whose token it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Any member's.
    Any,
    /// That agent's own, or an administrator's.
    Agent(String),
    /// An administrator's.
    Admin,
}

/// Where a token came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From the user; whose it is is not known.
    Given,
    /// A login.
    Admin,
    /// A registration of this agent.
    Agent(String),
    /// Asked for with an agent key, for the registration of this agent.
    Temporary(String),
}

/// A token and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) token: Secret,
    pub(crate) origin: Origin,
    /// When it ends, and how long it lived from when it was obtained.
    pub(crate) life: Option<(Instant, Duration)>,
}

impl Held {
    /// Reads the life from the token's own claims if it has any, else takes what the registry said.
    pub(crate) fn new(token: &str, origin: Origin, said: Option<Duration>, now: Instant) -> Self {
        let life = claimed_life(token).or(said);
        Held { token: token.into(), origin, life: life.and_then(|life| Some((now.checked_add(life)?, life))) }
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.life.is_some_and(|(end, _)| end <= now)
    }

    /// Whether to replace it before it ends: less than a tenth of its life is left, at most a minute.
    pub(crate) fn is_ending(&self, now: Instant) -> bool {
        self.life
            .is_some_and(|(end, life)| end.saturating_duration_since(now) < (life / 10).min(Duration::from_secs(60)))
    }
}

/// How long a token lives by its own claims, counted from when it was issued: two clocks need not agree.
fn claimed_life(token: &str) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        iat: f64,
        exp: f64,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Duration::try_from_secs_f64(claims.exp - claims.iat).ok()
}

/// Tokens of agents kept at once; the oldest goes.
const MAX_AGENTS: usize = 10_000;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    held: Option<Held>,
    admin: Option<Held>,
    agents: IndexMap<String, Held>,
    temporary: IndexMap<String, Held>,
}

impl Tokens {
    /// The last one obtained.
    pub(crate) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Replaces the one held; what agents have is kept.
    pub(crate) fn hold(&mut self, token: Option<Held>) {
        if token.is_none() {
            self.admin = None;
        }
        self.held = token;
    }

    /// Takes in a token that was obtained.
    pub(crate) fn put(&mut self, token: Held) {
        match &token.origin {
            Origin::Given => {}
            Origin::Admin => self.admin = Some(token.clone()),
            Origin::Agent(id) => {
                self.temporary.shift_remove(id);
                bounded(&mut self.agents, id.clone(), token.clone());
            }
            Origin::Temporary(id) => bounded(&mut self.temporary, id.clone(), token.clone()),
        }
        self.held = Some(token);
    }

    /// Holds this one again after another was put.
    pub(crate) fn keep_held(&mut self, held: Option<Held>) {
        self.held = held;
    }

    /// Holds what was held before a registration that failed, unless the token held is another by now.
    pub(crate) fn step_back(&mut self, agent_id: &str, before: Option<Held>) {
        let is_left_over = |held: &Held| held.origin == Origin::Temporary(agent_id.to_owned());
        if before.is_some() && self.held.as_ref().is_some_and(is_left_over) {
            self.held = before;
        }
    }

    /// What to send with a request about `subject`.
    pub(crate) fn choose(&self, subject: &Subject, now: Instant) -> Option<&Held> {
        let alive = |token: &&Held| !token.is_over(now);
        let admin = self.admin.as_ref().filter(alive);
        let held = self.held.as_ref().filter(alive);
        // A temporary token does nothing but register its agent.
        let lasting = |token: &&Held| !matches!(token.origin, Origin::Temporary(_));
        let any = || held.filter(lasting).or(admin).or_else(|| self.agents.values().rev().find(alive)).or(held);
        match subject {
            Subject::Admin => admin.or(held),
            Subject::Agent(id) => {
                let own = self.agents.get(id).filter(alive);
                let others = |token: &&Held| match &token.origin {
                    Origin::Agent(other) | Origin::Temporary(other) => other == id,
                    Origin::Given | Origin::Admin => true,
                };
                let temporary = || self.temporary.get(id).filter(alive);
                own.or(admin).or_else(|| held.filter(others)).or_else(temporary).or_else(any)
            }
            Subject::Any => any(),
        }
    }

    /// The token asked for to register this agent, if it is there.
    pub(crate) fn temporary(&self, agent_id: &str, now: Instant) -> Option<&Held> {
        self.temporary.get(agent_id).filter(|token| !token.is_over(now))
    }

    /// Whether the held token may register any agent as far as is known.
    pub(crate) fn registrar(&self, now: Instant) -> Option<&Held> {
        let free = |token: &&Held| matches!(token.origin, Origin::Given | Origin::Admin) && !token.is_over(now);
        self.held.as_ref().filter(free).or_else(|| self.admin.as_ref().filter(free))
    }

    /// Forgets the token asked for to register this agent.
    pub(crate) fn drop_temporary(&mut self, agent_id: &str) {
        self.temporary.shift_remove(agent_id);
    }

    /// Forgets a token that did not count.
    pub(crate) fn refused(&mut self, token: &Secret) {
        let is_other = |place: &Held| place.token != *token;
        self.held = self.held.take().filter(is_other);
        self.admin = self.admin.take().filter(is_other);
        self.agents.retain(|_, place| place.token != *token);
        self.temporary.retain(|_, place| place.token != *token);
    }

    /// Forgets what belongs to an agent that is gone.
    pub(crate) fn forget(&mut self, agent_id: &str) {
        self.agents.shift_remove(agent_id);
        self.temporary.shift_remove(agent_id);
    }
}

/// Adds an entry; the oldest goes when there are too many.
pub(crate) fn bounded<T>(map: &mut IndexMap<String, T>, key: String, value: T) {
    map.shift_remove(&key);
    if map.len() >= MAX_AGENTS {
        map.shift_remove_index(0);
    }
    map.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, origin: Origin, now: Instant) -> Held {
        Held::new(text, origin, Some(Duration::from_secs(1000)), now)
    }

    fn chosen(tokens: &Tokens, subject: &Subject, now: Instant) -> String {
        tokens.choose(subject, now).map_or(String::new(), |held| held.token.expose().to_owned())
    }

    /// Rules: REG-033
    #[test]
    fn each_agent_has_its_own_token() {
        let now = Instant::now();
        let mut tokens = Tokens::default();
        assert_eq!(chosen(&tokens, &Subject::Any, now), "");
        tokens.put(token("a", Origin::Agent("a".into()), now));
        tokens.put(token("b", Origin::Agent("b".into()), now));
        assert_eq!(chosen(&tokens, &Subject::Agent("a".into()), now), "a");
        assert_eq!(chosen(&tokens, &Subject::Agent("b".into()), now), "b");
        assert_eq!(chosen(&tokens, &Subject::Any, now), "b");
        tokens.put(token("t", Origin::Temporary("c".into()), now));
        assert_eq!(chosen(&tokens, &Subject::Any, now), "b", "a temporary token registers, and does nothing else");
        assert_eq!(tokens.held().unwrap().token.expose(), "t");
        assert_eq!(chosen(&tokens, &Subject::Agent("elsewhere".into()), now), "b");
        tokens.put(token("admin", Origin::Admin, now));
        assert_eq!(chosen(&tokens, &Subject::Agent("c".into()), now), "admin");
        assert_eq!(chosen(&tokens, &Subject::Agent("a".into()), now), "a");
        assert_eq!(chosen(&tokens, &Subject::Admin, now), "admin");
        tokens.refused(&"admin".into());
        assert_eq!(chosen(&tokens, &Subject::Agent("c".into()), now), "t");
        tokens.forget("a");
        assert_eq!(chosen(&tokens, &Subject::Agent("a".into()), now), "b", "a member may look at another");
    }

    #[test]
    fn a_registration_that_failed_leaves_the_token_that_was_held() {
        let now = Instant::now();
        let mut tokens = Tokens::default();
        tokens.put(token("a", Origin::Agent("a".into()), now));
        let before = tokens.held().cloned();
        tokens.put(token("t", Origin::Temporary("b".into()), now));
        tokens.step_back("c", before.clone());
        assert_eq!(tokens.held().unwrap().token.expose(), "t", "that of another registration stays");
        tokens.step_back("b", before);
        assert_eq!(tokens.held().unwrap().token.expose(), "a");
        tokens.step_back("b", None);
        assert!(tokens.held().is_some());
    }

    #[test]
    fn tokens_end_by_their_own_claims() {
        let now = Instant::now();
        let jwt = |claims: &str| format!("x.{}.y", URL_SAFE_NO_PAD.encode(claims));
        let held = Held::new(&jwt(r#"{"iat":1000,"exp":1600}"#), Origin::Given, None, now);
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(!held.is_ending(after(539)) && held.is_ending(after(541)));
        assert!(!held.is_over(after(599)) && held.is_over(after(600)));
        for odd in ["plain", "a.!!.c", &jwt("{}"), &jwt(r#"{"iat":2,"exp":1}"#), &jwt(r#"{"iat":0,"exp":1e300}"#)] {
            assert!(Held::new(odd, Origin::Given, None, now).life.is_none(), "{odd}");
        }
    }

    #[test]
    fn the_tokens_of_many_agents_are_bounded() {
        let now = Instant::now();
        let mut tokens = Tokens::default();
        for number in 0..=MAX_AGENTS {
            tokens.put(token("t", Origin::Agent(number.to_string()), now));
        }
        assert_eq!(tokens.agents.len(), MAX_AGENTS);
        assert!(!tokens.agents.contains_key("0"));
    }
}
