"""The comparison of methods: figures worked out by hand, and other tools held to their own."""

import json
import re
import sys
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.search.settings import Settings
from onnxprune.surgery.removal import remove_channels
from tests.benchmarks import compare_methods, peers
from tests.benchmarks.compare_methods import Method
from tests.benchmarks.comparison import Comparison, early_loss, overall_table, task_table
from tests.benchmarks.comparison_tasks import Sources, Task
from tests.benchmarks.linear_head import run
from tests.benchmarks.torch_layers import TorchLayers
from tests.support.colours import write_sources
from tests.support.models import model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    return [*write_sources(tmp_path), "--size", "16", "--test-per-class", "6", "--threads", "1"]


@pytest.fixture
def trial(sources: list[str], tmp_path: Path) -> Path:
    """A folder with the model and the images of one task."""
    given = dict(zip(sources[::2], sources[1::2], strict=True))
    places = {name: Path(given[f"--{name}"]) for name in ("reference", "test", "weights")}
    Task.parse("all:5").build(Sources(**places, size=16, test_per_class=6), 0, tmp_path / "trial")
    return tmp_path / "trial"


FITTED = "mine=one-shot/random/least-squares,batch_size=8"
CHOSEN = ("one-shot/lrp:zplus", "one-shot/random", FITTED)


