//! Mail to and from the other shards, when one port serves all of them.
//!
//! Mail that a full mailbox gives back waits here, in order; meanwhile no connection may add a
//! request for that shard. Replies are never refused: there are at most as many as requests were
//! taken. A request from elsewhere that must wait for the journal holds back everything behind it
//! of the same connection, and nothing else.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use thalweg_core::env::Env;
use thalweg_core::env::mailbox::{Mail, Mailbox};
use thalweg_core::id::ShardId;
use thalweg_core::request::{CloseReason, Effect, Peer, Request};
use thalweg_core::time::{Instant, Now};

use crate::turn::Shard;

/// How soon a full mailbox is tried again: nobody tells when it has room.
const RETRY: Duration = Duration::from_millis(1);

/// Mail that waits, and who has been served by mail.
#[derive(Debug, Default)]
pub(crate) struct Post {
    /// Mail that did not fit, by shard.
    outgoing: Vec<VecDeque<Mail>>,
    /// Whether some of it went out since last asked.
    is_drained: bool,
    /// Mail from elsewhere that waits for the journal, and everything behind it of the same peers.
    held: VecDeque<(ShardId, Mail)>,
    held_peers: BTreeSet<Peer>,
    held_bytes: usize,
    /// Connections of other shards with requests here.
    peers: BTreeSet<Peer>,
}

impl Post {
    /// Whether a request for `shard` would have to wait here.
    pub(crate) fn is_full(&self, shard: ShardId) -> bool {
        self.outgoing.get(usize::from(shard.0)).is_some_and(|queue| !queue.is_empty())
    }

    /// Whether waiting mail went out since the last call.
    pub(crate) fn has_drained(&mut self) -> bool {
        std::mem::take(&mut self.is_drained)
    }

    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.outgoing.iter().any(|queue| !queue.is_empty()).then(|| now.after(RETRY))
    }

    fn queue(&mut self, shard: ShardId) -> &mut VecDeque<Mail> {
        let at = usize::from(shard.0);
        if self.outgoing.len() <= at {
            self.outgoing.resize_with(at + 1, VecDeque::new);
        }
        &mut self.outgoing[at]
    }

    fn hold(&mut self, from: ShardId, peer: Peer, mail: Mail) {
        self.held_peers.insert(peer);
        self.held_bytes += mail_bytes(&mail);
        self.held.push_back((from, mail));
    }
}

impl<E: Env> Shard<E> {
    /// Sends mail, or keeps it behind what waits.
    pub(crate) fn send_mail(&mut self, to: ShardId, mail: Mail) {
        let queue = self.post.queue(to);
        if !queue.is_empty() {
            queue.push_back(mail);
            return;
        }
        if let Err(back) = self.env.mailbox().send(to, mail) {
            self.post.queue(to).push_back(*back);
        }
    }

    /// Tries waiting mail again and takes what came, unless too much of it waits already.
    pub(crate) fn poll_mail(&mut self, mail: &mut Vec<(ShardId, Mail)>) {
        for (shard, queue) in (0..).map(ShardId).zip(&mut self.post.outgoing) {
            while let Some(next) = queue.pop_front() {
                if let Err(back) = self.env.mailbox().send(shard, next) {
                    queue.push_front(*back);
                    break;
                }
                self.post.is_drained = true;
            }
        }
        if self.post.held_bytes <= self.config.limits.accepted_bytes_max {
            self.env.mailbox().poll(mail);
        }
    }

    /// Handles one mail.
    pub(crate) fn receive_mail(&mut self, now: Now, from: ShardId, mail: Mail) {
        match mail {
            Mail::Request { container, token, request } => {
                assert_eq!(
                    self.config.placement.shard(container),
                    self.config.shard,
                    "mail goes to the container's shard"
                );
                if !self.is_serving() || self.is_stopping() {
                    let close = Effect::Close { token, reason: CloseReason::Unavailable };
                    return self.send_mail(from, Mail::Reply(close));
                }
                let peer = Peer::from(token);
                self.post.peers.insert(peer);
                if self.post.held_peers.contains(&peer) || self.gate(container, &request).is_some()
                {
                    self.post.hold(from, peer, Mail::Request { container, token, request });
                    return;
                }
                self.ask_engine(now, container, token, request);
            }
            Mail::Reply(effect) => self.effects.push(effect),
            Mail::ConnectionClosed { shard, connection } => {
                let peer = Peer { shard, connection };
                if self.post.held_peers.contains(&peer) {
                    self.post.hold(from, peer, Mail::ConnectionClosed { shard, connection });
                    return;
                }
                self.post.peers.remove(&peer);
                if self.is_serving() {
                    self.engine.connection_closed(now, peer, &mut self.effects);
                    self.trim.ask();
                }
            }
        }
        self.perform();
    }

    /// Goes on with held mail once the first of it may.
    pub(crate) fn handle_held_mail(&mut self, now: Now) {
        if let Some((_, Mail::Request { container, request, .. })) = self.post.held.front()
            && self.gate(*container, request).is_some()
        {
            return;
        }
        let held = std::mem::take(&mut self.post.held);
        self.post.held_peers.clear();
        self.post.held_bytes = 0;
        for (from, mail) in held {
            self.receive_mail(now, from, mail);
        }
    }

    /// Tells the other shards that their connections will get no answer from here.
    pub(crate) fn disappoint_peers(&mut self) {
        self.post.held.clear();
        self.post.held_peers.clear();
        self.post.held_bytes = 0;
        for Peer { shard, connection } in std::mem::take(&mut self.post.peers) {
            let token = thalweg_core::id::Token { shard, connection, request: 0 };
            let close = Effect::Close { token, reason: CloseReason::Unavailable };
            self.send_mail(shard, Mail::Reply(close));
        }
    }
}

/// About how much memory a mail holds.
fn mail_bytes(mail: &Mail) -> usize {
    let data = match mail {
        Mail::Request { request: Request::Append(append), .. } => {
            append.data.iter().map(bytes::Bytes::len).sum()
        }
        Mail::Request { request: Request::TableUpdate { entries, .. }, .. } => {
            entries.iter().map(|entry| entry.key.key.len() + entry.value.len()).sum()
        }
        _ => 0,
    };
    size_of::<Mail>() + data
}
