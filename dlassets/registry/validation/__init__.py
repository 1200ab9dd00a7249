"""Whether a registered version may be used: checks of it, each with a number, kept with the version."""
