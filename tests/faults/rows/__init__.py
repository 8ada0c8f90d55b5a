"""One module a fault, each with its `FAULT`."""
