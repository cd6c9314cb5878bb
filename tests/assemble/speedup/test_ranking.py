"""Speed-ups are against the best MD, or against the most that MD can have reached; the page shows several at once."""

import json
from html.parser import HTMLParser

import pytest

from timewarp import assemble
from timewarp.analysis.speedups import draw
from timewarp.assemble.speedup.ranking import ranked
from timewarp.assemble.speedup.table import middle, table, times
from timewarp.cli import execute
from timewarp.settings import CompareSettings

from . import toy


def test_the_fastest_md_that_passed_is_what_counts():
    slow = toy.row(method="md-paper", ess_per_second=0.01)
    fast = toy.row(method="md-tuned", ess_per_second=0.2, states_seconds=50.0)
    other = toy.row(peptide="GG", method="md-2fs", ess_per_second=7.0)
    found = {(r["peptide"], r["method"]): r for r in ranked([slow, fast, other, toy.row()])}
    row = found["AA", "sample"]
    assert (row["speedup"], row["speedup_at_least"]) == (pytest.approx(50), False)
    assert row["speedup_paper"] == pytest.approx(1000)
    assert row["states_speedup"] == pytest.approx(1.0)  # of md-paper, which saw them at 3 s
    assert found["AA", "md-tuned"]["speedup"] == 1
    assert found["GG", "md-2fs"]["speedup"] == 1
    assert times(row, "speedup") == "50x"


def test_md_that_failed_a_gate_gives_a_lower_bound():
    paper = toy.row(method="md-paper", ess_per_second=30.0, ess_bound_per_second=0.1, gates=["R-hat 2.00"])
    tuned = toy.row(method="md-tuned", ess_per_second=9.0, ess_bound_per_second=0.5, gates=["1 basin missed"])
    paper["states_seconds"] = tuned["states_seconds"] = None
    row = ranked([paper, tuned, toy.row()])[2]
    assert (row["speedup"], row["speedup_at_least"]) == (pytest.approx(20), True)
    assert (row["speedup_paper"], row["speedup_paper_at_least"]) == (pytest.approx(100), True)
    assert row["speedup_apparent"] == pytest.approx(10 / 30)
    assert (row["states_speedup"], row["states_speedup_at_least"]) == (pytest.approx(10 / 3), True)
    assert times(row, "speedup") == ">= 20x"
    assert ranked([paper, tuned])[0]["speedup"] == 0


def test_what_long_md_would_be_worth_is_estimated_by_its_slowest_timescale():
    """40 ps in 10 s at 200 ps: 0.01 a second, 1000 times less than 10; the row that failed counts as 0."""
    md = [
        toy.row(p, "md-tuned", gates=["R-hat 2.00"], picoseconds=40.0, timescale_ps=200.0) for p in ("AA", "GG", "VV")
    ]
    rows = [toy.row(), toy.row("GG", ess_per_second=20.0), toy.row("VV", gates=["R-hat 2.00"])]
    said = "median speed-up of sample, MD estimated by its slowest timescale: 1e+03x of 3 over md-tuned"
    assert said in table(ranked([*md, *rows]))
    unknown = [row | {"timescale_ps": None} for row in md]
    assert "slowest timescale" not in table(ranked([*unknown, *rows]))


def test_without_md_there_is_no_speed_up():
    row = ranked([toy.row()])[0]
    assert row["speedup"] is None
    assert times(row, "speedup") == "-"


@pytest.fixture
def benches(tmp_path):
    """Two files: on the second machine <script> fails."""
    for name, factor in (("laptop", 1.0), ("node", 4.0)):
        rows = [toy.row(p, "md-tuned", ess_per_second=0.1 * factor, atoms=a) for p, a in (("AA", 23), ("LI", 41))]
        rows += [toy.row(p, "sample:2aa", ess_per_second=9 * factor, atoms=a) for p, a in (("AA", 23), ("LI", 41))]
        rows.append(toy.row("<script>", "sample:2aa", gates=["R-hat 2.00"], atoms=30))
        (tmp_path / name).mkdir()
        (tmp_path / name / "bench.json").write_text(json.dumps(ranked(rows)))
    return [tmp_path / name / "bench.json" for name in ("laptop", "node")]


