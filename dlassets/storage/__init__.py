"""Where everything lies and how it is written: stores, paths, files, the one atomic write. No tables."""
