fn main() {
    let user = 7;
    // What differs by request is no name: `after::task("mail").key(format!("user:{user}"))`.
    after::task(format!("mail of {user}")).defer(async {});
    after::task(&format!("mail of {user}")).defer(async {});
}
