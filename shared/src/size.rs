//! Budgets for the memory of futures: a connection costs what its task holds at its widest, from
//! beginning to end, also for a stage that is over in a moment. Such stages go into boxes.

/// A pointer to an `async fn`.
pub trait AsyncFn: Copy {
    /// Its future.
    type Future;
}

macro_rules! arities {
    ($(($($argument:ident),*))*) => {$(
        impl<F, $($argument),*> AsyncFn for fn($($argument),*) -> F {
            type Future = F;
        }
    )*};
}

arities! { (A) (A, B) (A, B, C) (A, B, C, D) }

/// The size of the future that `function` makes.
pub const fn of<P: AsyncFn>(function: P) -> usize {
    let _ = function;
    size_of::<P::Future>()
}

/// Fails to compile when the future of an `async fn` is larger than its budget in bytes. As an
/// assertion could not name the size, it is an index: "the length is (budget + 1) but the index is
/// (size)".
///
/// ```
/// async fn serve(buffer: [u8; 100], times: u32) {
///     for _ in 0..times {
///         std::future::ready(()).await;
///     }
///     drop(buffer);
/// }
/// shared::assert_size!(serve, fn(_, _) -> _, 256);
/// ```
///
/// ```compile_fail
/// async fn serve(buffer: [u8; 100], times: u32) {
///     for _ in 0..times {
///         std::future::ready(()).await;
///     }
///     drop(buffer);
/// }
/// shared::assert_size!(serve, fn(_, _) -> _, 64);
/// ```
#[macro_export]
macro_rules! assert_size {
    ($function:path, $pointer:ty, $budget:expr) => {
        const _: () = [(); $budget + 1][$crate::size::of($function as $pointer)];
    };
}
