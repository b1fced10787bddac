//! Any blocks and ends into the assembly: no panic, and an append is never longer than what was
//! given to it.
//!
//! The input is a control word of 8 bytes, then the bytes of the block and of its end.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use thalweg_wire::{AppendBlock, AppendBlockEnd, BlockAssembly};

fuzz_target!(|input: &[u8]| {
    let Some((control, bytes)) = input.split_first_chunk::<8>() else { return };
    let [flags, events, cut, _, size @ ..] = *control;
    let received = Bytes::copy_from_slice(bytes);
    let cut = usize::from(cut).min(received.len());
    let (data, end_data) = (received.slice(..cut), received.slice(cut..));

    let mut assembly = BlockAssembly::new();
    let with_block = flags & 1 != 0;
    if with_block {
        let block = AppendBlock { writer_id: 1, data: data.clone() };
        assembly.begin(block.clone()).expect("nothing is open");
        assert!(assembly.interrupt().is_err());
        if flags & 2 != 0 {
            assert!(assembly.begin(block).is_err());
        }
    }
    let result = assembly.end(AppendBlockEnd {
        writer_id: u128::from(flags >> 7) + 1,
        // Mostly a small size, so that the block is often cut inside.
        size_of_whole_events: if flags & 4 != 0 {
            i32::from_be_bytes(size)
        } else {
            i32::from(size[0])
        },
        data: end_data.clone(),
        event_count: i32::from(events) - 8,
        last_event_number: 1,
        request_id: 1,
    });
    assert!(!assembly.is_open());
    if let Ok(append) = result {
        assert!(append.event_count > 0);
        assert!(append.content.len() <= received.len());
        let joined = append.content.clone().into_bytes();
        let parts: Vec<u8> = append.content.into_parts().flat_map(|part| part.to_vec()).collect();
        assert_eq!(joined, parts);
        if !with_block {
            assert_eq!(joined, end_data);
        }
    }
});
