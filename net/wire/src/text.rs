//! Strings of the wire: names, tokens and messages, kept as slices of the received buffer.
//!
//! Owns the string encoding: UTF-8 as it is, Java's modified UTF-8 converted on the way in, plain
//! UTF-8 on the way out. A [`Text`] always holds valid UTF-8. Names that clients use are ASCII,
//! where the two encodings agree.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// The bytes of a string are neither UTF-8 nor Java's modified UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("string is not UTF-8")]
pub struct NotText;

/// A string that shares its bytes with the buffer it was received in; cloning it copies no bytes.
///
/// It holds that buffer in memory as long as it lives: keep [`Text::detach`] of what outlives the
/// request. At most [`Text::BYTES_MAX`] bytes can be sent.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// Longest string the wire can carry, in bytes; encoding cuts a longer one at the last whole
    /// character before it.
    pub const BYTES_MAX: usize = u16::MAX as usize;

    /// The empty string.
    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// The string of constant bytes, without allocation.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The string as UTF-8.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the constructors checked that this is UTF-8")
    }

    /// The UTF-8 bytes, sharing the buffer.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The same string in memory of its own, so that keeping it does not keep the receive buffer.
    pub fn detach(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// Takes bytes from the wire: UTF-8 as they are, else as modified UTF-8 converted into memory
    /// of their own.
    pub(crate) fn from_wire(bytes: Bytes) -> Result<Self, NotText> {
        if std::str::from_utf8(&bytes).is_ok() {
            return Ok(Self(bytes));
        }
        decode_modified(&bytes).map(Self::from)
    }

    /// What is written: the length and that many bytes.
    pub(crate) fn wire_bytes(&self) -> (u16, &[u8]) {
        match u16::try_from(self.0.len()) {
            Ok(length) => (length, &self.0),
            Err(_) => {
                let cut = &self.0[..self.as_str().floor_char_boundary(Self::BYTES_MAX)];
                (u16::try_from(cut.len()).expect("cut at or before the longest length"), cut)
            }
        }
    }
}

/// Converts modified UTF-8: `C0 80` is U+0000 and a supplementary character is two surrogates of
/// three bytes each. Plain UTF-8 sequences between them are accepted too. The result is never
/// longer than the input.
fn decode_modified(mut bytes: &[u8]) -> Result<String, NotText> {
    let mut text = String::with_capacity(bytes.len());
    while !bytes.is_empty() {
        let valid = match std::str::from_utf8(bytes) {
            Ok(rest) => rest,
            Err(error) => {
                std::str::from_utf8(&bytes[..error.valid_up_to()]).map_err(|_| NotText)?
            }
        };
        text.push_str(valid);
        bytes = &bytes[valid.len()..];
        match bytes {
            [] => {}
            [0xC0, 0x80, rest @ ..] => {
                text.push('\0');
                bytes = rest;
            }
            [
                0xED,
                high_top @ 0xA0..=0xAF,
                high_low @ 0x80..=0xBF,
                0xED,
                low_top @ 0xB0..=0xBF,
                low_low @ 0x80..=0xBF,
                rest @ ..,
            ] => {
                let high = u32::from(high_top & 0x0F) << 6 | u32::from(high_low & 0x3F);
                let low = u32::from(low_top & 0x0F) << 6 | u32::from(low_low & 0x3F);
                text.push(char::from_u32(0x1_0000 + (high << 10 | low)).ok_or(NotText)?);
                bytes = rest;
            }
            _ => return Err(NotText),
        }
    }
    Ok(text)
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// Order, equality and hash are those of `str`, so that a map keyed by `Text` can be asked with a
/// `&str`.
impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text.into_bytes()))
    }
}

impl TryFrom<Bytes> for Text {
    type Error = NotText;

    fn try_from(bytes: Bytes) -> Result<Self, NotText> {
        std::str::from_utf8(&bytes).map_err(|_| NotText)?;
        Ok(Self(bytes))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), formatter)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8]) -> Result<Text, NotText> {
        Text::from_wire(Bytes::from_static(bytes))
    }

    /// UTF-8 is kept as a slice of what was received.
    #[test]
    fn text_shares_the_received_bytes() {
        let received = Bytes::from("scope/stream/0".to_owned());
        let text = Text::from_wire(received.clone()).expect("UTF-8");
        assert_eq!(text.as_bytes().as_ptr(), received.as_ptr());
        assert_ne!(text.detach().as_bytes().as_ptr(), received.as_ptr());
        assert_eq!(text.detach(), text);
    }

    /// Both ways of writing U+0000 and a supplementary character are read, mixed in one string.
    #[test]
    fn both_encodings_are_read_in_one_string() {
        let mixed = read(b"a\0\xC0\x80\xF0\x9F\x98\x80\xED\xA0\xBD\xED\xB8\x80\xE2\x82\xAC");
        assert_eq!(mixed.expect("lenient"), "a\0\0\u{1F600}\u{1F600}\u{20AC}");
    }

    /// Surrogates without their pair, overlong forms and stray bytes are refused.
    #[test]
    fn what_is_no_text_is_refused() {
        let bad: [&[u8]; 9] = [
            b"\xFF",
            b"a\x80",
            b"\xC0",
            b"\xC0\x81",
            b"\xED\xA0\xBD",
            b"\xED\xA0\xBDabc",
            b"\xED\xB8\x80\xED\xA0\xBD",
            b"\xED\xA0\xBD\xED\xA0\xBD",
            b"\xE2\x82",
        ];
        for bytes in bad {
            assert_eq!(read(bytes), Err(NotText), "{bytes:x?}");
        }
    }

    /// A string too long for the wire is cut at a whole character.
    #[test]
    fn too_long_text_is_cut_at_a_character() {
        let fits = Text::from("x".repeat(Text::BYTES_MAX));
        assert_eq!(fits.wire_bytes(), (u16::MAX, fits.as_bytes()));
        let long = Text::from("\u{20AC}".repeat(30_000));
        let (length, bytes) = long.wire_bytes();
        assert_eq!((usize::from(length), bytes.len()), (65_535, 65_535));
        let odd = Text::from(format!("a{}", "\u{20AC}".repeat(30_000)));
        assert_eq!(odd.wire_bytes().0, 65_533);
    }
}
