//! `cargo test -p arcp-harness`: one test line per case and language.
//!
//! `ARCP_SHIMS=rust,python` plays with some of the languages of `tests/shims/shims.json`; `ARCP_UPDATE=1` rewrites
//! `docs/conformance.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use arcp_harness::case::{Case, Kind};
use arcp_harness::function::Call;
use arcp_harness::gaps::Gaps;
use arcp_harness::play::{Sides, play};
use arcp_harness::rules::{self, Coverage, Rules};
use arcp_harness::shim::Shim;
use arcp_harness::{Result, case, evidence, function, read_json, root};
use libtest_mimic::{Arguments, Trial};
use serde::Deserialize;
use serde_json::{Map, json};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match World::new().map(Arc::new).and_then(|world| trials(&world)) {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            // Without a corpus there is no test to report it in.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("the corpus cannot be played: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    command: Vec<String>,
}

/// Everything the tests share.
struct World {
    runtime: Runtime,
    shims: BTreeMap<String, Entry>,
    running: Mutex<BTreeMap<(String, Kind), Arc<Shim>>>,
    cases: Vec<Case>,
    calls: Vec<Call>,
    gaps: Gaps,
}

impl World {
    fn new() -> Result<Self> {
        let tests = root().join("tests");
        let mut shims: BTreeMap<String, Entry> = read_json(&tests.join("shims/shims.json"))?;
        if let Ok(selected) = std::env::var("ARCP_SHIMS") {
            let selected: BTreeSet<&str> = selected.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
            if let Some(unknown) = selected.iter().find(|&&name| !shims.contains_key(name)) {
                return Err(format!("ARCP_SHIMS names {unknown:?}, which tests/shims/shims.json does not"));
            }
            shims.retain(|name, _| selected.contains(name.as_str()));
        }
        Ok(Self {
            runtime: Runtime::new().map_err(|e| format!("tokio: {e}"))?,
            shims,
            running: Mutex::default(),
            cases: case::load(&tests.join("corpus/scenario"))?,
            calls: function::load(&tests.join("corpus/wire"))?,
            gaps: Gaps::load(&tests.join("known-gaps.json"))?,
        })
    }

    /// The shim of a language for one kind of case, started at first use and again if it has died.
    async fn shim(&self, language: &str, kind: Kind) -> Result<Arc<Shim>> {
        let mut running = self.running.lock().await;
        let key = (language.to_owned(), kind);
        if let Some(shim) = running.get(&key).filter(|shim| shim.is_running()) {
            return Ok(Arc::clone(shim));
        }
        let shim = Arc::new(self.fresh(language).await?);
        running.insert(key, Arc::clone(&shim));
        Ok(shim)
    }

    async fn fresh(&self, language: &str) -> Result<Shim> {
        let entry = self.shims.get(language).ok_or_else(|| format!("no shim is named {language:?}"))?;
        Shim::spawn(language, &entry.command, &root()).await
    }

    async fn play(&self, case: &Case, client: Option<&str>, runtime: Option<&str>) -> Result<()> {
        let mut sides = Sides { client: None, runtime: None };
        if let Some(language) = client {
            sides.client = Some(self.shim(language, Kind::Client).await?);
        }
        if let Some(language) = runtime {
            sides.runtime = Some(self.shim(language, Kind::Runtime).await?);
        }
        let lacking = sides.lacking(case);
        if lacking.is_empty() {
            return self.gaps.judge(&case.id, &subject(client, runtime), play(case, &sides).await);
        }
        self.excuse(&lacking)
    }

    async fn call(&self, call: &Call, language: &str) -> Result<()> {
        let shim = self.shim(language, Kind::Client).await?;
        let need = format!("call.{}", call.function);
        if shim.capabilities().contains(&need) {
            return self.gaps.judge(&call.id, language, function::call(call, &shim).await);
        }
        self.excuse(&[format!("{language}: {need}")])
    }

    fn excuse(&self, lacking: &[String]) -> Result<()> {
        match self.gaps.unexcused(lacking).as_slice() {
            [] => Ok(()),
            missing => Err(format!("the shim cannot do what the case needs: {}", missing.join(", "))),
        }
    }

    /// Ends within its time although a runtime is still open.
    async fn ends(&self, language: &str) -> Result<()> {
        let shim = self.fresh(language).await?;
        if shim.capabilities().contains("runtime") {
            let Some(arguments) = json!({ "agents": ["echo"], "tokens": {} }).as_object().cloned() else {
                return Err("the arguments of serve are no object".to_owned());
            };
            shim.ask("serve", arguments).await?.answer().await?;
        }
        shim.exit().await
    }

