"""The report is one file, says the verdict in words, and is written for runs of any length and any peptide."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from timewarp.analysis.ensemble import Ensemble
from timewarp.analysis.report import write_report
from timewarp.dcd import Trajectory
from timewarp.mcmc.ess import bulk_ess


class Document(HTMLParser):
    """What a browser would fetch, and whether every tag is closed."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.fetched, self.open, self.tags, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetched += [value for key, value in attributes if key in ("src", "href", "srcset", "data")]
        self.open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def save_run(folder, peptide, sequence, chains, frames, rng, energies=True):
    _, positions, pdb = peptide(sequence)
    paths = []
    for i in range(chains):
        trajectory = Trajectory(folder / f"chain-{i:03d}.dcd", len(positions))
        trajectory.create()
        shaken = positions + 0.02 * rng.normal(size=(frames, *positions.shape))
        trajectory.write(0, shaken.astype(np.float32))
        paths.append(trajectory.path)
    rows = [f"{i},{t + 1},{-300 + rng.normal():.4f},{t % 2}" for i in range(chains) for t in range(frames)]
    log = folder / "log.csv"
    if energies:
        log.write_text("\n".join(["chain,step,potential_kj_per_mol,accepted", *rows]) + "\n")
    return pdb, paths, log


def written(folder, peptide, sequence, chains, frames, rng, report=None, **options):
    files = save_run(folder, peptide, sequence, chains, frames, rng, **options)
    return write_report({"peptide": sequence, "temperature": 310.0} | (report or {}), *files, ess=bulk_ess)


@pytest.mark.parametrize(
    ("sequence", "chains", "frames"),
    [
        ("AA", 1, 1),
        ("AA", 1, 0),
        ("AA", 20, 60),
        ("ACE-GLY-NH2", 1, 1),
        ("ACE-GLY-NME", 2, 40),
        ("GG", 1, 5),
        ("ALA-NH2", 2, 2),
        ("SVPG", 5, 200),
    ],
)
def test_any_run_gives_a_whole_page_that_fetches_nothing(tmp_path, peptide, rng, sequence, chains, frames):
    document = Document(written(tmp_path, peptide, sequence, chains, frames, rng))
    assert document.open == []
    assert all(value.startswith("data:") for value in document.fetched)
    assert not {"script", "iframe", "object"} & set(document.tags)
    assert ("img" in document.tags) == (frames > 0)


def test_a_molecule_without_any_dihedral_has_energies_still(tmp_path, rng):
    import mdtraj

    topology = mdtraj.Topology()
    residue = topology.add_residue("ACE", topology.add_chain())
    for name in ("CH3", "C", "O"):
        topology.add_atom(name, mdtraj.element.get_by_symbol(name[0]), residue)
    positions = rng.normal(size=(3, 3))
    mdtraj.Trajectory(positions[None], topology).save_pdb(str(tmp_path / "stub.pdb"))
    files = save_run(tmp_path, {"stub": (topology, positions, tmp_path / "stub.pdb")}.get, "stub", 2, 300, rng)
    text = write_report({"peptide": "stub"}, *files, ess=bulk_ess)
    assert "Energy and acceptance" in text
    assert not any(title in text for title in ("States", "Backbone", "Slow coordinates", "Dihedrals along"))


def test_figures_fetch_nothing_either(tmp_path, peptide, rng):
    import base64

    text = written(tmp_path, peptide, "SVPG", 4, 400, rng)
    figures = [base64.b64decode(data).decode() for data in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text)]
    assert len(figures) > 8
    for svg in figures:
        Document(svg)
        assert all(value.startswith(("#", "data:")) for value in re.findall(r"href=\"([^\"]*)\"", svg))
        assert "url(http" not in svg


