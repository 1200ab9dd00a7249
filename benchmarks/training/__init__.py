"""What training costs and yields, beside its peers: `command.PARTS` names the parts, modules with `measure`."""
