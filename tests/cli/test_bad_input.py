"""Whatever is wrong with the input is said in one line, which names it and says what to do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from onnxprune.cli.commands import main
from tests.support.models import model
from tests.support.small_net import Small

Spoil = Callable[[Path, Small], None]
DATA = ("--data", "DATA", "--threads", "1")
FREE = ("--control", "one-shot", "--criterion", "magnitude", "--rate", "0.3")
PRUNE = ("prune", "MODEL", "-o", "out.onnx")


def missing(folder: Path, small: Small) -> None:
    (folder / "model.onnx").unlink()


def text(folder: Path, small: Small) -> None:
    (folder / "model.onnx").write_text("This is not a model.\n")


def empty(folder: Path, small: Small) -> None:
    (folder / "model.onnx").write_bytes(b"")


def truncated(folder: Path, small: Small) -> None:
    whole = small.path.read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])


def folder_as_model(folder: Path, small: Small) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()


def dense(folder: Path, small: Small) -> None:
    net = """dense (float[N,1,8,8] x) => (float[N,3] y) <float[64,3] w>
    { f = Flatten(x) y = MatMul(f, w) }"""
    onnx.save(model(net), folder / "model.onnx")


def invalid(folder: Path, small: Small) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(small.proto)
    proto.graph.node[1].input[0] = "nowhere"
    onnx.save(proto, folder / "model.onnx")


def two_inputs(folder: Path, small: Small) -> None:
    net = """two (float[N,1,4,4] x, float[N,2,4,4] z) => (float[N,2,4,4] y) <float[2,1,1,1] w>
    { c = Conv(x, w) y = Add(c, z) }"""
    onnx.save(model(net), folder / "model.onnx")


MODELS: dict[str, tuple[Spoil, str]] = {
    "missing": (missing, "model.onnx: no such file"),
    "text": (text, "model.onnx: not an ONNX model"),
    "empty": (empty, "model.onnx: not an ONNX model"),
    "truncated": (truncated, "model.onnx: not an ONNX model, or cut short"),
    "a folder": (folder_as_model, "model.onnx: no such file"),
    "without convolutions": (dense, "model.onnx: has no convolutions"),
    "invalid": (invalid, "model.onnx: not valid ONNX"),
}


def no_data(folder: Path) -> None:
    (folder / "data.npz").unlink()


def no_images(folder: Path) -> None:
    no_data(folder)
    (folder / "data.npz" / "0").mkdir(parents=True)
    (folder / "data.npz" / "0" / "notes.txt").write_text("no image")


def broken_image(folder: Path) -> None:
    no_images(folder)
    (folder / "data.npz" / "0" / "one.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")


def cut_image(folder: Path) -> None:
    no_images(folder)
    path = folder / "data.npz" / "0" / "one.png"
    noise = np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:80])


def not_npz(folder: Path) -> None:
    (folder / "data.npz").write_text("nothing")


def other_names(folder: Path) -> None:
    np.savez(folder / "data.npz", images=np.zeros((2, 1, 8, 8)), labels=np.zeros(2))


def labels_outside(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.zeros((2, 1, 8, 8), np.float32), y=np.array([0, 7]))


def wrong_shape(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.zeros((2, 3, 16, 16), np.float32), y=np.array([0, 1]))


def no_samples(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.zeros((0, 1, 8, 8), np.float32), y=np.zeros(0, np.int64))


def not_finite(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.full((2, 1, 8, 8), np.nan, np.float32), y=np.array([0, 1]))


SAMPLES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (no_data, "data.npz: no such file or folder; give a folder"),
    "without images": (
        no_images,
        "data.npz: no images, expected images, one folder of",
    ),
    "broken image": (broken_image, "one.png: not a readable image"),
    "image cut short": (cut_image, "one.png: not a readable image"),
    "not an npz": (not_npz, "data.npz: not a readable .npz"),
    "other names": (other_names, "holds images, labels, expected x, and y for labels"),
    "labels outside": (labels_outside, "label 7, expected 0 to 2"),
    "another shape": (wrong_shape, "a sample is [3, 16, 16], expected [1, 8, 8]"),
    "none": (no_samples, "no samples"),
    "NaN": (not_finite, "NaN"),
}


@pytest.fixture
def folder(tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good model and good samples, where commands run."""
    (tmp_path / "model.onnx").write_bytes(small.path.read_bytes())
    (tmp_path / "data.npz").write_bytes(small.data.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def refused(folder: Path, *arguments: str, code: int = 1) -> str:
    """Run a command that must fail, and return its one line."""
    before = sorted(folder.rglob("*"))
    known = {"MODEL": "model.onnx", "DATA": "data.npz"}
    result = CliRunner().invoke(main, [known.get(word, word) for word in arguments])
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    said = result.stderr.splitlines()  # a step, or what takes longer than two seconds, is said
    progress = ("% removed", ": loading it", ": importing ", " ...")
    lines = [line for line in said if not any(part in line for part in progress)]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.stderr
    assert "internal error" not in result.stderr
    assert sorted(folder.rglob("*")) == before
    return lines[0]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "MODEL"),
        ("inspect", "MODEL", "--json"),
        ("prune", "MODEL", "-o", "out.onnx", *FREE),
        ("prune", "MODEL", "-o", "out.onnx", *DATA),
        ("score", "MODEL", "-o", "out.npz", *DATA),
        ("compare", "MODEL", "MODEL", *DATA),
    ],
    ids=lambda words: " ".join(words[:1] + words[-1:]),
)
def test_bad_models(folder: Path, small: Small, kind: str, command: tuple[str, ...]) -> None:
    """Models without convolutions can be compared."""
    if (kind, command[0]) == ("without convolutions", "compare"):
        return
    spoil, says = MODELS[kind]
    spoil(folder, small)
    assert says in refused(folder, *command)


