//! Follows the chain and judges every event that it sees; what was once readable may never be
//! missing or different afterwards.

use bytes::{Buf, BytesMut};
use thalweg_wire::Command;

use crate::claim::{ensure, ensure_eq, wrong};
use crate::payload::scan;
use crate::store::{Route, Store, len};
use crate::wire::Trouble;

use super::{Chain, Done, Progress, breathe, count};

/// Reads until it is stopped.
pub(super) fn run(chain: &Chain, route: &Route) -> Result<(), Trouble> {
    let mut store = Store::new(route);
    loop {
        let Some(index) = next_unread(chain) else {
            if route.stop.is_stopped() {
                return Ok(());
            }
            breathe();
            continue;
        };
        match follow(chain, &mut store, index) {
            Ok(()) => {}
            Err(trouble) => route.lost(trouble, &mut store)?,
        }
        if route.stop.is_stopped() {
            return Ok(());
        }
    }
}

/// The oldest segment that is there and not read to its end.
fn next_unread(chain: &Chain) -> Option<usize> {
    let segments = chain.lock();
    let is_unread = |it: &super::Segment| {
        it.exists() && it.length_final.is_none_or(|length| it.seen.at < length)
    };
    segments.iter().position(is_unread)
}

/// Reads one segment until it ends, is gone, or waits for data while a successor is there.
fn follow(chain: &Chain, store: &mut Store, index: usize) -> Result<(), Trouble> {
    let (name, mut seen) = {
        let segment = &chain.lock()[index];
        (segment.name.clone(), segment.seen.clone())
    };
    let mut left = BytesMut::new();
    loop {
        let at = seen.at + len(&left);
        match store.read(&name, at, 1 << 20)? {
            Command::SegmentRead(read) => {
                ensure_eq!(read.offset, at, "{name}: offset of a read");
                left.extend_from_slice(&read.data);
                let items = judge(&name, &mut seen, &mut left)?;
                count(&chain.tally.items_read, items);
                count(&chain.tally.bytes_read, read.data.len() as u64);
                let segment = &mut chain.lock()[index];
                segment.seen.clone_from(&seen);
                if read.end_of_segment && read.data.is_empty() {
                    ensure!(left.is_empty(), "{name}: ends at {at} in an event");
                    ensure!(segment.sealed != Done::No, "{name}: ends at {at} without a seal");
                    let last = *segment.length_final.get_or_insert(at);
                    ensure_eq!(last, at, "{name}: length after the seal");
                    return Ok(());
                }
            }
            // A parked read of a segment that is sealed meanwhile ends like this too.
            Command::SegmentIsSealed(_) => {}
            Command::SegmentIsTruncated(it) => {
                let most = chain.lock()[index].start_max;
                let told = it.start_offset;
                ensure!(at < told && told <= most, "{name}: start told {told}, asked for {most}");
                // What was truncated unread can be read by nobody.
                seen = Progress { at: told, is_partial: true, ..Progress::default() };
                left.clear();
            }
            Command::NoSuchSegment(_) => {
                let segment = &mut chain.lock()[index];
                let asked = segment.deleted != Done::No;
                ensure!(asked, "{name} is gone, which nobody asked for");
                // This answer is final: the segment may never be seen again.
                segment.deleted = Done::Yes;
                return Ok(());
            }
            other => wrong!("{name}: {other:?} to a read at {at}"),
        }
    }
}

/// Takes in all whole events at the front of `left`, which begins at the place that was reached;
/// gives their number. The same for every reading of a segment.
pub(super) fn judge(
    name: &str,
    progress: &mut Progress,
    left: &mut BytesMut,
) -> Result<u64, Trouble> {
    let mut items = 0;
    let Progress { at, sum, serials, .. } = progress;
    let done = scan(name, *at, left, |place, mark| {
        items += 1;
        sum.add(place, mark);
        let (_, last) =
            serials.entry(mark.author).or_insert((mark.serial, mark.serial.wrapping_sub(1)));
        let before = std::mem::replace(last, mark.serial);
        ensure!(
            before.wrapping_add(1) == mark.serial,
            "{name}: at {place} {mark:?} follows serial {before}"
        );
        Ok(())
    })?;
    *at += i64::try_from(done).expect("a length in memory");
    left.advance(done);
    Ok(items)
}
