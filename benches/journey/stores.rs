//! Filled stores: made once in a run, copied for each use.
//!
//! Never here: a store that was not filled to its end (it is renamed into its place when it is).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arguments::argument;
use crate::process::Process;
use crate::roles::text;

/// The size setting of every store that is filled: ten million journal rows may take a quarter
/// of it at most, at 256 bytes each as retention counts them.
pub const SIZE: &str = "16Gi";
/// The same in bytes.
pub const SIZE_BYTES: u64 = 16 << 30;

/// See the module documentation.
pub struct Stores {
    folder: PathBuf,
}

impl Stores {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// A copy, at `target`, of a store with so many entities and journal rows.
    pub fn copy(&self, entities: u64, rows: u64, target: &Path) -> Result<(), String> {
        let kept = self.folder.join(format!("{entities}-{rows}"));
        if !kept.exists() {
            self.fill(entities, rows, &kept)?;
        }
        fs::create_dir_all(target).map_err(text)?;
        let copied = || -> io::Result<()> {
            for file in fs::read_dir(&kept)? {
                let file = file?;
                fs::copy(file.path(), target.join(file.file_name()))?;
            }
            Ok(())
        };
        copied().map_err(|error| format!("cannot copy {}: {error}", kept.display()))
    }

    fn fill(&self, entities: u64, rows: u64, kept: &Path) -> Result<(), String> {
        println!("  filling a store: {entities} entities, {rows} journal rows");
        let filling = self.folder.join("filling");
        let _ = fs::remove_dir_all(&filling);
        fs::create_dir_all(&filling).map_err(text)?;
        let arguments = [
            argument("store", filling.display()),
            argument("entities", entities),
            argument("rows", rows),
            argument("size", SIZE_BYTES),
        ];
        let mut process = Process::anywhere("fill", &arguments).map_err(text)?;
        loop {
            let line = process.line().map_err(text)?;
            if line == "filled" {
                break;
            }
            println!("    {line}");
        }
        process.end().map_err(text)?;
        fs::rename(&filling, kept).map_err(text)
    }

    /// Removes all of them.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Bytes in a folder's files.
pub fn bytes(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for file in fs::read_dir(folder)? {
        sum += file?.metadata()?.len();
    }
    Ok(sum)
}

/// Takes a folder's files out of the page cache, as after a restart of the machine. `false` when
/// this machine's `dd` cannot.
pub fn make_cold(folder: &Path) -> io::Result<bool> {
    Command::new("sync").status()?;
    let mut cold = true;
    for file in fs::read_dir(folder)? {
        let dd = Command::new("dd")
            .arg(format!("if={}", file?.path().display()))
            .args(["of=/dev/null", "iflag=nocache", "count=0", "status=none"])
            .status();
        cold &= dd.is_ok_and(|status| status.success());
    }
    Ok(cold)
}

/// Bytes of each table and its indexes.
pub fn tables(database: &Path) -> Result<Vec<(String, u64)>, String> {
    let connection = rusqlite::Connection::open(database).map_err(text)?;
    let mut statement = connection
        .prepare(
            "SELECT m.tbl_name, sum(s.pgsize) FROM dbstat s JOIN sqlite_schema m ON m.name = s.name
             WHERE s.aggregate = TRUE GROUP BY m.tbl_name",
        )
        .map_err(text)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)));
    rows.and_then(Iterator::collect).map_err(text)
}

/// The database among a store's files.
pub fn database(store: &Path) -> Result<PathBuf, String> {
    let files = fs::read_dir(store).map_err(text)?;
    files
        .flatten()
        .map(|file| file.path())
        .find(|path| path.extension().is_some_and(|end| end == "db"))
        .ok_or_else(|| format!("no database in {}", store.display()))
}
