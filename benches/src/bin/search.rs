//! How well and how fast agents are found: `make bench-search`.
//!
//! Two judged sets: the first is for tuning; the second was written before the ranking was tuned and is only run. For
//! each: BM25 alone, the default, the model that the default's table was distilled from (when the Python in use has
//! it), each as typed and with one slip in every question. Relevant is what is graded 2 or 3.
//!
//! R@k: the part of the relevant agents among the first k, as a part of what k can hold. MRR: one through the rank of
//! the first relevant. AUC: how often the best agent of a question is above the best one of a question that nothing
//! fits. Returned and silent: at a similarity of 0.5, how many questions got their best agent, and how many of those
//! that nothing fits got none; for BM25 and the model at the border that suits the first set best.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use arcp_registry::model::{Registration, SearchRequest};
use arcp_registry::search::{SearchIndex, text_of};
use serde::Deserialize;

/// Slips are drawn this often for each question.
const SLIPS: u64 = 5;

#[derive(Deserialize)]
struct Judged {
    agents: Vec<Agent>,
    queries: Vec<Query>,
    nothing_fits: Vec<String>,
}

#[derive(Deserialize, Clone)]
struct Agent {
    id: String,
    name: String,
    agent_type: String,
    capabilities: Vec<String>,
    context_brief: String,
    owner: String,
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Query {
    query: String,
    relevant: BTreeMap<String, u8>,
}

impl Agent {
    fn registration(&self) -> Registration {
        let mut metadata = serde_json::Map::new();
        metadata.insert("tags".into(), self.tags.clone().into());
        Registration {
            agent_id: self.id.clone(),
            name: self.name.clone(),
            agent_type: self.agent_type.clone(),
            capabilities: self.capabilities.clone(),
            context_brief: self.context_brief.clone(),
            owner: self.owner.clone(),
            metadata,
            ..Registration::default()
        }
    }
}

/// A number for each agent, in the order of the set.
type Scores = Vec<f64>;
type Method<'a> = Box<dyn Fn(&[String]) -> Vec<Scores> + 'a>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            say(&fault);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a program for people at a terminal")]
fn say(line: &str) {
    println!("{line}");
}

fn run() -> Result<(), String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/search");
    let only = std::env::args().nth(1);
    let mut borders: BTreeMap<&str, f64> = BTreeMap::new();
    for file in ["judged_public.json", "judged_second.json"] {
        if only.as_deref().is_some_and(|only| only != file) {
            continue;
        }
        let text = std::fs::read_to_string(format!("{folder}/{file}")).map_err(|error| format!("{file}: {error}"))?;
        let judged: Judged = serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
        say(&format!(
            "\n{file}: {} agents, {} questions, {} that nothing fits",
            judged.agents.len(),
            judged.queries.len(),
            judged.nothing_fits.len()
        ));
        say("                        R@1    R@5    MRR    AUC   returned  silent");
        let index = SearchIndex::new();
        judged.agents.iter().for_each(|agent| index.insert(&agent.registration()));
        let full = model(folder, &judged);
        let mut methods: Vec<(&str, Method<'_>)> = vec![
            ("BM25", Box::new(|texts| by_words(&index, &judged, texts))),
            ("default", Box::new(|texts| by_default(&index, &judged, texts))),
        ];
        match full {
            Some(full) => methods.push(("the full model", full)),
            None => say("(the full model: not installed; see xtask/search_table/requirements.txt)"),
        }
        for (name, method) in &methods {
            let plain = Outcome::of(&judged, method, &[None]);
            let border = if *name == "default" { 0.5 } else { *borders.entry(name).or_insert_with(|| plain.border()) };
            plain.print(name, border);
            let slips: Vec<_> = (0..SLIPS).map(Some).collect();
            Outcome::of(&judged, method, &slips).print("  with a slip", border);
        }
    }
    if only.is_none_or(|only| only == "speed") {
        for agents in [10_000, 100_000] {
            speed(folder, agents)?;
        }
    }
    Ok(())
}

fn request(query: &str, top_k: usize, min_similarity: f64) -> SearchRequest {
    let query = query.to_owned();
    SearchRequest { query, top_k, min_similarity, capabilities: None, weighted: false, agent_type: None }
}

