fn main() {
    after::defer(|| println!("a closure is no future"));
    after::defer(|| async { println!("nor is one that makes a future") });
    after::defer(async || println!("nor is an async one"));
    after::task("audit").defer(|| println!("with options too"));
}
