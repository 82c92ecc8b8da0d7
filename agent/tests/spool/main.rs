//! The spool as its users have it: killed, full, damaged, and looked at from outside.

mod damage;
mod full;
mod kill;
mod outside;
mod rig;
mod verify;
