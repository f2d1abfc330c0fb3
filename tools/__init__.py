"""What developers run: benchmarks, soak tests, agreement between engines, the conformance matrix."""
