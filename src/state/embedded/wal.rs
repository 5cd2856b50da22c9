//! A look at the write-ahead log before SQLite recovers it.
//!
//! Owns: the difference between a log that is *torn* and one that is *damaged*. SQLite ends its
//! recovery at the first frame whose checksum does not fit, which is right for what a power cut
//! leaves of a transaction that was never answered, and wrong for a damaged byte in the middle:
//! all that was answered after it would vanish. Every commit is synced before the next begins (one
//! that a killed process left unsynced is synced by the next process before it looks, `open`), so
//! only the last transaction can be torn. A bad frame with a commit *and* further frames of the
//! same log after it is damage.
//!
//! The last transaction itself cannot be judged so. The engine therefore closes a busy stretch
//! with a commit that says nothing, which may be lost (`engine`).
//!
//! Never here: a change to the file.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Checksums over little-endian words; the last bit set means big-endian ones.
const MAGIC: u32 = 0x377f_0682;

/// Running checksum of SQLite's WAL format.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sum(u32, u32);

impl Sum {
    fn add(mut self, bytes: &[u8], big_endian: bool) -> Self {
        for pair in bytes.chunks_exact(8) {
            let word = |at: usize| {
                let word = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
                if big_endian {
                    u32::from_be_bytes(word)
                } else {
                    u32::from_le_bytes(word)
                }
            };
            self.0 = self.0.wrapping_add(word(0)).wrapping_add(self.1);
            self.1 = self.1.wrapping_add(word(4)).wrapping_add(self.0);
        }
        self
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Fills `buffer`, or says that the file ends before.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a log is found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Log {
    /// It can be recovered; `commits`: it holds at least one.
    Sound { commits: bool },
    /// Opening it would lose commits, for this reason.
    Damaged(String),
}

/// Reads the log through.
pub(super) fn look(path: &Path) -> std::io::Result<Log> {
    let nothing = Log::Sound { commits: false };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(nothing),
        Err(error) => return Err(error),
    };
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut header = [0; HEADER];
    if !fill(&mut file, &mut header)? {
        // Shorter than a header: no frame was ever written.
        return Ok(nothing);
    }
    let magic = word(&header, 0);
    let big_endian = magic & 1 == 1;
    let page_size = word(&header, 8) as usize;
    let sum = Sum(0, 0).add(&header[..24], big_endian);
    let sound = magic & !1 == MAGIC
        && page_size.is_power_of_two()
        && (512..=65536).contains(&page_size)
        && sum == Sum(word(&header, 24), word(&header, 28));
    if !sound {
        // A header is synced before its first frame: one that does not fit has no frames after
        // it, unless it was damaged later.
        let mut block = vec![0; 1 << 16];
        let mut content = header.iter().any(|byte| *byte != 0);
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                break;
            }
            content |= block[..read].iter().any(|byte| *byte != 0);
        }
        return Ok(if content {
            Log::Damaged("the header of the write-ahead log does not fit".to_owned())
        } else {
            nothing
        });
    }
    // A frame of an earlier log differs in both: SQLite counts the first up and draws the second.
    let is_same_log =
        |frame: &[u8]| frame[8..12] == header[16..20] || frame[12..16] == header[20..24];
    let mut frame = vec![0; FRAME_HEADER + page_size];
    let mut sum = sum;
    let mut index: u64 = 0;
    let mut bad = None;
    let mut commit_after_bad = false;
    let mut commits = false;
    while fill(&mut file, &mut frame)? {
        index += 1;
        let same_log = is_same_log(&frame);
        if bad.is_none() {
            let next = sum
                .add(&frame[..8], big_endian)
                .add(&frame[FRAME_HEADER..], big_endian);
            if frame[8..16] == header[16..24] && next == Sum(word(&frame, 16), word(&frame, 20)) {
                sum = next;
                commits |= word(&frame, 4) != 0;
                continue;
            }
            bad = Some(index);
        } else if same_log && commit_after_bad {
            let bad = bad.unwrap_or_default();
            return Ok(Log::Damaged(format!(
                "frame {bad} of the write-ahead log does not fit, but commits follow it"
            )));
        }
        commit_after_bad |= same_log && word(&frame, 4) != 0;
    }
    Ok(Log::Sound { commits })
}
