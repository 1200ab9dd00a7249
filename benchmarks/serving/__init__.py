"""What a model's use costs, beside its peers: `command.PARTS` names the parts, modules with `measure`."""
