"""The vocabulary cut as a stage: what it decides, what it leaves alone, how a policy gets its whole vocabulary back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from ilql.language_model import vocabulary_size
from ilql.logits_processor import ValueGuidance, load_values
from ilql.networks import QNetwork, ValueNetworks
from sweeps import bandit_ablation, cli, dialogue_ablation, reddit_ablation, visdial_ablation, wordle_ablation
from sweeps.asked import options_of
from sweeps.definite import make_sweep
from sweeps.model_card import model_card
from sweeps.options import Options
from sweeps.policy import export_policy, load_policy
from sweeps.sizing import chosen_preset
from sweeps.spec import Backbone, TrialSpec
from sweeps.stages import ensure_start, load_backbone, load_tokenizer_stage, load_tokens, pretrained_digest
from sweeps.store import Store
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench, MakeTrial

IDS = ("tokenizer_key", "backbone_key", "tokens_key", "weights_id", "trial_id")
WORDS = ["pull", "the lever", "a", "b", "a or b", "pull the other one"]
TEXT = 1 + 256 + 18
"""Text tokens of the tiny model: an end of text, all bytes, and some merges."""

OWN: dict[str, Any] = {"architecture": None, "pretrained": "abc", "vocabulary": 0}
CUT = OWN | {"cut_vocabulary": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a tiny GPT-2 with a byte-level tokeniser."""
    folder = tmp_path_factory.mktemp("model")
    text = Tokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    text.train_from_iterator(WORDS * 3, trainer=trainer)
    assert text.get_vocab_size() == TEXT
    text.save(str(folder / "tokenizer.json"))
    config = GPT2Config(
        vocab_size=TEXT, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        factory: Any = AutoModelForCausalLM
        made = factory.from_config(config)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.3)
    made.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Trained:
    """Cloned from the tiny model with its vocabulary cut, and listed in a sweep; others are listed beside it."""

    bench: Bench
    trial: TrialSpec
    others: dict[str, TrialSpec]


@pytest.fixture(scope="module")
def trained(copy_bench: Callable[[], Bench], model: Path) -> Trained:
    bench = copy_bench()
    backbone = CUT | {"pretrained": pretrained_digest(model)}
    trial = bench.trial("bc", backbone=backbone)
    ensure_start(bench.store, trial, model)
    others = {
        method: bench.trial(method, backbone=backbone, train={"steps": 1})
        for method in ("ilql", "decision_transformer")
    }
    for each in (trial, *others.values()):
        assert run_job(bench.job(each, each), lambda numbers: None) == "finished"
        member = bench.member(each)
        bench.store.put("member", f"s/{each.trial_id}", member)
    return Trained(bench, trial, others)


def ids(trial: TrialSpec) -> list[str]:
    return [getattr(trial, name) for name in IDS]


