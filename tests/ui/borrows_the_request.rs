async fn handler(path: String) {
    after::defer(async {
        println!("{path}");
    });
}

fn main() {
    drop(handler(String::new()));
}
