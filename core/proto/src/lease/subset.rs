//! Whether a child's lease stays within its parent's (runtime-protocol section 9.4).

use std::collections::{BTreeMap, HashMap};

use super::glob::{Glob, Step};
use super::{COST_BUDGET, Grants, Lease, MODEL_USE, Pattern, quoted};
use crate::budget::Budget;
use crate::decimal::Decimal;
use crate::error::{Error, ErrorCode};
use crate::time::Timestamp;

/// States one decision may look at before it is refused: a fraction of a second.
const WORK_LIMIT: usize = 1 << 21;
/// The share of it for trying one parent pattern alone.
const ONE_PARENT_LIMIT: usize = 1 << 12;

/// What a child asks for.
#[derive(Clone, Copy, Debug)]
pub struct Child<'a> {
    /// The lease of the request.
    pub lease: &'a Lease,
    /// The end of the request; `None` inherits the parent's.
    pub expires_at: Option<Timestamp>,
}

/// What a parent holds at that moment.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// Its effective lease.
    pub lease: &'a Lease,
    /// Its effective end.
    pub expires_at: Option<Timestamp>,
    /// What is left by currency; `None` stands for the caps of its lease, all unspent.
    pub remaining: Option<&'a BTreeMap<String, Decimal>>,
}

/// Whether the child's lease names nothing beyond the parent's: `LEASE_SUBSET_VIOLATION` says what does.
///
/// Patterns compare as the sets of targets they stand for, amounts exactly against what is
/// left, ends as instants. A comparison that would cost too much is refused.
pub fn is_subset(child: Child<'_>, parent: Parent<'_>) -> Result<(), Error> {
    let mut work = 0;
    for (namespace, grants) in &child.lease.grants {
        match grants {
            Grants::Patterns(patterns) => {
                check_patterns(namespace, patterns, parent.lease.globs(namespace), &mut work)?
            }
            Grants::Budget { budget, .. } => check_budget(budget, parent)?,
        }
    }
    match (child.expires_at, parent.expires_at) {
        (Some(asked), Some(held)) if asked > held => {
            Err(violation(format!("expires_at {asked} is later than the parent's {held}")))
        }
        _ => Ok(()),
    }
}

/// The lease and end a child gets: its own, the parent's `model.use` when it names none, the earlier end.
///
/// A child without `cost.budget` gets none of its own: its costs are charged to its ancestors.
pub fn effective_child(child: Child<'_>, parent: Parent<'_>) -> Result<(Lease, Option<Timestamp>), Error> {
    is_subset(child, parent)?;
    let mut lease = child.lease.clone();
    if let (None, Some(models)) = (lease.get(MODEL_USE), parent.lease.get(MODEL_USE)) {
        lease.grants.push((MODEL_USE.to_owned(), models.clone()));
    }
    // Within the subset a named end is the earlier one.
    Ok((lease, child.expires_at.or(parent.expires_at)))
}

fn violation(message: String) -> Error {
    Error::new(ErrorCode::LeaseSubsetViolation, message)
}

fn check_budget(asked: &Budget, parent: Parent<'_>) -> Result<(), Error> {
    // A parent without budget is not bounded, so any amount is a narrower grant.
    let Some(caps) = parent.lease.budget() else { return Ok(()) };
    for (currency, amount) in asked.caps() {
        let held = match parent.remaining {
            Some(remaining) => remaining.get(currency).copied(),
            None => caps.caps().find(|(name, _)| *name == currency).map(|(_, cap)| *cap),
        };
        match held {
            Some(held) if *amount <= held => {}
            Some(held) => {
                return Err(violation(format!("{COST_BUDGET} {currency}:{amount} is more than the parent's {held}")));
            }
            None => {
                let message = format!("{COST_BUDGET} {currency}:{amount}: the parent has no budget in {currency}");
                return Err(violation(message));
            }
        }
    }
    Ok(())
}

fn check_patterns(namespace: &str, child: &[Pattern], parent: &[Pattern], work: &mut usize) -> Result<(), Error> {
    let globs: Vec<&Glob> = parent.iter().map(|held| &held.glob).collect();
    for pattern in child {
        // Equality is allowed whatever it costs to prove.
        if parent.iter().any(|held| held.normal == pattern.normal) {
            continue;
        }
        let reason = match is_covered(pattern, &globs, work) {
            Some(true) => continue,
            Some(false) => "is not covered by the parent's lease",
            None => "takes too long to compare with the parent's lease; use fewer or simpler patterns",
        };
        return Err(violation(format!("{namespace} {} {reason}", quoted(&pattern.text))));
    }
    Ok(())
}

