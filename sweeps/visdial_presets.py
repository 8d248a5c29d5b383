"""The presets of the visual-dialogue ablation."""

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
    "behaviour.steps": "until the evaluation loss is lowest",
    "behaviour.batch_size": 256,
    "behaviour.learning_rate": 1e-4,
    "train.steps": "2,048 to 4,608, chosen by hand",
    "train.batch_size": 64,
    "train.learning_rate": 1e-5,
    "train.polyak": 0.005,
    "train.start": "pretrained",
    "decode.max_new_tokens": 40,
}
"""What the paper's visual-dialogue runs used, by the configurations of its public implementation (config/vis_dial)."""

SMOKE = Preset(
    name="smoke",
    world={"train_scenes": 200, "tune_scenes": 60, "report_scenes": 60},
    architecture=Architecture(layers=1, width=48, heads=2, context=256),
    vocabulary=320,
    behaviour=bc.Train(steps=60, batch_size=16, learning_rate=5e-3, max_tokens=256),
    base={
        "train.steps": 40,
        "train.batch_size": 16,
        "train.learning_rate": 3e-3,
        "train.polyak": 0.1,
        "train.start": "behaviour",
        "train.max_tokens": 256,
        "decode.max_new_tokens": 16,
    },
    methods={"chai": {"train.proposal_tokens": 16, "train.proposals": 2}},
    tune_episodes=16,
    report_episodes=24,
    proposals=2,
    rung=0.5,
    resources=Resources(checkpoint_every=20, log_every=10),
    paper=PAPER,
)

LAPTOP = Preset(
    name="laptop",
    architecture=Architecture(layers=2, width=96, heads=4, context=256),
    vocabulary=512,
    behaviour=bc.Train(steps=400, batch_size=32, learning_rate=2e-3, max_tokens=256),
    base={
        "train.steps": 400,
        "train.batch_size": 16,
        "train.learning_rate": 1e-3,
        "train.polyak": 0.3,
        "train.start": "behaviour",
        "train.max_tokens": 256,
        "decode.max_new_tokens": 20,
    },
    methods={"chai": {"train.proposal_tokens": 20, "train.steps": 4000}},
    with_data={"vocabulary": 2048},
    tune_episodes=128,
    report_episodes=256,
    proposals=2,
    rung=0.5,
    resources=Resources(micro_batch=4, checkpoint_every=100, log_every=10),
    paper=PAPER,
)

PAPER_SIZE = Preset(
    name="paper",
    architecture=None,
    model="gpt2",
    vocabulary=0,
    cut_vocabulary=False,  # as published
    behaviour=bc.Train(steps=2048, batch_size=256, learning_rate=1e-4, max_tokens=1024),
    base={
        "train.steps": 4096,
        "train.batch_size": 64,
        "train.learning_rate": 1e-5,
        "train.polyak": 0.005,
        "train.start": "pretrained",
        "train.max_tokens": 1024,
        "decode.max_new_tokens": 40,
    },
    methods={
        "cql": {"train.learning_rate": 1e-4},
        "utterance_ilql": {"train.learning_rate": 1e-4},
        "chai": {"train.batch_size": 16, "train.steps": 114_688},
        "decision_transformer": {"train.batch_size": 64},
        "psi": {"decode.max_new_tokens": 10},
    },
    tune_episodes=1024,
    report_episodes=1024,
    proposals=16,
    round_size=4,
    rung=0.5,
    resources=Resources(gpus_per_worker=1.0, micro_batch=16, checkpoint_every=256, log_every=16),
    paper={name: PAPER[name] for name in ("behaviour.steps", "train.steps")},
)

PRESETS = {preset.name: preset for preset in (SMOKE, LAPTOP, PAPER_SIZE)}
