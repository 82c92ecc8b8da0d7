//! What the end-to-end tests share: real protocol servers, in process, on port 0.

pub mod receiver;
