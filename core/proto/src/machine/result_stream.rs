//! A result on its way out in parts (section 8.4): how it is cut, and what the parts of one job must keep to.

use base64_simd::{Out, STANDARD};

use super::runtime::details;
use crate::error::Error;
use crate::event::EventKind;
use crate::json::{push_string, push_u64};
use crate::time::Timestamp;

/// Bounds on streamed and inline results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultCaps {
    /// 1 MiB: decoded bytes in one chunk; its text as sent may take half as much again.
    pub chunk: usize,
    /// 256 MiB: decoded bytes in all chunks of a job; their text may take half as much again.
    pub total: u64,
    /// 1 MiB: a result that is sent whole. A larger one is streamed where that was negotiated.
    pub inline: usize,
    /// 256 KiB: where a [`ResultCutter`] cuts, in decoded bytes, so that a frame stays below 1 MiB (D-90).
    pub cut: usize,
}

impl Default for ResultCaps {
    fn default() -> Self {
        ResultCaps { chunk: 1 << 20, total: 256 << 20, inline: 1 << 20, cut: 256 << 10 }
    }
}

impl ResultCaps {
    /// What the text of one chunk may take.
    pub(super) fn chunk_text(&self) -> usize {
        self.chunk.saturating_add(self.chunk / 2)
    }

    fn total_text(&self) -> u64 {
        self.total.saturating_add(self.total / 2)
    }
}

/// Which cap a result went over, as `details.cap` of its `INTERNAL_ERROR` names it.
pub(super) fn over(cap: &str, what: &str, most: u64) -> Error {
    Error::internal(format!("{what} may have at most {most} bytes")).with_details(details("cap", cap))
}

/// One chunk, serialised but for its last member: whether it is the last is known only when the next one comes (D-91).
#[derive(Debug)]
pub struct ResultPart {
    chunk_seq: u64,
    payload: Vec<u8>,
    decoded: usize,
    text: usize,
}

impl ResultPart {
    /// The whole payload of a `job.event`.
    pub(super) fn close(mut self, more: bool) -> Vec<u8> {
        self.payload.extend_from_slice(if more { b"true}}" } else { b"false}}" });
        self.payload
    }
}

/// Cuts a result into numbered chunks. Encodings may change from one to the next.
#[derive(Debug)]
pub struct ResultCutter {
    result_id: String,
    next_seq: u64,
    cut: usize,
    text_cap: usize,
}

/// How an agent wants its result written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultOptions {
    /// The agent's own id for it; `None` makes one.
    pub result_id: Option<String>,
    /// Decoded bytes in a chunk, from 1 to the chunk cap; `None` means [`ResultCaps::cut`], 256 KiB.
    pub chunk_bytes: Option<usize>,
}

impl ResultOptions {
    pub(super) fn check(&self, caps: &ResultCaps) -> Result<(), Error> {
        if self.result_id.as_deref() == Some("") {
            return Err(Error::invalid("result_id must be text that is not empty"));
        }
        match self.chunk_bytes {
            Some(bytes) if bytes == 0 || bytes > caps.chunk => {
                Err(Error::invalid(format!("chunk_bytes must be a whole number from 1 to {}, got {bytes}", caps.chunk)))
            }
            _ => Ok(()),
        }
    }
}

impl ResultCutter {
    /// Cuts at `cut` decoded bytes, and so that no chunk's text is longer than `text_cap`.
    pub(super) fn new(result_id: String, cut: usize, text_cap: usize) -> Self {
        ResultCutter { result_id, next_seq: 0, cut: cut.max(1), text_cap }
    }

    /// The same in every chunk and in the `job.result`.
    pub fn result_id(&self) -> &str {
        &self.result_id
    }

