"""What `make bench` measures: how good the models are, and how long things take, beside peers in the same run."""
