//! Threads that drive shards: one executor per shard, pinned, that runs turns and sleeps in
//! between. Also what shards need of each other and of the process: mail, clocks, the stop signal.
//!
//! This is the only crate that knows the executor. It drives anything that implements
//! [`drive::Drive`] and never looks at what a turn does. A shard with nothing to do costs nothing;
//! no wake-up is ever lost (see [`doorbell`]).

pub mod clock;
pub mod doorbell;
pub mod drive;
pub mod env;
pub mod executor;
pub mod mailbox;
pub mod pinning;
pub mod portable;
pub mod start;

pub use clock::SystemClock;
pub use doorbell::{Doorbell, Stopper};
pub use drive::{Drive, TurnOutcome};
pub use env::ProductionEnv;
pub use executor::{Background, RingPlace, start_on_ring};
pub use mailbox::{ShardMailbox, mailboxes};
pub use pinning::choose_cpus;
pub use portable::{PortablePlace, start_portable};
pub use start::{RuntimeError, ShardHandle, ShardStart};
