//! Who acts in a world: clients made from its options, and what they work on.

use thalweg_checker::record::Discipline;

use crate::client::conditional::Conditional;
use crate::client::counter::Counter;
use crate::client::founder::{Founder, Founding};
use crate::client::keeper::{Duties, Keeper};
use crate::client::reader::Reader;
use crate::client::recycler::Recycler;
use crate::client::sequential::Sequential;
use crate::client::table::TableUser;
use crate::client::transaction::Transaction;
use crate::client::writer::{Writer, WriterHabits};
use crate::client::{Client, Role, Shared};
use crate::payload::WriterTag;
use crate::rng::Rng;

/// Key length of tables with fixed keys.
const FIXED_KEY_BYTES: usize = 16;

/// The clients of a world that is yet to be founded.
pub(crate) struct Troupe {
    /// Creates what the others work on.
    pub(crate) founder: Client,
    /// The others, who begin when the founder is done.
    pub(crate) others: Vec<Client>,
    /// Stream segments with a counter in an attribute.
    pub(crate) counters: Vec<String>,
    /// Tables and their key lengths.
    pub(crate) tables: Vec<(String, usize)>,
}

/// Collects clients and what must exist for them.
struct Casting<'w> {
    shared: &'w mut Shared,
    rng: Rng,
    clients: Vec<Client>,
    foundings: Vec<Founding>,
    counters: Vec<String>,
    tables: Vec<(String, usize)>,
}

impl Casting<'_> {
    fn add(&mut self, role: impl Role + 'static) {
        // The founder is number 0.
        let id = self.clients.len() + 1;
        let rng = self.rng.split(id as u64);
        self.clients.push(Client::new(id, rng, Box::new(role), 0));
    }

    fn think(&self) -> u64 {
        self.shared.options.think_us_max
    }

    fn streams(&mut self) {
        let cast = self.shared.options.cast;
        for stream in 0..cast.streams {
            let name = format!("simulated/stream-{stream}/0.#epoch.0");
            self.foundings.push(Founding::Segment(name.clone()));
            for writer in 0..cast.writers_per_stream {
                let tag = WriterTag(stream * 100 + writer + 1);
                self.shared.history.introduce(&name, tag, Discipline::Dense { first: 1 });
                let has_twin = cast.twins && writer == 0;
                let habits = WriterHabits {
                    window: self.rng.between(1, 6) as usize,
                    events_per_block_max: self.rng.between(1, 8),
                    think_us_max: self.think(),
                };
                for _ in 0..=u64::from(has_twin) {
                    self.add(Writer::new(&name, tag, has_twin, habits));
                }
            }
            for _ in 0..cast.readers_per_stream {
                let think = self.think();
                self.add(Sequential::new(Reader::new(&name), think));
            }
            // Transactions are merged into streams that nobody seals.
            let is_target = stream < cast.transactions;
            let duties = Duties {
                truncates: cast.truncates,
                seals_after: (cast.seals && !is_target).then(|| self.rng.between(1, 60)),
            };
            let think = self.think() * 4;
            self.add(Sequential::new(Keeper::new(&name, duties), think));
            if is_target {
                let think = self.think();
                self.add(Sequential::new(Transaction::new(&name), think));
            }
        }
    }

    fn conditional_segments(&mut self) {
        for index in 0..self.shared.options.cast.conditional_segments {
            let name = format!("simulated/revisions-{index}/0.#epoch.0");
            self.foundings.push(Founding::Segment(name.clone()));
            let think = self.think();
            for writer in 0..self.rng.between(1, 3) {
                let tag = WriterTag(10_000 + index * 100 + writer);
                self.shared.history.introduce(&name, tag, Discipline::Increasing);
                self.add(Sequential::new(Conditional::new(&name, tag), think));
            }
            self.add(Sequential::new(Reader::new(&name), think));
            for _ in 0..self.rng.between(1, 2) {
                self.add(Sequential::new(Counter::new(&name), think));
            }
            self.counters.push(name);
        }
    }

    fn recyclers(&mut self) {
        for index in 0..self.shared.options.cast.recyclers {
            let name = format!("simulated/reborn-{index}/0.#epoch.0");
            let think = self.think();
            let recycler = Recycler::new(&name, WriterTag(20_000 + index));
            self.add(Sequential::new(recycler, think));
        }
    }

    fn table_users(&mut self) {
        for index in 0..self.shared.options.cast.tables {
            let name = format!("simulated/table-{index}_kvtable/0.#epoch.0");
            let key_length = if self.rng.percent(40) { FIXED_KEY_BYTES } else { 0 };
            self.foundings.push(Founding::Table(name.clone(), key_length as i32));
            let think = self.think();
            for _ in 0..self.rng.between(1, 2) {
                let owner = self.clients.len();
                let user = TableUser::new(&name, owner, key_length, 300);
                self.add(Sequential::new(user, think));
            }
            self.tables.push((name, key_length));
        }
    }
}

/// Makes the clients of a world.
pub(crate) fn assemble(shared: &mut Shared, rng: &Rng) -> Troupe {
    let founder_rng = rng.split(0);
    let mut casting = Casting {
        shared,
        rng: rng.split(1 << 32),
        clients: Vec::new(),
        foundings: Vec::new(),
        counters: Vec::new(),
        tables: Vec::new(),
    };
    casting.streams();
    casting.conditional_segments();
    casting.recyclers();
    casting.table_users();
    let Casting { clients, foundings, counters, tables, .. } = casting;
    let founder = Sequential::new(Founder::new(foundings), 10);
    Troupe {
        founder: Client::new(0, founder_rng, Box::new(founder), 0),
        others: clients,
        counters,
        tables,
    }
}
