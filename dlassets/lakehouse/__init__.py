"""What the lake holds and how it changes: tables, snapshots, labels, the training set, history, care."""