fn by_words(index: &SearchIndex, judged: &Judged, texts: &[String]) -> Vec<Scores> {
    let score = |text: &String, agent: &Agent| index.explain(text, &agent.id).map_or(0.0, |parts| parts.words.into());
    texts.iter().map(|text| judged.agents.iter().map(|agent| score(text, agent)).collect()).collect()
}

fn by_default(index: &SearchIndex, judged: &Judged, texts: &[String]) -> Vec<Scores> {
    let score = |text: &String| {
        let hits = index.query(&request(text, judged.agents.len(), 0.0), |_| true, |_| 0.0);
        // The order is the answer's: equal numbers keep it.
        let found: BTreeMap<&str, f64> =
            hits.iter().zip(0..).map(|(hit, rank)| (&*hit.id, hit.similarity - f64::from(rank) * 1e-9)).collect();
        judged.agents.iter().map(|agent| found.get(agent.id.as_str()).copied().unwrap_or(0.0)).collect()
    };
    texts.iter().map(score).collect()
}

/// The sentence model, if there is a Python that has it: `full_model.py` reads texts and writes vectors.
fn model<'a>(folder: &str, judged: &Judged) -> Option<Method<'a>> {
    let script = format!("{folder}/full_model.py");
    let texts: Vec<String> = judged.agents.iter().map(|agent| text_of(&agent.registration())).collect();
    let agents = vectors(&script, &texts)?;
    Some(Box::new(move |texts| {
        let cosine = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        let queries = vectors(&script, texts).unwrap_or_default();
        queries.iter().map(|query| agents.iter().map(|agent| cosine(query, agent)).collect()).collect()
    }))
}

fn vectors(script: &str, texts: &[String]) -> Option<Vec<Vec<f64>>> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // It reads all before it writes.
    child.stdin.take()?.write_all(&serde_json::to_vec(texts).ok()?).ok()?;
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| serde_json::from_slice(&output.stdout).ok())?
}

struct Outcome {
    first: f64,
    five: f64,
    reciprocal: f64,
    best: Vec<f64>,
    noise: Vec<f64>,
}

impl Outcome {
    fn of(judged: &Judged, method: &Method<'_>, seeds: &[Option<u64>]) -> Self {
        let mut outcome = Self { first: 0.0, five: 0.0, reciprocal: 0.0, best: Vec::new(), noise: Vec::new() };
        let typed = |text: &str, seed: &Option<u64>| seed.map_or_else(|| text.to_owned(), |seed| slip(text, seed));
        let count = (judged.queries.len() * seeds.len()) as f64;
        for seed in seeds {
            let texts: Vec<String> = judged.queries.iter().map(|query| typed(&query.query, seed)).collect();
            for (query, scores) in judged.queries.iter().zip(method(&texts)) {
                let mut order: Vec<usize> = (0..scores.len()).collect();
                order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
                let grade = |at: usize| query.relevant.get(&judged.agents[at].id).copied().unwrap_or(0);
                let relevant = order.iter().filter(|at| grade(**at) >= 2).count();
                let within = |k: usize| {
                    order.iter().take(k).filter(|at| grade(**at) >= 2).count() as f64 / relevant.min(k) as f64
                };
                outcome.first += within(1) / count;
                outcome.five += within(5) / count;
                let rank = order.iter().position(|at| grade(*at) >= 2).unwrap_or(scores.len());
                outcome.reciprocal += 1.0 / (rank + 1) as f64 / count;
                let best = order.iter().max_by_key(|at| grade(**at)).map_or(0.0, |at| scores[*at]);
                outcome.best.push(best);
            }
            let texts: Vec<String> = judged.nothing_fits.iter().map(|text| typed(text, seed)).collect();
            outcome.noise.extend(method(&texts).iter().map(|scores| scores.iter().copied().fold(0.0, f64::max)));
        }
        outcome
    }

    fn part(values: &[f64], test: impl Fn(f64) -> bool) -> f64 {
        values.iter().filter(|value| test(**value)).count() as f64 / values.len().max(1) as f64
    }

    /// Where most questions get their best agent and most of the others none.
    fn border(&self) -> f64 {
        let worth = |at: f64| Self::part(&self.best, |best| best >= at) + Self::part(&self.noise, |noise| noise < at);
        let steps = (1..200).map(|step| f64::from(step) / 200.0);
        steps.max_by(|a, b| worth(*a).total_cmp(&worth(*b))).unwrap_or(0.5)
    }

