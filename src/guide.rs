//! The Rust code in `README.md` and `docs/`, compiled by `cargo test --doc`.
//!
//! It is there for the tests alone, so that no page shows code which no longer compiles.

macro_rules! pages {
    ($($(#[$when:meta])* $name:ident: $path:literal,)*) => {
        $(
            $(#[$when])*
            #[doc = include_str!(concat!("../", $path))]
            mod $name {}
        )*
    };
}

pages! {
    readme: "README.md",
    architecture: "docs/architecture.md",
    configuration: "docs/configuration.md",
    deployment: "docs/deployment.md",
    failover: "docs/failover.md",
    #[cfg(feature = "migrate")]
    quick_reference: "docs/quick-reference.md",
    #[cfg(feature = "testkit")]
    testkit: "docs/testkit.md",
    types: "docs/types.md",
}
