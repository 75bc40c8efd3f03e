//! Memory is bounded by the input.

/// Runs `read` on an input of `len` bytes.
///
/// # Panics
/// When it held more than `fixed` bytes and `each` bytes per byte of the input at some moment.
#[expect(clippy::expect_used, reason = "what is measured always runs")]
pub(crate) fn bounded<T>(len: usize, each: u64, fixed: u64, read: impl FnOnce() -> T) -> T {
    let mut result = None;
    let used = allocation_counter::measure(|| result = Some(read())).bytes_max;
    let most = each * len as u64 + fixed;
    assert!(used <= most, "{len} bytes of input need {used} bytes of memory, expected at most {most}");
    result.expect("what was measured has run")
}
