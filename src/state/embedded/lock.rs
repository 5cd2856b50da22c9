//! One store, one process: an exclusive lock on a file beside the database, held as long as the
//! engine lives and released by the operating system however the process ends.
//!
//! Never here: deletion of the lock file (two processes could then hold "the" lock).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::error::OpenError;

/// Holds the lock.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let io = |what| {
            move |source| OpenError::Io {
                file: path.to_owned(),
                what,
                source,
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("cannot open the lock file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The holder wrote its pid; if it did not come that far the message goes without.
                let _ = (&file).take(20).read_to_string(&mut pid);
                let pid = pid.trim();
                let known = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
                return Err(OpenError::Locked {
                    file: path.to_owned(),
                    holder: if known {
                        format!(" (pid {pid})")
                    } else {
                        String::new()
                    },
                });
            }
            Err(TryLockError::Error(source)) => return Err(io("cannot lock")(source)),
        }
        // The pid is a help for people, not what the lock rests on: a full disk must not matter.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}
