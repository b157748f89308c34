//! Several records of one job as one blob.
//!
//! After the checksum and the form: the trace id, then per record one byte (bits 0-2 the kind, bit 3 whether an own
//! trace id follows, bits 4-7 the feature), the distances of `job_seq`, `source_seq` and time from the record before,
//! the own trace id if any, and the payload.

use std::sync::Arc;

use arcp_proto::feature::Feature;
use arcp_proto::machine::frame::{Record, RecordKind};
use arcp_proto::message::JobStatus;
use arcp_proto::time::Timestamp;
use bytes::Bytes;

use super::codec::{Cursor, Damage, begin, put_bytes, put_signed, put_varint, seal};

const OWN_TRACE: u8 = 0b1000;

/// Grows record by record until the batch is written.
#[derive(Debug)]
pub(super) struct Segment {
    data: Vec<u8>,
    pub(super) job_id: Arc<str>,
    trace_id: Arc<str>,
    pub(super) first_job_seq: u64,
    pub(super) last_job_seq: u64,
    pub(super) last_source_seq: u64,
    pub(super) highest_source_seq: u64,
    last_at: i64,
    pub(super) count: u64,
    /// As [`Record::cost`] counts.
    pub(super) cost: u64,
}

impl Segment {
    pub(super) fn new(record: &Record) -> Segment {
        let mut data = Vec::with_capacity(record.payload.len() + 64);
        begin(&mut data);
        put_bytes(&mut data, record.trace_id.as_bytes());
        let mut segment = Segment {
            data,
            job_id: Arc::clone(&record.job_id),
            trace_id: Arc::clone(&record.trace_id),
            first_job_seq: record.job_seq,
            last_job_seq: 0,
            last_source_seq: 0,
            highest_source_seq: 0,
            last_at: 0,
            count: 0,
            cost: 0,
        };
        segment.push(record);
        segment
    }

    pub(super) fn push(&mut self, record: &Record) {
        let own_trace = !Arc::ptr_eq(&record.trace_id, &self.trace_id) && record.trace_id != self.trace_id;
        let head = kind_code(record.kind) | if own_trace { OWN_TRACE } else { 0 } | feature_code(record.feature) << 4;
        self.data.push(head);
        put_signed(&mut self.data, distance(record.job_seq, self.last_job_seq).wrapping_sub(1));
        put_signed(&mut self.data, distance(record.source_seq, self.last_source_seq));
        put_signed(&mut self.data, record.at.0.wrapping_sub(self.last_at));
        if own_trace {
            put_bytes(&mut self.data, record.trace_id.as_bytes());
        }
        put_varint(&mut self.data, record.payload.len() as u64);
        self.data.extend_from_slice(&record.payload);
        self.last_job_seq = record.job_seq;
        self.last_source_seq = record.source_seq;
        self.highest_source_seq = self.highest_source_seq.max(record.source_seq);
        self.last_at = record.at.0;
        self.count += 1;
        self.cost += record.cost() as u64;
    }

    /// How long the blob is so far.
    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    /// The finished blob.
    pub(super) fn seal(&mut self) {
        seal(&mut self.data);
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }
}

/// Which records of a blob are wanted, and whether they may go on holding all of it in memory.
pub(super) struct Choice<F> {
    /// Decides by `job_seq` and `source_seq`.
    pub(super) wanted: F,
    pub(super) share: bool,
}

/// Everything, for those who soon let go of it.
pub(super) fn all() -> Choice<fn(u64, u64) -> bool> {
    Choice { wanted: |_, _| true, share: true }
}

/// Reads the chosen records of a blob.
pub(super) fn decode<F: FnMut(u64, u64) -> bool>(
    blob: Vec<u8>,
    job_id: &Arc<str>,
    mut choice: Choice<F>,
) -> Result<Vec<Arc<Record>>, Damage> {
    let blob = Bytes::from(blob);
    let mut cursor = Cursor::open(&blob)?;
    let trace_id: Arc<str> = cursor.text()?.into();
    let (mut job_seq, mut source_seq, mut at) = (0_u64, 0_u64, 0_i64);
    let mut records = Vec::new();
    while !cursor.at_end() {
        let head = cursor.byte()?;
        job_seq = job_seq.wrapping_add_signed(cursor.signed()?.wrapping_add(1));
        source_seq = source_seq.wrapping_add_signed(cursor.signed()?);
        at = at.wrapping_add(cursor.signed()?);
        let trace_id = if head & OWN_TRACE != 0 { cursor.text()?.into() } else { Arc::clone(&trace_id) };
        let payload = cursor.range()?;
        if !(choice.wanted)(job_seq, source_seq) {
            continue;
        }
        let payload = if choice.share { blob.slice(payload) } else { Bytes::copy_from_slice(&blob[payload]) };
        records.push(Arc::new(Record {
            job_id: Arc::clone(job_id),
            trace_id,
            kind: kind_of(head & 0b111),
            job_seq,
            source_seq,
            at: Timestamp(at),
            feature: feature_of(head >> 4)?,
            payload,
        }));
    }
    Ok(records)
}

