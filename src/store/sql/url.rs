//! What a URL may say.

use crate::error::ConfigError;

/// Checks the scheme, and that the names of all options are known: one that is misspelt is no default.
pub(super) fn check(
    url: &str,
    scheme: &[&str],
    schemes: &'static str,
    options: &[&str],
) -> Result<(), ConfigError> {
    let (found, rest) = url.split_once("://").unwrap_or_default();
    if !scheme.contains(&found) {
        return Err(ConfigError::new("url", schemes));
    }
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if !options.contains(&name) {
            return Err(ConfigError::because(
                "url",
                format!(
                    "has no option of that name: it can have {}",
                    options.join(", ")
                ),
            ));
        }
    }
    Ok(())
}

/// Why the URL cannot be read.
pub(super) fn unreadable(error: sqlx::Error) -> ConfigError {
    ConfigError::new("url", "cannot be read").with_source(error)
}
