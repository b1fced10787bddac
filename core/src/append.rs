//! Appends: set-up of a writer's session, admission, commit.
//!
//! Admission checks everything, records the operation and applies it; its data are copied here,
//! from the receive buffer into the open frame, and nowhere else. [`Container::commit`] makes an
//! append visible and is the only place that acknowledges one; it runs only when the append's frame
//! is durable. The attribute that holds a writer's last event number changes in the same operation
//! as the data, so it alone decides what was stored before; a session is only a way to find it.

use bytes::Bytes;

use crate::apply::Applied;
use crate::canary::{self, Canary};
use crate::container::{Container, No, Shared, no_such_segment};
use crate::id::{NULL_ATTRIBUTE_VALUE, SegmentName, SessionId, Token, WriterId};
use crate::index::FrameReference;
use crate::operation::{APPEND_HEADER_BYTES, AppendOperation, encode_append};
use crate::pending::Step;
use crate::position::{FrameNumber, Offset};
use crate::request::{Append, CloseReason, Effect, Peer, Refusal, Reply};
use crate::segment::SegmentHandle;
use crate::time::Now;

/// A writer set up for a segment on a connection.
#[derive(Debug)]
pub(crate) struct Session {
    peer: Peer,
    segment: SegmentHandle,
    name: SegmentName,
    writer: WriterId,
    state: SessionState,
    /// A conditional append was refused; the refusal leaves when this frame is durable.
    refused_in: FrameNumber,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SessionState {
    Current,
    /// The same writer was set up again elsewhere.
    Superseded,
    /// An append failed for good; the connection is about to be closed.
    Failed,
}

/// An append that waits to become durable.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) token: Token,
    pub(crate) session: SessionId,
    pub(crate) event_number: i64,
    pub(crate) segment: SegmentHandle,
    pub(crate) length: Offset,
}

impl Container {
    /// Registers a session. Its answer goes in order, so it leaves when earlier appends of the
    /// writer are durable.
    pub(crate) fn set_up_append(
        &mut self,
        token: Token,
        session: SessionId,
        writer: WriterId,
        name: SegmentName,
    ) -> Result<Reply, No> {
        let handle = self.find(&name)?;
        let segment = self.segments.get_mut(handle).expect("it was found by name");
        if segment.table.is_some() {
            return Err(Refusal::Unsupported { operation: "setupAppend" }.into());
        }
        let peer = Peer::from(token);
        if canary::has(Canary::DedupeByConnection) {
            segment.attributes.set(writer.into(), NULL_ATTRIBUTE_VALUE);
        }
        let last_event_number = segment.attributes.value(writer.into());
        let earlier = segment.writers.insert(writer, session);
        if let Some(earlier) = earlier.filter(|earlier| *earlier != session) {
            self.supersede(earlier, peer);
        }
        self.sessions_of.insert((peer, session));
        self.sessions.insert(
            session,
            Session {
                peer,
                segment: handle,
                name: name.clone(),
                writer,
                state: SessionState::Current,
                refused_in: FrameNumber(0),
            },
        );
        let container = self.id;
        Ok(Reply::AppendSetup { session, container, segment: name, writer, last_event_number })
    }

    fn supersede(&mut self, earlier: SessionId, by: Peer) {
        let Some(session) = self.sessions.get_mut(&earlier) else { return };
        if session.peer == by {
            // The connection itself has moved on to the new session.
            self.sessions_of.remove(&(by, earlier));
            self.sessions.remove(&earlier);
        } else {
            session.state = SessionState::Superseded;
        }
    }

    /// Forgets the sessions of a connection.
    pub(crate) fn end_sessions(&mut self, peer: Peer) {
        while let Some(&(of, id)) = self.sessions_of.range((peer, SessionId(0))..).next()
            && of == peer
        {
            self.sessions_of.remove(&(peer, id));
            let Some(session) = self.sessions.remove(&id) else { continue };
            if let Some(segment) = self.segments.get_mut(session.segment)
                && segment.writers.get(&session.writer) == Some(&id)
            {
                segment.writers.remove(&session.writer);
            }
        }
    }

    /// Admits an append, or refuses it in order.
    pub(crate) fn append(
        &mut self,
        shared: &mut Shared,
        now: Now,
        token: Token,
        append: Append,
        effects: &mut Vec<Effect>,
    ) {
        match self.check_append(shared.log.durable_through(), &append) {
            Ok((handle, writer)) => self.admit(shared, now, token, &append, handle, writer),
            Err(no) => self.answer(&shared.log, token, Err(no), effects),
        }
    }

