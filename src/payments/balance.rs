//! An exact, signed decimal.

use std::fmt;
use std::iter::Sum;
use std::ops::{AddAssign, SubAssign};
use std::str::FromStr;

use bigdecimal::{BigDecimal, Signed, Zero};
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Numeric;
use serde::{Serialize, Serializer};

use super::{Amount, AmountError, Kind};

/// A sum of amounts, which may be negative: deposits add, withdrawals subtract.
///
/// An account can be overdrawn, so a balance below zero is no error here.
///
/// ```
/// use pointsman::payments::{Balance, Kind};
///
/// let mut balance = Balance::default();
/// balance.apply(Kind::Deposit, &"10".parse()?);
/// balance.apply(Kind::Withdrawal, &"12.5".parse()?);
/// assert_eq!(balance.to_string(), "-2.5");
/// assert_eq!(balance, "-2.50".parse()?);
/// # Ok::<(), pointsman::payments::AmountError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = Numeric)]
pub struct Balance(BigDecimal);

impl Balance {
    /// Returns the number.
    pub fn as_decimal(&self) -> &BigDecimal {
        &self.0
    }

    /// Adds or subtracts an amount.
    pub fn apply(&mut self, kind: Kind, amount: &Amount) {
        match kind {
            Kind::Deposit => *self += amount,
            Kind::Withdrawal => *self -= amount,
        }
    }

    /// Returns `true` if the account is overdrawn.
    pub fn is_negative(&self) -> bool {
        self.0.is_negative()
    }
}

impl From<BigDecimal> for Balance {
    fn from(decimal: BigDecimal) -> Self {
        Self(decimal.normalized())
    }
}

impl AddAssign<&Amount> for Balance {
    fn add_assign(&mut self, amount: &Amount) {
        self.0 = (&self.0 + amount.as_decimal()).normalized();
    }
}

impl SubAssign<&Amount> for Balance {
    fn sub_assign(&mut self, amount: &Amount) {
        self.0 = (&self.0 - amount.as_decimal()).normalized();
    }
}

impl<'a> Sum<(Kind, &'a Amount)> for Balance {
    fn sum<T: Iterator<Item = (Kind, &'a Amount)>>(amounts: T) -> Self {
        let mut balance = Self::default();
        for (kind, amount) in amounts {
            balance.apply(kind, amount);
        }
        balance
    }
}

/// Reads the formats of an [`Amount`], and also zero and a leading minus.
impl FromStr for Balance {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        match digits.parse::<Amount>() {
            Ok(amount) if negative => Ok(Self(-amount.into_decimal())),
            Ok(amount) => Ok(Self(amount.into_decimal())),
            Err(AmountError::Zero) => Ok(Self(BigDecimal::zero())),
            Err(error) => Err(error),
        }
    }
}

/// Writes all significant digits.
impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_plain_string())
    }
}

impl fmt::Debug for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Balance({self})")
    }
}

impl Serialize for Balance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl ToSql<Numeric, Pg> for Balance {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Numeric, Pg>::to_sql(&self.0, out)
    }
}

impl FromSql<Numeric, Pg> for Balance {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self::from(<BigDecimal as FromSql<Numeric, Pg>>::from_sql(value)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_plain_numbers() {
        for (text, written) in [("0", "0"), ("-0.00", "0"), ("1000", "1000"), ("-12.30", "-12.3")] {
            assert_eq!(text.parse::<Balance>().unwrap().to_string(), written);
        }
        assert_eq!("--1".parse::<Balance>(), Err(AmountError::Signed));
        assert_eq!("1e3".parse::<Balance>(), Err(AmountError::Exponent));
    }

    proptest! {
        #[test]
        fn agrees_with_integers(steps in prop::collection::vec((any::<bool>(), 1i64..1_000_000), 0..50)) {
            let mut cents = 0;
            let mut balance = Balance::default();
            for (up, step) in steps {
                let amount = format!("{}.{:02}", step / 100, step % 100).parse().unwrap();
                let kind = if up { Kind::Deposit } else { Kind::Withdrawal };
                cents += if up { step } else { -step };
                balance.apply(kind, &amount);
            }
            prop_assert_eq!(balance, Balance::from(BigDecimal::new(cents.into(), 2)));
        }
    }
}
