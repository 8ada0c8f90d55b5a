"""What the machine can do to a queue, done to it, and judged by an oracle.

`python -m tests.faults` runs every row and prints the table; `--write` puts it into
docs/explanation/reliability.md. One fault is one module in `rows`; `registry` lists them. The suite
runs the quick part of each, and the control that must go red.
"""