    /// Whether the append may be stored: its segment and writer.
    fn check_append(
        &mut self,
        durable_through: FrameNumber,
        append: &Append,
    ) -> Result<(SegmentHandle, WriterId), No> {
        let Some(session) = self.sessions.get_mut(&append.session) else {
            return Err(No::Close(CloseReason::NoSession));
        };
        let (writer, event_number) = (session.writer, append.event_number);
        let invalid = No::Refused(Refusal::InvalidEventNumber { writer, event_number });
        match session.state {
            SessionState::Current => {}
            SessionState::Superseded => return Err(invalid),
            SessionState::Failed => return Err(No::Close(CloseReason::NoSession)),
        }
        let Some(segment) = self.segments.get(session.segment) else {
            return Err(no_such_segment(&session.name, None));
        };
        let misses_seal = canary::has(Canary::SealMissesInFlight) && !segment.is_sealed_durably;
        if segment.is_sealed && !misses_seal {
            let segment = session.name.clone();
            return Err(Refusal::SegmentSealed { segment, offset: event_number }.into());
        }
        let is_new = event_number >= 0 && event_number > segment.attributes.value(writer.into());
        // Behind a refusal that its client has not heard, an append would be out of order.
        let is_behind_refusal = session.refused_in > durable_through;
        if !is_new || is_behind_refusal {
            session.state = SessionState::Failed;
            return Err(invalid);
        }
        if append.expected_offset.is_some_and(|expected| expected != segment.length) {
            session.refused_in = self.accepted_in;
            return Err(Refusal::ConditionalCheckFailed { writer, event_number }.into());
        }
        Ok((session.segment, writer))
    }

    fn admit(
        &mut self,
        shared: &mut Shared,
        now: Now,
        token: Token,
        append: &Append,
        handle: SegmentHandle,
        writer: WriterId,
    ) {
        let segment = self.segments.get_mut(handle).expect("the check found it");
        segment.last_modified = now.wall.0;
        let data_bytes: usize = append.data.iter().map(Bytes::len).sum();
        let operation = AppendOperation {
            segment: handle.id,
            event_count: append.event_count,
            writer,
            event_number: append.event_number,
            offset: segment.length,
            length: u32::try_from(data_bytes).expect("wire frames bound appends"),
        };
        self.sequence_number = self.sequence_number.next();
        let (id, sequence_number) = (self.id, self.sequence_number);
        let bytes = APPEND_HEADER_BYTES + operation.length as usize;
        let place = shared.log.write(id, bytes, |out| {
            encode_append(id, sequence_number, &operation, out);
            for piece in &append.data {
                out.extend_from_slice(piece);
            }
        });
        self.accept_in(place);
        let frame = FrameReference::pending(place.frame);
        let applied = self
            .apply_append(handle, &operation, frame, place.position, &mut shared.files)
            .expect("an append is checked before it is recorded");
        if let Applied::Chained(previous) = applied {
            shared.log.link(place.frame, previous, place.position - previous);
        }
        self.defer(Step::Append(Commit {
            token,
            session: append.session,
            event_number: append.event_number,
            segment: handle,
            length: operation.offset.advance(u64::from(operation.length)),
        }));
    }

    /// An append is durable: readers may see it, its writer is told. A segment that is gone by now
    /// was deleted or merged by a later operation; the append was stored all the same.
    pub(crate) fn commit(&mut self, commit: Commit, effects: &mut Vec<Effect>) {
        let Commit { token, session, event_number, segment, length } = commit;
        if let Some(grown) = self.segments.get_mut(segment) {
            grown.commit_length(length);
            if !grown.parked.is_empty() && !canary::has(Canary::TailReadersForgotten) {
                self.wake(segment);
            }
        }
        effects.push(Effect::Appended { token, session, event_number, length });
    }

    /// Has the parked reads of a segment looked at when this input is handled.
    pub(crate) fn wake(&mut self, segment: SegmentHandle) {
        if self.woken.last() != Some(&segment) {
            self.woken.push(segment);
        }
    }
}

impl Container {
    /// Carries out the steps that waited for frames up to the durable one.
    pub(crate) fn durable(&mut self, shared: &mut Shared, now: Now, effects: &mut Vec<Effect>) {
        let through = shared.log.durable_through();
        while self.pending.front().is_some_and(|first| first.frame <= through) {
            let pending = self.pending.pop_front().expect("it was looked at");
            self.carry_out(pending.step, effects);
        }
        while self.releases.front().is_some_and(|(frame, _)| *frame <= through) {
            let (_, file) = self.releases.pop_front().expect("it was looked at");
            shared.files.release(file);
        }
        self.checkpoint.durable(through);
        while let Some(segment) = self.woken.pop() {
            self.resume_parked(shared, now, segment, effects);
        }
    }

    fn carry_out(&mut self, step: Step, effects: &mut Vec<Effect>) {
        match step {
            Step::Append(commit) => self.commit(commit, effects),
            Step::Grow { segment: handle, length } => {
                if let Some(segment) = self.segments.get_mut(handle) {
                    segment.commit_length(length);
                    self.wake(handle);
                }
            }
            Step::Seal(handle) => {
                if let Some(segment) = self.segments.get_mut(handle) {
                    assert!(segment.is_sealed, "a durable seal was accepted");
                    let is_last = segment.durable_length == segment.length;
                    let is_missed = canary::has(Canary::SealMissesInFlight);
                    assert!(is_last || is_missed, "nothing follows a seal");
                    segment.is_sealed_durably = true;
                    self.wake(handle);
                }
            }
            Step::Truncate(handle, offset) => {
                if let Some(segment) = self.segments.get(handle) {
                    assert!(offset <= segment.durable_length, "durable bytes reach the start");
                    self.wake(handle);
                }
            }
            Step::Reply(token, reply) => effects.push(Effect::Reply { token, reply: *reply }),
            Step::Close(token, reason) => effects.push(Effect::Close { token, reason }),
        }
    }
}
