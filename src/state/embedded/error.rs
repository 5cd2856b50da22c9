//! Errors of the embedded engine. Never here: a value from the store in an error text, other
//! than a table's name and a row's number.

use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::state::StateError;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "{file} is locked by another process{holder}: one store has one owner; stop the other process, or use another data folder"
    )]
    Locked {
        /// The lock file.
        file: PathBuf,
        /// ` (pid 123)`, when it is known.
        holder: String,
    },
    /// Written by a newer Bellhop.
    #[error(
        "{file} has schema version {found}, this program knows up to {known}: run the newer Bellhop that wrote it, or move the folder aside and start empty: the resync reads everything from the provider again (consumers see a new epoch and list again)"
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its version.
        found: i64,
        /// The newest one known here.
        known: i64,
    },
    /// Not a Bellhop store at all.
    #[error(
        "{file} is an SQLite database, but not a Bellhop store: choose another data folder, or move the file away"
    )]
    Foreign {
        /// The database.
        file: PathBuf,
    },
    /// Filled from the provider's other environment: by what this one lists, all that is in it would
    /// look removed.
    #[error(
        "{file} was filled from the provider's {noted} environment, and this subscription is for {wanted}: give one of them another name or data folder, or remove this store (in a cluster the PersistentVolumeClaim NAME-data) to begin with an empty one. Nothing was changed"
    )]
    Environment {
        /// The database.
        file: PathBuf,
        /// What it says.
        noted: String,
        /// What it is opened for.
        wanted: String,
    },
    /// Damaged.
    #[error(
        "{file} is damaged: {what}. Nothing was changed. Move the folder aside and start empty: the resync reads everything from the provider again (consumers see a new epoch and list again)"
    )]
    Damaged {
        /// The database or its WAL.
        file: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// No space to open or create it.
    #[error("{file} cannot be opened, there is no space left: free space or enlarge the volume")]
    Full {
        /// The database.
        file: PathBuf,
    },
    /// The operating system says no.
    #[error("{file}: {what}: {source}")]
    Io {
        /// Which file or folder.
        file: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// Something else went wrong in SQLite.
    #[error("{file}: {what}")]
    Sqlite {
        /// The database.
        file: PathBuf,
        /// What SQLite said.
        what: String,
    },
}

/// What went wrong inside the store, before it is known to whom it is told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// From SQLite.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row that cannot be believed.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The quota, before SQLite was asked.
    #[error("{0}")]
    Full(String),
    /// A bound in memory.
    #[error("{0}")]
    Busy(String),
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// A row whose checksum does not fit.
    pub(super) fn row(table: &str, row: impl std::fmt::Display) -> Self {
        Self::Damaged(format!(
            "table {table}, row {row}: its checksum does not fit"
        ))
    }

    /// Whether the transaction this happened in cannot go on.
    pub(super) const fn breaks_transaction(&self) -> bool {
        matches!(self, Self::Sqlite(_) | Self::Damaged(_))
    }
}

impl From<Fault> for StateError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => {
                    Self::Full("no space left on the volume or in the quota".to_owned())
                }
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    Self::Busy(error.to_string())
                }
                _ => Self::Failed(error.to_string()),
            },
            Fault::Damaged(what) => Self::Failed(format!(
                "{what}; move the data folder aside and let the resync rebuild it"
            )),
            Fault::Full(what) => Self::Full(what),
            Fault::Busy(what) => Self::Busy(what),
        }
    }
}
