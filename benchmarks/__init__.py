"""What is measured, how, and what came out: `python -m benchmarks` prints the table, `results/` keeps the numbers."""