    /// Refuses what it does not know, and says only what is true of it in the gaps.
    async fn is_as_described(&self, language: &str) -> Result<()> {
        let shim = self.shim(language, Kind::Client).await?;
        let refusal = shim.ask("no-such-command", Map::new()).await?.answer().await?;
        match refusal {
            arcp_harness::shim::Answer::Error(error) if error["code"] == "UNSUPPORTED" => {}
            other => return Err(format!("an unknown command is answered by {other:?}, expected the code UNSUPPORTED")),
        }
        self.gaps.check_capabilities(language, shim.capabilities(), &self.needed())
    }

    fn needed(&self) -> BTreeSet<String> {
        let fixed = ["client", "runtime"].map(str::to_owned);
        let calls = self.calls.iter().map(|call| format!("call.{}", call.function));
        let cases = self.cases.iter().flat_map(|case| {
            let agents = case.given.agents.iter();
            let agents = agents.map(|agent| format!("agent.{}", agent.split('@').next().unwrap_or_default()));
            agents.chain(case.needs.iter().cloned())
        });
        fixed.into_iter().chain(calls).chain(cases).collect()
    }
}

/// How a test's subject is named in `known-gaps.json`.
fn subject(client: Option<&str>, runtime: Option<&str>) -> String {
    [client, runtime].into_iter().flatten().collect::<Vec<_>>().join("-")
}

fn trials(world: &Arc<World>) -> Result<Vec<Trial>> {
    let mut trials = Vec::new();
    let mut listed = BTreeSet::new();
    let languages: BTreeSet<String> = world.shims.keys().cloned().collect();
    for (index, case) in world.cases.iter().enumerate() {
        for (client, runtime) in subjects(case.kind, &languages) {
            let subject = subject(client.as_deref(), runtime.as_deref());
            listed.insert((case.id.clone(), subject.clone()));
            let name = format!("{}::{subject}::{}", kind_name(case.kind), case.id);
            let is_gap = world.gaps.case(&case.id, &subject).is_some();
            trials.push(trial(world, name, is_gap, move |world| async move {
                world.play(&world.cases[index], client.as_deref(), runtime.as_deref()).await
            }));
        }
    }
    for (index, call) in world.calls.iter().enumerate() {
        for language in &languages {
            listed.insert((call.id.clone(), language.clone()));
            let name = format!("function::{language}::{}", call.id);
            let is_gap = world.gaps.case(&call.id, language).is_some();
            let language = language.clone();
            trials.push(trial(world, name, is_gap, move |world| async move {
                world.call(&world.calls[index], &language).await
            }));
        }
    }
    for language in languages.iter().cloned() {
        let (ends, described) = (language.clone(), language);
        trials.push(trial(
            world,
            format!("shim::{ends}::exit"),
            false,
            move |world| async move { world.ends(&ends).await },
        ));
        trials.push(trial(world, format!("shim::{described}::hello"), false, move |world| async move {
            world.is_as_described(&described).await
        }));
    }
    trials.push(trial(world, "gaps::cases".to_owned(), false, move |world| async move {
        world.gaps.check_cases(&listed, &languages)
    }));
    trials.extend(conformance(world)?);
    Ok(trials)
}

fn conformance(world: &Arc<World>) -> Result<[Trial; 2]> {
    let corpus = root().join("tests/corpus");
    let rules: Rules = read_json(&corpus.join("rules.json"))?;
    let mut coverage: Coverage = rules::coverage(&corpus, &world.gaps)?;
    evidence::collect(&root(), &mut coverage)?;
    let document = rules::document(&rules, &coverage, &world.gaps);
    Ok([
        trial(world, "conformance::rules".to_owned(), false, move |world| async move {
            rules::check(&rules, &coverage, &world.gaps)
        }),
        trial(world, "conformance::document".to_owned(), false, move |_| async move {
            rules::keep_current(&root().join("docs/conformance.md"), &document)
        }),
    ])
}

fn trial<F>(world: &Arc<World>, name: String, is_gap: bool, run: impl FnOnce(Arc<World>) -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<()>>,
{
    let world = Arc::clone(world);
    let runner = move || {
        let shared = Arc::clone(&world);
        world.runtime.block_on(run(shared)).map_err(Into::into)
    };
    Trial::test(name, runner).with_kind(if is_gap { "known gap" } else { "" })
}

fn subjects(kind: Kind, languages: &BTreeSet<String>) -> Vec<(Option<String>, Option<String>)> {
    let one = languages.iter().cloned();
    match kind {
        Kind::Client => one.map(|language| (Some(language), None)).collect(),
        Kind::Runtime => one.map(|language| (None, Some(language))).collect(),
        Kind::Pair => one
            .flat_map(|client| languages.iter().cloned().map(move |runtime| (Some(client.clone()), Some(runtime))))
            .collect(),
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Pair => "pair",
        Kind::Client => "client",
        Kind::Runtime => "runtime",
    }
}
