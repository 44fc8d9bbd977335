"""Commands do what their functions do, print results to stdout and the rest to stderr."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

import onnxprune
from onnxprune.cli import demo
from onnxprune.cli.commands import main
from onnxprune.cli.options import TUNING
from onnxprune.data import Data
from onnxprune.errors import OutputError
from onnxprune.relevance.criteria import Scores, score
from onnxprune.search.control import Control
from tests.support.models import model, run
from tests.support.small_net import Small

FREE = ("--control", "one-shot", "--criterion", "magnitude", "--threads", "1")
PINNED = """
net (float[N,2,4,4] x) => (float[N,3,4,4] y)
<float[5,2,1,1] w1, float[5,5,1,1] w2, float[3,5,1,1] w3> {
  a = Conv(x, w1)
  b = Conv(a, w2)
  s = Add(a, b)
  y = Conv(s, w3)
}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def call(*arguments: object) -> Result:
    """Run a command that must succeed."""
    result = CliRunner().invoke(main, [str(word) for word in arguments])
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output, "control codes in a log"
    return result


# inspect


def test_inspect_gives_the_promised_keys(folder: Path) -> None:
    onnx.save(model(PINNED), folder / "m.onnx")
    found = json.loads(call("inspect", "m.onnx", "--json").stdout)
    assert {"params", "macs", "filters", "removable_filters", "groups"} <= found.keys()
    assert (found["params"], found["filters"], found["removable_filters"]) == (50, 13, 10)
    assert found["macs"] == 50 * 16
    tied, last = found["groups"]
    assert (tied["name"], tied["channels"], tied["removable"]) == ("a", 5, 5)
    assert tied["convolutions"] == ["a", "b"]
    assert tied["reason"] is None
    assert {"tensor": "s", "axis": 1} in tied["members"]
    assert {"tensor": "w3", "axis": 1} in tied["members"]
    assert (last["name"], last["channels"], last["removable"]) == ("y", 3, 0)
    assert last["reason"] == "is the graph output 'y'"
    # One channel of a and b: a row of w1, a row and a column of w2 less what both count, of w3.
    assert tied["params_saved"] == 2 + 5 + 5 + 3
    assert tied["macs_saved"] == 16 * (2 + 5 + 5 + 3)


def test_inspect_shows_a_table_and_the_totals(folder: Path) -> None:
    onnx.save(model(PINNED), folder / "m.onnx")
    result = call("inspect", "m.onnx")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["1", "a", "5", "100", "%", "8", "120"] in rows
    assert ["b", "5"] in rows
    assert ["2", "y", "3", "0", "%", "5", "80"] in rows
    assert ["2", "is", "the", "graph", "output", "'y'", "3"] in rows
    assert "50 parameters, 800 MACs, 13 filters, of which 10 (76.9 %) may go" in result.stdout
    assert result.stderr == ""


def test_a_narrow_table_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(model(PINNED), folder / "m.onnx")
    monkeypatch.setenv("COLUMNS", "60")
    *table, _ = call("inspect", "m.onnx").stdout.splitlines()
    assert max(map(len, table)) <= 60
    words = " ".join(table).split()
    assert {"5", "100", "0", "3", "8", "120", "is", "the", "graph", "output", "'y'"} <= set(words)


def test_inspect_draws(folder: Path) -> None:
    onnx.save(model(PINNED), folder / "m.onnx")
    result = call("inspect", "m.onnx", "--svg", "net.svg")
    assert result.stderr == "drawing: net.svg\n"
    svg = (folder / "net.svg").read_text(encoding="utf-8")
    assert svg.count("5 filters, 100 %") == 2
    as_json = call("inspect", "m.onnx", "--svg", "again.svg", "--json")
    assert json.loads(as_json.stdout)["coverage"] == pytest.approx(10 / 13)
    assert (folder / "again.svg").read_text(encoding="utf-8") == svg


