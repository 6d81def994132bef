"""What event logs of several processes have in common, whatever store they are in."""
