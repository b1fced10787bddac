//! A whole shard, with the engine as shipped, on a journal in memory and a scripted network.

mod disorder;
mod forwarding;
mod pressure;
mod recovery;
mod serving;
mod standing_still;
mod world;
