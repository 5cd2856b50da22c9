//! Opening a store's folder: lock, looks before anything is changed, connections.
//!
//! Owns: what is refused, and with which words. Never here: a repair, or a file made beside one
//! that is refused.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::engine::Engine;
use super::error::{Fault, OpenError};
use super::lock::Lock;
use super::options::Options;
use super::reader;
use super::schema::{self, Kind};
use super::store::Store;
use super::verify;
use super::wal::{self, Log};
use crate::clock::{Ticks, UnixMillis};

const DATABASE: &str = "bellhop.db";
const LOCK: &str = "bellhop.lock";

/// The fact that tells which environment a store was filled from.
const FACT_ENVIRONMENT: &str = "environment";

/// The parts of an engine.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) lock: Lock,
    pub(super) checkpointer: Connection,
    pub(super) readers: Vec<Connection>,
    pub(super) path: PathBuf,
}

pub(super) fn open(
    dir: &Path,
    options: Options,
    now: UnixMillis,
    ticks: Ticks,
) -> Result<Opened, OpenError> {
    let io = |file: &Path, what| {
        let file = file.to_owned();
        move |source| OpenError::Io { file, what, source }
    };
    fs::create_dir_all(dir).map_err(io(dir, "cannot make the data folder"))?;
    let lock = Lock::take(&dir.join(LOCK))?;
    let path = dir.join(DATABASE);
    let log = dir.join(format!("{DATABASE}-wal"));
    sync_log(&log).map_err(io(&log, "cannot sync"))?;
    let commits = match wal::look(&log).map_err(io(&log, "cannot read"))? {
        Log::Damaged(what) => return Err(OpenError::Damaged { file: log, what }),
        Log::Sound { commits } => commits,
    };
    let size = fs::metadata(&path).map_or(0, |found| found.len());
    let emptied = || OpenError::Damaged {
        file: path.clone(),
        what: "it is empty, but its write-ahead log holds commits".to_owned(),
    };
    if size == 0 && commits {
        // SQLite would delete the log.
        return Err(emptied());
    }
    let told = |fault| describe(&path, fault);
    let connection = connect(&path, OpenFlags::SQLITE_OPEN_CREATE).map_err(&told)?;
    let kind = schema::kind(&connection).map_err(&told)?;
    match kind {
        Kind::Foreign => return Err(OpenError::Foreign { file: path }),
        Kind::Bellhop(found) if found > schema::VERSION => {
            return Err(OpenError::Newer {
                file: path,
                found,
                known: schema::VERSION,
            });
        }
        Kind::Bellhop(_) if size <= options.full_check_bytes => {
            verify::check(&connection).map_err(&told)?;
        }
        // Without a commit in the log, the power went while the store was made.
        Kind::Empty if commits => return Err(emptied()),
        Kind::Bellhop(_) | Kind::Empty => {}
    }
    // In an older schema nobody noted it.
    let noted = match kind {
        Kind::Bellhop(schema::VERSION) => environment(&connection, &path)?,
        _ => None,
    };
    // Before anything is changed: retention by another subscription's settings would delete.
    check_environment(noted.as_deref(), &path, &options)?;
    let mut store = Store::open_inner(connection, options, now, ticks).map_err(&told)?;
    if noted.is_none() {
        note_environment(&mut store).map_err(&told)?;
    }
    // The names of new files must survive a power cut as well as what is in them.
    File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(io(dir, "cannot sync the data folder"))?;
    let other = || -> Result<Connection, OpenError> {
        let connection = connect(&path, OpenFlags::empty()).map_err(&told)?;
        Ok(connection)
    };
    let checkpointer = other()?;
    schema::configure_checkpointer(&checkpointer, &store.options)
        .map_err(Fault::from)
        .map_err(&told)?;
    let mut readers = Vec::new();
    for _ in 0..Engine::reader_count() {
        let reader = other()?;
        schema::configure_reader(&reader)
            .map_err(Fault::from)
            .map_err(&told)?;
        readers.push(reader);
    }
    Ok(Opened {
        store,
        lock,
        checkpointer,
        readers,
        path,
    })
}

/// The environment that a store was filled from, if it says.
fn environment(connection: &Connection, path: &Path) -> Result<Option<String>, OpenError> {
    let noted = reader::fact(connection, FACT_ENVIRONMENT);
    let noted = noted.map_err(|fault| describe(path, fault))?;
    Ok(noted.map(|text| String::from_utf8_lossy(&text).into_owned()))
}

fn check_environment(noted: Option<&str>, path: &Path, options: &Options) -> Result<(), OpenError> {
    match (noted, &options.environment) {
        (Some(noted), Some(wanted)) if noted != wanted => Err(OpenError::Environment {
            file: path.to_owned(),
            noted: noted.to_owned(),
            wanted: wanted.clone(),
        }),
        _ => Ok(()),
    }
}

/// From now on the store is this environment's. A fault ends the opening: nothing to roll back to.
fn note_environment(store: &mut Store) -> super::error::Result<()> {
    let Some(environment) = store.options.environment.clone() else {
        return Ok(());
    };
    store.begin()?;
    store.put_fact_one(FACT_ENVIRONMENT, Some(environment.as_bytes()))?;
    store.commit()
}

/// A killed process may have left a commit in the log that the system holds in memory only. From
/// here on it is read as truth, shown to consumers and built upon: it must not vanish any more.
fn sync_log(log: &Path) -> std::io::Result<()> {
    match File::open(log) {
        Ok(file) => file.sync_all(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn connect(path: &Path, more: OpenFlags) -> super::error::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let connection = Connection::open_with_flags(path, flags)?;
    // Only someone with the sqlite3 program can be in the way; the lock file keeps others out.
    connection.busy_timeout(Duration::from_secs(2))?;
    Ok(connection)
}

fn describe(path: &Path, fault: Fault) -> OpenError {
    let file = path.to_owned();
    match fault {
        Fault::Damaged(what) => OpenError::Damaged { file, what },
        Fault::Sqlite(error) => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => OpenError::Damaged {
                file,
                what: "its header is not that of an SQLite database".to_owned(),
            },
            // What is asked is fixed: a statement that does not fit finds another schema, and a
            // value that does not fit its type (no code) finds another value.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) | None => OpenError::Damaged {
                file,
                what: error.to_string(),
            },
            Some(ErrorCode::DiskFull) => OpenError::Full { file },
            _ => OpenError::Sqlite {
                file,
                what: error.to_string(),
            },
        },
        Fault::Full(_) => OpenError::Full { file },
        Fault::Busy(what) => OpenError::Sqlite { file, what },
    }
}