@pytest.mark.slow
def test_methods_are_compared_over_seeds_and_a_stopped_run_goes_on(
    sources: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--task", "blue,green,red:5", "--seed", "0", "--seed", "1", "-o", str(out)]
    for method in CHOSEN:
        options += ["--method", method]
    result = CliRunner().invoke(compare_methods.main, [*sources, *options])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == [*CHOSEN[:2], "mine"]
    drawn = [json.loads(path.read_text()) for path in out.glob("*/one-shot-lrp-zplus.json")]
    areas = [curve["auc_mean"] for curve in drawn]
    assert len(areas) == 2
    assert f"| {np.mean(areas):.3f} ± {np.std(areas, ddof=1):.3f} |" in lines[0]
    assert "+0.0 ± 0.0 % |" in lines[0]
    assert "(`random`)" in lines[2]
    assert (out / "blue-green-red-5.svg").read_text().count("AUC") == 2 * len(CHOSEN)
    assert (out / "comparison.md").read_text().strip() == result.stdout.strip()

    written = {path: path.stat().st_mtime_ns for path in out.glob("*/*.json")}
    again = CliRunner().invoke(compare_methods.main, [*sources, *options])
    only = CliRunner().invoke(compare_methods.main, ["--only-tables", "-o", str(out)])
    assert again.stdout == result.stdout
    assert sorted(only.stdout.splitlines()) == sorted(result.stdout.splitlines())
    assert written == {path: path.stat().st_mtime_ns for path in written}
    other = [FITTED.replace("8", "9") if option == FITTED else option for option in options]
    refused = CliRunner().invoke(compare_methods.main, [*sources, *other])
    assert refused.exit_code == 2
    assert "a name of its own" in refused.output


def test_a_method_may_change_settings_and_keep_commas_in_its_criterion() -> None:
    method = Method.parse("mine=accuracy-aware/lrp:zplus@0-0.5,epsilon@0.5-1/bias,seed=4")
    settings = method.settings(Settings(threads=3))
    assert method.name == "mine"
    assert (settings.control, settings.compensate) == ("accuracy-aware", "bias")
    assert settings.criterion == "lrp:zplus@0-0.5,epsilon@0.5-1"
    assert (settings.seed, settings.threads) == (4, 3)
    assert Method.parse("one-shot/lrp").name == "one-shot/lrp"


def test_every_ablation_of_the_method_is_a_setting() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    changes = re.findall(r"^\| (?:[^`|]+: )?`([a-z_]+=[^`]+)` \|", text, re.MULTILINE)
    assert len(changes) >= 7
    plain = Method.parse("accuracy-aware/lrp/least-squares")
    for change in changes:
        method = Method.parse(f"changed={plain.method},{change}")
        assert method.settings(Settings()) != plain.settings(Settings())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one-shot/lrp,nonsense=1", "option 'nonsense': unknown.* expected one of control, "),
        ("one-shot", "expected control/criterion"),
        ("one-shot/nonsense", "criterion 'nonsense'"),
        ("onnxsim/l3", "expected one of torch-pruning/taylor, "),
    ],
)
def test_methods_that_do_not_exist_are_refused(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        Method.parse(text)


def test_tasks_name_a_network_or_are_vgg16s() -> None:
    assert Task.parse("cat,dog:10") == Task("cat,dog:10", "vgg16", ("cat", "dog"), 10)
    other = Task.parse("resnet-fashion/all:20")
    assert (other.network, other.classes, other.per_class) == ("resnet-fashion", (), 20)
    for wrong in ("alexnet/all:10", "all", "vgg16/all:many", ":3"):
        with pytest.raises(click.BadParameter, match="NETWORK/CLASSES:PER_CLASS"):
            Task.parse(wrong)


def test_images_must_be_named_for_networks_that_need_them() -> None:
    with pytest.raises(click.UsageError, match="--reference and --test"):
        Sources().pictures()


def test_the_early_loss_is_up_to_rate_three_tenths() -> None:
    curve = {"rate": [0.0, 0.2, 0.3, 0.4], "mean": [0.9, 0.7, 0.8, 0.1]}
    assert early_loss(curve) == pytest.approx((np.mean([0.05, 0.1, 0.15, 0.2, 0.15, 0.1]), 0.2))


def record(task: str, seed: int, method: str, area: float, last: float = 0.95) -> dict[str, object]:
    rate, mean = [0.0, last], [0.8, 0.1]
    curve = {"rate": rate, "mean": mean, "harmonic": mean, "auc_mean": area, "auc_harmonic": area}
    return {"task": task, "seed": seed, "name": method, "method": method, "cpu": 7.0, **curve}


RECORDS = [
    *(record("a:1", seed, "one-shot/lrp:zplus", 0.4) for seed in (0, 1)),
    *(record("a:1", seed, "one-shot/lrp", 0.5) for seed in (0, 1)),
    *(record("a:1", seed, "accuracy-aware/lrp", 0.6 + seed / 10) for seed in (0, 1)),
    *(record("b:1", 0, method, 0.2) for method in ("one-shot/lrp:zplus", "accuracy-aware/lrp")),
]


def test_gains_are_of_equal_seeds_and_name_their_baseline() -> None:
    lines = task_table(Comparison(RECORDS), "a:1").splitlines()
    aware = next(line for line in lines if "accuracy-aware" in line)
    # 0.6 and 0.7 over 0.4 are +50 and +75 %, over 0.5 +20 and +40 %; the ceiling is 0.8
    assert "| 0.650 ± 0.071 |" in aware
    assert "| +62.5 ± 17.7 % | +30.0 ± 14.1 % (`lrp`) | 0.812 |" in aware
    assert lines[0] == "a:1, 2 seeds, ceiling 0.800 ± 0.000"


def test_all_tasks_weigh_alike_and_the_worst_is_named() -> None:
    lines = overall_table(Comparison(RECORDS)).splitlines()
    aware = next(line for line in lines if "accuracy-aware" in line)
    assert "| +31.2 % (+0.0 %) | +30.0 % (+30.0 %) (`lrp`) |" in aware
    assert aware.endswith("| 2 |")


def test_notes_say_what_could_not_run_and_what_ends_early() -> None:
    broken = {"task": "a:1", "seed": 0, "name": "x/y", "method": "x/y", "problem": "no such layer"}
    early = record("a:1", 0, "onnxsim/l2", 0.3, last=0.5)
    table = task_table(Comparison([*RECORDS, broken, early]), "a:1")
    assert "* `x/y` could not run: no such layer" in table
    assert "* `onnxsim/l2` ends at rate 0.50" in table
    assert "| `x/y` |" not in table


ASYMMETRIC = """
small (float[N,3,8,8] x) => (float[N,2] y)
<float[4,3,3,3] w1, float[4] b1, float[4,1,3,3] w2, float[2,4] w3, float[2] b3> {
  one = Conv<pads=[0,0,1,1], strides=[2,2]>(x, w1, b1)
  r = Relu(one)
  two = Conv<pads=[1,1,1,1], group=4>(r, w2)
  sum = Add(two, r)
  p = GlobalAveragePool(sum)
  f = Flatten(p)
  y = Gemm<transB=1>(f, w3, b3)
}
"""


def test_torch_layers_equal_onnxruntime() -> None:
    import torch

    proto = model(ASYMMETRIC)
    network = TorchLayers(Graph(proto))
    x = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "image"
    found = network(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, run(proto, x, threads=1), rtol=1e-4, atol=1e-5)
    assert [type(layer).__name__ for layer in network.layers.values()] == [
        *("Conv2d", "Conv2d", "Linear")
    ]


@pytest.mark.parametrize(
    ("old", "new"), [("Gemm<transB=1>(f, w3, b3)", "Gemm<transB=1, alpha=2.0>(f, w3, b3)")]
)
def test_torch_layers_refuse_what_torch_does_not_have(old: str, new: str) -> None:
    with pytest.raises(ValueError, match="expected a Gemm"):
        TorchLayers(Graph(model(ASYMMETRIC.replace(old, new))))


@pytest.mark.parametrize("kind", ["magnitude", "taylor", "fpgm", "magnitude:uniform"])
@pytest.mark.filterwarnings("ignore")
def test_torch_prunings_ranking_is_what_its_pruner_removes(kind: str, trial: Path) -> None:
    tp = pytest.importorskip("torch_pruning")
    import torch

    from onnxprune.search.assemble import open_model

    settings = Settings(preprocess="unit")
    graph, samples = open_model(onnx.load(trial / "model.onnx"), trial / "reference", settings)
    assert samples is not None
    groups = find_groups(graph)
    scores = peers.importance(kind, graph, groups, samples, settings)
    network = TorchLayers(graph)
    if kind == "taylor":
        loss = torch.nn.functional.cross_entropy(
            network(torch.from_numpy(samples.x)), torch.from_numpy(samples.y)
        )
        torch.autograd.backward(loss)
    names = {name: f"{name.title()}Importance" for name in ("taylor", "magnitude")}
    names["fpgm"] = "FPGMImportance"
    pruner = tp.pruner.BasePruner(
        network,
        torch.from_numpy(samples.x[:1]),
        importance=getattr(tp.importance, names[kind.partition(":")[0]])(),
        global_pruning="uniform" not in kind,
        pruning_ratio=0.5,
        ignored_layers=[layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)],
    )
    before = {name: layer.weight.detach().clone() for name, layer in network.layers.items()}
    pruner.step()
    dead = np.zeros(len(groups), np.bool_)
    dead[np.argsort(scores, kind="stable")[: len(groups) // 2]] = True
    for filters in groups.filters:
        kept = before[filters.node][torch.from_numpy(~dead[filters.channels])]
        left = network.layers[filters.node].weight
        assert left.shape[0] == kept.shape[0]
        assert torch.allclose(left.sum((1, 2, 3)), _kept_inputs(kept, filters, groups, dead))


def _kept_inputs(kept, filters, groups, dead):  # type: ignore[no-untyped-def]
    """Return the sum of each kept filter over the inputs that are left."""
    import torch

    place = groups.filters.index(filters)
    if place == 0:
        return kept.sum((1, 2, 3))
    inputs = torch.from_numpy(~dead[groups.filters[place - 1].channels])
    return kept[:, inputs].sum((1, 2, 3))


@pytest.mark.filterwarnings("ignore")
def test_a_peers_curve_has_the_form_of_ours(trial: Path) -> None:
    pytest.importorskip("torch_pruning")
    curve = Method.parse("torch-pruning/taylor").draw(trial, Settings(preprocess="unit"))
    ours = Method.parse("one-shot/taylor").draw(trial, Settings(preprocess="unit"))
    assert curve.keys() == ours.keys()
    assert curve["rate"] == ours["rate"]
    assert curve["mean"][0] == ours["mean"][0]


def test_onnxsims_rates_are_shares_of_the_removable_filters(trial: Path) -> None:
    pytest.importorskip("onnxsim")
    graph = Graph(onnx.load(trial / "model.onnx"))
    groups = find_groups(graph)
    dead = np.zeros(len(groups), np.bool_)
    dead[[0, 5, 12]] = True
    assert peers.share_gone(groups, remove_channels(graph, groups, dead)) == pytest.approx(3 / 18)
    curve = Method.parse("onnxsim/l1").draw(trial, Settings(preprocess="unit"))
    assert curve["rate"][0] == 0
    assert all(np.diff(curve["rate"]) > 0)
    assert 0.3 < curve["rate"][-1] < 1


def test_a_tool_that_is_not_there_is_noted(trial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxsim.pruning", None)
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    found = Method.parse("onnxsim/l2").draw(trial, Settings(preprocess="unit"))
    assert found.keys() == {"problem"}
    assert "onnxsim" in found["problem"]
