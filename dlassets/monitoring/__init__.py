"""What must hold of the tables, and pictures to look at."""
