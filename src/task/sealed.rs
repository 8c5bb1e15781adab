//! What seals [`TaskResult`](super::TaskResult).

use super::result::{BoxError, End};

pub trait Sealed {
    #[doc(hidden)]
    fn into_end(self) -> End;
}

/// Names `!` on stable Rust: it is the output type of `fn() -> !`.
pub trait Output {
    type Type;
}
impl<T> Output for fn() -> T {
    type Type = T;
}
pub(crate) type Never = <fn() -> ! as Output>::Type;

impl Sealed for () {
    #[inline]
    fn into_end(self) -> End {
        End::Completed
    }
}

impl Sealed for Never {
    fn into_end(self) -> End {
        self
    }
}

impl<T, E: Into<BoxError>> Sealed for Result<T, E> {
    #[inline]
    fn into_end(self) -> End {
        match self {
            Result::Ok(_) => End::Completed,
            Err(error) => End::Failed(error.into()),
        }
    }
}
