"""Which systems a flow can move, and what is said of the others: one line, with what to do.

**Constraints.** Dynamics with rigid bonds sample a density on the surface where the lengths r_c are what they are held
at: exp(-U/kT) |dx/dR| sqrt(det Z) over the other coordinates, Z_ab = sum_i grad_i r_a . grad_i r_b / m_i (Fixman 1974).
The flow proposes all coordinates R, those lengths among them, with a density over R; a proposal that was put onto the
surface afterwards has another one. An exact move needs the flow's Gaussian of the stiff coordinates conditioned on the
lengths, and det Z in the test. That is not built, so a System with constraints is refused.

**Explicit solvent.** A proposed peptide stands where water stands: its energy is that of a clash, and the probability
to accept it is zero for all purposes. The exact route is a nonequilibrium switch during which the water responds;
that is not built either.
"""

from __future__ import annotations

import openmm
from openmm import app

from timewarp.md.assemble import IONS, WATER
from timewarp.md.faults import InputError
from timewarp.md.residues import HEAD, TAIL, standard

MOST = 10  # amino acids
_BACKBONE = {"N", "CA", "C"}


def require_embeddable(topology: app.Topology, system: openmm.System) -> None:
    """Raise unless this is one peptide, in vacuum or implicit solvent, all of whose coordinates move freely.

    Raises:
        InputError: one line: what was expected, what was found, what to do.
    """
    if topology.getNumAtoms() != system.getNumParticles():
        raise InputError(
            f"expected a topology of the {system.getNumParticles()} particles of the System, found "
            f"{topology.getNumAtoms()} atoms; give the Simulation the topology that its System was made from"
        )
    _no_solvent(topology, system)
    _one_peptide(topology)
    _all_move(system)


def _no_solvent(topology: app.Topology, system: openmm.System) -> None:
    solvent = [residue.name for residue in topology.residues() if residue.name in WATER | IONS]
    if solvent:
        raise InputError(
            f"expected a peptide in vacuum or implicit solvent, found {len(solvent)} molecules of solvent: where the "
            "flow puts the peptide, explicit solvent stands already and no proposal would be accepted; use an implicit "
            "solvent such as implicit/obc2.xml, or plain dynamics"
        )
    if system.usesPeriodicBoundaryConditions():
        raise InputError(
            "expected a peptide in vacuum or implicit solvent, found periodic boundary conditions; create the System "
            "with nonbondedMethod=NoCutoff or CutoffNonPeriodic"
        )


def _one_peptide(topology: app.Topology) -> None:
    residues = list(topology.residues())
    caps = HEAD.keys() | TAIL.keys()
    amino = [r for r in residues if {atom.name for atom in r.atoms()} >= _BACKBONE]
    odd = [r.name for r in residues if r not in amino and (standard(r.name) or ("",))[0] not in caps]
    if odd or not amino:
        raise InputError(
            f"expected one peptide of 1 to {MOST} amino acids, found {', '.join(odd[:3]) or 'none'}; the flow was "
            "trained on peptides: use plain dynamics for other molecules"
        )
    if len(amino) > MOST:
        raise InputError(
            f"expected a peptide of 1 to {MOST} amino acids, found {len(amino)}; cut it to a fragment, or use plain "
            "dynamics"
        )
    parts = _molecules(topology)
    if parts > 1:
        raise InputError(
            f"expected one molecule whose bonds the topology has, found {parts}; keep one chain, or add the missing "
            "bonds (topology.createStandardBonds())"
        )


def _all_move(system: openmm.System) -> None:
    atoms = range(system.getNumParticles())
    if system.getNumConstraints():
        raise InputError(
            f"expected a System without constraints, found {system.getNumConstraints()}: a flow move changes bond "
            "lengths too; create it with constraints=None, and hydrogenMass=3*amu if a step of 2 fs is wanted"
        )
    if any(system.isVirtualSite(atom) for atom in atoms):
        raise InputError("expected a System without virtual sites, found some; use a force field of atoms alone")
    held = sum(system.getParticleMass(atom)._value == 0 for atom in atoms)
    if held:
        raise InputError(f"expected atoms that all move, found {held} of mass 0; give them their masses")


def _molecules(topology: app.Topology) -> int:
    """How many parts the bonds leave."""
    root = list(range(topology.getNumAtoms()))

    def find(atom: int) -> int:
        while root[atom] != atom:
            root[atom] = root[root[atom]]
            atom = root[atom]
        return atom

    for a, b in topology.bonds():
        root[find(a.index)] = find(b.index)
    return len({find(atom) for atom in root})
