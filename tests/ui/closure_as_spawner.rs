fn main() {
    after::Runner::new(|batch: after::Batch| drop(batch));
}