def test_a_bad_model_to_compare_with_is_named(folder: Path) -> None:
    (folder / "other.onnx").write_text("nothing")
    assert "other.onnx: not an ONNX model" in refused(
        folder, "compare", "MODEL", "other.onnx", *DATA
    )


def test_a_model_with_two_inputs_takes_samples_by_name(folder: Path, small: Small) -> None:
    two_inputs(folder, small)
    assert "holds x, y, expected x and z" in refused(folder, *PRUNE, *DATA)


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize(
    "command",
    [
        ("prune", "MODEL", "-o", "out.onnx", *DATA),
        ("prune", "MODEL", "-o", "out.onnx", *DATA, "--control", "one-shot", "--rate", "0.2"),
        ("score", "MODEL", "-o", "out.npz", *DATA),
        ("compare", "MODEL", "MODEL", *DATA),
    ],
    ids=lambda words: " ".join(words[:1] + words[-1:]),
)
def test_bad_samples(folder: Path, kind: str, command: tuple[str, ...]) -> None:
    spoil, says = SAMPLES[kind]
    spoil(folder)
    assert says in refused(folder, *command)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((*FREE[:4], "--rate", "0.999"), "the most that can go is rate 0.857"),
        ((*DATA, "--rate", "0.999"), "the most that can go is rate 0.857"),
        ((*FREE[:4], "--params", "3"), "the most that can go is"),
        (
            (*FREE, "--include", "nothing"),
            "include 'nothing': matches no convolution; near",
        ),
        ((*DATA, "--criterion", "luck"), "criterion 'luck': unknown; expected one of lrp"),
        ((*DATA, "--criterion", "lrp:luck"), "luck"),
        ((*DATA, "--preprocess", "imagenet", "--data", "IMAGES"), "IMAGES: no such file or folder"),
        (("--rate", "0.3"), "needs reference samples; give --data"),
        (("--rate", "0.3", *FREE[:2]), "criterion 'lrp': needs reference samples; give --data"),
        (FREE[:4], "without samples there is no accuracy to stop at"),
        ((*FREE, "--resume"), "which run? give its --run-dir"),
        ((*FREE, "--compensate", "bias"), "samples"),
        ((*FREE, "--run-dir", "model.onnx"), "model.onnx: the folder cannot be created"),
        ((*FREE, "-o", ""), ".: is a folder; name a file to write"),
        ((*FREE, "--run-dir", "out.onnx"), "out.onnx: is named for two outputs"),
        ((*FREE, "--data", "/dev/null"), "/dev/null: is a pipe or a device; give a folder of"),
        ((*DATA, "--device", "cuda"), "device 'cuda': this onnxruntime has no CUDA"),
        (("--control", "luck"), "control 'luck': unknown; expected one of one-shot"),
        (("--control", "nowhere:luck"), "nowhere:luck: cannot be imported: no module 'nowhere'"),
    ],
)
def test_bad_requests(folder: Path, options: tuple[str, ...], says: str) -> None:
    assert says in refused(folder, *PRUNE, *options)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "MODEL"),
        (("MODEL",), "--output"),
        (
            (*PRUNE[1:], "--compensate", "luck"),
            "--compensate 'luck': unknown; expected one of",
        ),
        (
            (*PRUNE[1:], "--rate", "2"),
            "above 0, at most 1; for 2 %, give 0.02",
        ),
        ((*PRUNE[1:], "--rate", "nan"), "--rate nan: expected a number above 0"),
        ((*PRUNE[1:], "--params", "-1"), "--params -1: expected a number above 0"),
        ((*PRUNE[1:], "--batch-size", "0"), "--batch-size 0: expected a whole number, 1 or"),
        (
            (*PRUNE[1:], "--device", "tpu"),
            "--device 'tpu': unknown; expected one of auto, cpu, cuda",
        ),
        ((*PRUNE[1:], "--speed"), "No such option"),
        ((*PRUNE[1:], "more"), "unexpected extra argument"),
    ],
)
def test_bad_usage(folder: Path, arguments: tuple[str, ...], says: str) -> None:
    line = refused(folder, "prune", *arguments, code=2)
    assert says in line
    assert line.endswith("see onnxprune prune --help")