def test_a_drawing_without_a_place_is_refused_before_the_work(folder: Path) -> None:
    onnx.save(model(PINNED), folder / "m.onnx")
    result = CliRunner().invoke(main, ["inspect", "m.onnx", "--svg", "missing/net.svg"])
    assert result.exit_code == 1
    assert "missing does not exist" in result.output
    assert [file.name for file in folder.iterdir()] == ["m.onnx"]


def test_inspect_shows_what_could_go_inexactly(folder: Path) -> None:
    text = PINNED.replace("s = Add(a, b)", "t = Add(a, b) s = LayerNormalization<axis=1>(t, n)")
    onnx.save(model(text.replace("> {", ", float[5,4,4] n> {")), folder / "m.onnx")
    exact = call("inspect", "m.onnx")
    assert "feeds LayerNormalization 's', whose statistics span these channels" in exact.stdout
    allowed = call("inspect", "m.onnx", "--allow-inexact", "layernorm")
    assert "feeds LayerNormalization" not in allowed.stdout
    assert allowed.stderr == "inexact, as allowed: LayerNormalization 's'\n"


def test_a_name_with_brackets_is_shown_as_it_is(folder: Path, small: Small) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(small.proto)
    proto.graph.node[0].name = "stage[red]/[bold]Conv"
    onnx.save(proto, folder / "m.onnx")
    assert "stage[red]/[bold]Conv" in call("inspect", "m.onnx").stdout


# prune, apply


def test_prune_writes_what_it_says(folder: Path, small: Small) -> None:
    result = call(
        *("prune", small.path, "-o", "out.onnx", "--data", small.data, "--rate", "0.4"),
        *("--threads", "1", "--plan", "plan.json", "--run-dir", "run"),
    )
    assert "Parameters" in result.stdout
    assert "Harmonic mean" in result.stdout
    assert "removed" not in result.stdout
    assert "pruned model: out.onnx" in result.stderr
    assert "stopped: target reached (rate)" in result.stderr
    assert "harmonic mean 100.0 %" in result.stderr
    assert (folder / "out.onnx").read_bytes() == (folder / "run" / "pruned.onnx").read_bytes()
    assert (folder / "plan.json").read_bytes() == (folder / "run" / "plan.json").read_bytes()
    assert run(onnx.load("out.onnx"), small.x)[0].shape == (24, 3)


def test_options_reach_the_settings(folder: Path, small: Small) -> None:
    call(
        *("prune", small.path, "-o", "out.onnx", "--data", small.data, "--run-dir", "run"),
        *("--control", "iterative", "--criterion", "lrp:zplus", "--compensate", "bias"),
        *(
            "--for",
            "params",
            "--rate",
            "0.3",
            "--params",
            "0.9",
            "--macs",
            "0.8",
            "--min-accuracy",
            "0.1",
        ),
        *("--size", "0.97", "--latency-ms", "1e6", "--latency-batch", "2", "--round-to", "1"),
        *("--layer-rate", "one=0.7", "--layer-rate", "two=0%"),
        *("--confidence", "80%"),
        *("--max-drop", "0.9", "--min-channels", "2", "--max-layer-rate", "0.7"),
        *("--include", "one", "--include", "two", "--exclude", "two", "--seed", "5"),
        *("--device", "cpu", "--threads", "1", "--batch-size", "7", "--memory", "900"),
        *("--preprocess", "raw", "--per-class", "4", "--trust-baseline", "--metric", "top-2"),
        *("--outputs", "y", "--head", "auto"),
        *("--allow-inexact", "layernorm, groupnorm", "--also", "dense"),
        *("--input-shape", "x:1,1,8,8"),
        *("--set", "harmful=0", "--set", "reranks=never"),
    )
    settings = json.loads(Path("run/config.json").read_text())["settings"]
    assert settings == {
        "control": "iterative",
        "latency_on": "onnxruntime",
        "criterion": "lrp:zplus",
        "compensate": "bias",
        "unlabelled": None,
        "metric": "top-2",
        "outputs": ["y"],
        "head": "auto",
        "target": {"rate": 0.3, "params": 0.9, "macs": 0.8, "size": 0.97, "latency_ms": 1e6},
        "aim": "params",
        "floor": {"min_accuracy": 0.1, "max_drop": 0.9, "confidence": 0.8},
        "limits": {
            "min_channels": 2,
            "max_layer_rate": 0.7,
            "layer_rate": [["one", 0.7], ["two", 0.0]],
            "include": ["one", "two"],
            "exclude": ["two"],
            "round_to": 1,
        },
        "tuning": asdict(replace(Control(), harmful=0, reranks="never")),
        "allow_inexact": ["layernorm", "groupnorm"],
        "also": ["dense"],
        "input_shapes": [["x", [1, 1, 8, 8]]],
        "preprocess": "raw",
        "per_class": 4,
        "trust_baseline": True,
        "batch_size": 7,
        "memory": 900,
        "latency_batch": 2,
        "device": "cpu",
        "threads": 1,
        "seed": 5,
    }


