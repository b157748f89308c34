//! Numbers of one session as one blob: runs of consecutive numbers that name consecutive records of one job.
//!
//! After the checksum and the form, per run the distances of `event_seq`, of the job's key and of `job_seq` from where
//! the run before ended, and the count.

use super::codec::{Cursor, Damage, begin, put_signed, put_varint, seal};

/// `count` numbers from `event_seq`, which are the records from `job_seq` of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) event_seq: u64,
    /// The job's key in the database.
    pub(super) job: i64,
    pub(super) job_seq: u64,
    pub(super) count: u64,
}

/// Grows number by number until the batch is written.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    pub(super) count: u64,
}

impl Runs {
    pub(super) fn push(&mut self, event_seq: u64, job: i64, job_seq: u64) {
        self.count += 1;
        if let Some(run) = self.runs.last_mut()
            && run.job == job
            && run.event_seq.wrapping_add(run.count) == event_seq
            && run.job_seq.wrapping_add(run.count) == job_seq
        {
            run.count += 1;
            return;
        }
        self.runs.push(Run { event_seq, job, job_seq, count: 1 });
    }

    pub(super) fn first(&self) -> u64 {
        self.runs.first().map_or(0, |run| run.event_seq)
    }

    pub(super) fn last(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.event_seq + (run.count - 1))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.runs.len() * 6);
        begin(&mut out);
        let (mut event_seq, mut job, mut job_seq) = (0_u64, 0_i64, 0_u64);
        for run in &self.runs {
            put_signed(&mut out, run.event_seq.wrapping_sub(event_seq).cast_signed());
            put_signed(&mut out, run.job.wrapping_sub(job));
            put_signed(&mut out, run.job_seq.wrapping_sub(job_seq).cast_signed());
            put_varint(&mut out, run.count);
            event_seq = run.event_seq.wrapping_add(run.count);
            job = run.job;
            job_seq = run.job_seq.wrapping_add(run.count);
        }
        seal(&mut out);
        out
    }
}

/// Appends the runs of a blob to `out`. A blob whose runs claim more than `most` numbers is damaged.
pub(super) fn decode(blob: &[u8], most: u64, out: &mut Vec<Run>) -> Result<(), Damage> {
    let mut cursor = Cursor::open(blob)?;
    let (mut event_seq, mut job, mut job_seq, mut total) = (0_u64, 0_i64, 0_u64, 0_u64);
    while !cursor.at_end() {
        event_seq = event_seq.wrapping_add_signed(cursor.signed()?);
        job = job.wrapping_add(cursor.signed()?);
        job_seq = job_seq.wrapping_add_signed(cursor.signed()?);
        let count = cursor.varint()?;
        total = total.saturating_add(count);
        if count == 0 || total > most {
            return Err(Damage::new("it counts more numbers than it can hold"));
        }
        out.push(Run { event_seq, job, job_seq, count });
        event_seq = event_seq.wrapping_add(count);
        job_seq = job_seq.wrapping_add(count);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_numbers_become_one_run() {
        let mut runs = Runs::default();
        for at in 0..1000 {
            runs.push(10 + at, 1 << 40, 1 + at);
        }
        runs.push(1010, (1 << 40) + 1, 5);
        runs.push(1011, (1 << 40) + 1, 7);
        assert_eq!((runs.first(), runs.last(), runs.count), (10, 1011, 1002));
        let blob = runs.encode();
        assert!(blob.len() < 40, "{}", blob.len());
        let mut back = Vec::new();
        decode(&blob, 1002, &mut back).unwrap();
        assert_eq!(back, runs.runs);
        assert!(decode(&blob, 1001, &mut back).is_err());
    }
}
