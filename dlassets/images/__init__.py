"""One photo as bytes: decoded, validated, profiled. No tables."""
