"""Which images people should look at, how they are sent, and how answers come back."""
