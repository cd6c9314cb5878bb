"""Laws of the flows and their charts."""
