"""Units: nm, ps, amu, kJ/mol, K, elementary charges; kernels see energies as U/kT."""

BOLTZMANN = 0.00831446261815324  # kJ/mol/K
COULOMB = 138.93545764438198  # kJ/mol nm e^-2, the 1/(4 pi eps0) of OpenMM's NonbondedForce
KCAL = 4.184  # kJ


def kT(temperature: float) -> float:
    """Thermal energy in kJ/mol at `temperature` in K.

    Raises:
        ValueError: if the temperature is not positive and finite.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"expected a positive temperature in K, got {temperature}")
    return BOLTZMANN * temperature
