"""Laws of the benchmark of samplers, and one real run."""
