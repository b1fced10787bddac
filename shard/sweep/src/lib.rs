//! Every operation fails once; every crash state of the real device is recovered.
