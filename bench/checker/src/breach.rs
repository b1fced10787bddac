//! How the parts of the checker say that something does not hold.

/// An invariant and what contradicts what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    pub(crate) invariant: &'static str,
    pub(crate) text: String,
}

/// What a judgement ends with.
pub(crate) type Verdict<T = ()> = Result<T, Breach>;

/// Ends the function with a breach of this invariant.
macro_rules! breach {
    ($invariant:expr, $($text:tt)*) => {
        return Err($crate::breach::Breach { invariant: $invariant, text: format!($($text)*) })
    };
}

/// Ends the function with a breach of this invariant unless the condition holds.
macro_rules! hold {
    ($condition:expr, $invariant:expr, $($text:tt)*) => {
        if !$condition {
            $crate::breach::breach!($invariant, $($text)*);
        }
    };
}

pub(crate) use {breach, hold};
