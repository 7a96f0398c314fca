#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| laws::certificate_chain::check(input));
