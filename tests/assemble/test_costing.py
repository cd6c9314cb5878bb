"""What a proposal takes is told apart by whose time it is, by a clock that the parts themselves set forward."""

from dataclasses import replace

import pytest

from timewarp.assemble import costing
from timewarp.assemble.judges import Judge
from timewarp.energy import Potential
from timewarp.flow.cartesian import Cartesian
from timewarp.flow.internal import Internal, InternalProposal

from .runs import CARTESIAN, INTERNAL

FLOW, ENERGY = 5.0, 2.0  # of a call


@pytest.fixture
def told(shards, monkeypatch):
    """GG; a clock that stands still but in the energy and in the flow; and how often each was called."""
    peptide = Judge.read(shards / "GG.safetensors").peptide
    clock, calls = [0.0], {"flow": 0, "energy": 0}

    def taking(name, seconds, call):
        def slowly(*args, **kwargs):
            calls[name] += 1
            clock[0] += seconds
            return call(*args, **kwargs)

        return slowly

    class Slow(Potential):
        __call__ = taking("energy", ENERGY, Potential.__call__)
        slope = taking("energy", ENERGY, Potential.slope)

    monkeypatch.setattr(costing, "now", lambda _: clock[0])
    monkeypatch.setattr(InternalProposal, "torsions", taking("flow", FLOW, InternalProposal.torsions))
    return peptide, Slow(peptide.molecule, peptide.temperature), clock, calls


def test_each_part_has_the_time_that_it_took(told):
    peptide, potential, clock, calls = told
    flow = Internal(replace(INTERNAL, harmonics=12)).eval().requires_grad_(False)
    found = costing.cost_of(flow, peptide.molecule, potential, peptide.chart.arrays(), 2, 40.0)
    rounds = calls["flow"] - 1  # the first warms up
    count = costing.side_by_side(peptide.molecule.atoms) // 2
    each = (clock[0] - FLOW * calls["flow"]) / (ENERGY * calls["flow"])  # calls of the energy in a round
    assert rounds > 1
    assert each == pytest.approx(calls["energy"] / calls["flow"])
    assert each >= sum(peptide.stiff.cost) + 1
    whole = found["milliseconds"] * count * rounds / 1000
    assert found["flow"] == pytest.approx(FLOW * rounds / whole)
    assert found["energy"] == pytest.approx(1 - found["flow"])
    assert found["chart"] == pytest.approx(0.0, abs=1e-9)


def test_a_flow_in_cartesian_coordinates_has_no_chart(told):
    peptide, potential, _, calls = told
    flow = Cartesian(CARTESIAN).eval().requires_grad_(False)
    found = costing.cost_of(flow, peptide.molecule, potential, peptide.chart.arrays(), 2, 4.0)
    assert (calls["flow"], found["chart"]) == (0, 0.0)
    assert found["energy"] == pytest.approx(1.0)
    assert found["milliseconds"] == pytest.approx(1000 * ENERGY / costing.CHAINS)
