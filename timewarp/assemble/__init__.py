"""Where flow, energy, kernels and files meet: one function a command."""
