//! Integration tests.

mod testkit;
