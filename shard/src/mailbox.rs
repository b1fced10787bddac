//! Mail to and from the other shards, when one port serves all of them.
//!
//! Mail that a full mailbox gives back waits here, in order; meanwhile no connection may add a
//! request for that shard. Replies are never refused: there are at most as many as requests were
//! taken. A request from elsewhere that must wait for the journal holds back everything behind it
//! of the same connection, and nothing else; and not for ever: the clock of its own shard does not
//! see what it waits for, so the end of its connection is asked for from here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use thalweg_core::env::Env;
use thalweg_core::env::mailbox::{Mail, Mailbox};
use thalweg_core::id::{ShardId, Token};
use thalweg_core::request::{CloseReason, Effect, Peer, Request};
use thalweg_core::time::{Instant, Now};

use crate::turn::Shard;

/// How soon a full mailbox is tried again: nobody tells when it has room.
const RETRY: Duration = Duration::from_millis(1);

/// How often it is looked whether somebody waits for too long.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Mail that waits, and who has been served by mail.
#[derive(Debug, Default)]
pub(crate) struct Post {
    /// Mail that did not fit, by shard.
    outgoing: Vec<VecDeque<Mail>>,
    /// Whether some of it went out since last asked.
    is_drained: bool,
    /// Mail from elsewhere that waits for the journal, and everything behind it of the same peers.
    held: VecDeque<(ShardId, Mail)>,
    /// Whose it is, and since when they have not got on.
    held_peers: BTreeMap<Peer, Instant>,
    held_bytes: usize,
    /// Connections of other shards with requests here.
    peers: BTreeSet<Peer>,
    /// Of these, such whose end was asked for.
    given_up: BTreeSet<Peer>,
    /// When it is looked next whether one of them waits for too long.
    look_due: Option<Instant>,
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

    /// When mail is tried again, or the next look at late peers is due.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let retry = self.outgoing.iter().any(|queue| !queue.is_empty()).then(|| now.after(RETRY));
        retry.into_iter().chain(self.look_due).min()
    }

    fn queue(&mut self, shard: ShardId) -> &mut VecDeque<Mail> {
        let at = usize::from(shard.0);
        if self.outgoing.len() <= at {
            self.outgoing.resize_with(at + 1, VecDeque::new);
        }
        &mut self.outgoing[at]
    }

    fn hold(&mut self, now: Instant, from: ShardId, peer: Peer, mail: Mail) {
        self.held_peers.entry(peer).or_insert(now);
        self.held_bytes += mail_bytes(&mail);
        self.held.push_back((from, mail));
    }

    /// Drops what is held of a connection; says whether its end was among it.
    fn drop_held(&mut self, peer: Peer) -> bool {
        self.held_peers.remove(&peer);
        let (dropped, kept) = std::mem::take(&mut self.held)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(_, mail)| peer_of(mail) == Some(peer));
        self.held = kept;
        self.held_bytes -= dropped.iter().map(|(_, mail)| mail_bytes(mail)).sum::<usize>();
        dropped.iter().any(|(_, mail)| matches!(mail, Mail::ConnectionClosed { .. }))
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
                if self.post.given_up.contains(&peer) {
                    return;
                }
                self.post.peers.insert(peer);
                if self.post.held_peers.contains_key(&peer)
                    || self.gate(container, &request).is_some()
                {
                    let mail = Mail::Request { container, token, request };
                    self.post.hold(now.monotonic, from, peer, mail);
                    return;
                }
                self.ask_engine(now, container, token, request);
            }
            Mail::Reply(effect) => self.effects.push(effect),
            Mail::ConnectionClosed { shard, connection } => {
                let peer = Peer { shard, connection };
                if self.post.held_peers.contains_key(&peer) {
                    let mail = Mail::ConnectionClosed { shard, connection };
                    self.post.hold(now.monotonic, from, peer, mail);
                    return;
                }
                self.post.peers.remove(&peer);
                self.post.given_up.remove(&peer);
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
        let before = std::mem::take(&mut self.post.held_peers);
        self.post.held_bytes = 0;
        let mut got_on = BTreeSet::new();
        for (from, mail) in held {
            let peer = peer_of(&mail);
            self.receive_mail(now, from, mail);
            got_on.extend(peer.filter(|peer| !self.post.held_peers.contains_key(peer)));
        }
        for (peer, since) in &mut self.post.held_peers {
            if let Some(before) = before.get(peer).filter(|_| !got_on.contains(peer)) {
                *since = *before;
            }
        }
    }

    /// Has the connections of other shards closed that have waited here for too long: for room, or
    /// for the journal to get on with what was accepted. Nothing more is done for them: what they
    /// sent behind a request that is dropped must not be done without it.
    pub(crate) fn give_up_late_peers(&mut self, now: Now) {
        if self.post.peers.is_empty() {
            self.post.look_due = None;
            return;
        }
        let is_early = self.post.look_due.is_none_or(|due| now.monotonic < due);
        if is_early {
            self.post.look_due.get_or_insert(now.monotonic.after(LOOK_PERIOD));
            return;
        }
        self.post.look_due = Some(now.monotonic.after(LOOK_PERIOD));
        let is_late = |since: Instant| now.monotonic.since(since) > self.config.patience.stall;
        let held = self.post.held_peers.iter().filter(|(_, since)| is_late(**since));
        let mut late: BTreeSet<Peer> = held.map(|(peer, _)| *peer).collect();
        if self.blocked_at.is_some_and(is_late) {
            late.extend(self.engine.owed().filter(|peer| self.post.peers.contains(peer)));
        }
        for peer in late {
            let has_ended = self.post.drop_held(peer);
            if has_ended {
                let Peer { shard, connection } = peer;
                self.receive_mail(now, shard, Mail::ConnectionClosed { shard, connection });
            } else if self.post.given_up.insert(peer) {
                self.ask_to_close(peer);
            }
        }
    }

    fn ask_to_close(&mut self, Peer { shard, connection }: Peer) {
        let token = Token { shard, connection, request: 0 };
        let close = Effect::Close { token, reason: CloseReason::Unavailable };
        self.send_mail(shard, Mail::Reply(close));
    }

    /// Tells the other shards that their connections will get no answer from here. Nobody is looked
    /// after any more: a look that stays due would wake a shard that does not serve without end.
    pub(crate) fn disappoint_peers(&mut self) {
        self.post.look_due = None;
        self.post.held.clear();
        self.post.held_peers.clear();
        self.post.held_bytes = 0;
        for peer in std::mem::take(&mut self.post.peers) {
            self.ask_to_close(peer);
        }
    }
}

/// Whose request or end a mail is; none for replies.
fn peer_of(mail: &Mail) -> Option<Peer> {
    match mail {
        Mail::Request { token, .. } => Some(Peer::from(*token)),
        Mail::ConnectionClosed { shard, connection } => {
            Some(Peer { shard: *shard, connection: *connection })
        }
        Mail::Reply(_) => None,
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
