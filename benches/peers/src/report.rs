//! Medians, and bars with their verdicts.

/// The middle value; sorts its argument.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints one bar. Returns whether it holds.
pub fn bar(what: &str, measured: f64, limit: f64, at_least: bool) -> bool {
    let holds = match at_least {
        true => measured >= limit,
        false => measured <= limit,
    };
    let (relation, verdict) = (
        if at_least { '≥' } else { '≤' },
        if holds { "ok" } else { "MISSED" },
    );
    println!("{what:<66} {measured:>9.3} {relation} {limit:<8} {verdict}");
    holds
}
