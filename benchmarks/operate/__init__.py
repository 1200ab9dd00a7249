"""What running a lake costs, beside its work: `command.PARTS` names the parts, modules with `measure`."""