    fn print(&self, name: &str, border: f64) {
        let above = self.best.iter().map(|best| Self::part(&self.noise, |noise| *best > noise)).sum::<f64>();
        let returned = Self::part(&self.best, |best| best >= border) * 100.0;
        let silent = Self::part(&self.noise, |noise| noise < border) * 100.0;
        say(&format!(
            "{name:20} {:6.3} {:6.3} {:6.3} {:6.3}   {returned:5.0} %  {silent:5.0} %",
            self.first,
            self.five,
            self.reciprocal,
            above / self.best.len() as f64
        ));
    }
}

/// One slip in one word of at least four letters: a letter left out, doubled in by another, changed, or swapped.
fn slip(text: &str, seed: u64) -> String {
    let mut state = text.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |sum, byte| mix(sum ^ u64::from(byte)));
    let mut draw = |below: usize| {
        state = mix(state);
        (state % below.max(1) as u64) as usize
    };
    let mut words: Vec<Vec<char>> = text.split(' ').map(|word| word.chars().collect()).collect();
    let long: Vec<usize> =
        (0..words.len()).filter(|at| words[*at].len() >= 4 && words[*at].iter().all(|c| c.is_alphabetic())).collect();
    if long.is_empty() {
        return text.to_owned();
    }
    let word = &mut words[long[draw(long.len())]];
    let at = 1 + draw(word.len() - 2);
    let letter = char::from(b'a' + draw(26) as u8);
    match draw(4) {
        0 => drop(word.remove(at)),
        1 => word.insert(at, letter),
        2 => word[at] = letter,
        _ => word.swap(at, at + 1),
    }
    words.into_iter().map(String::from_iter).collect::<Vec<_>>().join(" ")
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// How fast: agents made of the judged ones, each a little different.
fn speed(folder: &str, count: usize) -> Result<(), String> {
    let mut agents = Vec::new();
    let mut queries = Vec::new();
    for file in ["judged_public.json", "judged_second.json"] {
        let text = std::fs::read_to_string(format!("{folder}/{file}")).map_err(|error| format!("{file}: {error}"))?;
        let judged: Judged = serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
        agents.extend(judged.agents);
        queries.extend(judged.queries.into_iter().map(|query| request(&query.query, 10, 0.5)));
    }
    let made: Vec<Registration> = (0..count)
        .map(|number| {
            let one = &agents[number % agents.len()];
            let other = &agents[(number * 7 + number / agents.len()) % agents.len()];
            let mut agent = one.registration();
            agent.agent_id = format!("{}-{number}", one.id);
            agent.name = format!("{} {number}", one.name);
            agent.context_brief = format!("{} {}", one.context_brief, other.context_brief);
            agent
        })
        .collect();
    let index = SearchIndex::new();
    index.insert(&made[0]);
    let start = Instant::now();
    made.iter().for_each(|agent| index.insert(agent));
    let each = start.elapsed() / u32::try_from(count).unwrap_or(1);
    let ask = |at: usize| {
        let start = Instant::now();
        std::hint::black_box(index.query(&queries[at % queries.len()], |_| true, |_| 0.0));
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..1000).map(ask).collect();
    times.sort_unstable();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                for at in 0..1000 {
                    std::hint::black_box(ask(at * 2 + thread));
                }
            });
        }
    });
    let rate = 2000.0 / start.elapsed().as_secs_f64();
    // Registrations while two threads search.
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut waits: Vec<Duration> = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut at = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    ask(at);
                    at += 1;
                }
            });
        }
        let insert = |agent: &Registration| {
            let start = Instant::now();
            index.insert(agent);
            start.elapsed()
        };
        let waits = made.iter().take(2000).map(insert).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        waits
    });
    waits.sort_unstable();
    say(&format!(
        "\n{count} agents: {each:.1?} to take one in; a search {:.0?} (median), {:.0?} (99 of 100), {rate:.0} a second on two \
         threads; taking one in meanwhile {:.0?} (median), {:.0?} (99 of 100)",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
    ));
    Ok(())
}
