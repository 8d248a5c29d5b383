"""The presets of the comments ablation."""

from __future__ import annotations

from collections.abc import Mapping

from ilql.hyperparameters import Value
from ilql.language_model import Architecture
from ilql.methods import bc
from sweeps.job import Resources
from sweeps.presets import Preset

PAPER: Mapping[str, Value] = {
    "model": "gpt2 (12 layers of 768), pretrained",
    "vocabulary": "GPT-2's, 50,257",
    "episodes": 1024,
    "behaviour.batch_size": 64,
    "behaviour.learning_rate": 1e-4,
    "train.batch_size": 64,
    "train.learning_rate": 1e-4,
    "train.polyak": 0.005,
    "train.cql_weight": 0.25,
    "train.max_tokens": 512,
    "decode.max_new_tokens": 256,
}
"""What the paper's runs on comments used, by the configurations of its public implementation (config/toxicity)."""

SMOKE = Preset(
    name="smoke",
    world={"comments": 600},
    architecture=Architecture(layers=1, width=48, heads=2, context=96),
    vocabulary=320,
    behaviour=bc.Train(steps=60, batch_size=16, learning_rate=5e-3, max_tokens=64),
    base={
        "train.steps": 40,
        "train.batch_size": 16,
        "train.learning_rate": 3e-3,
        "train.polyak": 0.1,
        "train.cql_weight": 0.25,
        "train.start": "behaviour",
        "train.max_tokens": 64,
        "decode.greedy": False,
        "decode.max_new_tokens": 24,
    },
    tune_episodes=16,
    report_episodes=24,
    proposals=0,
    resources=Resources(checkpoint_every=20, log_every=10),
    paper=PAPER,
)

LAPTOP = Preset(
    name="laptop",
    architecture=Architecture(layers=2, width=96, heads=4, context=192),
    vocabulary=512,
    behaviour=bc.Train(steps=800, batch_size=32, learning_rate=2e-3, max_tokens=128),
    base={
        "train.steps": 600,
        "train.batch_size": 32,
        "train.learning_rate": 1e-3,
        "train.polyak": 0.1,
        "train.cql_weight": 0.25,
        "train.start": "behaviour",
        "train.max_tokens": 128,
        "decode.greedy": False,
        "decode.max_new_tokens": 48,
    },
    with_data={"vocabulary": 2048},
    tune_episodes=128,
    report_episodes=512,
    proposals=0,
    resources=Resources(micro_batch=16, checkpoint_every=200, log_every=20),
    paper=PAPER,
)

PAPER_SIZE = Preset(
    name="paper",
    architecture=None,
    model="gpt2",
    vocabulary=0,
    cut_vocabulary=False,  # as published
    behaviour=bc.Train(steps=4096, batch_size=64, learning_rate=1e-4, max_tokens=512),
    base={
        "train.steps": 4096,
        "train.batch_size": 64,
        "train.learning_rate": 1e-4,
        "train.polyak": 0.005,
        "train.cql_weight": 0.25,
        "train.start": "pretrained",
        "train.max_tokens": 512,
        "decode.greedy": False,
        "decode.max_new_tokens": 256,
    },
    tune_episodes=1024,
    report_episodes=1024,
    proposals=16,
    round_size=4,
    rung=0.5,
    resources=Resources(gpus_per_worker=1.0, micro_batch=16, checkpoint_every=256, log_every=16),
)

PRESETS = {preset.name: preset for preset in (SMOKE, LAPTOP, PAPER_SIZE)}
