//! A streamed result as it comes together.

use bytes::Bytes;

use crate::error::Error;
use crate::event::ResultChunk;
use crate::message::JobResult;

/// What was seen of one streamed result: order and size, without the data.
#[derive(Clone, Debug, Default)]
pub struct ResultParts {
    result_id: Option<String>,
    next: u64,
    size: u64,
    over: bool,
}

impl ResultParts {
    /// Counts the next chunk.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when a chunk is missing or comes again, under another `result_id`, or after the last.
    pub fn take(&mut self, chunk: &ResultChunk) -> Result<(), Error> {
        let id = self.result_id.get_or_insert_with(|| chunk.result_id.clone());
        if *id != chunk.result_id {
            return Err(broken(&format!("chunks of two results came, {id} and {}", chunk.result_id)));
        }
        if self.over {
            return Err(broken(&format!("chunk {} came after the last one", chunk.chunk_seq)));
        }
        if chunk.chunk_seq != self.next {
            let (got, due) = (chunk.chunk_seq, self.next);
            return Err(broken(&match due {
                0 => format!("it begins with chunk {got}; subscribe with history to have all of it"),
                _ => format!("chunk {got} came where chunk {due} is due"),
            }));
        }
        self.next += 1;
        self.size += chunk.data.len() as u64;
        self.over = !chunk.more;
        Ok(())
    }

    /// Whether everything the result speaks of has come.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when chunks are missing at the end, or id or size differ.
    pub fn finish(&self, result: &JobResult) -> Result<(), Error> {
        let said = result.result_id.as_deref();
        if self.next == 0 {
            return Err(broken("none of its chunks came; subscribe with history to have them"));
        }
        if said != self.result_id.as_deref() {
            let (said, came) = (said.unwrap_or("none"), self.result_id.as_deref().unwrap_or("none"));
            return Err(broken(&format!("the result names {said}, the chunks {came}")));
        }
        if !self.over {
            return Err(broken(&format!("it ends after chunk {} without a last one", self.next - 1)));
        }
        match result.result_size {
            Some(size) if size != self.size => Err(broken(&format!("it should have {size} bytes, {} came", self.size))),
            _ => Ok(()),
        }
    }
}

fn broken(why: &str) -> Error {
    Error::invalid(format!("the streamed result is not whole: {why}"))
}

/// One handle's streamed result, its data kept while there is room.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    parts: ResultParts,
    /// `None` when the application takes the chunks itself, or after a fault.
    data: Option<Vec<u8>>,
    fault: Option<Error>,
    by_chunks: bool,
}

impl Assembly {
    pub(super) fn new(by_chunks: bool) -> Self {
        Assembly { data: (!by_chunks).then(Vec::new), by_chunks, ..Assembly::default() }
    }

    /// Takes a chunk; `room` is what may be kept in memory for this handle.
    pub(super) fn take(&mut self, chunk: &ResultChunk, room: usize) {
        if self.fault.is_some() {
            return;
        }
        if let Err(fault) = self.parts.take(chunk) {
            self.fault = Some(fault);
            self.data = None;
        } else if let Some(data) = &mut self.data {
            if data.len() + chunk.data.len() > room {
                self.data = None;
                self.fault = Some(Error::invalid(format!(
                    "the streamed result is longer than the {room} bytes that may be held in memory; take it chunk by chunk, or raise max_result_bytes"
                )));
            } else {
                data.extend_from_slice(&chunk.data);
            }
        }
    }

    /// From now on the application takes the chunks itself, and judges by them whether they are whole.
    pub(super) fn leave_to_application(&mut self) {
        *self = Assembly::new(true);
    }

    pub(super) fn held(&self) -> usize {
        self.data.as_ref().map_or(0, Vec::len)
    }

    /// The whole result, `None` when the application took the chunks.
    pub(super) fn finish(self, result: &JobResult) -> Result<Option<Bytes>, Error> {
        if self.by_chunks {
            return Ok(None);
        }
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.parts.finish(result)?;
        Ok(self.data.map(Bytes::from))
    }
}
