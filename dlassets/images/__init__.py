"""Photos as bytes: decoding, validation, profiles, sample sets. No tables, no Dagster."""
