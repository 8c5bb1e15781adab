fn main() {
    after::defer(async { 7 });
}
