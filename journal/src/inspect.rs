//! A journal directory as a list, for people: files, records, where it ends, what is damaged. Never
//! writes.
