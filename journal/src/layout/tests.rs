use super::*;

fn record() -> RecordHeader {
    RecordHeader {
        owner: Owner { directory: 0x0123_4567_89AB_CDEF, shard: ShardId(3) },
        kind: RecordKind::Frame,
        address: JournalAddress::new(FileId(7), 5, 2),
        epoch: ContainerEpoch(9),
        sequence: Sequence(1000),
        frame: FrameNumber(900),
        durable_upto: Sequence(998),
        replay: Some(JournalAddress::new(FileId(6), 1, 4)),
        containers: ContainerMask(0b101),
        previous_containers: ContainerMask(0b10),
        operation_bytes: 5000,
        payload_checksum: Checksum(0xAABB_CCDD),
        previous_checksum: Checksum(0x1122_3344),
    }
}

fn file() -> FileHeader {
    FileHeader {
        owner: Owner { directory: 0x0123_4567_89AB_CDEF, shard: ShardId(3) },
        file: FileId(7),
        epoch: ContainerEpoch(9),
        file_bytes: 256 << 20,
        start: Some(FileStart {
            first: Sequence(990),
            first_frame: FrameNumber(892),
            durable_upto: Sequence(987),
            previous_checksum: Checksum(0x5566_7788),
        }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a record header are those of the table in docs/formats.md.
#[test]
fn record_header_has_its_golden_bytes() {
    let mut bytes = [0xEE; 128];
    let checksum = record().encode(&mut bytes);
    let expected = concat!(
        "54485752",
        "0100",
        "0000",
        "07000000",
        "0300",
        "0000", // magic to shard
        "efcdab8967452301",
        "0900000000000000",
        "e803000000000000", // directory, epoch, sequence
        "8403000000000000",
        "e603000000000000",
        "0400100000060000", // frame, durable, replay
        "0500000000000000",
        "0200000000000000", // masks
        "05000000",
        "02000000",
        "88130000",
        "ddccbbaa",
        "44332211", // place, size, checksums
        "000000000000000000000000000000000000000000000000",
    );
    assert_eq!(hex(&bytes[..124]), expected);
    assert_eq!(checksum.0.to_le_bytes(), bytes[124..]);
    assert_eq!(hex(&bytes[124..]), GOLDEN_RECORD_CHECKSUM);
    assert_eq!(RecordHeader::decode(&bytes), Ok((record(), checksum)));
}

/// The bytes of a file header are those of the table in docs/formats.md.
#[test]
fn file_header_has_its_golden_bytes() {
    let mut bytes = [0xEE; 128];
    file().encode(&mut bytes);
    let expected = concat!(
        "54485746",
        "0100",
        "0000",
        "07000000",
        "0300",
        "0000", // magic to shard
        "efcdab8967452301",
        "0900000000000000",
        "0000001000000000", // directory, epoch, size
        "de03000000000000",
        "7c03000000000000",
        "db03000000000000",
        "88776655", // start
    );
    assert_eq!(hex(&bytes[..68]), expected);
    assert!(bytes[68..124].iter().all(|&byte| byte == 0));
    assert_eq!(hex(&bytes[124..]), GOLDEN_FILE_CHECKSUM);
    assert_eq!(FileHeader::decode(&bytes), Ok(file()));
}

const GOLDEN_RECORD_CHECKSUM: &str = "3e47c31b";
const GOLDEN_FILE_CHECKSUM: &str = "35834398";

/// Decoding undoes encoding for every kind of record and for a prepared file.
#[test]
fn every_kind_is_read_back() {
    let mut bytes = [0; 128];
    for kind in [RecordKind::Frame, RecordKind::Beacon, RecordKind::Opening] {
        let header = RecordHeader { kind, replay: None, ..record() };
        let checksum = header.encode(&mut bytes);
        assert_eq!(RecordHeader::decode(&bytes), Ok((header, checksum)));
        assert_eq!(header.replay_address(), header.address);
    }
    let prepared = FileHeader { start: None, ..file() };
    prepared.encode(&mut bytes);
    assert_eq!(FileHeader::decode(&bytes), Ok(prepared));
}

/// No single flipped bit of a header goes unnoticed; enumerated.
#[test]
fn a_flipped_bit_is_noticed() {
    let mut bytes = [0; 128];
    record().encode(&mut bytes);
    let mut file_bytes = [0; 128];
    file().encode(&mut file_bytes);
    for bit in 0..1024 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(RecordHeader::decode(&bytes).is_err());
        bytes[bit / 8] ^= 1 << (bit % 8);
        file_bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(FileHeader::decode(&file_bytes).is_err());
        file_bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(RecordHeader::decode(&bytes).is_ok());
}

/// A header with a right checksum and impossible fields is refused, not believed; a header of
/// another format says which.
#[test]
fn impossible_fields_are_refused() {
    let patched = |at: usize, value: u32| {
        let mut bytes = [0; 128];
        record().encode(&mut bytes);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..124]);
        bytes[124..].copy_from_slice(&checksum.to_le_bytes());
        RecordHeader::decode(&bytes).expect_err("refused")
    };
    assert_eq!(patched(84, 0), Unreadable::Field);
    assert_eq!(patched(84, 1 << 20), Unreadable::Field);
    assert_eq!(patched(80, u32::MAX), Unreadable::Field);
    assert_eq!(patched(88, u32::MAX), Unreadable::Field);
    assert_eq!(patched(8, u32::MAX), Unreadable::Field);
    assert_eq!(patched(36, u32::MAX), Unreadable::Field);
    assert_eq!(patched(48, 1000), Unreadable::Field);
    assert_eq!(patched(4, 2), Unreadable::Format(2));
    assert_eq!(patched(4, 0x00FF_0001), Unreadable::Field);
    assert_eq!(patched(0, 0), Unreadable::NotAHeader);
    assert!(RecordHeader::decode(&[]).is_err());
}