/// One record by itself.
pub(super) fn encode_one(record: &Record) -> Vec<u8> {
    let mut segment = Segment::new(record);
    segment.seal();
    segment.data
}

/// The counterpart of [`encode_one`].
pub(super) fn decode_one(blob: Vec<u8>, job_id: &Arc<str>) -> Result<Arc<Record>, Damage> {
    decode(blob, job_id, all())?.pop().ok_or_else(|| Damage::new("it holds no record"))
}

fn distance(to: u64, from: u64) -> i64 {
    to.wrapping_sub(from).cast_signed()
}

// The codes are on disk: they never change their meaning.

pub(super) fn status_code(status: JobStatus) -> u8 {
    match status {
        JobStatus::Pending => 0,
        JobStatus::Running => 1,
        JobStatus::Success => 2,
        JobStatus::Error => 3,
        JobStatus::Cancelled => 4,
        JobStatus::TimedOut => 5,
    }
}

fn kind_code(kind: RecordKind) -> u8 {
    match kind {
        RecordKind::Event => 0,
        RecordKind::Result => 1,
        RecordKind::Error(status) => 2 + status_code(status),
    }
}

fn kind_of(code: u8) -> RecordKind {
    match code {
        0 => RecordKind::Event,
        1 => RecordKind::Result,
        2 => RecordKind::Error(JobStatus::Pending),
        3 => RecordKind::Error(JobStatus::Running),
        4 => RecordKind::Error(JobStatus::Success),
        6 => RecordKind::Error(JobStatus::Cancelled),
        7 => RecordKind::Error(JobStatus::TimedOut),
        _ => RecordKind::Error(JobStatus::Error),
    }
}

/// By code, from 1; 0 is none.
const FEATURES: [Feature; 11] = [
    Feature::Heartbeat,
    Feature::Ack,
    Feature::ListJobs,
    Feature::Subscribe,
    Feature::AgentVersions,
    Feature::LeaseExpiresAt,
    Feature::CostBudget,
    Feature::ModelUse,
    Feature::ProvisionedCredentials,
    Feature::Progress,
    Feature::ResultChunk,
];

fn feature_code(feature: Option<Feature>) -> u8 {
    let place = feature.and_then(|feature| FEATURES.iter().position(|known| *known == feature));
    place.map_or(0, |place| place as u8 + 1)
}

fn feature_of(code: u8) -> Result<Option<Feature>, Damage> {
    match code.checked_sub(1) {
        None => Ok(None),
        Some(place) => match FEATURES.get(usize::from(place)) {
            Some(feature) => Ok(Some(*feature)),
            None => Err(Damage(format!("it names feature {code}, which this program does not know"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(job_seq: u64, kind: RecordKind, feature: Option<Feature>, trace_id: &str) -> Record {
        Record {
            job_id: "job_1".into(),
            trace_id: trace_id.into(),
            kind,
            job_seq,
            source_seq: job_seq * 3,
            at: Timestamp(1_700_000_000_000 - job_seq.cast_signed()),
            feature,
            payload: Bytes::from(format!("{{\"n\":{job_seq}}}")),
        }
    }

    #[test]
    fn every_kind_and_feature_comes_back() {
        let statuses = [
            JobStatus::Pending,
            JobStatus::Running,
            JobStatus::Success,
            JobStatus::Error,
            JobStatus::Cancelled,
            JobStatus::TimedOut,
        ];
        let mut kinds = vec![RecordKind::Event, RecordKind::Result];
        kinds.extend(statuses.map(RecordKind::Error));
        let features: Vec<_> = [None].into_iter().chain(Feature::ALL.map(Some)).collect();
        let mut sent = Vec::new();
        for (at, kind) in kinds.iter().enumerate() {
            for (more, feature) in features.iter().enumerate() {
                let seq = (at * 100 + more + 7) as u64;
                sent.push(record(seq, *kind, *feature, if more % 2 == 0 { "even" } else { "odd" }));
            }
        }
        let mut segment = Segment::new(&sent[0]);
        sent[1..].iter().for_each(|record| segment.push(record));
        segment.seal();
        let back = decode(segment.data().to_vec(), &"job_1".into(), all()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{sent:?}"));
        let few = Choice { wanted: |job_seq, _| job_seq == 7, share: false };
        assert_eq!(decode(segment.data().to_vec(), &"job_1".into(), few).unwrap().len(), 1);
    }

    #[test]
    fn no_byte_sequence_makes_the_reader_panic() {
        let mut whole = encode_one(&record(5, RecordKind::Result, Some(Feature::Ack), "trace"));
        assert_eq!(decode_one(whole.clone(), &"job_1".into()).unwrap().job_seq, 5);
        for at in 5..whole.len() {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                seal(&mut changed);
                let _ = decode_one(changed, &"job_1".into());
            }
        }
        while whole.pop().is_some() {
            seal(&mut whole);
            assert!(decode_one(whole.clone(), &"job_1".into()).is_err() || whole.is_empty());
        }
    }
}
