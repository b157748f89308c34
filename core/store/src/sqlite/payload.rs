//! How payloads lie in their columns: as they are, or sealed by the store's [`Sealer`] for the one place they belong to.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::codec::{Damage, put_bytes, put_varint};
use super::restore::Problem;
use super::schema::{VERSION_THAT_SEALS, reason};
use crate::seal::Sealer;
use crate::{SealError, StoreError};

/// What is sealed, and how its place is written. Step it when either changes.
const FORM: i64 = 1;

/// Sealed in every sealed database: what does not open it has another key.
const PROOF: &[u8] = b"ARCP";

/// Where a payload belongs: its column, and what names its row in the protocol. Those names are used once, so that
/// nothing opens in another row, or in another database of the same key.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Proof,
    Records { job_id: &'a str, first: u64, last: u64 },
    Input { job_id: &'a str, session: &'a str, principal: &'a str },
    Lease { job_id: &'a str, session: &'a str, principal: &'a str },
    Answer { session: &'a str, job_id: &'a str },
    Accepted { principal: &'a str, key: &'a str, job_id: &'a str },
    Terminal { principal: &'a str, key: &'a str, job_id: &'a str },
    Fingerprint { principal: &'a str, key: &'a str, job_id: &'a str },
    Handle { credential: &'a str, job_id: &'a str },
}

impl Place<'_> {
    /// As a sealer gets it: every part with its length, so that no two places read the same.
    fn context(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let (column, names): (&str, [&str; 3]) = match *self {
            Place::Proof => ("meta.proof", ["", "", ""]),
            Place::Records { job_id, .. } => ("segment.data", [job_id, "", ""]),
            Place::Input { job_id, session, principal } => ("job.input", [job_id, session, principal]),
            Place::Lease { job_id, session, principal } => ("job.lease", [job_id, session, principal]),
            Place::Answer { session, job_id } => ("subscription.answer", [session, job_id, ""]),
            Place::Accepted { principal, key, job_id } => ("idempotency_key.accepted", [principal, key, job_id]),
            Place::Terminal { principal, key, job_id } => ("idempotency_key.terminal", [principal, key, job_id]),
            Place::Fingerprint { principal, key, job_id } => ("idempotency_key.fingerprint", [principal, key, job_id]),
            Place::Handle { credential, job_id } => ("credential.handle", [credential, job_id, ""]),
        };
        put_bytes(&mut out, column.as_bytes());
        names.iter().for_each(|name| put_bytes(&mut out, name.as_bytes()));
        if let Place::Records { first, last, .. } = *self {
            put_varint(&mut out, first);
            put_varint(&mut out, last);
        }
        out
    }

    /// What is wrong there.
    pub(super) fn damage(&self, damage: impl fmt::Display) -> Problem {
        Problem::damage(self, damage)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Proof => f.write_str("the mark of its encryption"),
            Place::Records { job_id, .. } => write!(f, "records of {job_id}"),
            Place::Input { job_id, .. } => write!(f, "the input of {job_id}"),
            Place::Lease { job_id, .. } => write!(f, "the lease of {job_id}"),
            Place::Answer { session, job_id } => write!(f, "the answer that lets {session} follow {job_id}"),
            Place::Accepted { job_id, .. } => write!(f, "the answer that made {job_id}"),
            Place::Terminal { job_id, .. } => write!(f, "the end of {job_id}"),
            Place::Fingerprint { job_id, .. } => write!(f, "what the request of {job_id} is known by"),
            Place::Handle { credential, .. } => write!(f, "the handle of credential {credential}"),
        }
    }
}

/// Writes and reads payloads.
#[derive(Clone, Default)]
pub(super) struct Payloads(Option<Arc<dyn Sealer>>);

impl Payloads {
    pub(super) fn new(sealer: Option<Arc<dyn Sealer>>) -> Payloads {
        Payloads(sealer)
    }

    /// For a column of bytes.
    pub(super) fn bytes<'a>(&self, place: Place<'_>, plain: &'a [u8]) -> rusqlite::Result<Cow<'a, [u8]>> {
        match &self.0 {
            None => Ok(Cow::Borrowed(plain)),
            Some(sealer) => sealer.seal(&place.context(), plain).map(Cow::Owned).map_err(unsealed),
        }
    }

    /// For a column of text, which holds bytes where it is sealed.
    pub(super) fn text<'a>(&self, place: Place<'_>, plain: &'a str) -> rusqlite::Result<ToSqlOutput<'a>> {
        match &self.0 {
            None => Ok(ToSqlOutput::Borrowed(ValueRef::Text(plain.as_bytes()))),
            Some(sealer) => {
                let sealed = sealer.seal(&place.context(), plain.as_bytes()).map_err(unsealed)?;
                Ok(ToSqlOutput::Owned(Value::Blob(sealed)))
            }
        }
    }

    /// What [`Payloads::bytes`] wrote.
    pub(super) fn open_bytes(&self, place: Place<'_>, kept: Vec<u8>) -> Result<Vec<u8>, Damage> {
        match &self.0 {
            None => Ok(kept),
            Some(sealer) => sealer.open(&place.context(), kept).map_err(|error| unopened(&error)),
        }
    }

    /// What [`Payloads::text`] wrote.
    pub(super) fn open_text(&self, place: Place<'_>, row: &Row<'_>, column: usize) -> Result<String, Problem> {
        let Some(sealer) = &self.0 else { return Ok(row.get(column)?) };
        let opened = sealer.open(&place.context(), row.get(column)?);
        let opened = opened.map_err(|error| place.damage(unopened(&error)))?;
        String::from_utf8(opened).map_err(|_| place.damage("it is not UTF-8"))
    }

    /// Marks a database that is being made as sealed, if it is to be.
    pub(super) fn mark(&self, making: &Transaction<'_>) -> rusqlite::Result<()> {
        if self.0.is_some() {
            let proof = self.bytes(Place::Proof, PROOF)?;
            making.execute("INSERT INTO meta (name, value, proof) VALUES ('sealed', ?1, ?2)", params![FORM, proof])?;
        }
        Ok(())
    }

    /// Whether this reads and writes the database, which has this version and is not empty.
    pub(super) fn fit(&self, conn: &Connection, path: &Path, version: i64) -> Result<(), StoreError> {
        let mark = if version < VERSION_THAT_SEALS {
            None
        } else {
            let sql = "SELECT value, proof FROM meta WHERE name = 'sealed'";
            let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<Vec<u8>>>(1)?));
            conn.query_row(sql, [], read).optional().map_err(|error| StoreError(reason(path, &error)))?
        };
        let shown = path.display();
        let wrong = match (mark, &self.0) {
            (None, None) => return Ok(()),
            (None, Some(_)) => format!(
                "the database {shown} is not encrypted; open it without a key, or name another file, which is then made \
                 with this one"
            ),
            (Some(_), None) => format!(
                "the database {shown} is encrypted; name its key with --db-key-file (in a program, with the option \
                 db_key_file)"
            ),
            (Some((FORM, Some(proof))), Some(sealer)) => match sealer.open(&Place::Proof.context(), proof) {
                Ok(opened) if opened == PROOF => return Ok(()),
                opened => {
                    let why = opened.err().map_or_else(|| "it opens as something else".to_owned(), |error| error.0);
                    format!(
                        "the database {shown} is encrypted and does not open with this key ({why}); name its own key with \
                         --db-key-file (in a program, with the option db_key_file)"
                    )
                }
            },
            (Some((form, _)), Some(_)) => format!(
                "the database {shown} is encrypted in form {form}, and this program reads form {FORM}; use a newer \
                 program, or name another database file"
            ),
        };
        Err(StoreError(wrong))
    }
}

fn unsealed(error: SealError) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

fn unopened(error: &SealError) -> Damage {
    Damage(format!("it does not open ({error})"))
}
