"""Laws of the analysis."""
