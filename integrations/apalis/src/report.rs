//! What a worker has to say: a `tracing` event if somebody listens, standard error otherwise. Never silent, as in `after`.

macro_rules! report {
    ($level:ident, $($argument:tt)+) => {
        if ::tracing::dispatcher::has_been_set() {
            ::tracing::$level!($($argument)+)
        } else {
            ::std::eprintln!("after-apalis: {}", ::std::format_args!($($argument)+))
        }
    };
}

pub(crate) use report;
