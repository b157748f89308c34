//! Clients that stop reading.
