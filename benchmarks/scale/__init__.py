"""What grows with the number of photos, commits and runs: figures that docs/scale.md reckons with."""
