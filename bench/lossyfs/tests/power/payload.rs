//! Events whose every byte follows from who wrote them and which one it is.

use bytes::{Bytes, BytesMut};
use thalweg_crash::wire::Trouble;
use thalweg_wire::event;

/// The payload of event `number` of an author: both, then filler made from them, its length too.
pub(crate) fn payload(author: u64, number: i64) -> Vec<u8> {
    let mut state = author.wrapping_mul(0xD1B5_4A32_D192_ED03) ^ number.unsigned_abs();
    let draw = super::next(&mut state);
    let length = 16 + if draw.is_multiple_of(32) { draw >> 8 & 0x3FFF } else { draw >> 8 & 0xFF };
    let length = usize::try_from(length).expect("some kilobytes");
    let mut out = [author.to_be_bytes(), number.to_be_bytes()].concat();
    while out.len() < length {
        out.extend_from_slice(&super::next(&mut state).to_le_bytes());
    }
    out.truncate(length);
    out
}

/// Judges `data`, which must be whole events of the author from number `first` on. Gives the place
/// of each, `start` being that of the first byte.
pub(crate) fn judge(
    what: &str,
    author: u64,
    first: i64,
    start: i64,
    mut data: Bytes,
) -> Result<Vec<i64>, Trouble> {
    let (mut places, mut at) = (Vec::new(), start);
    for number in first.. {
        if data.is_empty() {
            break;
        }
        let found = match event::decode(&mut data) {
            Ok(Some(found)) => found,
            other => {
                return Err(Trouble::wrong(format!(
                    "{what}: {other:?} for event {number} at {at}"
                )));
            }
        };
        if found != payload(author, number) {
            let head = found.get(..16);
            let text = format!("{what}: not event {number} at {at}; it begins with {head:?}");
            return Err(Trouble::wrong(text));
        }
        places.push(at);
        at += i64::try_from(found.len() + event::EVENT_HEADER_BYTES).expect("some kilobytes");
    }
    Ok(places)
}

/// Appends the event as it lies in a segment.
pub(crate) fn frame(author: u64, number: i64, out: &mut BytesMut) {
    event::encode(&payload(author, number), out);
}
