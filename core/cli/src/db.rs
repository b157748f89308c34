//! `arcp sessions`, `arcp replay` and `arcp db`: a database file, without the runtime that writes it.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use arcp::store::seal::make_key_file;
use arcp::store::sqlite::{CheckReport, Inspector, SessionSummary, vacuum};
use arcp::{SqliteOptions, StoreError};
use serde_json::json;

use crate::args::{DbCommand, DbFileArgs, OutputForm, ReplayArgs, SessionsArgs};
use crate::exit::Failure;
use crate::output::{columns, member, note, print, shown};
use crate::store::default_database;

impl DbFileArgs {
    /// The file, which must be there: none of these commands makes one.
    fn path(&self) -> Result<PathBuf, Failure> {
        let path = match &self.db {
            Some(path) => path.clone(),
            None => default_database()?,
        };
        if path.exists() {
            return Ok(path);
        }
        let file = path.display();
        Err(Failure::Usage(match &self.db {
            Some(_) => {
                format!("--db: there is no database at {file}; check the path (arcp serve --db {file} makes one)")
            }
            None => format!("there is no database at {file}, where arcp serve keeps it by default; name it with --db"),
        }))
    }

    fn open(&self) -> Result<(PathBuf, Inspector), Failure> {
        let path = self.path()?;
        let inspector = Inspector::open_with(&path, &self.options()?).map_err(failed)?;
        Ok((path, inspector))
    }

    fn options(&self) -> Result<SqliteOptions, Failure> {
        Ok(SqliteOptions { sealer: self.key.sealer()?, ..SqliteOptions::default() })
    }
}

/// One line: for people, or for programs.
fn tell(form: OutputForm, text: &str, name: &str, value: &serde_json::Value) -> Result<(), Failure> {
    match form {
        OutputForm::Text => print(&shown(text)),
        OutputForm::Json => print(&member(name, &value.to_string())),
    }
}

fn failed(error: StoreError) -> Failure {
    Failure::Other(error.0)
}

pub(crate) fn sessions(args: &SessionsArgs) -> Result<(), Failure> {
    let (_, inspector) = args.file.open()?;
    let sessions = inspector.sessions().map_err(failed)?;
    match args.file.output {
        OutputForm::Text => table(&sessions).iter().try_for_each(|line| print(line)),
        OutputForm::Json => sessions.iter().try_for_each(|session| {
            let summary = json!({
                "session_id": *session.id,
                "principal": *session.principal,
                "detached_at": session.detached_at,
                "last_event_seq": session.last_event_seq,
                "freed": session.freed,
                "kept": session.kept,
                "jobs": session.jobs.iter().map(|id| &**id).collect::<Vec<_>>(),
            });
            print(&member("session", &summary.to_string()))
        }),
    }
}

/// A heading and a line per session, in columns.
fn table(sessions: &[SessionSummary]) -> Vec<String> {
    let mut rows = vec![["SESSION", "PRINCIPAL", "STATE", "LAST-SEQ", "KEPT", "JOBS"].map(str::to_owned)];
    rows.extend(sessions.iter().map(|session| {
        [
            session.id.to_string(),
            shown(&session.principal).into_owned(),
            session.detached_at.map_or_else(|| "attached".to_owned(), |at| format!("detached since {at}")),
            session.last_event_seq.to_string(),
            session.kept.to_string(),
            session.jobs.len().to_string(),
        ]
    }));
    columns(&rows)
}

pub(crate) fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    let (path, inspector) = args.file.open()?;
    // Buffered, since there may be many; nobody waits for the first.
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let mut frame = Vec::new();
    let replayed = inspector.replay(&args.session, args.after_seq, &mut |record| {
        frame.clear();
        record.frame().write(&mut frame);
        written = match args.file.output {
            OutputForm::Text => out.write_all(&frame).and_then(|()| out.write_all(b"\n")),
            OutputForm::Json => {
                let parts: [&[u8]; 3] = [b"{\"frame\":", &frame, b"}\n"];
                parts.iter().try_for_each(|part| out.write_all(part))
            }
        };
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    written.and_then(|()| out.flush()).map_err(Failure::Stdout)?;
    drop(out);
    match replayed {
        Ok(replay) if args.after_seq < replay.freed => {
            note(&format!("arcp: events {} to {} are gone", args.after_seq + 1, replay.freed));
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(match inspector.sessions() {
            Ok(sessions) if sessions.iter().all(|session| *session.id != *args.session) => {
                let file = path.display();
                let session = &args.session;
                Failure::NotFound(format!(
                    "{file} knows no session {session}; arcp sessions --db {file} lists those it has"
                ))
            }
            _ => failed(error),
        }),
    }
}

pub(crate) fn run(command: &DbCommand) -> Result<(), Failure> {
    match command {
        DbCommand::Backup { file, to } => backup(file, to),
        DbCommand::Check { file } => check(file),
        DbCommand::Vacuum { file } => give_back(file),
        DbCommand::Key { to, output } => make_key(to, *output),
    }
}

fn backup(file: &DbFileArgs, to: &Path) -> Result<(), Failure> {
    let (path, inspector) = file.open()?;
    inspector.backup(to).map_err(failed)?;
    let (db, to) = (path.to_string_lossy(), to.to_string_lossy());
    tell(file.output, &format!("copied {db} to {to}"), "backup", &json!({"db": db, "to": to}))
}

fn check(file: &DbFileArgs) -> Result<(), Failure> {
    let (path, inspector) = file.open()?;
    let CheckReport { sessions, jobs, records, numbers, problems } = inspector.check().map_err(failed)?;
    let db = path.to_string_lossy();
    if file.output == OutputForm::Text {
        problems.iter().try_for_each(|problem| print(&shown(problem)))?;
    }
    let read = format!("{db}: read {sessions} sessions, {jobs} jobs, {records} events and their {numbers} numbers");
    let report = json!({
        "db": db, "sessions": sessions, "jobs": jobs, "records": records, "numbers": numbers, "problems": problems,
    });
    tell(file.output, &read, "check", &report)?;
    match problems.len() {
        0 => Ok(()),
        found => Err(Failure::Other(format!("the database {db} is damaged ({found} found); restore a backup"))),
    }
}

fn give_back(file: &DbFileArgs) -> Result<(), Failure> {
    let path = file.path()?;
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    // What a killed process left may still be in the log.
    let size = || bytes(&path) + bytes(Path::new(&log));
    let before = size();
    vacuum(&path, &file.options()?).map_err(failed)?;
    let after = size();
    let db = path.to_string_lossy();
    let report = json!({"db": db, "bytes_before": before, "bytes_after": after});
    tell(file.output, &format!("{db}: {before} bytes before, {after} now"), "vacuum", &report)
}

fn make_key(to: &Path, form: OutputForm) -> Result<(), Failure> {
    make_key_file(to).map_err(failed)?;
    let file = to.to_string_lossy();
    tell(form, &format!("made the key file {file}; keep a copy apart from the database"), "key", &json!({"file": file}))
}
