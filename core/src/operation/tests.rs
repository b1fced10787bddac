use super::*;

fn roundtrip(operation: &Operation<'_>) -> Result<String, Fault> {
    let mut frame = BytesMut::zeroed(FRAME_HEADER_BYTES);
    operation.encode(ContainerId(5), SequenceNumber(9), None, &mut frame);
    assert_eq!(frame.len(), FRAME_HEADER_BYTES + operation.encoded_bytes());
    frame.resize(4096, 0);
    let frame = frame.freeze();
    let found: Vec<_> = Operations::of(&frame).collect::<Result<_, _>>()?;
    assert_eq!(found.len(), 1);
    let (position, header) = found[0];
    assert_eq!((header.container, header.sequence_number), (ContainerId(5), SequenceNumber(9)));
    Operation::decode(&header, &frame, position).map(|operation| format!("{operation:?}"))
}

fn samples() -> Vec<Operation<'static>> {
    let segment = SegmentId(77);
    let attributes = vec![(AttributeId(1 << 100), -4), (AttributeId::EVENT_COUNT, 12)];
    let kind = SegmentKind::Table { key_length: 16 };
    vec![
        Operation::Append(AppendOperation {
            segment,
            event_count: 3,
            writer: WriterId(u128::MAX - 1),
            event_number: i64::MAX,
            offset: Offset(1 << 40),
            length: 0,
        }),
        Operation::Create(CreateOperation {
            segment,
            name: SegmentName::from("scope/stream/0.#epoch.0"),
            kind,
            is_transient: true,
            created: -1,
            attributes: attributes.clone(),
        }),
        Operation::Seal { segment },
        Operation::Truncate { segment, offset: Offset(8) },
        Operation::Delete { segment },
        Operation::Merge(MergeOperation {
            target: segment,
            source: SegmentId(78),
            target_offset: Offset(9),
            attributes: attributes.clone(),
        }),
        Operation::UpdateAttributes { segment, attributes },
        Operation::TableUpdate {
            segment,
            change: TableChange::Recorded(Bytes::from_static(b"body")),
        },
        Operation::TableRemove { segment, change: TableChange::Recorded(Bytes::new()) },
        Operation::Checkpoint(CheckpointPart {
            snapshot: SequenceNumber(8),
            frames_back: 2,
            index: 1,
            count: 3,
            bytes: Bytes::from_static(b"part"),
        }),
    ]
}

/// Shows that every kind of operation is read as it was written.
#[test]
fn operations_are_read_as_written() {
    for operation in samples() {
        assert_eq!(roundtrip(&operation), Ok(format!("{operation:?}")));
    }
}

/// Shows that bytes which are no operation are a fault, wherever they are cut, and never a panic.
#[test]
fn cut_operations_are_faults() {
    for operation in samples() {
        let mut bytes = BytesMut::zeroed(FRAME_HEADER_BYTES);
        operation.encode(ContainerId(5), SequenceNumber(9), None, &mut bytes);
        let whole = bytes.len() - FRAME_HEADER_BYTES;
        for length in HEADER_BYTES..whole {
            let mut cut = bytes.clone();
            cut.truncate(FRAME_HEADER_BYTES + length);
            cut[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + 4]
                .copy_from_slice(&(length as u32).to_le_bytes());
            let cut = cut.freeze();
            let (position, header) =
                Operations::of(&cut).next().expect("an operation").expect("a good header");
            let decoded = Operation::decode(&header, &cut, position);
            let is_opaque =
                matches!(operation, Operation::TableUpdate { .. } | Operation::Checkpoint(_));
            assert!(decoded.is_err() || is_opaque, "{operation:?} cut to {length}");
        }
    }
}

/// Shows the byte layout of an append, which `docs/formats.md` states.
#[test]
fn append_header_has_its_documented_layout() {
    let append = AppendOperation {
        segment: SegmentId(0x11),
        event_count: 0x22,
        writer: WriterId(0x33),
        event_number: 0x44,
        offset: Offset(0x55),
        length: 100,
    };
    let mut out = BytesMut::new();
    encode_append(ContainerId(0x66), SequenceNumber(0x77), &append, &mut out);
    assert_eq!(out.len(), APPEND_HEADER_BYTES);
    let byte_at = [(0, 164), (4, 1), (6, 0x66), (8, 0x77), (16, 0x11), (24, 0), (28, 0x22)];
    let more = [(32, 0x33), (48, 0x44), (56, 0x55)];
    for (position, value) in byte_at.into_iter().chain(more) {
        assert_eq!(out[position], value, "at {position}");
    }
    out.resize(164, 0);
    assert_eq!(decode_append(&out), Ok((append, 0)));
}
