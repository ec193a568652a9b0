//! Instructions, counted with callgrind: the same on every run, whatever else a machine does.

pub mod callgrind;
