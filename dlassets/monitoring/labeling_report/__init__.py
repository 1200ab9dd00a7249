"""What labelling bought: counted by SQL, made into figures, kept as a table, drawn, and told of on models' versions."""
