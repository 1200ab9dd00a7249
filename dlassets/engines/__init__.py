"""What a table goes through, on one machine (`local`) or on Spark (`spark`), behind one interface."""
