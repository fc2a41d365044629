"""The Docker engine: client, containers, facts of the machine, targets."""
