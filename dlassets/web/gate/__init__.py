"""One log-in, and roles, in front of all that browsers reach: the gate, which the proxy asks about each request."""
