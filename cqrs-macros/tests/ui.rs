//! Every rule of the macros, as a program that does not compile and the message that says why.

#[test]
fn ui() {
    trybuild::TestCases::new().compile_fail("tests/ui/*/*.rs");
}
