//! Requests to table segments: from request to table and back. What a table does is in `table/`.

use bytes::Bytes;

use crate::apply::Applied;
use crate::container::{Container, No, Shared};
use crate::id::SegmentName;
use crate::operation::{Operation, TableChange};
use crate::position::Offset;
use crate::request::{Reply, TableEntry, TableItems, TableKey};
use crate::segment::SegmentHandle;
use crate::segment_request::not_a_table;
use crate::table::{Table, TableRefusal};
use crate::time::Now;

/// A request that changes nothing.
#[derive(Debug)]
pub(crate) enum TableRequest {
    Info,
    Get(Vec<Bytes>),
    Iterate { count: i32, continuation: Bytes, from: Bytes, to: Bytes, items: TableItems },
    Delta { from: i64, count: i32 },
}

impl Container {
    pub(crate) fn table(&self, request: TableRequest, name: &SegmentName) -> Result<Reply, No> {
        let table = self.find_table(self.find(name)?, name)?;
        let segment = name.clone();
        match request {
            TableRequest::Info => Ok(Reply::TableInfo {
                segment,
                start_offset: Offset(0),
                length: table.length(),
                entry_count: table.entry_count(),
                key_length: table.key_length(),
            }),
            TableRequest::Get(keys) => {
                let entries = table.get(&keys).map_err(|refusal| no(refusal, name))?;
                Ok(Reply::TableRead { segment, entries })
            }
            TableRequest::Iterate { count, continuation, from, to, items } => {
                let (entries, continuation) = table
                    .iterate(count, &continuation, &from, &to, items)
                    .map_err(|refusal| no(refusal, name))?;
                Ok(Reply::TablePage { segment, items, entries, continuation })
            }
            TableRequest::Delta { from, count } => {
                let page = table.delta(from, count).map_err(|refusal| no(refusal, name))?;
                Ok(Reply::TableDelta {
                    segment,
                    entries: page.entries,
                    should_clear: false,
                    reached_end: page.reached_end,
                    last_position: page.last_position,
                })
            }
        }
    }

    pub(crate) fn table_update(
        &mut self,
        shared: &mut Shared,
        now: Now,
        name: &SegmentName,
        entries: &[TableEntry],
        expected_length: Option<Offset>,
    ) -> Result<Reply, No> {
        let handle = self.find_unsealed(name)?;
        let table = self.find_table(handle, name)?;
        table.check_update(entries, expected_length).map_err(|refusal| no(refusal, name))?;
        if entries.is_empty() {
            return Ok(Reply::TableUpdated { versions: Vec::new() });
        }
        let change = TableChange::Checked(entries);
        let operation = Operation::TableUpdate { segment: handle.id, change };
        let Applied::Versions(versions) = self.change(shared, now, Some(handle), &operation) else {
            unreachable!("an update gives versions")
        };
        Ok(Reply::TableUpdated { versions })
    }

    pub(crate) fn table_remove(
        &mut self,
        shared: &mut Shared,
        now: Now,
        name: &SegmentName,
        keys: &[TableKey],
        expected_length: Option<Offset>,
    ) -> Result<Reply, No> {
        let handle = self.find_unsealed(name)?;
        let table = self.find_table(handle, name)?;
        table.check_remove(keys, expected_length).map_err(|refusal| no(refusal, name))?;
        if !keys.is_empty() {
            let change = TableChange::Checked(keys);
            let operation = Operation::TableRemove { segment: handle.id, change };
            self.change(shared, now, Some(handle), &operation);
        }
        Ok(Reply::TableRemoved { segment: name.clone() })
    }

    fn find_table(&self, handle: SegmentHandle, name: &SegmentName) -> Result<&Table, No> {
        let segment = self.segments.get(handle).expect("it was found by name");
        segment.table.as_deref().ok_or_else(|| not_a_table(name))
    }
}

fn no(refusal: TableRefusal, name: &SegmentName) -> No {
    match refusal.for_segment(name) {
        Ok(refusal) => No::Refused(refusal),
        Err(reason) => No::Close(reason),
    }
}
