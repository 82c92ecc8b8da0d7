//! The simulated SMT line: its model, and what its servers tell.