class TestKeys:
    def test_a_cut_vocabulary_is_another_tokeniser_and_all_that_follows(self, make_trial: MakeTrial) -> None:
        whole, cut = make_trial(backbone=OWN), make_trial(backbone=CUT)
        assert not set(ids(whole)) & set(ids(cut))

    def test_it_depends_on_the_world_it_is_cut_to_and_a_whole_one_does_not(self, make_trial: MakeTrial) -> None:
        for backbone, depends in ((CUT, True), (OWN, False)):
            one, other = (make_trial(backbone=backbone, data={"world": world}) for world in ("w0", "w1"))
            assert (one.tokenizer_key != other.tokenizer_key) == depends
            assert (one.backbone_key != other.backbone_key) == depends

    def test_raising_the_rules_version_renews_what_is_cut_and_nothing_else(
        self, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trials = [lambda backbone=backbone: make_trial(backbone=backbone) for backbone in ({}, OWN, CUT)]
        before = [ids(trial()) for trial in trials]
        monkeypatch.setattr("ilql.vocabulary.VERSION", 99)
        scratch, whole, cut = (ids(trial()) for trial in trials)
        assert [scratch, whole] == before[:2]
        assert not set(cut) & set(before[2])

    def test_a_trial_that_was_stored_before_there_was_a_cut_has_its_whole_vocabulary(
        self, make_trial: MakeTrial
    ) -> None:
        trial = make_trial(backbone=OWN)
        stored = json.loads(trial.to_json())
        del stored["backbone"]["cut_vocabulary"]
        assert TrialSpec.from_json(json.dumps(stored)) == trial

    def test_a_cut_trial_comes_back_from_its_text_and_says_so_in_its_row(self, make_trial: MakeTrial) -> None:
        cut = make_trial(backbone=CUT)
        assert TrialSpec.from_json(cut.to_json()) == cut
        assert cut.columns()["backbone.cut_vocabulary"] is True
        assert make_trial(backbone=OWN).columns()["backbone.cut_vocabulary"] is False
        assert "backbone.cut_vocabulary" not in make_trial().columns()

    def test_a_vocabulary_made_for_the_data_is_not_cut(self, make_trial: MakeTrial) -> None:
        whole: Backbone = make_trial().backbone
        with pytest.raises(ValueError, match="cut_vocabulary is about a pretrained model's own one, got one of 64"):
            dataclasses.replace(whole, cut_vocabulary=True)


class TestStage:
    def test_what_occurs_is_kept_in_tokeniser_and_model(self, trained: Trained) -> None:
        store, trial = trained.bench.store, trained.trial
        tokenizer = load_tokenizer_stage(store, trial)
        words = {i for text in ("pull", "a", "b") for i in tokenizer.whole.encode(text)}
        assert set(tokenizer.kept or ()) == words | set(range(257))  # bytes and the end of text come first
        assert vocabulary_size(load_backbone(store, trial)) == tokenizer.size < tokenizer.whole.size

    def test_training_reads_the_tokens_it_would_read_with_the_whole_vocabulary(
        self, trained: Trained, model: Path
    ) -> None:
        store, cut = trained.bench.store, trained.trial
        whole = dataclasses.replace(cut, backbone=dataclasses.replace(cut.backbone, cut_vocabulary=False))
        ensure_start(store, whole, model)
        rows = load_tokenizer_stage(store, cut).rows
        assert load_tokenizer_stage(store, whole).kept is None
        for one, other in zip(load_tokens(store, cut), load_tokens(store, whole), strict=True):
            assert np.array_equal(rows[one.tokens], other.tokens)

    def test_its_policy_hears_what_does_not_occur(self, trained: Trained) -> None:
        policy = load_policy(trained.trial.trial_id, trained.bench.store)
        assert isinstance(policy.reply([("漢字 😀", False)]), str)


def answer_of(folder: Path, tokenizer: Any, ids: list[int], **settings: Any) -> str:
    """What Transformers says with an exported policy."""
    factory: Any = AutoModelForCausalLM
    model = factory.from_pretrained(str(folder))
    guided = [ValueGuidance.from_pretrained(folder, **settings)] if (folder / "guidance.json").is_file() else []
    out = model.generate(torch.tensor([ids]), logits_processor=guided, do_sample=False)
    return str(tokenizer.decode(out[0, len(ids) :].tolist()))


class TestExportOfValues:
    def test_generation_says_what_the_policy_says(self, trained: Trained, model: Path, tmp_path: Path) -> None:
        trial = trained.others["ilql"]
        said = set()
        for beta in (0.0, 50.0):
            greedy = dataclasses.replace(trial, decode=dataclasses.replace(trial.decode, greedy=True, beta=beta))
            member = trained.bench.member(greedy)
            trained.bench.store.put("member", f"s/{greedy.trial_id}", member)
            export_policy(greedy.trial_id, tmp_path / str(beta), trained.bench.store, model=str(model))
            policy = load_policy(greedy.trial_id, trained.bench.store)
            whole = policy.tokenizer.whole
            answer = answer_of(tmp_path / str(beta), whole, whole.heard_first("pull"))
            assert answer == policy.reply([("pull", False)])
            assert load_values(tmp_path / str(beta))[1].rows == tuple(policy.tokenizer.rows)
            said.add(answer)
        assert len(said) == 2

    @pytest.mark.parametrize("separate_policy", [True, False])
    def test_loaded_again_its_networks_give_the_same_bits(
        self, bench: Bench, tmp_path: Path, separate_policy: bool
    ) -> None:
        trial = bench.trial("ilql", train={"separate_policy": separate_policy})
        assert run_job(bench.job(trial, trial), lambda numbers: None) == "finished"
        bench.store.put("member", "s/t", bench.member(trial))
        export_policy(trial.trial_id, tmp_path / "out", bench.store)
        policy, factory, ids = load_policy(trial.trial_id, bench.store), AutoModelForCausalLM, torch.tensor([[1, 5, 9]])
        again: Any = factory.from_pretrained(str(tmp_path / "out"), attn_implementation="sdpa")
        critic, own = load_values(tmp_path / "out")[0], policy.actor.critic
        assert isinstance(own, QNetwork)
        with torch.no_grad():
            assert torch.equal(again(ids).logits, policy.actor.language_model(ids).logits)
            hidden = [each.trunk(ids).last_hidden_state for each in (critic, own)]
            assert torch.equal(*hidden)
            assert torch.equal(critic.minimum(hidden[0]), own.minimum(hidden[1]))
        assert isinstance(policy.module, ValueNetworks)
        heads = load_file(tmp_path / "out" / "heads.safetensors")
        assert torch.equal(heads["v_head.2.weight"], policy.module.v_head.get_parameter("2.weight"))

    def test_a_joint_policy_of_a_cut_vocabulary_keeps_its_own_head(
        self, trained: Trained, model: Path, tmp_path: Path
    ) -> None:
        bench, trial = trained.bench, trained.others["ilql"]
        joint = dataclasses.replace(trial, train=dataclasses.replace(trial.train, separate_policy=False, steps=3))
        assert run_job(bench.job(joint, joint), lambda numbers: None) == "finished"
        bench.store.put("member", "s/j", bench.member(joint))
        export_policy(joint.trial_id, tmp_path / "out", bench.store, model=str(model))
        policy, factory = load_policy(joint.trial_id, bench.store), AutoModelForCausalLM
        again: Any = factory.from_pretrained(str(tmp_path / "out"))
        own: Any = policy.actor.language_model
        for mine, whole in ((own.lm_head, again.lm_head), (own.transformer.wte, again.transformer.wte)):
            assert torch.equal(whole.weight[policy.tokenizer.rows], mine.weight)
        assert not torch.equal(again.lm_head.weight, again.transformer.wte.weight)
        assert not again.config.tie_word_embeddings  # a reader that ties them by it would lose the head

    def test_its_card_has_the_settings_the_score_and_how_it_was_measured(
        self, trained: Trained, model: Path, tmp_path: Path
    ) -> None:
        trial, store = trained.others["ilql"], trained.bench.store
        export_policy(trial.trial_id, tmp_path / "out", store, model=str(model))
        card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
        assert "8 episodes, played in the task's environment, seeds 0 to 7, scenes of the split `report`" in card
        assert "| `train.tau` | 0.7 | expectile of the regression of V on Q |" in card
        assert "| `decode.beta` | 8 | strength of the advantage at decoding;" in card
        assert "| `behaviour.steps` | 12 |" in card
        assert f"world `{trained.bench.world}`" in card
        assert f"(digest `{trial.backbone.pretrained}`), whose licence holds" in card
        assert "ValueGuidance.from_pretrained(FOLDER)" in card
        # Of 16 episodes with a standard deviation of 2: 2 / √16 = 0.5, and 1.96 of those on either side.
        record = {"status": "finished", "score": -8.0, "score_sd": 2.0, "episodes": 16}
        known = model_card(trial, record, guided=True, dialogue="")
        assert "mean return **-8.000** ± 0.500 (standard error; 95 % interval -8.980 to -7.020, over episodes)" in known
        assert "It was not judged." in model_card(trial, None, guided=True, dialogue="")
        export_policy(trained.trial.trial_id, tmp_path / "bc", store, model=str(model))
        assert "ValueGuidance" not in (tmp_path / "bc" / "README.md").read_text(encoding="utf-8")


class TestExport:
    def test_its_kept_rows_are_the_trained_ones_and_the_others_the_pretrained_models(
        self, trained: Trained, model: Path, tmp_path: Path
    ) -> None:
        export_policy(trained.trial.trial_id, tmp_path / "out", trained.bench.store, model=str(model))
        policy = load_policy(trained.trial.trial_id, trained.bench.store)
        factory: Any = AutoModelForCausalLM
        before, after = factory.from_pretrained(str(model)), factory.from_pretrained(str(tmp_path / "out"))
        cut, rows = policy.actor.language_model.state_dict(), policy.tokenizer.rows
        left_out = np.setdiff1d(np.arange(TEXT), rows)
        assert len(left_out) > 5
        for name, value in after.state_dict().items():
            if len(value) == TEXT + 6:
                assert torch.equal(value[rows], cut[name])
                assert torch.equal(value[left_out], before.state_dict()[name][left_out])
                assert not torch.equal(value[:TEXT], before.state_dict()[name])
            else:
                assert torch.equal(value, cut[name])

    def test_its_tokeniser_is_the_original_one_and_its_structure_is_named(
        self, trained: Trained, model: Path, tmp_path: Path
    ) -> None:
        export_policy(trained.trial.trial_id, tmp_path / "out", trained.bench.store, model=str(model))
        own, original = (AutoTokenizer.from_pretrained(str(folder)) for folder in (tmp_path / "out", model))
        for text in (*WORDS, "漢字 😀"):
            assert own(text)["input_ids"] == original(text)["input_ids"]
        structure = json.loads((tmp_path / "out" / "structure.json").read_text(encoding="utf-8"))
        assert structure == {name: TEXT + i for i, name in enumerate(["bos", "boa", "eos", "eoa", "eod", "pad"])}
        generation = json.loads((tmp_path / "out" / "generation_config.json").read_text(encoding="utf-8"))
        assert generation["eos_token_id"] == structure["eoa"]

    def test_a_policy_from_scratch_is_written_as_it_is(self, bench: Bench, tmp_path: Path) -> None:
        trial = bench.trial("bc")
        bench.store.put("member", "s/t", bench.member(trial))
        assert cli.main(["export", trial.trial_id, str(tmp_path / "out"), "--store", str(bench.store.folder)]) == 0
        factory: Any = AutoModelForCausalLM
        after = factory.from_pretrained(str(tmp_path / "out")).state_dict()
        own = load_policy(trial.trial_id, bench.store).actor.language_model.state_dict()
        assert all(torch.equal(value, own[name]) for name, value in after.items())

    def test_what_cannot_be_exported_is_refused(self, trained: Trained, model: Path, tmp_path: Path) -> None:
        store, trial = trained.bench.store, trained.trial
        asked = trained.others["decision_transformer"].trial_id
        with pytest.raises(ValueError, match="with a Q head for its tokens, got an 'decision_transformer' trial"):
            export_policy(asked, tmp_path / "out", store, model=str(model))
        with pytest.raises(ValueError, match="must be given the model it began as; --model names it"):
            export_policy(trial.trial_id, tmp_path / "out", store)
        assert not (tmp_path / "out").exists()
        (other := tmp_path / "other").mkdir()
        for file in model.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        (other / "tokenizer_config.json").write_text("{}", encoding="utf-8")
        with pytest.raises(ValueError, match=r"--model must be what the policy began as \([0-9a-f]+\), got "):
            export_policy(trial.trial_id, tmp_path / "out", store, model=str(other))
        with pytest.raises(ValueError, match="an export's folder must be new or empty"):
            export_policy(trial.trial_id, other, store, model=str(model))


def options(*arguments: str, store: Path | None = None) -> Options:
    where = () if store is None else ("--store", str(store))
    return options_of(bandit_ablation.QUESTION, "p", ("--preset", "smoke", *arguments, *where))


class TestAsking:
    @pytest.mark.parametrize(
        ("arguments", "cut"), [((), True), (("--no-cut-vocabulary",), False), (("--cut-vocabulary",), True)]
    )
    def test_a_pretrained_vocabulary_is_cut_unless_it_is_said_otherwise(
        self, model: Path, tmp_path: Path, arguments: tuple[str, ...], cut: bool
    ) -> None:
        asked = options("--methods", "bc", "--model", str(model), *arguments, store=tmp_path)
        question, said = bandit_ablation.QUESTION, list[str]()
        sweep = make_sweep(question, chosen_preset(question, asked), asked, Store(tmp_path, durable=False), said.append)
        assert sweep.shared.backbone.cut_vocabulary == cut
        line = (
            "258 of 275 tokens of the pretrained vocabulary are kept: those that occur in the training split, and "
            "those that spell all others; --no-cut-vocabulary keeps all"
        )
        assert (line in said) == cut

    def test_a_model_from_scratch_has_nothing_to_cut(self, tmp_path: Path) -> None:
        asked, question, said = options("--methods", "bc", store=tmp_path), bandit_ablation.QUESTION, list[str]()
        sweep = make_sweep(question, chosen_preset(question, asked), asked, Store(tmp_path, durable=False), said.append)
        assert not sweep.shared.backbone.cut_vocabulary
        assert not any("vocabulary" in line for line in said)
        with pytest.raises(ValueError, match="--cut-vocabulary is, as its opposite, about a pretrained model"):
            chosen_preset(question, options("--no-cut-vocabulary"))

    @pytest.mark.parametrize("module", [dialogue_ablation, reddit_ablation, visdial_ablation, wordle_ablation])
    def test_the_paper_presets_stay_as_published(self, module: Any) -> None:
        cut = {name: preset.cut_vocabulary for name, preset in module.QUESTION.presets.items()}
        assert cut == {"smoke": True, "laptop": True, "paper": False}

    def test_another_vocabulary_makes_another_sweep_and_no_word_of_it_the_same_as_ever(self) -> None:
        assert options().distinction("standard") == []
        plain, cut, whole = (
            options("--model", "m", *more).distinction("standard")
            for more in ((), ("--cut-vocabulary",), ("--no-cut-vocabulary",))
        )
        assert len({*plain, *cut, *whole}) == 3
        assert plain == ["6a207d"]  # recorded before there was a cut: a rerun finds the sweep of that name
