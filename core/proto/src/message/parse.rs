//! Reading messages: every spelling section 1.4 and the disagreements of section 3 list, and nothing else.

mod client;
mod runtime;

pub(crate) use runtime::read_error;

use crate::envelope::Head;
use crate::error::Error;
use crate::json::{Fields, RawJson};
use crate::message::{Bye, LeaseConstraints, Ping, Pong};
use crate::time::Timestamp;

fn payload<'a>(head: &Head<'a>) -> Result<Fields<'a>, Error> {
    Fields::read("payload", head.payload)
}

fn owned(text: Option<std::borrow::Cow<'_, str>>) -> Option<String> {
    text.map(Into::into)
}

/// An id that may stand on the envelope, in the payload, or equal on both.
fn one_id(name: &str, envelope: Option<&str>, payload: &Fields<'_>) -> Result<String, Error> {
    let inner = payload.opt_non_empty(name, "an id")?;
    match (envelope, inner) {
        (Some(outer), Some(inner)) if outer != inner => Err(Error::invalid(format!(
            "{name} on the envelope and {}.{name} differ; send the same id twice or only one",
            payload.path()
        ))),
        (Some(outer), _) => Ok(outer.to_owned()),
        (None, Some(inner)) => Ok(inner.into_owned()),
        (None, None) => {
            Err(Error::invalid(format!("{name} is missing; send it on the envelope or as {}.{name}", payload.path())))
        }
    }
}

fn job_id(head: &Head<'_>, payload: &Fields<'_>) -> Result<String, Error> {
    one_id("job_id", head.job_id.as_deref(), payload)
}

fn ping(fields: &Fields<'_>) -> Result<Ping, Error> {
    let nonce = fields.non_empty("nonce", "1 to 128 characters")?;
    if nonce.chars().count() > 128 {
        return Err(Error::invalid("payload.nonce must be at most 128 characters; send a shorter one"));
    }
    Ok(Ping { nonce: nonce.into(), sent_at: fields.opt_time("sent_at")? })
}

fn pong(fields: &Fields<'_>) -> Result<Pong, Error> {
    Ok(Pong {
        ping_nonce: fields.str("ping_nonce", "the nonce of the ping")?.into(),
        received_at: fields.opt_time("received_at")?,
    })
}

fn bye(fields: &Fields<'_>) -> Result<Bye, Error> {
    Ok(Bye { reason: reason(fields)?.unwrap_or_default(), code: owned(fields.opt_str("code", "an error code")?) })
}

fn reason(fields: &Fields<'_>) -> Result<Option<String>, Error> {
    Ok(owned(fields.opt_str("reason", "a sentence")?))
}

/// `{expires_at?}`, where `read` says which times are good.
fn lease_constraints(
    fields: &Fields<'_>,
    read: impl Fn(&str) -> Option<Timestamp>,
) -> Result<Option<LeaseConstraints>, Error> {
    let Some(constraints) = fields.opt_object("lease_constraints")? else { return Ok(None) };
    let expires_at = constraints.opt_str("expires_at", "\"YYYY-MM-DDThh:mm:ssZ\"")?;
    if expires_at.as_deref().is_some_and(|text| read(text).is_none()) {
        return Err(constraints.fault("expires_at", "an existing UTC time that ends in Z", "\"YYYY-MM-DDThh:mm:ssZ\""));
    }
    Ok(Some(LeaseConstraints { expires_at: owned(expires_at) }))
}

/// An object kept raw.
fn object(fields: &Fields<'_>, name: &str) -> Result<Option<RawJson>, Error> {
    fields.opt_object(name)?;
    Ok(fields.value(name).map(RawJson::from_raw))
}
