//! Lists of scopes and streams, page by page.
//!
//! A listing ends with an empty page, so a page is never empty while something follows. Tokens are
//! the table's own, in hexadecimal; a token that is none ends the listing.

use bytes::Bytes;

use crate::controller::Controller;
use crate::error::ControlError;
use crate::layout;
use crate::record::{self, ScopeChange, StoredScope};
use crate::segments::SegmentStore;
use crate::tables::{Found, PAGE_RECORDS};

/// Names and the token for the page after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) names: Vec<String>,
    pub(crate) token: String,
}

/// The token behind the last page: it must not be empty, since an empty one starts over.
const END: &str = "end";

impl<S: SegmentStore> Controller<S> {
    /// Scopes, the internal one included.
    pub(crate) async fn list_scopes(&self, token: &str) -> Result<Page, ControlError> {
        let is_listed = |found: &Found| -> Result<bool, ControlError> {
            Ok(record::decode::<StoredScope>(&found.value)?.change() == ScopeChange::None)
        };
        self.list(layout::SCOPES, token, is_listed).await
    }

    /// Streams of a scope, of all or with a tag; `None` for an absent scope.
    pub(crate) async fn list_streams(
        &self,
        scope: &str,
        tag: Option<&str>,
        token: &str,
    ) -> Result<Option<Page>, ControlError> {
        if !self.scope_exists(scope).await? {
            return Ok(None);
        }
        let is_listed = |found: &Found| -> Result<bool, ControlError> {
            let record = record::decode_stream(&found.value)?;
            let tags = record.config.tags.as_ref().map_or(&[][..], |tags| &tags.tag);
            let has_tag = tag.is_none_or(|tag| tags.iter().any(|it| it == tag));
            Ok(record.is_visible() && has_tag)
        };
        self.list(&layout::streams(scope), token, is_listed).await.map(Some)
    }

    async fn list(
        &self,
        table: &str,
        token: &str,
        is_listed: impl Fn(&Found) -> Result<bool, ControlError>,
    ) -> Result<Page, ControlError> {
        let Some(mut continuation) = from_hex(token) else {
            return Ok(Page { names: Vec::new(), token: END.to_owned() });
        };
        loop {
            let (records, next) = self.tables.page(table, PAGE_RECORDS, continuation).await?;
            let mut names = Vec::new();
            for (name, found) in records {
                if is_listed(&found)? {
                    names.push(name);
                }
            }
            if !names.is_empty() || next.is_empty() {
                let token = if next.is_empty() { END.to_owned() } else { to_hex(&next) };
                return Ok(Page { names, token });
            }
            continuation = next;
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Bytes> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let digits = std::str::from_utf8(pair).ok().filter(|digits| digits.len() == 2)?;
        u8::from_str_radix(digits, 16).ok()
    };
    pairs.map(byte).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that tokens are read as written and that others are none.
    #[test]
    fn tokens_are_read_as_written() {
        for bytes in [&b""[..], b"\0", b"token \xff"] {
            assert_eq!(from_hex(&to_hex(bytes)).as_deref(), Some(bytes));
        }
        for text in [END, "0", "zz", "ü"] {
            assert_eq!(from_hex(text), None);
        }
    }
}
