"""Token advantages of dialogues that are longer than a training reads at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ilql.batch import tokenize
from ilql.dialogue import Dialogue, Turn
from ilql.method import Start
from sweeps.advantages import advantages_of
from sweeps.stages import load_backbone, load_tokenizer_stage

if TYPE_CHECKING:
    from conftest import Bench


def test_all_that_was_said_in_a_dialogues_windows_is_its_own(bench: Bench) -> None:
    pull, arm = Turn("pull", by_agent=False), Turn("a", by_agent=True, reward=1.0)
    dialogues = [Dialogue((pull, arm) * times, ended=True) for times in (1, 5, 2)]
    trial, tokenizer = bench.trial(data={"windows": True}), load_tokenizer_stage(bench.store, bench.trial())
    lengths = [len(tokenize(each, tokenizer).tokens) for each in dialogues]
    assert lengths[0] <= trial.train.max_tokens < lengths[1]
    model = load_backbone(bench.store, trial)
    module = trial.kind.build(Start(model, model, seed=0), trial.train)
    spoken = advantages_of(trial, module, dialogues, tokenizer, torch.device("cpu"))
    assert [each.pieces for each in spoken] == [("a", "<eoa>") * times for times in (1, 5, 2)]
