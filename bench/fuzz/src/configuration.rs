//! Texts that people and disks give: the marker of a data directory, sizes of the command line.

use std::path::Path;

use thalweg_server::config::{ByteSize, Config, DeviceKind};
use thalweg_server::data_directory::Marker;

/// Markers whole and broken, and sizes.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "format-version = 1\ninstance = 0123456789abcdef\ncontainers = 16\nshards = 2\n",
        "# comment\nformat-version=1\ninstance=f\ncontainers=1\nshards=1",
        "format-version = 2\n",
        "256MiB",
        "20 GiB",
        "18446744073709551615",
        "ring",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A text is understood or refused with a sentence; what is understood prints as a text that is
/// understood as the same.
pub(crate) fn texts(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let path = Path::new("directory");
    match Marker::parse(path, &text) {
        Ok(marker) => {
            assert!(marker.shards > 0 && marker.containers > 0);
            assert_eq!(Marker::parse(path, &marker.to_string()).ok(), Some(marker.clone()));
            let _ = Config::default().check(marker.shards);
            let _ = marker.instance_bits();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    for word in text.split_whitespace().chain([text.as_ref()]) {
        if let Ok(size) = word.parse::<ByteSize>() {
            assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
            let config = Config {
                cache: size,
                journal: Some(size),
                journal_file: size,
                ..Config::default()
            };
            let _ = config.check(1);
        }
        let _ = word.parse::<DeviceKind>();
    }
}
