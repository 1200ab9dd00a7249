"""Which photos people are asked about: for what reason, in which order, and how many of them."""
