"""Label Studio as a labelling service: its HTTP interface, its projects, and the server of a lake's own."""
