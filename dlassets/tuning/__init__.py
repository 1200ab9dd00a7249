"""Settings of training found by trying them: studies and AutoML."""
