//! The journal on a faulty disk: crashes, damage, failures, lack of room.

mod crash;
mod damage;
mod failure;
mod inspect;
mod owners;
mod service;
mod world;
