//! What must not compile, and what it says; and programs against the public names.

/// Bad input: a task of the wrong type is a compiler message that says what to write.
#[test]
fn wrong_programs_do_not_compile_and_are_told_what_to_write() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