class Reader(HTMLParser):
    """Holds every tag to be closed in its turn, and collects what is fetched."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_well_formed_and_needs_nothing_else(benches, tmp_path, capsys):
    assert execute(["bench", "--compare", *map(str, benches), "--out", str(tmp_path / "page")]) == 0
    assert "2 benchmarks" in capsys.readouterr().out
    text = (tmp_path / "page" / "compare.html").read_text()
    read = Reader(text)
    assert read.open == []
    assert read.fetched
    assert all(value.startswith("data:") for value in read.fetched)
    assert "@import" not in text
    assert "url(" not in text
    assert "<script" not in text
    words = " ".join(read.text)
    for expected in ("laptop", "node", "<script>", "90x", "(10)", "R-hat 2.00", "abacus"):
        assert expected in words


def test_files_of_one_name_are_told_apart_by_their_folders(benches, tmp_path):
    again = tmp_path / "other" / "node" / "bench.json"
    again.parent.mkdir(parents=True)
    again.write_bytes(benches[1].read_bytes())
    assemble.compare(CompareSettings(out=tmp_path, files=(*benches, again)), lambda *_: None, lambda: False)
    assert "other/node" in (tmp_path / "compare.html").read_text()


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '[{"peptide": "AA"}]'])
def test_what_is_no_benchmark_is_refused(tmp_path, capsys, text):
    (tmp_path / "bench.json").write_text(text)
    assert execute(["bench", "--compare", str(tmp_path / "bench.json"), "--out", str(tmp_path / "page")]) == 2
    assert "expected" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "expected peptides, or --energy, or --compare"),
        (("--compare",), "--compare: expected one bench.json or more"),
        (("AA", "--energy", "--compare"), "expected one of --energy, --md and --compare"),
        (("AA", "--method", "guess"), "--method: expected one of md-paper"),
        (("AA", "--seconds", "0"), "--seconds: expected more than 0"),
        (("AA", "--reference-frames", "5"), "--reference-frames: expected 50 or more"),
        (("AA", "--checkpoint", "nowhere"), "no checkpoint"),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, words, said):
    assert execute(["bench", *words, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_figures_are_drawn_of_what_there_is(benches, tmp_path):
    rows = json.loads(benches[0].read_text())
    curve = {
        "trace": {"seconds": [1.0, 2.0, 3.0], "slow": [0.0, 1.0, 0.0]},
        "autocorrelation": {"seconds": [0.0, 1.0], "value": [1.0, 0.2]},
    }
    draw(rows, {"AA": {"md-tuned": curve, "sample:2aa": curve}, "LI": {"md-tuned": {}}}, tmp_path)
    names = {"speedup.png", "length.png", "autocorrelation.png", "trace.png", "states.png"}
    assert {path.name for path in tmp_path.glob("*.png")} == names
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)
    assert "never" not in table(rows)
    assert "median speed-up of sample:2aa: 90x of 2 over the fastest MD" in table(rows)
    assert "median speed-up of sample:2aa: 1x of 2 in finding all states, over the fastest MD" in table(rows)


def test_a_median_is_from_below_if_what_is_in_its_middle_is():
    def rows(*found):
        return [toy.row(str(k), speedup=value, speedup_at_least=bound) for k, (value, bound) in enumerate(found)]

    assert middle(rows((5, False), (7, True), (0, False)), "sample", "speedup") == "5x of 3"
    assert middle(rows((5, True), (7, False), (0, False)), "sample", "speedup") == ">= 5x of 3"
    assert middle(rows((5, False), (7, True)), "sample", "speedup") == ">= 6x of 2"
    assert middle(rows((2, True), (7, False), (9, False)), "sample", "speedup") == ">= 7x of 3"
    assert middle([toy.row()], "sample", "speedup") is None
