//! Mail between the shards of a world: one bounded queue for each ordered pair.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use thalweg_core::env::mailbox::{Mail, Mailbox};
use thalweg_core::id::ShardId;

/// All queues of a world, by receiver and then sender.
#[derive(Debug)]
pub(crate) struct Post {
    queues: Vec<Vec<VecDeque<Mail>>>,
    capacity: usize,
    /// Which shards were sent something since their last turn.
    bells: Vec<bool>,
}

/// A shared handle to the queues.
pub(crate) type SharedPost = Rc<RefCell<Post>>;

/// One shard's way to the others.
#[derive(Debug)]
pub(crate) struct PostHandle {
    post: SharedPost,
    shard: usize,
}

impl Post {
    /// Queues between `shards` shards that hold `capacity` messages each.
    pub(crate) fn new(shards: usize, capacity: usize) -> Self {
        let queues = (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect()).collect();
        Self { queues, capacity, bells: vec![false; shards] }
    }

    /// Whether a shard was sent something since its last turn.
    pub(crate) fn has_mail(&self, shard: usize) -> bool {
        self.bells[shard]
    }

    /// A shard has its turn; mail that it leaves does not ring again.
    pub(crate) fn answer_bell(&mut self, shard: usize) {
        self.bells[shard] = false;
    }
}

impl PostHandle {
    /// The handle of one shard.
    pub(crate) fn new(post: SharedPost, shard: usize) -> Self {
        Self { post, shard }
    }
}

impl Mailbox for PostHandle {
    fn send(&mut self, to: ShardId, mail: Mail) -> Result<(), Box<Mail>> {
        let mut post = self.post.borrow_mut();
        let capacity = post.capacity;
        let queue = &mut post.queues[usize::from(to.0)][self.shard];
        if queue.len() >= capacity {
            return Err(Box::new(mail));
        }
        queue.push_back(mail);
        post.bells[usize::from(to.0)] = true;
        Ok(())
    }

    fn poll(&mut self, mail: &mut Vec<(ShardId, Mail)>) {
        let mut post = self.post.borrow_mut();
        for (sender, queue) in post.queues[self.shard].iter_mut().enumerate() {
            let sender = ShardId(u16::try_from(sender).expect("few shards"));
            mail.extend(queue.drain(..).map(|item| (sender, item)));
        }
    }
}
