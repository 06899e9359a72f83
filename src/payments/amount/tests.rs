use proptest::prelude::*;

use super::*;

#[test]
fn an_invalid_amount_is_refused_with_the_reason() {
    for (text, error) in [
        ("", AmountError::Empty),
        ("+1", AmountError::Signed),
        ("-0.1", AmountError::Signed),
        ("1-2", AmountError::Signed),
        ("1e5", AmountError::Exponent),
        ("1E-999999999", AmountError::Exponent),
        ("0.1e9", AmountError::Exponent),
        ("NaN", AmountError::Unexpected('N')),
        ("inf", AmountError::Unexpected('i')),
        ("1_000", AmountError::Unexpected('_')),
        ("1,5", AmountError::Unexpected(',')),
        (" 1", AmountError::Unexpected(' ')),
        ("1.2.3", AmountError::Unexpected('.')),
        ("\u{0663}", AmountError::Unexpected('\u{0663}')),
        (".", AmountError::BarePoint),
        (".5", AmountError::BarePoint),
        ("5.", AmountError::BarePoint),
        ("0", AmountError::Zero),
        ("0.000", AmountError::Zero),
        ("123456789012345678901", AmountError::TooLarge),
        ("0.1234567890123456789", AmountError::TooFine),
    ] {
        assert_eq!(text.parse::<Amount>(), Err(error), "{text:?}");
    }
    assert_eq!("9".repeat(10_000_000).parse::<Amount>(), Err(AmountError::TooLarge));
}

#[test]
fn the_largest_and_the_smallest_amount_are_accepted() {
    for text in ["99999999999999999999.999999999999999999", "0.000000000000000001"] {
        let amount: Amount = text.parse().unwrap();
        assert_eq!(amount.to_string(), text);
    }
}

#[test]
fn a_number_with_a_large_exponent_is_refused_without_expanding_it() {
    // Written out, each of them would have billions of digits.
    let huge = BigDecimal::new(1.into(), -4_000_000_000);
    assert_eq!(Amount::try_from(huge), Err(AmountError::TooLarge));
    let tiny = BigDecimal::new(1.into(), 4_000_000_000);
    assert_eq!(Amount::try_from(tiny), Err(AmountError::TooFine));
    let negative = BigDecimal::new((-1).into(), 0);
    assert_eq!(Amount::try_from(negative), Err(AmountError::Signed));
}

#[test]
fn is_a_string_in_json() {
    let amount: Amount = serde_json::from_str(r#""12.50""#).unwrap();
    assert_eq!(serde_json::to_string(&amount).unwrap(), r#""12.5""#);
    assert!(serde_json::from_str::<Amount>("12.5").is_err());
    let error = serde_json::from_str::<Amount>(r#""-1""#).unwrap_err();
    assert!(error.to_string().contains("no sign"), "{error}");
}

proptest! {
    #[test]
    fn round_trips(integer in "(0|[1-9][0-9]{0,19})", fraction in "[0-9]{0,17}[1-9]") {
        let text = format!("{integer}.{fraction}");
        let amount: Amount = text.parse().unwrap();
        prop_assert_eq!(amount.to_string(), text);
    }

    #[test]
    fn ignores_zeros_at_the_end(integer in "[1-9][0-9]{0,19}", zeros in 1usize..=18) {
        let amount: Amount = format!("{integer}.{}", "0".repeat(zeros)).parse().unwrap();
        prop_assert_eq!(&amount, &integer.parse::<Amount>().unwrap());
        prop_assert_eq!(amount.to_string(), integer);
    }

    #[test]
    fn never_panics(text in any::<String>()) {
        if let Ok(amount) = text.parse::<Amount>() {
            prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
        }
    }

    #[test]
    fn never_panics_on_what_looks_like_a_number(text in "[-+]?[0-9.eE]{0,60}") {
        if let Ok(amount) = text.parse::<Amount>() {
            prop_assert!(amount.as_decimal().is_positive());
        }
    }
}
