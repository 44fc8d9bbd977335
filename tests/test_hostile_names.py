"""Names that would harm a terminal, a page, a drawing or a pull request are shown, and no more."""

import json
import re
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnxprune.cli.commands import main
from tests.support.models import model

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x07\x9b31m",  # clear, title, clipboard, colour
    "\u202egnp.exe\u2066</script><script>alert(1)</script><!--",  # reordered, and markup of a page
    "[red]bold[/red] |`@all` [x](https://evil) $(rm) ../../etc\n# title",  # of rich, of Markdown
)
OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and samples whose layers and classes have such names."""
    folder = tmp_path_factory.mktemp("hostile")
    proto = model("""
        net (float[N,3,8,8] x) => (float[N,3] y)
        <float[6,3,3,3] wa, float[8,6,3,3] wb, float[4,8,1,1] wc, float[3,4] wy> {
          a = Conv<pads=[1,1,1,1]>(x, wa) b = Relu(a) c = Conv(b, wb) d = Conv(c, wc)
          e = GlobalAveragePool(d) f = Flatten(e) y = Gemm<transB=1>(f, wy)
        }
    """)
    names = dict(zip("acd", HOSTILE, strict=True))
    for node in proto.graph.node:
        node.name = names.get(node.output[0], node.output[0])
        for held in (node.input, node.output):
            held[:] = [names.get(name, name) for name in held]
    onnx.save(proto, folder / "model.onnx")
    x = np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=np.arange(12) % 3, classes=np.array(HOSTILE))
    return folder


def printed(place: Path, *words: str) -> str:
    """What a command prints, on stdout and stderr; it ends well."""
    words = tuple(word.replace("@", f"{place}/") for word in words)
    found = CliRunner(env={"COLUMNS": "200"}).invoke(main, words)
    assert found.exit_code == 0, found.output
    return found.output


def is_harmless(text: str) -> bool:
    obeyed = [one for one in re.finditer(r"[^\x20-\x7e\n]", text) if is_obeyed(one[0])]
    assert not obeyed, [text[max(one.start() - 60, 0) : one.end() + 20] for one in obeyed[:3]]
    return True


def is_obeyed(letter: str) -> bool:
    return unicodedata.category(letter) in OBEYED


def test_a_terminal_obeys_no_name(place: Path) -> None:
    text = printed(place, "inspect", "@model.onnx")
    assert is_harmless(text) and "\n# title" not in text
    assert r"\x1b]52;c;" in text and r"\u202e" in text and "[red]bold[/red]" in text


def test_nor_does_it_in_an_error(place: Path) -> None:
    name = str(place / f"no{HOSTILE[0]}{HOSTILE[2].replace('/', '')}.onnx")
    found = CliRunner().invoke(main, ["inspect", name, "-vv"])
    assert found.exit_code == 1
    assert is_harmless(found.output) and "\n# title" not in found.output
    assert r"\x1b]52;c;" in found.stderr.splitlines()[-1]


def test_a_drawing_is_xml_without_scripts(place: Path) -> None:
    printed(place, "inspect", "@model.onnx", "--svg", "@drawing.svg", "--quiet")
    text = (place / "drawing.svg").read_text("utf-8")
    assert is_harmless(text)
    tags = {one.tag.rpartition("}")[2] for one in ElementTree.fromstring(text).iter()}
    assert "rect" in tags and not tags & {"script", "a", "image", "foreignObject"}


def test_a_page_is_no_longer_than_its_own_scripts(place: Path) -> None:
    words = (
        "--trust-baseline",
        "--control",
        "one-shot",
        "--criterion",
        "magnitude",
        "--rate",
        "0.3",
        "-o",
        "@o.onnx",
    )
    text = printed(
        place, "prune", "@model.onnx", "--data", "@data.npz", *words, "--run-dir", "@run"
    )
    assert is_harmless(text)
    page = (place / "run" / "report.html").read_text("utf-8")
    assert is_harmless(page)
    assert "<script>alert" not in page and "<!--" not in page.replace("<!-- ", "")
    held = re.search(r'<script [^>]*id="data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert held is not None
    layers = {layer["name"] for layer in json.loads(held[1])["network"]["layers"]}
    assert set(HOSTILE) <= layers, "a plan that the page makes names layers as the model does"
    plan = json.loads((place / "run" / "plan.json").read_text("utf-8"))
    assert plan["removed"].keys() <= layers


def test_a_pull_request_shows_classes_as_they_are(place: Path) -> None:
    words = ("compare", "@model.onnx", "@model.onnx", "--data", "@data.npz", "--trust-baseline")
    text = printed(place, *words, "--markdown")
    assert is_harmless(text)
    rows = [line for line in text.splitlines() if "bold" in line]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)\|", rows[0])) == 5
    assert not re.search(r"@all|(?<!\\)\]\(|(?<!\\)<script|\n# title", text)
    assert json.loads(printed(place, *words, "--json"))["after"]["accuracy"][
        "per_class"
    ].keys() >= {HOSTILE[2]}
