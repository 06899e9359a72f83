//! A table of 17 columns without Diesel's feature for wide tables.
//~ none
//~ says: consider enabling the `32-column-tables` feature

diesel::table! {
    wide (id) {
        id -> Integer,
        a -> Integer, b -> Integer, c -> Integer, d -> Integer, e -> Integer, f -> Integer, g -> Integer, h -> Integer,
        i -> Integer, j -> Integer, k -> Integer, l -> Integer, m -> Integer, n -> Integer, o -> Integer,
        p -> Integer, // fixed:
    }
}
