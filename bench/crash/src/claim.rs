//! Claims about what the server did. One that does not hold ends the lane with
//! [`Trouble::Wrong`](crate::wire::Trouble::Wrong), and with it the run.

/// Ends the function with what must never be.
macro_rules! wrong {
    ($($text:tt)*) => {
        return Err($crate::wire::Trouble::Wrong(format!($($text)*)))
    };
}

/// Ends the function with the text when the condition does not hold.
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err($crate::wire::Trouble::Wrong(format!($($text)*)));
        }
    };
}

/// Ends the function with both values and the text when they differ.
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($text:tt)*) => {
        match (&$left, &$right) {
            (left, right) => {
                if *left != *right {
                    let text = format!($($text)*);
                    return Err($crate::wire::Trouble::Wrong(format!(
                        "{text}: {left:?} where {right:?} is right"
                    )));
                }
            }
        }
    };
}

pub(crate) use {ensure, ensure_eq, wrong};
