"""`--verify`: OpenMM has the last word on the moves of exact chains, and the report says what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from timewarp import units
from timewarp.assemble.tally import Tally
from timewarp.mcmc import Delayed

if TYPE_CHECKING:
    from timewarp.md.system import Prepared

PLATFORM = "Reference"  # double precision, and the same on every machine


def verified(kernel: Any, prepared: Prepared, temperature: float) -> Delayed:
    """The same kernel, whose accepted moves OpenMM tests again with its own energy."""
    from timewarp.md.energy import OpenMMEnergy

    return Delayed(kernel, OpenMMEnergy(prepared.system, temperature, PLATFORM))


def verification(tally: Tally, temperature: float) -> dict[str, Any]:
    """What report.json says of the second tests; the difference is the largest of the two energies, in kJ/mol."""
    return {
        "platform": PLATFORM,
        "tests": tally.judged,
        "refused": tally.refused,
        "largest_difference_kj_per_mol": tally.difference * units.kT(temperature),
    }


def said(found: dict[str, Any]) -> str:
    """The same in a sentence."""
    return (
        f"OpenMM ({found['platform']} platform, double precision) had the last word: it tested {found['tests']} "
        f"accepted moves again and refused {found['refused']}; its energy and that of the batch differed by "
        f"{found['largest_difference_kj_per_mol']:.2g} kJ/mol at most"
    )
