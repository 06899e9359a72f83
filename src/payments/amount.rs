//! An exact, positive decimal.

use std::fmt;
use std::str::FromStr;

use bigdecimal::{BigDecimal, Signed};
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Numeric;
use serde::{Deserialize, Serialize};

/// An amount of some asset, positive and exact.
///
/// It has at most 20 digits before the point and 18 after it.
///
/// These are the bounds of the column, so every `Amount` can be stored. Eighteen digits are what the finest assets in
/// use need (one ether is 10¹⁸ wei).
///
/// Text is checked before it becomes a number: `1e999999999` is refused, and not turned into a gigabyte of zeros. In
/// JSON it is a string, because most programs pass a JSON number through a binary fraction.
///
/// ```
/// use pointsman::payments::{Amount, AmountError};
///
/// let amount: Amount = "900.00".parse()?;
/// assert_eq!(amount.to_string(), "900");
/// assert_eq!("-1".parse::<Amount>(), Err(AmountError::Signed));
/// assert_eq!("1e5".parse::<Amount>(), Err(AmountError::Exponent));
/// assert_eq!("0.00".parse::<Amount>(), Err(AmountError::Zero));
/// # Ok::<(), AmountError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, AsExpression, FromSqlRow, Serialize, Deserialize)]
#[diesel(sql_type = Numeric)]
#[serde(into = "String", try_from = "String")]
pub struct Amount(BigDecimal);

/// The reasons why a value is not an [`Amount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmountError {
    /// The text is empty.
    #[error("an amount is missing: write digits, such as 12.50")]
    Empty,
    /// A plus or a minus sign.
    #[error("an amount has no sign: the kind of the transaction says its direction")]
    Signed,
    /// Scientific notation.
    #[error("an amount has no exponent: write all digits")]
    Exponent,
    /// A character that is neither a digit nor the one point, as in `NaN`.
    #[error("an amount is made of digits and at most one point, and {0:?} is neither")]
    Unexpected(char),
    /// A point without a digit before and after it.
    #[error("an amount has a digit before and after its point: write 0.5 and 5, not .5 and 5.")]
    BarePoint,
    /// More than [`Amount::INTEGER_DIGITS`] digits before the point.
    #[error("an amount has at most {} digits before the point", Amount::INTEGER_DIGITS)]
    TooLarge,
    /// More than [`Amount::FRACTION_DIGITS`] digits after the point.
    #[error("an amount has at most {} digits after the point: round it first", Amount::FRACTION_DIGITS)]
    TooFine,
    /// The value is zero.
    #[error("an amount is more than zero")]
    Zero,
}

impl Amount {
    /// Maximum digits before the point.
    pub const INTEGER_DIGITS: usize = 20;
    /// Maximum digits after the point.
    pub const FRACTION_DIGITS: usize = 18;

    /// Returns the number.
    pub fn as_decimal(&self) -> &BigDecimal {
        &self.0
    }

    /// Returns the number, by value.
    pub fn into_decimal(self) -> BigDecimal {
        self.0
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let (integer, fraction) = match text.split_once('.') {
            Some((_, "")) | Some(("", _)) => return Err(AmountError::BarePoint),
            Some(parts) => parts,
            None if text.is_empty() => return Err(AmountError::Empty),
            None => (text, ""),
        };
        for part in [integer, fraction] {
            match part.chars().find(|c| !c.is_ascii_digit()) {
                None => {}
                Some('+' | '-') => return Err(AmountError::Signed),
                Some('e' | 'E') => return Err(AmountError::Exponent),
                Some(other) => return Err(AmountError::Unexpected(other)),
            }
        }
        if integer.len() > Self::INTEGER_DIGITS {
            return Err(AmountError::TooLarge);
        }
        if fraction.len() > Self::FRACTION_DIGITS {
            return Err(AmountError::TooFine);
        }
        let decimal = BigDecimal::from_str(text).map_err(|_| AmountError::Empty)?;
        Self::try_from(decimal)
    }
}

impl TryFrom<BigDecimal> for Amount {
    type Error = AmountError;

    fn try_from(decimal: BigDecimal) -> Result<Self, AmountError> {
        if decimal.is_negative() {
            return Err(AmountError::Signed);
        }
        if !decimal.is_positive() {
            return Err(AmountError::Zero);
        }
        let decimal = decimal.normalized();
        let scale = decimal.fractional_digit_count();
        if scale > Self::FRACTION_DIGITS as i64 {
            return Err(AmountError::TooFine);
        }
        let integer_digits = i128::from(decimal.digits()) - i128::from(scale);
        if integer_digits > Self::INTEGER_DIGITS as i128 {
            return Err(AmountError::TooLarge);
        }
        Ok(Self(decimal))
    }
}

impl TryFrom<String> for Amount {
    type Error = AmountError;

    fn try_from(text: String) -> Result<Self, AmountError> {
        text.parse()
    }
}

impl From<Amount> for String {
    fn from(amount: Amount) -> Self {
        amount.to_string()
    }
}

/// Writes all significant digits.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_plain_string())
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Amount({self})")
    }
}

impl ToSql<Numeric, Pg> for Amount {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Numeric, Pg>::to_sql(&self.0, out)
    }
}

impl FromSql<Numeric, Pg> for Amount {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let decimal = <BigDecimal as FromSql<Numeric, Pg>>::from_sql(value)?;
        Ok(Self::try_from(decimal)?)
    }
}

#[cfg(test)]
mod tests;
