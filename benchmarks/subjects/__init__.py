"""What is measured. Each module is a process of its own, which `benchmarks.process` starts."""