def test_every_setting_has_an_option() -> None:
    options = {p.name for p in main.commands["prune"].params}
    settings = onnxprune.Settings().to_json()
    wanted = {k for k, v in settings.items() if not isinstance(v, dict)}
    wanted |= {k for part in ("target", "floor", "limits") for k in settings[part]}
    assert wanted <= options
    assert set(TUNING) == settings["tuning"].keys()


def test_a_constant_that_does_not_exist_is_refused(small: Small) -> None:
    wrong = ("prune", str(small.path), "-o", "out.onnx", *FREE, "--set", "harmfull=0")
    result = CliRunner().invoke(main, wrong)
    assert result.exit_code == 2
    assert "'harmfull': expected one of stride, step" in result.output


def test_a_plan_is_applied_and_masked(folder: Path, small: Small) -> None:
    call("prune", small.path, "-o", "a.onnx", *FREE, "--rate", "0.4", "--plan", "plan.json")
    result = call("apply", small.path, "plan.json", "-o", "b.onnx")
    assert "6 filters removed: b.onnx" in result.stderr
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    call("apply", small.path, "plan.json", "-o", "c.onnx", "--masked")
    outputs = [run(onnx.load(f), small.x)[0] for f in ("b.onnx", "c.onnx")]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)


def test_a_run_is_resumed(small: Small) -> None:
    arguments = ("prune", small.path, "-o", "a.onnx", *FREE, "--rate", "0.4", "--run-dir", "run")
    call(*arguments)
    plan = Path("run/plan.json").read_bytes()
    call(*arguments, "--resume")
    assert Path("run/plan.json").read_bytes() == plan


# score, compare, curve, report, convert


def test_scores_are_those_of_the_function(small: Small) -> None:
    call("score", small.path, "--data", small.data, "-o", "s.npz", "--criterion", "taylor")
    found = Scores.load("s.npz")
    graph = onnxprune.Graph(small.proto)
    data = Data(small.x, small.y, tuple("012"))
    expected = score(graph, onnxprune.find_groups(graph), data, "taylor")
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-8)


def test_scores_of_weights_need_no_data(small: Small) -> None:
    call("score", small.path, "-o", "s.npz", "--criterion", "magnitude")
    assert Scores.load("s.npz").values.shape == (1, 14)


