//! Comparing what is stored with what was acknowledged.

use crate::claim::{ensure, ensure_eq, wrong};
use crate::lane::Verified;
use crate::payload::{Mark, parse};
use crate::store::Store;
use crate::wire::Trouble;

use super::{Asked, MERGES, Transactions};

impl Transactions {
    /// Reads the parent and all transactions; panics on what must not be.
    pub(super) fn check(&mut self, store: &mut Store) -> Result<Verified, Trouble> {
        let parent = self.parent.clone();
        let asked = self.asked.take();
        let Some(info) = store.info(&parent)? else {
            ensure!(!self.is_created, "{parent} is gone");
            return Ok(Verified::default());
        };
        self.is_created = true;
        if let Some(Asked::Truncate(count)) = asked
            && info.start_offset != self.start
        {
            self.drop_front(count);
        }
        ensure_eq!(info.start_offset, self.start, "{parent}: start offset");
        let mut verified = Verified::default();
        let found = read(store, &parent, info.start_offset, info.write_offset, &mut verified)?;
        ensure!(
            found.starts_with(&self.marks),
            "{parent}: {} events acknowledged, {} found, different from event {:?} on",
            self.marks.len(),
            found.len(),
            found.iter().zip(&self.marks).position(|(found, known)| found != known)
        );
        let rest = found[self.marks.len()..].to_vec();
        self.settle(store, asked, &rest)?;
        ensure_eq!(found, self.marks, "{parent}: all events are known");
        ensure_eq!(info.write_offset, self.length(), "{parent}: length");
        ensure!(!info.is_sealed, "{parent} is sealed");
        ensure_eq!(store.attribute(&parent, MERGES)?, self.merges, "{parent}: attribute of merges");
        for transaction in self.open.values() {
            let name = &transaction.name;
            let info =
                store.info(name)?.ok_or_else(|| Trouble::wrong(format!("{name} is gone")))?;
            let found = read(store, name, 0, info.write_offset, &mut verified)?;
            ensure_eq!(found, transaction.marks, "{name}: events");
            ensure!(transaction.is_closed || !info.is_sealed, "{name} is sealed");
        }
        for name in &self.gone {
            ensure!(store.info(name)?.is_none(), "{name} exists, merged or aborted");
        }
        Ok(verified)
    }

    /// Finds out what became of the operation without an answer. `rest` is what the parent holds
    /// behind the events that are known.
    fn settle(
        &mut self,
        store: &mut Store,
        asked: Option<Asked>,
        rest: &[Mark],
    ) -> Result<(), Trouble> {
        let parent = self.parent.clone();
        match asked {
            Some(Asked::Append(marks)) if !rest.is_empty() => {
                ensure_eq!(rest, marks, "{parent}: half a block");
                self.appended += marks.len() as u64;
                self.marks.extend(marks);
            }
            Some(Asked::Large(marks)) if !rest.is_empty() => {
                ensure_eq!(rest, marks, "{parent}: half a large event");
                self.marks.extend(marks);
            }
            Some(Asked::Merge(numbers, with_attribute)) => {
                self.settle_merge(store, &numbers, with_attribute, rest)?;
            }
            other => {
                ensure!(rest.is_empty(), "{parent}: {rest:?} without {other:?}");
                self.settle_transaction(store, other)?;
            }
        }
        Ok(())
    }

    /// Those merged are the first ones, each whole and gone; the others are there.
    fn settle_merge(
        &mut self,
        store: &mut Store,
        numbers: &[u64],
        with_attribute: bool,
        rest: &[Mark],
    ) -> Result<(), Trouble> {
        let parent = self.parent.clone();
        let mut rest = rest;
        let mut is_over = false;
        for number in numbers {
            let name = self.open[number].name.clone();
            if store.info(&name)?.is_some() {
                is_over = true;
                self.open.get_mut(number).expect("it is open").is_closed = true;
                continue;
            }
            ensure!(!is_over, "{name} is merged before one that was named earlier");
            let marks = self.forget(*number);
            let Some(behind) = rest.strip_prefix(marks.as_slice()) else {
                wrong!("{parent}: {name} is gone and not merged: {marks:?} in {rest:?}");
            };
            rest = behind;
            self.marks.extend(marks);
            if with_attribute {
                self.merges = self.merges.max(0) + 1;
            }
        }
        ensure!(rest.is_empty(), "{parent}: {rest:?} of a merge whose sources are there");
        Ok(())
    }

    fn settle_transaction(
        &mut self,
        store: &mut Store,
        asked: Option<Asked>,
    ) -> Result<(), Trouble> {
        match asked {
            Some(Asked::Open(number)) if store.info(&self.open[&number].name)?.is_none() => {
                self.open.remove(&number);
            }
            Some(Asked::Abort(number)) if store.info(&self.open[&number].name)?.is_none() => {
                self.forget(number);
            }
            Some(Asked::Write(number, marks)) => {
                let transaction = self.open.get_mut(&number).expect("it is open");
                let name = &transaction.name;
                let info =
                    store.info(name)?.ok_or_else(|| Trouble::wrong(format!("{name} is gone")))?;
                if info.write_offset != super::bytes_of(&transaction.marks) {
                    transaction.marks.extend(marks);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn read(
    store: &mut Store,
    segment: &str,
    start: i64,
    end: i64,
    verified: &mut Verified,
) -> Result<Vec<Mark>, Trouble> {
    let data = store.read_all(segment, start, end)?;
    verified.bytes += data.len() as u64;
    let marks: Vec<Mark> =
        parse(segment, start, &data)?.into_iter().map(|(_, mark)| mark).collect();
    verified.items += marks.len() as u64;
    Ok(marks)
}
