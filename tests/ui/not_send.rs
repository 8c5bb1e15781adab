use std::rc::Rc;

fn main() {
    let local = Rc::new(7);
    after::defer(async move {
        println!("{local}");
    });
}
