//! Watching through the line.
