//! Tests of the whole controller on stores in memory, and of the messages against golden bytes. The
//! real engine is used in the server's tests.

mod calls;
mod crash;
mod fake;
mod golden;
