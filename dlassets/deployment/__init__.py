"""Everything that a team shares, on one machine under a supervisor: what `dlassets up` starts and `down` stops."""
