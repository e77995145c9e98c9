"""One file per bench; `python -m benchmarks.<file> [--quick] [--json]`. `python -m benchmarks.all` writes RESULTS.md."""
