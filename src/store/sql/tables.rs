//! `Tables`: what the tables are called.

use crate::error::ConfigError;

/// The prefix that tables have where none is set.
const PREFIX: &str = "token_cache_";

/// What is in the schema: the tables and a function, without the prefix.
const TABLES: [&str; 7] = [
    "partitions",
    "entries",
    "leases",
    "changes",
    "keys",
    "schema",
    "tell",
];

/// Names that need no care in any dialect.
#[derive(Clone, Hash)]
pub(super) struct Tables {
    schema: Option<String>,
    prefix: String,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            schema: None,
            prefix: PREFIX.into(),
        }
    }
}

impl Tables {
    pub(super) fn set_schema(&mut self, schema: String) {
        self.schema = Some(schema);
    }

    pub(super) fn set_prefix(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let reason = "must be lower-case letters, digits and `_`, not begin with a digit, and be at most 32 long";
        if !self.schema.as_deref().is_none_or(is_name) {
            return Err(ConfigError::new("schema", reason));
        }
        match is_name(&self.prefix) {
            true => Ok(()),
            false => Err(ConfigError::new("table_prefix", reason)),
        }
    }

    /// The statement with the names in the place of `{partitions}` and so on, and of `{prefix}`.
    pub(super) fn fill(&self, statement: &str, quote: char) -> String {
        let prefix = statement.replace("{prefix}", &self.prefix);
        TABLES.iter().fold(prefix, |filled, table| {
            filled.replace(&format!("{{{table}}}"), &self.quoted(table, quote))
        })
    }

    #[cfg(feature = "mysql")]
    pub(super) fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// A name outside of the schema: of a channel or a lock.
    pub(super) fn plain(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn quoted(&self, table: &str, quote: char) -> String {
        let name = format!("{quote}{}{table}{quote}", self.prefix);
        match &self.schema {
            Some(schema) => format!("{quote}{schema}{quote}.{name}"),
            None => name,
        }
    }
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let first = name.bytes().next();
    name.len() <= 32 && name.bytes().all(fits) && first.is_some_and(|first| !first.is_ascii_digit())
}
