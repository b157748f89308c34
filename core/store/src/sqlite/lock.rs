//! A database file belongs to one process at a time (D-27).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::StoreError;

/// Possession of a database file: an advisory lock on the file `<database>.lock` beside it, which names the holder. The
/// system lets go of it when the process ends, however it ends, and with it what it forked without starting another
/// program. The file itself stays, since removing it would let two
/// processes hold two locks of one name.
#[derive(Debug)]
pub(crate) struct Possession {
    _file: File,
}

impl Possession {
    /// Takes the database at this resolved path.
    pub(crate) fn take(path: &Path) -> Result<Possession, StoreError> {
        let mut name = OsString::from(path);
        name.push(".lock");
        let lock = PathBuf::from(name);
        let refused = |error: std::io::Error| {
            StoreError(format!(
                "the lock file {} cannot be used ({error}); make its folder writable, or name another database file",
                lock.display()
            ))
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        owner_only(&mut options);
        let mut file = options.open(&lock).map_err(refused)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(path, &mut file)),
            Err(TryLockError::Error(error)) => return Err(refused(error)),
        }
        // The number serves the one-line error only: failing to write it harms nothing.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Possession { _file: file })
    }
}

fn taken(path: &Path, file: &mut File) -> StoreError {
    let mut holder = String::new();
    let _ = file.take(32).read_to_string(&mut holder);
    let holder = match holder.trim().parse::<u32>() {
        Ok(pid) if pid == std::process::id() => format!("this process (pid {pid}) in another store; close that one"),
        Ok(pid) => format!("the process with pid {pid}; stop it"),
        Err(_) => "another process; stop it".to_owned(),
    };
    StoreError(format!("the database {} belongs to {holder}, or name another database file", path.display()))
}

/// The one name of a database: links resolved, so that no two owners know it by different names. The folder is made if
/// it is missing and `make` says so; the file is not touched.
pub(crate) fn resolve(path: &Path, make: bool) -> Result<PathBuf, StoreError> {
    let shown = path.display();
    if path.is_dir() {
        return Err(StoreError(format!("{shown} is a folder; name a file in it as the database")));
    }
    let Some(name) = path.file_name() else {
        return Err(StoreError(format!("the path {shown:?} names no file; name a file as the database")));
    };
    if let Ok(resolved) = fs::canonicalize(path) {
        return Ok(resolved);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if make {
        make_folder(folder).map_err(|error| {
            StoreError(format!(
                "the folder {} of the database cannot be made ({error}); make it, or name another database file",
                folder.display()
            ))
        })?;
    }
    fs::canonicalize(folder).map(|folder| folder.join(name)).map_err(|_| missing(path))
}

/// The error for a database that is to be read and is not there.
pub(crate) fn missing(path: &Path) -> StoreError {
    StoreError(format!("there is no database at {}; check the path, or start a runtime with it first", path.display()))
}

/// Makes an empty file for its owner only, unless there is one. Its companions get the same mode from SQLite.
pub(crate) fn make_file(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    owner_only(&mut options);
    match options.open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn owner_only(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
fn owner_only(_options: &mut OpenOptions) {}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder)
}
