"""The presets of an ablation on one's own dialogues."""

from __future__ import annotations

from ilql.language_model import Architecture
from ilql.methods import bc
from sweeps.job import Resources
from sweeps.presets import Preset

SMOKE = Preset(
    name="smoke",
    architecture=Architecture(layers=1, width=48, heads=2, context=256),
    vocabulary=320,
    behaviour=bc.Train(steps=60, batch_size=16, learning_rate=5e-3, max_tokens=256),
    base={
        "train.steps": 40,
        "train.batch_size": 16,
        "train.learning_rate": 3e-3,
        "train.polyak": 0.1,
        "train.cql_weight": 0.25,
        "train.start": "behaviour",
        "train.max_tokens": 256,
        "decode.max_new_tokens": 24,
    },
    methods={"chai": {"train.proposal_tokens": 24, "train.proposals": 2}},
    tune_episodes=16,
    report_episodes=24,
    proposals=0,
    resources=Resources(checkpoint_every=20, log_every=10),
)

LAPTOP = Preset(
    name="laptop",
    architecture=Architecture(layers=2, width=96, heads=4, context=512),
    vocabulary=512,
    behaviour=bc.Train(steps=400, batch_size=16, learning_rate=2e-3, max_tokens=512),
    base={
        "train.steps": 400,
        "train.batch_size": 16,
        "train.learning_rate": 1e-3,
        "train.polyak": 0.2,
        "train.cql_weight": 0.25,
        "train.start": "behaviour",
        "train.max_tokens": 512,
        "decode.max_new_tokens": 60,
    },
    methods={"chai": {"train.proposal_tokens": 60, "train.steps": 4000}},
    with_data={"vocabulary": 2048},
    tune_episodes=128,
    report_episodes=256,
    proposals=0,
    resources=Resources(micro_batch=4, checkpoint_every=100, log_every=10),
)

PAPER_SIZE = Preset(
    name="paper",
    architecture=None,
    model="gpt2",
    vocabulary=0,
    cut_vocabulary=False,  # as published
    behaviour=bc.Train(steps=2048, batch_size=64, learning_rate=1e-4, max_tokens=1024),
    base={
        "train.steps": 2048,
        "train.batch_size": 64,
        "train.learning_rate": 1e-5,
        "train.polyak": 0.005,
        "train.cql_weight": 0.25,
        "train.start": "pretrained",
        "train.max_tokens": 1024,
        "decode.max_new_tokens": 128,
    },
    methods={"chai": {"train.proposal_tokens": 128, "train.steps": 16_384}},
    tune_episodes=512,
    report_episodes=1024,
    proposals=8,
    round_size=4,
    rung=0.5,
    resources=Resources(gpus_per_worker=1.0, micro_batch=8, checkpoint_every=256, log_every=16),
)

PRESETS = {preset.name: preset for preset in (SMOKE, LAPTOP, PAPER_SIZE)}
