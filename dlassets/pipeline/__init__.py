"""The one composition: a session, the steps on it, and those who run them outside of Dagster."""
