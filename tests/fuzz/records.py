"""Records and data: what a run left, plans and scores, arrays, images, annotations, options."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
from PIL import Image

import onnxprune
from onnxprune.channels import ChannelGroups, find_groups
from onnxprune.checks import Flag, Pairs
from onnxprune.cli.commands import main
from onnxprune.cli.options import TUNING
from onnxprune.data import PREPROCESS, image_size, load_data
from onnxprune.data.images import read_map
from onnxprune.detection import read_annotations
from onnxprune.errors import LONGEST
from onnxprune.gate import Condition
from onnxprune.graph import Graph
from onnxprune.relevance import Scores
from onnxprune.report import write_comparison
from onnxprune.report.page import page
from onnxprune.report.record import Record
from onnxprune.search import OPTIONS, Plan, RunDirectory, Settings, journal
from onnxprune.text import harmless
from tests.detection.layouts import truth, write_coco, write_voc, write_yolo
from tests.fuzz.documents import VALUES, mutate_json
from tests.fuzz.judging import Kind, Refused, lay_file
from tests.fuzz.mutators import WORDS, mutate_bytes
from tests.support.models import model, run

NET = """
g (float[N,3,8,8] x) => (float[N,3] y)
<float[8,3,3,3] wa, float[6,8,3,3] wb, float[3,6] wy> {
  a = Conv<pads=[1,1,1,1]>(x, wa) b = Relu(a) c = Conv(b, wb) d = Relu(c)
  e = GlobalAveragePool(d) f = Flatten(e) y = Gemm<transB=1>(f, wy)
}
"""
FILES = ("config", "journal", "report", "about", "evidence")
"""The records of a run, by the letter that an input of `runs` begins with."""


@cache
def groups() -> ChannelGroups:
    """The channels of the net that records are of."""
    return find_groups(Graph(model(NET)))


@cache
def finished() -> dict[str, bytes]:
    """The files that a finished run of the net leaves, one with samples."""
    net, x = model(NET), np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32)
    data = (x, run(net, x)[0].argmax(1))
    with TemporaryDirectory(prefix="onnxprune-") as folder:
        path = Path(folder) / "run"
        asked = {"threads": 1, "rate": 0.4, "max_drop": 0.9, "trust_baseline": True}
        onnxprune.prune(net, data, run_dir=path, compensate="none", device="cpu", **asked)
        return {one.name: one.read_bytes() for one in path.iterdir() if one.is_file()}


# A run directory


def record_of(name: str) -> str:
    return f"{name}.json{'l' if name == 'journal' else ''}"


def runs() -> list[bytes]:
    """Each record of a run, behind the letter of its name."""
    return [name[:1].encode() + finished()[record_of(name)] for name in FILES]


def lay_run(data: bytes, folder: Path) -> Path:
    """Write a finished run whose one record is the input."""
    letters = {name[:1].encode(): record_of(name) for name in FILES}
    changed = {letters.get(data[:1], "report.json"): data[1:]}
    for name, content in (finished() | changed).items():
        (folder / name).write_bytes(content)
    return folder


def mutate_run(rng: random.Random, data: bytes) -> bytes:
    """Change one record, or one line of the journal."""
    letter, held = data[:1], data[1:]
    if letter != b"j" or rng.random() < 0.2:
        return letter + mutate_json(rng, held)
    lines = held.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = mutate_json(rng, lines[place])
    return letter + b"\n".join(lines)


def read_run(path: Path, out: Path) -> object:
    """Show a run, alone and beside another, and go on from its journal."""
    text = page(Record.read(path))
    assert "<script>alert" not in text
    copy = shutil.copytree(path, out / "run")
    write_comparison([copy, path], out / "both.html")
    journal._compare(copy, json.loads(finished()["config.json"]))
    return RunDirectory(copy).last(len(groups()))


# Files that stand alone


def plans() -> list[bytes]:
    return [
        finished()["plan.json"],
        b'{"format": 1, "allow_inexact": ["Softmax"], "also": ["dense"], "removed": {"a": [0, 3]}}',
    ]


def read_plan(path: Path, out: Path) -> object:
    plan = Plan.load(path)
    dead = plan.dead(groups())
    return plan.save(out / "again.json"), dead


def scores() -> list[bytes]:
    """Files of scores, and such as are none, packed and not."""
    values = np.random.default_rng(0).normal(size=(3, 14))
    found = []
    for pack in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        pack(buffer, values=values, criterion=np.array("lrp"), classes=np.array(["a", "b", "c"]))
        found.append(buffer.getvalue())
    return found


def read_scores(path: Path, out: Path) -> object:
    return Scores.load(path).total()


def archives() -> list[bytes]:
    """Archives of samples and labels, of arrays of several kinds."""
    rng, found = np.random.default_rng(0), []
    x = rng.normal(size=(4, 3, 8, 8))
    for pack, kind in ((np.savez, np.float32), (np.savez_compressed, np.float64)):
        buffer = io.BytesIO()
        pack(buffer, x=x.astype(kind), y=np.arange(4) % 3, classes=np.array(["a", "b", "c"]))
        found.append(buffer.getvalue())
    buffer = io.BytesIO()
    np.savez(buffer, x=np.asfortranarray(x.astype(np.float32)), y=np.ones((4, 8, 8), np.uint8))
    return [*found, buffer.getvalue()]


HEADERS = (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3, 8, 8), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 3, 8, 8), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
    b"{'descr': [('a', '<f4', (1000000000,))], 'fortran_order': False, 'shape': (1,), }",
    b"{'descr': '<U999999999', 'fortran_order': False, 'shape': (1,), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 8, 8), 'x': __import__('os')}",
    b"(" * 3000,
    b"{'descr': '<f4', \\\n",
    b"{'descr': '''<f4",
)


def mutate_archive(rng: random.Random, data: bytes) -> bytes:
    """Change bytes, the header of a member, or what a member says of its size."""
    if rng.random() < 0.4:
        return mutate_bytes(rng, data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as held:
            members = {name: held.read(name) for name in held.namelist()}
    except Exception:  # it is none any more
        return mutate_bytes(rng, data)
    name = rng.choice(list(members) or ["x.npy"])
    content = members.get(name, b"")
    chance = rng.random()
    if chance < 0.3:
        header = rng.choice(HEADERS) + b"\n"
        members[name] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        members[name] += content[-rng.randrange(1, 900) :]
    elif chance < 0.8:
        members[name] = mutate_bytes(rng, content)
    else:
        members[rng.choice(("x.npy", "../x.npy", "y", "classes.npy", "\x1b.npy"))] = members.pop(
            name, b""
        )
    buffer = io.BytesIO()
    packed = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(buffer, "w", packed) as archive:
        for one, content in members.items():
            archive.writestr(one, content)
    return buffer.getvalue()


def read_archive(path: Path, out: Path) -> object:
    data = load_data(path, shape=(3, 8, 8))
    return [x.sum() for x, _ in data.batches(2) if isinstance(x, np.ndarray)]


# Images


def images() -> list[bytes]:
    """A small image in each format, and formats that are not read."""
    rng, found = np.random.default_rng(0), []
    pixels = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
    kinds = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA", "AVIF", "EPS", "ICO")
    for kind in kinds:
        if kind in Image.SAVE:
            buffer = io.BytesIO()
            pixels.save(buffer, kind)
            found.append(buffer.getvalue())
    for mode in ("L", "P", "1", "I;16", "RGBA", "LA"):
        buffer = io.BytesIO()
        pixels.convert("L" if mode == "I;16" else mode).convert(mode).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def lay_image(data: bytes, folder: Path) -> Path:
    """Write an image, with a good one of the same class."""
    place = folder / "a"
    place.mkdir()
    (place / "input.png").write_bytes(data)
    (place / "other.png").write_bytes(images()[0])
    return folder


def read_image(path: Path, out: Path) -> object:
    """Read samples, and the same file as a label map and for its size."""
    file, said = path / "a" / "input.png", []
    for read in (
        lambda: load_data(path, shape=(3, 4, 4)),
        lambda: read_map(file),
        lambda: image_size(file),
    ):
        try:
            read()
        except onnxprune.OnnxPruneError as error:
            said.append(error)
    if len(said) == 3:
        raise said[0]
    return None


# Annotations


@cache
def layouts() -> dict[str, dict[str, bytes]]:
    """The same data set in each layout, by name: its files, and which of them is changed."""
    found = {}
    for name, write in (("y", write_yolo), ("c", write_coco), ("v", write_voc)):
        with TemporaryDirectory(prefix="onnxprune-") as folder:
            write(Path(folder), truth())
            files = sorted(one for one in Path(folder).rglob("*") if one.is_file())
            found[name] = {str(one.relative_to(folder)): one.read_bytes() for one in files}
    return found


CHANGED = {"y": "data.yaml", "c": ".json", "v": ".xml", "t": ".txt"}
"""The letter that an input of `annotations` begins with, and the end of the file that it is."""
YAML = (
    b"names: &a [x, y]\nval: *a\n",
    b"a: &a [1]\nb: &b [*a, *a]\nc: &c [*b, *b]\nnames: [*c, *c]\nval: images\n",
    b"names: !!python/object/apply:os.system ['touch hurt']\nval: images/val\n",
    b"names: [a]\nval: " + b"[" * 3000,
    b"names: {0: a, x: b}\nval: 2024-13-45\n",
)
XML = (
    b'<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>',
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    b"<a>" * 20_000,
)


def file_of(letter: str) -> tuple[str, str]:
    """The layout and the file that an input is, by its letter."""
    layout = "y" if letter == "t" else letter
    names = [name for name in layouts()[layout] if name.endswith(CHANGED[letter])]
    return layout, names[0]


def annotations() -> list[bytes]:
    found = []
    for letter in CHANGED:
        layout, name = file_of(letter)
        found.append(letter.encode() + layouts()[layout][name])
    return [*found, *(b"y" + one for one in YAML), *(b"v" + one for one in XML)]


def lay_annotations(data: bytes, folder: Path) -> Path:
    """Write a data set of which one file is the input, and return what is given as samples."""
    letter = data[:1].decode("latin-1")
    layout, changed = file_of(letter if letter in CHANGED else "y")
    for name, content in layouts()[layout].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[1:] if name == changed else content)
    return folder / file_of(layout)[1] if layout in "yc" else folder


def mutate_annotations(rng: random.Random, data: bytes) -> bytes:
    change = mutate_json if data[:1] == b"c" else mutate_bytes
    return data[:1] + change(rng, data[1:])


def read_boxes(path: Path, out: Path) -> object:
    return sum(len(held) for held in read_annotations(path).objects)


# Options


def options() -> list[bytes]:
    """An option and its value, from the rules of all options."""
    found = [b"fail-if\0harmonic_drop > 1% or latency_ratio > 1", b"set\0harmful=0"]
    for name, field in OPTIONS.items():
        rule, default = field.metadata["rule"], field.default
        value = rule.example if isinstance(rule, Pairs) else "1" if default is None else default
        if name in TUNING:
            found.append(f"set\0{name}={value}".encode())
        elif not isinstance(rule, Flag):
            found.append(f"{name}\0{value or 'x'}".encode())
    found += [b"preprocess\0mean=0.5,0.5,0.5:std=0.25,0.25,0.25", b"criterion\0lrp:zplus,absolute"]
    found += [b"input_shapes\0x:1,3,48,320", b"outputs\0y=vector,z", b"metric\0top-5"]
    return found


def mutate_option(rng: random.Random, data: bytes) -> bytes:
    """Change the value of an option; its name only by chance."""
    name, _, value = data.partition(b"\0")
    if rng.random() < 0.02:
        return mutate_bytes(rng, data)
    if rng.random() < 0.3:
        value = rng.choice((*WORDS, *(str(one).encode("utf-8", "replace") for one in VALUES)))
        return name + b"\0" + value
    return name + b"\0" + mutate_bytes(rng, value)


def read_option(path: Path, out: Path) -> object:
    """Read the option as the command line does, and as Python does where it is JSON."""
    name, _, value = path.read_bytes().decode("utf-8", "surrogateescape").partition("\0")
    value = value.replace("\0", "")  # no command line holds it
    if name == "fail-if":
        return Condition(value)
    if name == "preprocess":
        PREPROCESS("preprocess", value)
    flag = {"aim": "for", "input_shapes": "input-shape"}.get(name, name.replace("_", "-"))
    words = ["m.onnx", "-o", "o.onnx", f"--{flag}={value}"]
    try:
        context = main.commands["prune"].make_context("prune", words)
    except click.ClickException as error:
        line = " ".join(harmless(error.format_message(), LONGEST).split())
        raise Refused(line) from error
    asked = {key: held for key, held in context.params.items() if key in OPTIONS}
    settings = Settings.of(**asked)
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    try:
        held = json.loads(value)
    except (ValueError, RecursionError):
        return settings
    return Settings.of(**{name: held}) if name in OPTIONS else settings


Seeds = Callable[[], Sequence[bytes]]

KINDS = (
    Kind("runs", runs, read_run, lay_run, mutate_run),
    Kind("plans", plans, read_plan, lay_file(".json"), mutate_json),
    Kind("scores", scores, read_scores, lay_file(".npz"), mutate_archive),
    Kind("archives", archives, read_archive, lay_file(".npz"), mutate_archive),
    Kind("images", images, read_image, lay_image),
    Kind("annotations", annotations, read_boxes, lay_annotations, mutate_annotations),
    Kind("options", options, read_option, mutate=mutate_option),
)
