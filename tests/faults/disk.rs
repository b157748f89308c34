//! Disks that take no more, and files that may not be written.
