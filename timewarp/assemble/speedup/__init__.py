"""What a sampler is worth on this machine: effective samples a second against the best MD that it could run instead.

A `Record` is what one process of a method leaves, a `Target` what all methods of a peptide are judged against, a row
what is found. A method that is stuck fails a gate, and wins nothing.
"""

from timewarp.assemble.speedup.compare import compare
from timewarp.assemble.speedup.race import race

__all__ = ["compare", "race"]
