"""One training: of a head, or of a network on pixels; here, in several processes, or on Spark."""
