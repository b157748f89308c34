//! Patterns: `*` within a segment, `**` across segments, nothing else special.
//!
//! A pattern compiles to a small automaton that is run without backtracking, so matching takes time
//! linear in the target, and that `subset` explores to compare patterns.

/// One state of the automaton; the state after the last step accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This character.
    Char(char),
    /// Any run without `/`.
    Star,
    /// Any run.
    Any,
    /// `**/`: nothing, or the `TreeBody` that follows.
    Tree,
    /// Any run that ends in `/`.
    TreeBody,
    /// `/**` at the end: nothing, or `/` and the `Any` that follows.
    Tail,
}

/// A compiled pattern over normalised text.
#[derive(Clone, Debug)]
pub struct Glob {
    steps: Vec<Step>,
    /// Matches no target that begins with `/`.
    relative: bool,
}

impl Glob {
    /// Compiles a pattern that is normalised already.
    pub fn new(pattern: &str) -> Glob {
        let mut segments: Vec<&str> = pattern.split('/').collect();
        segments.dedup_by(|next, held| *next == "**" && *held == "**");
        let mut steps = Vec::new();
        if segments == ["**"] {
            steps.push(Step::Any);
            return Glob { steps, relative: false };
        }
        let last = segments.len() - 1;
        for (index, segment) in segments.into_iter().enumerate() {
            match segment {
                // Its slash belongs to the choice, so that `/a/**` covers `/a`.
                "**" if index == last => {
                    steps.pop();
                    steps.extend([Step::Tail, Step::Any]);
                }
                "**" => steps.extend([Step::Tree, Step::TreeBody]),
                _ => {
                    push_segment(&mut steps, segment);
                    if index != last {
                        steps.push(Step::Char('/'));
                    }
                }
            }
        }
        Glob { steps, relative: false }
    }

    /// The same below a relative start: `**` stays off targets that begin with `/`.
    pub fn relative(pattern: &str) -> Glob {
        Glob { relative: true, ..Glob::new(pattern) }
    }

    /// Whether the whole of a normalised target matches.
    pub fn matches(&self, target: &str) -> bool {
        self.run(target, &mut 0)
    }

    /// Matches, and adds the number of states it looked at to `work`.
    pub(super) fn run(&self, target: &str, work: &mut usize) -> bool {
        let mut now = States::new(self);
        let mut next = States::new(self);
        self.start(|state| now.insert(state));
        for (index, c) in target.chars().enumerate() {
            next.clear();
            now.for_each(|state| {
                *work += 1;
                self.advance(state, c, index == 0, |to| next.insert(to));
            });
            std::mem::swap(&mut now, &mut next);
            if now.is_empty() {
                return false;
            }
        }
        now.contains(self.steps.len())
    }

    /// Whether the plain beginnings of both agree; if not, no text matches both. Adds the
    /// characters compared to `compared`.
    pub(super) fn may_meet(&self, other: &Glob, compared: &mut usize) -> bool {
        self.steps
            .iter()
            .zip(&other.steps)
            .take_while(|(a, b)| matches!((a, b), (Step::Char(_), Step::Char(_))))
            .inspect(|_| *compared += 1)
            .all(|(a, b)| a == b)
    }

    pub(super) fn step(&self, state: usize) -> Option<Step> {
        self.steps.get(state).copied()
    }

    pub(super) fn is_relative(&self) -> bool {
        self.relative
    }

    /// Whether every text matches from this state on.
    pub(super) fn accepts_all_from(&self, state: usize) -> bool {
        state + 1 == self.steps.len() && self.step(state) == Some(Step::Any)
    }

    pub(super) fn accepts(&self, state: usize) -> bool {
        state == self.steps.len()
    }

    /// Calls `visit` with each state reached before any input; `visit` says whether the state was new.
    pub(super) fn start(&self, visit: impl FnMut(usize) -> bool) {
        self.enter(0, visit);
    }

    /// Calls `visit` with each state reached from `state` by `c`; `first` marks the target's first character.
    pub(super) fn advance(&self, state: usize, c: char, first: bool, mut visit: impl FnMut(usize) -> bool) {
        if first && self.relative && c == '/' {
            return;
        }
        match self.step(state) {
            Some(Step::Char(own)) if own == c => self.enter(state + 1, visit),
            Some(Step::Star) if c != '/' => self.enter(state, visit),
            Some(Step::Any) => self.enter(state, visit),
            Some(Step::TreeBody) => {
                visit(state);
                if c == '/' {
                    self.enter(state + 1, visit);
                }
            }
            Some(Step::Tail) if c == '/' => self.enter(state + 1, visit),
            _ => {}
        }
    }

    /// A state and those reached from it without input, which are never behind it.
    fn enter(&self, mut state: usize, mut visit: impl FnMut(usize) -> bool) {
        while visit(state) {
            match self.step(state) {
                Some(Step::Star | Step::Any) => state += 1,
                Some(Step::Tree) => {
                    visit(state + 1);
                    state += 2;
                }
                Some(Step::Tail) => state += 2,
                _ => return,
            }
        }
    }
}

fn push_segment(steps: &mut Vec<Step>, segment: &str) {
    let mut chars = segment.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '*' {
            steps.push(Step::Char(c));
            continue;
        }
        let mut step = Step::Star;
        while chars.next_if_eq(&'*').is_some() {
            step = Step::Any;
        }
        steps.push(step);
    }
}

/// A set of states, one bit each.
struct States(Vec<u64>);

impl States {
    fn new(glob: &Glob) -> States {
        States(vec![0; glob.steps.len() / 64 + 1])
    }

    fn insert(&mut self, state: usize) -> bool {
        let word = &mut self.0[state / 64];
        let bit = 1 << (state % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn contains(&self, state: usize) -> bool {
        self.0[state / 64] & (1 << (state % 64)) != 0
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }

    fn for_each(&self, mut visit: impl FnMut(usize)) {
        for (index, word) in self.0.iter().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                visit(index * 64 + rest.trailing_zeros() as usize);
                rest &= rest - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(pattern: &str, target: &str) -> usize {
        let mut work = 0;
        assert!(!Glob::new(pattern).run(target, &mut work));
        work
    }

    /// Rules
    #[test]
    fn work_grows_with_the_target_not_with_its_power() {
        for pattern in ["*a*a*a*a*b", "**a**a**a**a**b", "**/a/**/a/**/a/**/b"] {
            let unit = if pattern.contains('/') { "a/" } else { "a" };
            let small = work(pattern, &unit.repeat(5_000));
            let large = work(pattern, &unit.repeat(10_000));
            assert!(large <= small * 2 + 100, "{pattern}: {small} then {large}");
        }
    }
}
