pub struct Exported;
pub struct Status;
pub fn export() {}
pub fn status() {}
