"""Which settings, and which backbone, are best: studies, and a search over all of it within a budget."""