/// Whether the parents together match all that the child matches; `None` when the work limit is passed.
fn is_covered(child: &Pattern, parents: &[&Glob], work: &mut usize) -> Option<bool> {
    let mut compared = 0;
    let mut near = parents.to_vec();
    near.retain(|parent| child.glob.may_meet(parent, &mut compared));
    // An eighth: comparing texts is that much cheaper than walking states.
    *work += parents.len() + compared / 8;
    if !child.normal.contains('*') {
        for parent in near {
            if parent.run(&child.normal, work) {
                return Some(true);
            }
            if *work > WORK_LIMIT {
                return None;
            }
        }
        return Some(false);
    }
    // One parent nearly always suffices, and is cheaper to walk than all of them.
    for parent in &near {
        let limit = WORK_LIMIT.min(*work + ONE_PARENT_LIMIT);
        if (Inclusion { parents: &[*parent], work, limit }).holds(&child.glob) == Some(true) {
            return Some(true);
        }
    }
    Inclusion { parents: &near, work, limit: WORK_LIMIT }.holds(&child.glob)
}

/// The states the parent patterns are in together: (pattern, state), sorted.
type Union = Vec<(usize, usize)>;

/// Walks a child's automaton beside the parents' determinised union, looking for a text only the child accepts.
struct Inclusion<'a> {
    parents: &'a [&'a Glob],
    work: &'a mut usize,
    limit: usize,
}

impl Inclusion<'_> {
    /// Whether no such text exists; `None` when the limit is passed.
    fn holds(mut self, child: &Glob) -> Option<bool> {
        let mut union = Union::new();
        for (index, parent) in self.parents.iter().enumerate() {
            parent.start(|state| insert(&mut union, (index, state)));
        }
        // Per child state, the unions seen: a larger union than one of them cannot fail where that one held.
        let mut seen: HashMap<usize, Vec<Union>> = HashMap::new();
        let mut todo: Vec<(usize, Union)> = Vec::new();
        let mut starts = Vec::new();
        child.start(|state| insert(&mut starts, state));
        for state in starts {
            // The empty text is no target, so acceptance before the first character says nothing.
            self.expand(child, state, &union, true, &mut todo)?;
        }
        while let Some((state, union)) = todo.pop() {
            if union.iter().any(|(index, held)| self.parents[*index].accepts_all_from(*held)) {
                continue;
            }
            let known = seen.entry(state).or_default();
            self.spend(known.iter().map(Vec::len).sum::<usize>() + union.len())?;
            if known.iter().any(|smaller| is_sorted_subset(smaller, &union)) {
                continue;
            }
            if child.accepts(state) && !union.iter().any(|(index, held)| self.parents[*index].accepts(*held)) {
                return Some(false);
            }
            self.expand(child, state, &union, false, &mut todo)?;
            known.push(union);
        }
        Some(true)
    }

    /// Adds what follows `state` beside `union`, by each character that makes a difference.
    fn expand(
        &mut self,
        child: &Glob,
        state: usize,
        union: &Union,
        first: bool,
        todo: &mut Vec<(usize, Union)>,
    ) -> Option<()> {
        for c in self.characters(child, state, union, first) {
            let mut reached = Vec::new();
            child.advance(state, c, first, |to| insert(&mut reached, to));
            let mut next = Union::new();
            for (index, held) in union {
                self.parents[*index].advance(*held, c, first, |to| insert(&mut next, (*index, to)));
            }
            self.spend(union.len() + (next.len() + 1) * reached.len())?;
            todo.extend(reached.into_iter().map(|to| (to, next.clone())));
        }
        Some(())
    }

    /// One character of each class the child's step and the union's states tell apart.
    fn characters(&self, child: &Glob, state: usize, union: &Union, first: bool) -> Vec<char> {
        let mut characters = match child.step(state) {
            Some(Step::Char(c)) => return vec![c],
            Some(Step::Tail) => return vec!['/'],
            Some(Step::Star) => vec![],
            Some(Step::Any | Step::TreeBody) if first && child.is_relative() => vec![],
            Some(Step::Any | Step::TreeBody) => vec!['/'],
            Some(Step::Tree) | None => return vec![],
        };
        for (index, held) in union {
            if let Some(Step::Char(c)) = self.parents[*index].step(*held)
                && c != '/'
            {
                insert(&mut characters, c);
            }
        }
        // Stands for every character that no parent names here.
        characters.extend(('a'..=char::MAX).find(|c| characters.binary_search(c).is_err()));
        characters
    }

    fn spend(&mut self, amount: usize) -> Option<()> {
        *self.work += amount;
        (*self.work <= self.limit).then_some(())
    }
}

/// Inserts into a sorted list; says whether the item was new.
fn insert<T: Ord>(list: &mut Vec<T>, item: T) -> bool {
    match list.binary_search(&item) {
        Ok(_) => false,
        Err(place) => {
            list.insert(place, item);
            true
        }
    }
}

fn is_sorted_subset(small: &Union, large: &Union) -> bool {
    let mut rest = large.iter();
    small.iter().all(|item| rest.any(|other| other == item))
}