    /// The next chunk and what is left of `text`. Cut between code points, of which a chunk has at least one.
    pub fn next_text<'a>(&mut self, at: Timestamp, text: &'a str) -> (ResultPart, &'a str) {
        let mut length = self.cut;
        loop {
            let (head, rest) = text.split_at(boundary(text, length));
            // Escapes are rare: a little room for them saves growing.
            let mut payload = self.begin(at, head.len() + head.len() / 16);
            let start = payload.len();
            push_string(&mut payload, head);
            let size = payload.len() - start - 2;
            if size > self.text_cap && length > 4 {
                // Nothing but control characters, and a wide cut: each takes six bytes.
                length /= 2;
                continue;
            }
            return (self.end(payload, "utf8", head.len(), size), rest);
        }
    }

    /// The next chunk, as base64 with padding, whole in itself, and what is left of `data`.
    pub fn next_bytes<'a>(&mut self, at: Timestamp, data: &'a [u8]) -> (ResultPart, &'a [u8]) {
        let most = self.cut.min(self.text_cap / 4 * 3).max(1);
        let (head, rest) = data.split_at(data.len().min(most));
        let size = head.len().div_ceil(3) * 4;
        let mut payload = self.begin(at, size);
        payload.push(b'"');
        let start = payload.len();
        payload.resize(start + size, 0);
        // The room was made to measure.
        let _ = STANDARD.encode(head, Out::from_slice(&mut payload[start..]));
        payload.push(b'"');
        (self.end(payload, "base64", head.len(), size), rest)
    }

    fn begin(&self, at: Timestamp, data: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(data + self.result_id.len() + 192);
        payload.extend_from_slice(b"{\"kind\":\"");
        payload.extend_from_slice(EventKind::ResultChunk.as_str().as_bytes());
        payload.extend_from_slice(b"\",\"ts\":\"");
        at.push_to(&mut payload);
        payload.extend_from_slice(b"\",\"body\":{\"result_id\":");
        push_string(&mut payload, &self.result_id);
        payload.extend_from_slice(b",\"chunk_seq\":");
        push_u64(&mut payload, self.next_seq);
        payload.extend_from_slice(b",\"data\":");
        payload
    }

    fn end(&mut self, mut payload: Vec<u8>, encoding: &str, decoded: usize, text: usize) -> ResultPart {
        payload.extend_from_slice(b",\"encoding\":\"");
        payload.extend_from_slice(encoding.as_bytes());
        payload.extend_from_slice(b"\",\"more\":");
        let chunk_seq = self.next_seq;
        self.next_seq += 1;
        ResultPart { chunk_seq, payload, decoded, text }
    }
}

/// The last boundary between code points at or before `most`, or the first one if there is none before.
fn boundary(text: &str, most: usize) -> usize {
    if most >= text.len() {
        return text.len();
    }
    let before = (1..=most).rev().find(|at| text.is_char_boundary(*at));
    before.or_else(|| (most..=text.len()).find(|at| *at > 0 && text.is_char_boundary(*at))).unwrap_or(text.len())
}

/// What a chunk an agent made by hand says of itself.
pub(super) struct Chunk<'a> {
    pub(super) result_id: &'a str,
    pub(super) chunk_seq: u64,
    pub(super) decoded: usize,
    pub(super) text: usize,
    pub(super) more: bool,
}

/// The one result stream of a job.
#[derive(Debug)]
pub(super) struct ResultStream {
    pub(super) result_id: String,
    next_seq: u64,
    /// Decoded bytes, also those still held.
    pub(super) size: u64,
    text_size: u64,
    pub(super) ended: bool,
    /// Whether the agent numbers its chunks itself.
    pub(super) by_hand: bool,
    pub(super) summary: Option<String>,
    /// The newest chunk of a writer, until it is known whether another follows (D-91).
    held: Option<ResultPart>,
    /// Without the feature: everything so far, to be sent whole.
    pub(super) inline: Option<Vec<u8>>,
    /// The cap it went over; nothing follows it, and the job ends in it.
    pub(super) fault: Option<Error>,
}

impl ResultStream {
    pub(super) fn new(result_id: String, by_hand: bool, streamed: bool) -> Self {
        ResultStream {
            result_id,
            next_seq: 0,
            size: 0,
            text_size: 0,
            ended: false,
            by_hand,
            summary: None,
            held: None,
            inline: (!streamed).then(Vec::new),
            fault: None,
        }
    }

    /// Whether the agent has made any of it, so that what it returns is not the result.
    pub(super) fn has_begun(&self) -> bool {
        self.next_seq > 0 || self.ended || self.inline.as_ref().is_some_and(|data| !data.is_empty())
    }

