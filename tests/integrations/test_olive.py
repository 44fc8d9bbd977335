"""Olive finds the pass by its package config, checks what it is asked for, and goes on after it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from tests.support.models import run
from tests.support.small_net import Small

pytest.importorskip("olive")

SCRIPT = """
import numpy as np
import torch
from olive.data.registry import Registry


class Samples(torch.utils.data.Dataset):
    def __init__(self, path):
        held = np.load(path)
        self.x, self.y = held["x"], held["y"]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, k):
        return {"x": torch.from_numpy(self.x[k])}, int(self.y[k])


@Registry.register_dataset()
def samples(data_dir, **kwargs):
    return Samples(data_dir)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Small) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(small.proto, "model.onnx")
    Path("script.py").write_text(SCRIPT)
    return tmp_path


def olive(passes: dict[str, Any], **more: Any) -> subprocess.CompletedProcess[str]:
    workflow = {
        "input_model": {"type": "ONNXModel", "model_path": "model.onnx"},
        "passes": passes,
        "cache_dir": "cache",
        "output_dir": "out",
        "log_severity_level": 1,
        **more,
    }
    Path("workflow.json").write_text(json.dumps(workflow))
    program = [sys.executable, "-m"]
    subprocess.run(
        [*program, "onnxprune.integrations.olive", "-o", "package.json"], check=True, text=True
    )
    words = ["run", "--config", "workflow.json", "--package-config", "package.json"]
    env = {**os.environ, "OLIVE_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([*program, "olive", *words], capture_output=True, text=True, env=env)


def test_the_page_can_be_followed(folder: Path, small: Small) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "integrations.md").read_text("utf-8")
    (block,) = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    workflow = json.loads(block)
    workflow["passes"]["prune"]["compensate"] = "none"
    Path("reference.npz").write_bytes(small.data.read_bytes())
    done = olive(**workflow)
    assert done.returncode == 0, done.stdout + done.stderr
    pruned = onnx.load("out/model.onnx")
    masked = onnxprune.apply(small.proto, "out/plan.json", masked=True)
    np.testing.assert_allclose(run(pruned, small.x)[0], run(masked, small.x)[0], atol=1e-5)
    report = json.loads(Path("out/report.json").read_text())
    assert report["after"]["macs"] <= 0.6 * report["before"]["macs"]


def test_settings_that_are_wrong_are_one_line(folder: Path, small: Small) -> None:
    done = olive({"prune": {"type": "OnnxPrune", "data": str(small.data), "max_drop": 5}})
    assert done.returncode != 0
    assert "max_drop 5: expected a number from 0 to 1; for 5 %, give 0.05" in done.stderr
    assert not Path("out/model.onnx").exists()


def test_olive_searches_with_its_own_data_and_quantises_after(folder: Path, small: Small) -> None:
    data = {"name": "samples", "type": "DataContainer", "user_script": "script.py"}
    data |= {"load_dataset_config": {"type": "samples", "params": {"data_dir": str(small.data)}}}
    data |= {"dataloader_config": {"type": "default_dataloader", "params": {"batch_size": 8}}}
    data |= {"post_process_data_config": {"type": "text_classification_post_process"}}
    metric = {
        "name": "accuracy",
        "type": "accuracy",
        "data_config": "samples",
        "sub_types": [
            {
                "name": "accuracy_score",
                "priority": 1,
                "metric_config": {"task": "multiclass", "num_classes": 3},
            }
        ],
    }
    done = olive(
        {
            "prune": {"type": "OnnxPrune", "data_config": "samples", "threads": 1},
            "quantise": {"type": "OnnxStaticQuantization", "data_config": "samples"},
        },
        data_configs=[data],
        evaluators={"judge": {"type": "OnnxEvaluator", "metrics": [metric]}},
        evaluator="judge",
        search_strategy={"execution_order": "joint", "sampler": "sequential", "max_samples": 3},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(Path("out/footprint.json").read_text())
    asked = [node["pass_run_config"] or {} for node in found.values()]
    assert {one["macs"] for one in asked if "macs" in one} == {0.3, 0.5, 0.7}
