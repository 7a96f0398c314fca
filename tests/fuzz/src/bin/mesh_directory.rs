#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| laws::mesh_directory::check(input));
