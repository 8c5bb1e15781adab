//! Lines of a name and its figures.

/// Prints one line; figures stand right, twelve wide.
pub(crate) fn line(name: &str, figures: &[String]) {
    let mut line = format!("  {name:<26}");
    for figure in figures {
        line.push_str(&format!("{figure:>12}"));
    }
    println!("{}", line.trim_end());
}

/// As `line`, for numbers.
pub(crate) fn numbers(name: &str, figures: &[u64]) {
    let figures: Vec<_> = figures.iter().map(u64::to_string).collect();
    line(name, &figures);
}

/// As `line`, for words.
pub(crate) fn heads(name: &str, heads: &[&str]) {
    let heads: Vec<_> = heads.iter().map(|&head| head.into()).collect();
    line(name, &heads);
}
