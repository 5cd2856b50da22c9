//! What survives when the process or the power goes, and what damage does.
//!
//! - `kill`: the real program under load, killed with SIGKILL at random moments, again and again.
//!   Oracle: the simulated provider's own record of which notification got 200, and its truth.
//! - `power`: the engine's writes, recorded at the C library; disks as a power cut may leave them
//!   are made from the record. Oracle: what the recorded process had been answered by then.
//! - `flips`: synced bytes changed. Oracle: what the undamaged store says.
//!
//! # What they do not show
//! A disk that acknowledges a sync and loses the data all the same; two damaged places that hide
//! each other; damage to the memory of the process; damage that a person makes who also corrects
//! checksums. `docs/operations.md` says the same to whoever runs Bellhop.
//!
//! Each prints its seed, takes it from `BELLHOP_TEST_SEED`, and runs longer with the variable
//! that its module names.

mod consumer;
mod flips;
mod kill;
mod plane;
mod power;

/// The seed of this run; `BELLHOP_TEST_SEED` repeats one.
fn seed() -> u64 {
    let seed = number("BELLHOP_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}: repeat with BELLHOP_TEST_SEED={seed}");
    seed
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

/// A folder for a disk that was made up: in memory where that is possible, since what is done to
/// it needs no durability of its own.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}
