//! The end of a lease (runtime-protocol section 9.5).

use super::quoted;
use crate::error::Error;
use crate::time::Timestamp;

/// Reads `expires_at`: an RFC 3339 date-time ending in `Z`, else `INVALID_REQUEST`.
pub fn parse_expires_at(text: &str) -> Result<Timestamp, Error> {
    Timestamp::parse_utc(text).ok_or_else(|| {
        Error::invalid(format!("expires_at {} is not a UTC time such as 2026-05-13T19:30:00Z", quoted(text)))
    })
}

/// Reads `expires_at` of a submission, which must lie after `now`.
pub fn future_expires_at(text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    let expires_at = parse_expires_at(text)?;
    if expires_at <= now {
        return Err(Error::invalid(format!("expires_at {expires_at} is not in the future; it is {now}")));
    }
    Ok(expires_at)
}