def test_compare_measures_both(folder: Path, small: Small) -> None:
    call("prune", small.path, "-o", "out.onnx", *FREE, "--rate", "0.7")
    arguments = ("compare", small.path, "out.onnx", "--data", small.data, "--threads", "1")
    found = json.loads(call(*arguments, "--json").stdout)
    guesses = run(onnx.load("out.onnx"), small.x)[0].argmax(1)
    assert found["agreement"] == pytest.approx((guesses == small.y).mean())
    assert found["before"]["accuracy"] == {
        "mean": 1.0,
        "harmonic": 1.0,
        "shrunk_harmonic": 1.0,
        "per_class": dict.fromkeys("012", 1.0),
    }
    shares = [(guesses[small.y == k] == k).mean() for k in range(3)]
    assert list(found["after"]["accuracy"]["per_class"].values()) == pytest.approx(shares)
    assert found["after"]["size_bytes"] == Path("out.onnx").stat().st_size
    assert found["after"]["macs"] < found["before"]["macs"]
    assert found["after"]["latency_ms"] > 0
    assert found["samples"] == 24
    table = call(*arguments).stdout
    assert "Same class given" in table
    assert f"{100 * found['agreement']:.1f} %" in table


def test_a_curve_is_written(small: Small) -> None:
    methods = ("one-shot/magnitude", "one-shot/lrp/bias")
    result = call(
        *("curve", small.path, "--data", small.data, "--test", small.data, "-o", "curves"),
        *("--threads", "1", *(word for m in methods for word in ("--method", m))),
    )
    found = json.loads(Path("curves/curve.json").read_text())["methods"]
    assert list(found) == list(methods)
    for name, curve in found.items():
        assert {"rate", "mean", "harmonic", "auc_mean", "auc_harmonic"} <= curve.keys()
        assert curve["rate"][0] == 0.0
        fine = np.linspace(0, 0.95, 20_001)
        area = np.interp(fine, curve["rate"], curve["mean"]).mean()
        assert curve["auc_mean"] == pytest.approx(area, abs=1e-3)
        assert f"{curve['auc_mean']:.4f}" in result.stdout
        assert name in Path("curves/curve.svg").read_text()
    assert Path("curves/curve.png").read_bytes().startswith(b"\x89PNG")
    assert "one-shot/lrp/bias: 0.0 % saved, mean 100.0 %" in result.stderr


def test_a_page_that_cannot_be_written_is_not_announced(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OutputError(f"{path}/report.html: cannot be written (No space left on device)")

    monkeypatch.setattr("onnxprune.run.write_page", full)
    done = call("prune", small.path, "-o", "a.onnx", *FREE, "--rate", "0.4", "--run-dir", "run")
    assert "warning: run/report.html: cannot be written" in done.stderr
    assert "report: " not in done.stderr
    assert Path("a.onnx").is_file()


def test_the_page_of_a_run_is_written_again(small: Small) -> None:
    call("prune", small.path, "-o", "a.onnx", *FREE, "--rate", "0.4", "--run-dir", "run")
    before = Path("run/report.html").read_bytes()
    Path("run/report.html").unlink()
    assert call("report", "run").stdout == "run/report.html\n"
    assert Path("run/report.html").read_bytes() == before
    assert call("report", "run", "run").stdout == "compare.html\n"
    assert call("report", "run", "run", "-o", "two.html").stdout == "two.html\n"
    assert "run (2)" in Path("two.html").read_text("utf-8")
    refused = CliRunner().invoke(main, ["report", "run", "-o", "one.html"])
    assert refused.exit_code == 2
    assert "is for several runs" in refused.stderr


def test_a_network_is_converted(folder: Path) -> None:
    (folder / "nets.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))\n"
    )
    result = call(
        *("convert", "nets.py:net", "--from", "pytorch", "-o", "m.onnx", "--exporter", "classic"),
        *("--input-shape", "1,4,4", "--fixed-batch"),
    )
    assert "model: m.onnx" in result.stderr
    dims = onnx.load("m.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 1, 4, 4]


@pytest.mark.slow
def test_the_demo_works_and_takes_no_folder_of_others(folder: Path) -> None:
    result = call("demo")
    assert "Same class given" in result.stdout
    assert "onnxprune-demo/report.html" in result.stdout
    assert (folder / "onnxprune-demo" / "report.html").is_file()
    assert demo._free_name("onnxprune-demo") == "onnxprune-demo-2"
