//! The guides: what to read beyond the documentation of each type.
//!
//! | page | answers |
//! |---|---|
//! | [`types`] | how to write repositories, how to move over from diesel-async, what the types prove |
//! | [`configuration`] | which settings there are, with each default and its reason |
//! | [`deployment`] | what to check before production |
//! | [`failover`] | what happens in each failure, what users see, what to do |
//! | [`consistency`] | how a read sees the writes before it, on any replica |
//! | [`glossary`] | what the words mean, and where they come from |
//! | [`quick_reference`] | variables, calls, errors and commands on one page |
//! | [`testkit`] | how to test a program against real failures, or with a rollback after each test |
//! | [`payments`], [`api`] | how to use the payments repository, and its JSON API |
//! | [`architecture`] | how the crate is built, and why |
//! | [`benchmarks`] | what the crate costs |
//!
//! These pages are the files of the folder `docs/`. Their Rust code is compiled by `cargo test --doc`.

/// Declares one module per page.
///
/// `src/guide/links.md` comes before the page, because Markdown takes the first of two definitions of a link: the same link
/// leads to a file in the repository and to a module in rustdoc.
macro_rules! pages {
    ($($name:ident $(needs $feature:tt)?: $path:literal,)*) => {
        $(
            #[doc = include_str!("guide/links.md")]
            #[cfg_attr(all($(feature = $feature)?), doc = include_str!(concat!("../", $path)))]
            $(#[cfg_attr(not(feature = $feature), doc = concat!("Rendered with the feature `", $feature, "`."))])?
            pub mod $name {}
        )*
    };
}

pages! {
    api: "docs/api.md",
    architecture: "docs/architecture.md",
    benchmarks: "docs/benchmarks.md",
    consistency needs "tower": "docs/consistency.md",
    configuration: "docs/configuration.md",
    deployment: "docs/deployment.md",
    failover: "docs/failover.md",
    glossary: "docs/glossary.md",
    payments needs "payments": "docs/payments.md",
    quick_reference needs "migrate": "docs/quick-reference.md",
    testkit needs "testkit": "docs/testkit.md",
    types: "docs/types.md",
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(test)]
mod tests;
