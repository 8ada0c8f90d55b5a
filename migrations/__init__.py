"""The schema of a queue file, as sqlite-utils migrations. Shipped in the wheel."""
