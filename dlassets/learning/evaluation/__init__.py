"""How good a model is, how sure it may be, where it is worse and why, and which labels look wrong."""
