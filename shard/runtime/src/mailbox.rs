//! Mail between the shards of a process: one bounded queue for each ordered pair of shards.
//!
//! A full queue gives the mail back to its sender; when the receiver has emptied it, the sender's
//! bell rings, so that the sender may sleep over it.

use std::sync::Arc;

use rtrb::{Consumer, Producer, PushError, RingBuffer};
use thalweg_core::env::mailbox::{Mail, Mailbox};
use thalweg_core::id::ShardId;

use crate::doorbell::Doorbell;

/// Messages that fit between two shards. A request or reply is some 200 bytes and shares its
/// payload; the queues of 16 shards come to 50 MB.
const MAIL_MAX: usize = 1024;

/// A shard's end of the queues to and from all others. Belongs to the shard's thread.
pub struct ShardMailbox {
    /// By receiving shard; none for this one.
    outgoing: Vec<Option<Producer<Mail>>>,
    /// By sending shard; none for this one.
    incoming: Vec<Option<Consumer<Mail>>>,
    bells: Vec<Arc<Doorbell>>,
}

/// Makes the mailboxes of all shards, in the order of their bells.
///
/// # Panics
/// When there are more than 2^16 shards.
pub fn mailboxes(bells: &[Arc<Doorbell>]) -> Vec<ShardMailbox> {
    assert!(bells.len() <= 1 << 16, "shards are numbered with 16 bits");
    let mut boxes: Vec<_> = (0..bells.len())
        .map(|_| ShardMailbox { outgoing: Vec::new(), incoming: Vec::new(), bells: bells.to_vec() })
        .collect();
    for from in 0..bells.len() {
        for to in 0..bells.len() {
            // Pushed in order of `to` for the sender and in order of `from` for the receiver.
            let (producer, consumer) = match from == to {
                true => (None, None),
                false => {
                    let (producer, consumer) = RingBuffer::new(MAIL_MAX);
                    (Some(producer), Some(consumer))
                }
            };
            boxes[from].outgoing.push(producer);
            boxes[to].incoming.push(consumer);
        }
    }
    boxes
}

impl Mailbox for ShardMailbox {
    /// # Panics
    /// For mail to the own shard or to one that does not exist: placement is wrong then.
    fn send(&mut self, to: ShardId, mail: Mail) -> Result<(), Box<Mail>> {
        let place = usize::from(to.0);
        let queue = self.outgoing.get_mut(place).and_then(Option::as_mut);
        let queue = queue.expect("mail goes to another shard of this process");
        match queue.push(mail) {
            Ok(()) => {
                self.bells[place].ring();
                Ok(())
            }
            Err(PushError::Full(mail)) => Err(Box::new(mail)),
        }
    }

    fn poll(&mut self, mail: &mut Vec<(ShardId, Mail)>) {
        for (from, queue) in (0u16..).map(ShardId).zip(&mut self.incoming) {
            let Some(queue) = queue else { continue };
            let was_full = queue.slots() == MAIL_MAX;
            while let Ok(message) = queue.pop() {
                mail.push((from, message));
            }
            if was_full {
                self.bells[usize::from(from.0)].ring();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_core::id::ConnectionId;

    fn numbered(number: u64) -> Mail {
        Mail::ConnectionClosed { shard: ShardId(9), connection: ConnectionId(number) }
    }

    fn number(mail: &Mail) -> u64 {
        match mail {
            Mail::ConnectionClosed { connection, .. } => connection.0,
            other => panic!("other mail: {other:?}"),
        }
    }

    fn bells(count: usize) -> Vec<Arc<Doorbell>> {
        (0..count).map(|_| Doorbell::new().expect("an eventfd")).collect()
    }

    /// Mail of each sender arrives in order, at the shard it is for and nowhere else.
    #[test]
    fn mail_arrives_in_order_where_it_belongs() {
        let mut boxes = mailboxes(&bells(3));
        for round in 0..10 {
            boxes[0].send(ShardId(2), numbered(round)).expect("room");
            boxes[1].send(ShardId(2), numbered(100 + round)).expect("room");
        }
        let mut found = Vec::new();
        boxes[0].poll(&mut found);
        boxes[1].poll(&mut found);
        assert!(found.is_empty());
        boxes[2].poll(&mut found);
        for (from, first) in [(0, 0), (1, 100)] {
            let of_sender = found.iter().filter(|(shard, _)| *shard == ShardId(from));
            let numbers: Vec<_> = of_sender.map(|(_, mail)| number(mail)).collect();
            assert_eq!(numbers, (first..first + 10).collect::<Vec<_>>());
        }
    }

    /// A full queue gives the mail back, and its sender's bell rings when there is room again.
    #[test]
    fn a_full_queue_gives_mail_back_and_tells_when_it_fits() {
        let bells = bells(2);
        let mut boxes = mailboxes(&bells);
        for round in 0..MAIL_MAX as u64 {
            boxes[0].send(ShardId(1), numbered(round)).expect("room");
        }
        let refused = boxes[0].send(ShardId(1), numbered(7_777)).expect_err("no room");
        assert_eq!(number(&refused), 7_777);
        assert!(!bells[0].has_news());
        let mut found = Vec::new();
        boxes[1].poll(&mut found);
        assert_eq!(found.len(), MAIL_MAX);
        assert!(bells[0].has_news(), "the sender learns that there is room");
        boxes[0].send(ShardId(1), *refused).expect("room");
    }
}
