//! x
/// Role
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// p
    Primary,
    /// r
    Replica,
}