    /// Refuses what comes after the end, or after a fault.
    fn check_open(&self) -> Result<(), Error> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        if self.ended {
            return Err(Error::invalid("the result is complete: nothing may follow its last chunk"));
        }
        Ok(())
    }

    /// Takes the place of one chunk.
    fn admit(&mut self, caps: &ResultCaps, decoded: usize, text: usize) -> Result<(), Error> {
        let (size, text_size) = (self.size + decoded as u64, self.text_size + text as u64);
        let fault = if decoded > caps.chunk {
            over("result_chunk_bytes", "a result_chunk", caps.chunk as u64)
        } else if text > caps.chunk_text() {
            over("result_chunk_bytes", "the text of a result_chunk", caps.chunk_text() as u64)
        } else if size > caps.total {
            over("result_bytes", "a streamed result", caps.total)
        } else if text_size > caps.total_text() {
            over("result_bytes", "the text of a streamed result", caps.total_text())
        } else {
            (self.size, self.text_size) = (size, text_size);
            self.next_seq += 1;
            return Ok(());
        };
        self.fault = Some(fault.clone());
        Err(fault)
    }

    /// Checks a chunk the agent made by hand; `Ok` when it may be sent.
    pub(super) fn take_by_hand(&mut self, caps: &ResultCaps, chunk: &Chunk<'_>) -> Result<(), Error> {
        if !self.by_hand {
            return Err(Error::invalid("the result of this job is being written already; write on with that writer"));
        }
        self.check_open()?;
        if chunk.result_id != self.result_id {
            let message = "result_chunk.body.result_id must be the one of the earlier chunks: a job has one result";
            return Err(Error::invalid(message));
        }
        if chunk.chunk_seq != self.next_seq {
            let (expected, got) = (self.next_seq, chunk.chunk_seq);
            return Err(Error::invalid(format!("result_chunk.body.chunk_seq must be {expected}, got {got}")));
        }
        if self.inline.is_none() {
            self.admit(caps, chunk.decoded, chunk.text)?;
        } else {
            self.next_seq += 1;
        }
        self.ended = !chunk.more;
        Ok(())
    }

    /// Keeps a chunk of a writer back, and gives out the one before it.
    pub(super) fn hold(&mut self, caps: &ResultCaps, part: ResultPart) -> Result<Option<ResultPart>, Error> {
        self.check_open()?;
        if part.chunk_seq != self.next_seq {
            let (expected, got) = (self.next_seq, part.chunk_seq);
            return Err(Error::invalid(format!("this chunk of the result must be number {expected}, got {got}")));
        }
        self.admit(caps, part.decoded, part.text)?;
        Ok(self.held.replace(part))
    }

    /// The chunk that was kept back.
    pub(super) fn release(&mut self) -> Option<ResultPart> {
        self.held.take()
    }

    /// Adds to a result that is to be sent whole.
    pub(super) fn collect(&mut self, caps: &ResultCaps, data: &[u8]) -> Result<(), Error> {
        if !self.by_hand {
            self.check_open()?;
        }
        let Some(inline) = &mut self.inline else { return Ok(()) };
        if inline.len() + data.len() > caps.inline {
            let fault = over("inline_result", "a result the client does not take in chunks", caps.inline as u64);
            // It is not sent any more.
            *inline = Vec::new();
            self.fault = Some(fault.clone());
            return Err(fault);
        }
        inline.extend_from_slice(data);
        Ok(())
    }

    /// The empty chunk that ends a stream whose last chunk said that more would follow.
    pub(super) fn closing_part(&mut self, at: Timestamp) -> ResultPart {
        let mut cutter = ResultCutter::new(self.result_id.clone(), 1, 4);
        cutter.next_seq = self.next_seq;
        self.next_seq += 1;
        cutter.next_text(at, "").0
    }

    /// The end of the stream, unless it has ended: the last chunk.
    pub(super) fn end(&mut self, at: Timestamp) -> Option<ResultPart> {
        if std::mem::replace(&mut self.ended, true) || self.inline.is_some() {
            return None;
        }
        Some(self.held.take().unwrap_or_else(|| self.closing_part(at)))
    }
}
