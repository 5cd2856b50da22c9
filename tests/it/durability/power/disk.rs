//! A disk as a power cut may leave it: what was synced, and of the rest whatever you like.
//!
//! Stricter than common file systems: a file's name survives for certain only after a sync of its
//! folder; unsynced writes survive in any subset, cut at multiples of 512 bytes or 4 KiB; a size
//! may have grown without its data (zeros), or have stayed.
//!
//! What it takes for granted, as SQLite does: bytes that a write does not touch stay as they are,
//! also within a sector ("powersafe overwrite"), and a sync that returned is true.

use std::collections::BTreeMap;
use std::ops::Range;

/// One recorded call.
#[derive(Debug, Clone)]
pub struct Record {
    pub operation: u8,
    pub name: String,
    /// Offset of a write, size of a truncation.
    pub at: u64,
    pub data: Vec<u8>,
}

const HEAD: usize = 16;

/// Reads a record as `recorder.c` writes it.
pub fn parse(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let name = usize::from(bytes[1]);
        let data = u32::from_ne_bytes(bytes[4..8].try_into().unwrap()) as usize;
        let at = u64::from_ne_bytes(bytes[8..HEAD].try_into().unwrap());
        let (name, data) = (HEAD..HEAD + name, HEAD + name..HEAD + name + data);
        records.push(Record {
            operation: bytes[0],
            name: String::from_utf8(bytes[name].to_vec()).unwrap(),
            at,
            data: bytes[data.clone()].to_vec(),
        });
        bytes = &bytes[data.end..];
    }
    records
}

#[derive(Debug, Clone)]
enum Pending {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Debug, Clone, Default)]
struct File {
    synced: Vec<u8>,
    pending: Vec<Pending>,
}

fn apply(content: &mut Vec<u8>, at: usize, data: &[u8]) {
    if content.len() < at + data.len() {
        content.resize(at + data.len(), 0);
    }
    content[at..at + data.len()].copy_from_slice(data);
}

impl Pending {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => apply(content, *at, data),
            Self::Truncate(size) => content.resize(*size, 0),
        }
    }
}

impl File {
    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.synced);
        }
    }

    /// As the process sees it.
    fn seen(&self) -> Vec<u8> {
        let mut content = self.synced.clone();
        for change in &self.pending {
            change.apply(&mut content);
        }
        content
    }
}

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    /// All of it survives: the power went a moment later.
    Kept,
    /// Nothing survives.
    Lost,
    /// Nothing survives but the sizes.
    Grown,
    /// Pieces of this size survive, each with this probability.
    Torn { piece: usize, keep: f64 },
}

impl Fate {
    pub fn any(random: &mut fastrand::Rng) -> Self {
        let keep = [0.1, 0.5, 0.9][random.usize(..3)];
        match random.u8(..10) {
            0 => Self::Lost,
            1 => Self::Grown,
            2 => Self::Kept,
            3..7 => Self::Torn { piece: 512, keep },
            _ => Self::Torn { piece: 4096, keep },
        }
    }

    fn survives(self, random: &mut fastrand::Rng) -> bool {
        match self {
            Self::Kept => true,
            Self::Lost | Self::Grown => false,
            Self::Torn { keep, .. } => random.f64() < keep,
        }
    }
}

/// The disk, as far as it is known at one point of the record.
#[derive(Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// As with `synchronous=OFF`: to see whether the test would notice.
    pub ignores_syncs: bool,
}

impl Disk {
    /// Applies the next call.
    pub fn take(&mut self, record: &Record) {
        let at = record.at as usize;
        match record.operation {
            b'c' => {
                self.names.insert(record.name.clone(), self.files.len());
                self.files.push(File::default());
            }
            b'u' => drop(self.names.remove(&record.name)),
            b'w' => self.change(&record.name, Pending::Write(at, record.data.clone())),
            b't' => self.change(&record.name, Pending::Truncate(at)),
            b's' | b'd' if self.ignores_syncs => {}
            b's' => self.file(&record.name).sync(),
            b'd' => self.synced_names = self.names.clone(),
            other => panic!("unknown operation {other}"),
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        let id = *self
            .names
            .get(name)
            .unwrap_or_else(|| panic!("{name} was never created"));
        &mut self.files[id]
    }

    fn change(&mut self, name: &str, change: Pending) {
        self.file(name).pending.push(change);
    }

    /// What a process sees as long as the power stays.
    pub fn seen(&self) -> BTreeMap<String, Vec<u8>> {
        let read = |(name, id): (&String, &usize)| (name.clone(), self.files[*id].seen());
        self.names.iter().map(read).collect()
    }

    /// What may be found after the power went now.
    pub fn after_cut(&self, fate: Fate, random: &mut fastrand::Rng) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for name in self.names.keys().chain(self.synced_names.keys()) {
            let (now, synced) = (self.names.get(name), self.synced_names.get(name));
            let id = if now == synced || fate.survives(random) {
                now
            } else {
                synced
            };
            if let Some(id) = id {
                found
                    .entry(name.clone())
                    .or_insert_with(|| remains(&self.files[*id], fate, random));
            }
        }
        found
    }
}

/// What is left of one file.
fn remains(file: &File, fate: Fate, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut content = file.synced.clone();
    let mut size = content.len();
    for change in &file.pending {
        match change {
            Pending::Write(at, data) => {
                size = size.max(at + data.len());
                let piece = if let Fate::Torn { piece, .. } = fate {
                    piece
                } else {
                    usize::MAX
                };
                for part in pieces(*at, data.len(), piece) {
                    if fate.survives(random) {
                        apply(&mut content, at + part.start, &data[part]);
                    }
                }
            }
            Pending::Truncate(to) => {
                size = *to;
                if fate.survives(random) {
                    content.resize(*to, 0);
                }
            }
        }
    }
    if content.len() < size && (fate == Fate::Grown || fate.survives(random)) {
        content.resize(size, 0);
    }
    content
}

/// The parts of a write that lie in different pieces of the file.
fn pieces(at: usize, length: usize, piece: usize) -> impl Iterator<Item = Range<usize>> {
    let mut begin: usize = 0;
    std::iter::from_fn(move || {
        let end = length.min(begin.saturating_add(piece - (at + begin) % piece));
        let part = begin..end;
        begin = end;
        (!part.is_empty()).then_some(part)
    })
}
