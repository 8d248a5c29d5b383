"""The presets of the Wordle ablation."""

from __future__ import annotations

from collections.abc import Mapping

from ilql.hyperparameters import Value
from ilql.language_model import Architecture
from ilql.methods import bc
from sweeps.job import Resources
from sweeps.presets import Preset

PAPER: Mapping[str, Value] = {
    "model": "gpt2 (12 layers of 768), from scratch",
    "episodes": 1024,
    "behaviour.batch_size": 64,
    "behaviour.learning_rate": 1e-4,
    "behaviour.weight_decay": 0.01,
    "train.batch_size": 1024,
    "train.learning_rate": 1e-5,
    "train.polyak": 0.005,
    "train.cql_weight": 1e-4,
    "train.start": "pretrained",
}
"""What the paper's Wordle runs used, by the configurations of its public implementation (config/wordle)."""

WORD = 6
"""Tokens of a guess: five letters and its end."""

CONTEXT = 80
"""A game of six guesses is 6 · 12 tokens, a beginning and an end."""

SMOKE = Preset(
    name="smoke",
    world={"train_games": 40, "tune_games": 10, "report_games": 10},
    architecture=Architecture(layers=1, width=48, heads=2, context=CONTEXT),
    vocabulary=0,
    behaviour=bc.Train(steps=60, batch_size=16, learning_rate=5e-3, max_tokens=CONTEXT),
    base={
        "train.steps": 40,
        "train.batch_size": 16,
        "train.learning_rate": 3e-3,
        "train.polyak": 0.1,
        "train.cql_weight": 1e-4,
        "train.start": "behaviour",
        "train.max_tokens": CONTEXT,
        "decode.max_new_tokens": WORD,
    },
    tune_episodes=16,
    report_episodes=24,
    proposals=0,
    resources=Resources(checkpoint_every=20, log_every=10),
    paper=PAPER,
)

LAPTOP = Preset(
    name="laptop",
    # Rotary positions: an adversary repeats its guesses, and to look twelve tokens back is then one thing to learn, and
    # not one for every place. A GPT-2 of this size has not learnt to copy after 1,000 steps; this one has after 1,050.
    architecture=Architecture(family="llama", layers=2, width=96, heads=4, context=CONTEXT),
    vocabulary=0,
    behaviour=bc.Train(steps=1500, batch_size=32, learning_rate=2e-3, max_tokens=CONTEXT),
    base={
        "train.steps": 1500,
        "train.batch_size": 32,
        "train.learning_rate": 5e-4,
        # A high expectile takes noise in its target for choices, 24 tokens in a row: the target is a long average, no
        # value leaves what a game can pay, and all begin near what games do pay. Begun at 0, they stay there at τ .99.
        "train.polyak": 0.02,
        "train.value_low": -6.0,
        "train.value_high": 0.0,
        "train.head_constant": -4.0,
        "train.cql_weight": 1e-4,
        "train.start": "behaviour",
        "train.max_tokens": CONTEXT,
        "decode.greedy": False,
        "decode.max_new_tokens": WORD,
    },
    tune_episodes=256,
    report_episodes=1024,
    proposals=0,
    resources=Resources(checkpoint_every=200, log_every=20),
    paper=PAPER,
)

PAPER_SIZE = Preset(
    name="paper",
    architecture=Architecture(layers=12, width=768, heads=12, context=CONTEXT, dropout=0.1),
    vocabulary=0,
    cut_vocabulary=False,  # as published
    behaviour=bc.Train(steps=16_384, batch_size=64, learning_rate=1e-4, weight_decay=0.01, max_tokens=CONTEXT),
    base={
        "train.steps": 16_384,
        "train.batch_size": 1024,
        "train.learning_rate": 1e-5,
        "train.polyak": 0.005,
        "train.cql_weight": 1e-4,
        "train.start": "pretrained",
        "train.max_tokens": CONTEXT,
        "decode.max_new_tokens": WORD,
    },
    tune_episodes=1024,
    report_episodes=1024,
    proposals=16,
    round_size=4,
    rung=0.5,
    resources=Resources(gpus_per_worker=1.0, micro_batch=64, checkpoint_every=256, log_every=16),
)

PRESETS = {preset.name: preset for preset in (SMOKE, LAPTOP, PAPER_SIZE)}