def test_the_verdict_its_reasons_the_figures_and_the_command_are_in_words(tmp_path, peptide, rng):
    report = {"verdict": "not converged", "reasons": ["R-hat of psi 1 is 1.08, above 1.01"], "exact": True}
    report |= {"acceptance": 0.2808, "chains": 4, "ess": {"psi 1": 57.2, "min": 57.2}, "rhat": {"psi 1": 1.08}}
    report |= {"command": "timewarp sample <my>.pdb --seed 7"}
    text = " ".join(Document(written(tmp_path, peptide, "AA", 2, 3, rng, report)).words)
    for words in (
        "Not converged:",
        "R-hat of psi 1 is 1.08",
        "Exact: every move",
        "28.1 %",
        "sample <my>.pdb --seed 7",
    ):
        assert words in text
    report |= {"verdict": "converged", "reasons": [], "exact": False}
    text = " ".join(Document(written(tmp_path, peptide, "AA", 2, 3, rng, report)).words)
    assert "Converged:" in text
    assert "Not exact:" in text
    assert "No verdict" in written(tmp_path, peptide, "AA", 1, 1, rng)


def test_acceptance_is_told_move_by_move(tmp_path, peptide, rng):
    pdb, paths, log = save_run(tmp_path, peptide, "AA", 2, 20, rng)
    moves = {"flow": [1000, 815], "regrowth": [200, 50], "hamiltonian": [0, 0]}
    words = Document(write_report({"by_kernel": moves}, pdb, paths, log)).words
    at = words.index("flow, all torsions")
    assert [word for word in words[at : at + 20] if word.strip()][:9] == [
        *("flow, all torsions", "1,000", "81.5 %"),
        *("flow, some torsions", "200", "25 %"),
        *("Hamiltonian", "0", "unknown"),
    ]


def test_figures_are_marked_where_they_are_out_of_bounds(tmp_path, peptide, rng):
    report = {
        "chains": 4,
        "ess": {"psi 1": 399.0, "phi 2": 401.0, "min": 399.0},
        "rhat": {"psi 1": 1.001, "phi 2": None},
    }
    text = written(tmp_path, peptide, "AA", 4, 10, rng, report)
    assert re.findall(r"<td class=off>([^<]*)</td>", text) == ["399", "unknown"]


def test_names_from_a_file_cannot_inject_markup(tmp_path, peptide, rng):
    text = written(tmp_path, peptide, "AA", 1, 1, rng, {"peptide": "<script>x</script>", "reasons": ["<b>"]})
    assert not {"script", "b"} & set(Document(text).tags)


def test_missing_energies_broken_lines_and_uneven_chains_are_no_obstacle(tmp_path, peptide, rng):
    assert "Energy and acceptance" not in written(tmp_path, peptide, "AA", 2, 20, rng, energies=False)
    pdb, paths, log = save_run(tmp_path, peptide, "AA", 2, 20, rng)
    log.write_text(log.read_text() + "1,21,nan,1\n1,22,-3")
    Trajectory(paths[1], len(peptide("AA")[1])).cut(15)
    text = write_report({}, pdb, paths, log)
    assert "Energy and acceptance" in text
    assert "5 frames beyond the shortest are left out" in text


def test_a_file_of_another_program_is_read(tmp_path, peptide, rng):
    import mdtraj

    topology, _, pdb = peptide("AA")
    _, paths, _ = save_run(tmp_path, peptide, "AA", 1, 30, rng)
    mine = Ensemble.load(pdb, paths)
    mdtraj.load_dcd(str(paths[0]), top=topology).save_dcd(str(tmp_path / "other.dcd"))
    other = Ensemble.load(pdb, [tmp_path / "other.dcd"])
    np.testing.assert_allclose(np.cos(mine.angles - other.angles), 1, atol=1e-6)


def test_the_same_run_gives_the_same_bytes(tmp_path, peptide, rng):
    files = save_run(tmp_path, peptide, "AA", 1, 50, rng)
    assert write_report({}, *files) == write_report({}, *files)


def test_importing_the_analysis_loads_nothing_heavy():
    heavy = ["matplotlib", "mdtraj", "openmm", "scipy", "ot"]
    command = f"import sys, json, timewarp.analysis; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_notices_are_shown(tmp_path, peptide, rng):
    text = " ".join(
        Document(written(tmp_path, peptide, "AA", 1, 2, rng, {"notices": ["the flow is of <b>little use"]})).words
    )
    assert "The flow is of <b>little use." in text
