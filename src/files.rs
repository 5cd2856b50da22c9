//! Files that change under us: tokens, headers, certificate authorities, settings.
//!
//! Owns: the cheap question "is it another file than before?", and bearer tokens that are kept in
//! files ([`token`]). Mounted Secrets are replaced by swapping a symbolic link, so path, inode,
//! length and time of change are compared, not events.
//!
//! Never here: a content in a message.

pub mod token;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a file, or a folder's files, looked like. Equal stamps: nothing changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(String, u64, u64, i64, i64)>);

impl Stamp {
    /// Of one file, symbolic links followed. Empty when it is not there.
    pub fn of_file(path: &Path) -> Self {
        Self(entry(path).into_iter().collect())
    }

    /// Of all visible files of a folder. Empty when it is not there.
    pub fn of_folder(path: &Path) -> Self {
        let mut files: Vec<_> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|file| !file.file_name().to_string_lossy().starts_with('.'))
            .filter_map(|file| entry(&file.path()))
            .collect();
        files.sort();
        Self(files)
    }
}

fn entry(path: &Path) -> Option<(String, u64, u64, i64, i64)> {
    let about = std::fs::metadata(path).ok()?;
    Some((
        path.to_string_lossy().into_owned(),
        about.ino(),
        about.len(),
        about.mtime(),
        about.mtime_nsec(),
    ))
}
