//! Follows the chain at its tail and keeps a sum of what it saw: nothing that was once readable may
//! be missing or different after a kill.

use thalweg_wire::Command;

use crate::rig::store::{Store, len};

use super::{Chain, breathe};

/// Reads until the server is gone.
pub(crate) fn run(chain: &Chain, store: &mut Store) {
    let mut index = chain.newest();
    loop {
        let (name, at) = {
            let segment = &chain.lock()[index];
            (segment.name.clone(), segment.seen_length)
        };
        let Ok(reply) = store.read(&name, at, 1 << 20) else { return };
        match reply {
            Command::SegmentRead(read) => {
                assert_eq!(read.offset, at, "{name}: offset of a tail read");
                {
                    let segment = &mut chain.lock()[index];
                    segment.seen_sum.add(&read.data);
                    segment.seen_length += len(&read.data);
                }
                if read.end_of_segment && read.data.is_empty() {
                    let length = chain.lock()[index].length_final;
                    assert!(length.is_none_or(|length| length == at), "{name}: ends at {at}");
                    while chain.newest() == index {
                        breathe();
                        if store.info(&name).is_err() {
                            return;
                        }
                    }
                    index = chain.newest();
                }
            }
            // A parked read of a segment that is sealed meanwhile ends like this too.
            Command::SegmentIsSealed(_) => {}
            // Truncated before it was read, or deleted: go to the tail.
            Command::SegmentIsTruncated(_) | Command::NoSuchSegment(_) => {
                let newest = chain.newest();
                if newest == index {
                    // What was truncated unread can be read by nobody.
                    return;
                }
                index = newest;
            }
            other => panic!("{name}: {other:?} to a tail read at {at}"),
        }
    }
}
