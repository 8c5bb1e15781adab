#![deny(unused_must_use)]

fn main() {
    after::task("audit");
    after::scope(async {});
}