def test_an_unknown_command_is_named(folder: Path) -> None:
    line = refused(folder, "shrink", code=2)
    assert "No such command 'shrink'" in line
    assert line.endswith("see onnxprune --help")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("nowhere/out", "the folder nowhere does not exist; create it first"),
        ("taken", "taken: is a folder; name a file to write"),
        ("small/", "small/: names a folder; name a file to write"),
        ("small/.", "small/.: names a folder; name a file to write"),
        ("model.onnx/out", "the folder model.onnx does not exist"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("prune", "missing.onnx", "-o"),
        ("prune", "missing.onnx", "-o", "out.onnx", "--plan"),
        ("apply", "missing.onnx", "plan.json", "-o"),
        ("score", "missing.onnx", "-o"),
        ("convert", "resnet18", "--from", "torchvision", "-o"),
    ],
    ids=lambda words: " ".join((words[0], words[-1])),
)
def test_output_is_checked_before_anything_else(
    folder: Path, command: tuple[str, ...], place: str, says: str
) -> None:
    (folder / "taken").mkdir()
    assert says in refused(folder, *command, place)


def test_curves_need_a_folder(folder: Path) -> None:
    curve = ("curve", "MODEL", "--data", "DATA", "--test", "DATA", "-o")
    assert "model.onnx: the folder cannot be created" in refused(folder, *curve, "model.onnx")
    line = refused(folder, *curve, "curves", "--method", "one-shot/lrp", "--method", "luck/lrp")
    assert "control 'luck': unknown" in line
    line = refused(folder, *curve, "curves", "--method", "lrp")
    assert "expected control/criterion" in line


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (None, "plan.json: cannot be read"),
        ("{}", "plan.json: not a plan"),
        ('{"format": 1, "removed": {"three": [0]}}', "made for another model"),
        ('{"format": 1, "removed": {"one": [8]}}', "'one' has 8 filters"),
        ('{"format": 1, "removed": {"two": [0, 1, 2, 3, 4, 5]}}', "keep at least one"),
    ],
)
def test_bad_plans(folder: Path, plan: str | None, says: str) -> None:
    if plan is not None:
        (folder / "plan.json").write_text(plan)
    assert says in refused(folder, "apply", "MODEL", "plan.json", "-o", "out.onnx")


def test_the_directory_of_another_run_is_kept(folder: Path) -> None:
    run = (*PRUNE, *FREE, "--run-dir", "run", "-q")
    assert CliRunner().invoke(main, ["prune", "model.onnx", *run[2:]]).exit_code == 0
    assert "holds a run already; give --resume" in refused(folder, *run)
    line = refused(folder, *run, "--seed", "3", "--resume")
    assert "made with seed 0 (now 3); resume with the same, or give another --run-dir" in line


@pytest.mark.parametrize("place", ["nowhere", "model.onnx", "."])
def test_a_report_needs_a_run(folder: Path, place: str) -> None:
    assert "no run" in refused(folder, "report", place)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("net", "--from", "nonsense"),
            "framework 'nonsense': unknown; expected one of pytorch, t",
        ),
        (("nothing.py:net", "--from", "pytorch"), "nothing.py:net: no such file"),
        (("net18", "--from", "torchvision"), "torchvision has no model 'net18'"),
    ],
)
def test_bad_sources(folder: Path, arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(folder, "convert", *arguments, "-o", "out.onnx")


def test_a_shape_is_read(folder: Path) -> None:
    convert = ("convert", "net", "--from", "pytorch", "-o", "out.onnx")
    line = refused(folder, *convert, "--input-shape", "3x4", code=2)
    assert "expected positive sizes of one sample" in line
