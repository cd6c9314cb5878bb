"""Draws on other cores: the same as here, begun ahead, and lost with nothing else when a worker or the run is."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from timewarp.kernel import run
from timewarp.mcmc import Annealed, Crew, annealed
from timewarp.mcmc import crew as module
from timewarp.mcmc.crew import Drawn
from timewarp.state import State

from .bent import BENT, Straight
from .toys import seeded


@pytest.fixture(params=["processes", "threads"])
def way(request, monkeypatch):
    if request.param == "threads":
        monkeypatch.setattr(module.sys, "platform", "darwin")
    return request.param


def chain(crew, kind=Straight, steps=40):
    made = Annealed(BENT, kind(BENT), 2, 9, 0.4 * math.pi, particles=2, crew=crew)
    state, rng, evaluations = made.init(State.at(BENT.draw(20, seeded(0)), 0)), seeded(1), 0
    for state, info in run(made, state, steps, rng):  # noqa: B007, B020
        evaluations += info["evaluations"]
    return state.state.positions, state.log_net, evaluations, rng.get_state()


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    monkeypatch.setattr(annealed, "side_by_side", lambda atoms: 30)


def test_the_chains_are_the_same_with_any_number_of_cores(way):
    alone = chain(None)
    for cores in (1, 2, 5):
        with Crew(cores) as crew:
            found = chain(crew)
            assert (crew._workers is not None) == (cores > 1)
        for one, other in zip(found, alone, strict=True):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


@dataclass(frozen=True)
class Slow:
    """Draws that say who made them, after a while."""

    wait: float = 0.2
    name: str = "slow"

    def draws(self, count, seed):
        time.sleep(self.wait)
        if seed < 0:
            raise FloatingPointError("broken")
        return Drawn((torch.full((count,), float(seed)), torch.tensor([os.getpid()])), 7)


def test_what_was_begun_ahead_is_not_waited_for(way):
    with Crew(2) as crew:
        slow = Slow(1.0)
        crew.drawn(slow, [(1, 0)])  # the workers are there
        crew.expect(slow, [(3, 5), (2, 6)])
        time.sleep(2.0)
        began = time.monotonic()
        first, second = crew.drawn(slow, [(3, 5), (2, 6)])
        assert time.monotonic() - began < 0.9
        assert first.parts[0].tolist() == [5.0] * 3
        assert second.parts[0].tolist() == [6.0] * 2
        assert first.asked == 7
        assert (int(first.parts[1]) == os.getpid()) == (way == "threads")
        crew.expect(slow, [(1, 8)])
        assert crew.drawn(slow, [(1, 9)])[0].parts[0].tolist() == [9.0]  # another than was expected


def test_a_kernel_that_the_workers_do_not_know_draws_here(way):
    with Crew(2) as crew:
        crew.drawn(Slow(), [(1, 0)])
        other = crew.drawn(Slow(0.0, "other"), [(1, 4)])[0]
        assert other.parts[0].tolist() == [4.0]
        assert int(other.parts[1]) == os.getpid()


def test_what_fails_in_a_worker_is_raised(way):
    with Crew(2) as crew, pytest.raises(FloatingPointError, match="broken"):
        crew.drawn(Slow(0.0), [(1, 1), (1, -1)])


def test_a_lost_worker_is_done_without():
    with Crew(2) as crew:
        there = int(crew.drawn(Slow(0.0), [(1, 0)])[0].parts[1])
        assert there != os.getpid()
        crew.expect(Slow(0.0), [(1, 2)])
        os.kill(there, signal.SIGKILL)
        seed, found, until = 1, None, time.monotonic() + 30
        while found is None or (int(found.parts[1]) != os.getpid() and time.monotonic() < until):
            seed += 1
            found = crew.drawn(Slow(0.0), [(1, seed)])[0]
            assert found.parts[0].tolist() == [float(seed)]
        assert int(found.parts[1]) == os.getpid()  # the loss was noticed
        crew.expect(Slow(0.0), [(1, 4)])


def test_leaving_waits_for_nothing():
    began = time.monotonic()
    with Crew(2) as crew:
        crew.drawn(Slow(0.0), [(1, 0)])
        crew.expect(Slow(0.0), [(1, 1)])
        slow = Slow(30.0)
        crew._kernel = slow
        crew._workers.submit(time.sleep, 30.0)
    assert time.monotonic() - began < 5


PARENT = """
    import os, sys, time
    import torch
    from timewarp.mcmc import Crew
    from timewarp.mcmc.crew import Drawn

    class Told:
        def draws(self, count, seed):
            return Drawn((torch.tensor([os.getpid()]),), 0)

    with Crew(2) as crew:
        print(int(crew.drawn(Told(), [(1, 0)])[0].parts[0]), flush=True)
        time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the workers are threads")
def test_workers_die_with_a_run_that_is_killed_and_leave_ctrl_c_to_it():
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PARENT)], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    os.kill(worker, signal.SIGINT)
    time.sleep(0.2)
    assert alive(worker)
    process.kill()
    process.communicate()
    until = time.monotonic() + 10
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(worker)


def alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
