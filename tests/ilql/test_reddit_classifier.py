"""Classifiers of comments: how they are measured, trained, calibrated, stored, and brought along."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from ilql.tasks.reddit.auc import Z, interval, measure_auc
from ilql.tasks.reddit.classifier import (
    KINDS,
    LinearClassifier,
    count_kinds,
    fit_classifier,
    fit_platt,
    load_classifier,
)
from ilql.tasks.reddit.judges import LexiconJudge, OutOfFold, Remembered, load_judge, save_judge
from ilql.tasks.reddit.transformer import TransformerClassifier, load_transformer, transformer_digest

UNKNOWN = "[UNK]"
WORDS = [UNKNOWN, "mossy", "blorp", "you", "kettle", "fine", "zoggle", "a"]
RUDE = [f"you {rude} {i % 5} {thing}" for i in range(30) for rude, thing in (("blorp", "kettle"), ("zoggle", "moss"))]
KIND_ONES = [f"you fine {i % 5} {thing}" for i in range(30) for thing in ("kettle", "moss")]
TEXTS, TRUTH = RUDE + KIND_ONES, [True] * 60 + [False] * 60


def fit(kind: str, *, balanced: bool = True) -> LinearClassifier:
    return fit_classifier(TEXTS, TRUTH, kind=kind, most_terms=500, balanced=balanced).classifier


class TestAuc:
    def test_the_area_of_four_points(self) -> None:
        # Positive .9 and .4, negative .5 and .1. Pairs in order: (.9, .5), (.9, .1), (.4, .1); not (.4, .5): 3 of 4.
        area = measure_auc([0.9, 0.5, 0.4, 0.1], [True, False, True, False])
        assert area.value == 0.75
        assert (area.positives, area.negatives) == (2, 2)

    def test_ties_count_half(self) -> None:
        # Positive .5 and .5, negative .5 and .1: two ties and two in order, (½ + ½ + 1 + 1) / 4.
        assert measure_auc([0.5, 0.5, 0.5, 0.1], [True, True, False, False]).value == 0.75

    def test_the_interval_ends_where_the_estimate_is_z_standard_errors_away(self) -> None:
        low, high = interval(0.8, 20, 30)
        assert 0.0 < low < 0.8 < high < 1.0
        for end in (low, high):
            # Hanley and McNeil: Q₁ = A/(2 − A), Q₂ = 2A²/(1 + A).
            first, second = end / (2 - end), 2 * end * end / (1 + end)
            variance = (end * (1 - end) + 19 * (first - end * end) + 29 * (second - end * end)) / (20 * 30)
            assert abs(end - 0.8) == pytest.approx(Z * math.sqrt(variance), abs=1e-9)

    def test_the_interval_of_a_perfect_area_has_a_width(self) -> None:
        low, high = interval(1.0, 10, 10)
        assert high == 1.0
        assert 0.6 < low < 0.95
        assert interval(0.0, 10, 10) == pytest.approx((0.0, 1.0 - low))

    def test_one_kind_alone_cannot_be_measured(self) -> None:
        with pytest.raises(ValueError, match="on both kinds, got 2 positive and 0 negative"):
            measure_auc([0.1, 0.2], [True, True])


class TestPlatt:
    def test_two_sums_get_the_probabilities_of_their_targets(self) -> None:
        # Sum 1: three of four positive, sum 0: one of four. Targets with n₊ = n₋ = 4: 5/6 and 1/6, so the fitted
        # probabilities are (3 · 5/6 + 1/6) / 4 = 2/3 and 1/3: b = −log 2 and a + b = log 2.
        sums = np.array([1.0] * 4 + [0.0] * 4)
        truth = np.array([True] * 3 + [False] + [True] + [False] * 3)
        slope, offset = fit_platt(sums, truth, balanced=False)
        assert offset == pytest.approx(-math.log(2), abs=1e-6)
        assert slope == pytest.approx(2 * math.log(2), abs=1e-6)

    def test_balanced_counts_both_kinds_alike(self) -> None:
        # One sum for all, two positive and eight negative. Targets 3/4 and 1/10: the mean is (3/4 + 1/10) / 2 = .425.
        truth = np.array([True] * 2 + [False] * 8)
        _, offset = fit_platt(np.zeros(10), truth, balanced=True)
        assert 1 / (1 + math.exp(-offset)) == pytest.approx(0.425, abs=1e-6)
        _, offset = fit_platt(np.zeros(10), truth, balanced=False)
        assert 1 / (1 + math.exp(-offset)) == pytest.approx(0.2 * 0.75 + 0.8 * 0.1, abs=1e-6)

    def test_separable_sums_have_a_finite_slope(self) -> None:
        slope, offset = fit_platt(np.array([-1.0, -1.0, 1.0, 1.0]), np.array([False, False, True, True]), balanced=True)
        # Targets 3/4 and 1/4 can be met exactly: ±a + b = ±log 3.
        assert (slope, offset) == pytest.approx((math.log(3), 0.0), abs=1e-6)


class TestLinear:
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_learns_what_tells_the_kinds_apart(self, kind: str) -> None:
        rude, kind_one = fit(kind).probabilities(["a zoggle 3", "all fine 3"])
        assert rude > 0.8
        assert kind_one < 0.2

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_comes_back_from_json_and_npz_to_the_last_bit(self, kind: str, tmp_path: Path) -> None:
        classifier = fit(kind)
        classifier.save(tmp_path)
        said = [*TEXTS[::7], "", "never seen wörds!", "you BLORP"]
        assert load_classifier(tmp_path).probabilities(said) == classifier.probabilities(said)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["classifier.json", "classifier.npz"]
        json.loads((tmp_path / "classifier.json").read_text())
        with np.load(tmp_path / "classifier.npz", allow_pickle=False) as stored:
            assert all(stored[name].dtype != np.object_ for name in stored.files)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_text_alone_is_as_probable_as_among_others(self, kind: str) -> None:
        classifier = fit(kind)
        assert [classifier.probabilities([text])[0] for text in TEXTS[:10]] == classifier.probabilities(TEXTS[:10])
        assert classifier.probabilities([]) == []

    def test_training_twice_gives_the_same(self) -> None:
        assert fit("logistic").probabilities(TEXTS) == fit("logistic").probabilities(TEXTS)

    def test_without_terms_of_its_own_a_text_has_the_rate_of_the_labels_or_a_half(self) -> None:
        positive = [True] * 12 + [False] * 48
        texts = [f"same words {number}" for number in range(60)]  # of whose numbers no term is among the 21 commonest
        for balanced, expected in ((True, 0.5), (False, 0.2)):
            classifier = fit_classifier(texts, positive, kind="bayes", most_terms=21, balanced=balanced).classifier
            # Platt's targets pull towards the middle: 13/14 and 1/50 in place of 1 and 0.
            target = expected * 13 / 14 + (1 - expected) / 50
            assert classifier.probabilities(["same words"])[0] == pytest.approx(target, abs=1e-3)

    def test_the_sum_is_the_mean_weight_of_the_terms(self) -> None:
        classifier = fit("bayes")
        text = "zog"
        # In " zog " are, of 3 to 5 letters: " zo", "zog", "og ", " zog", "zog ", " zog ".
        terms = {" zo", "zog", "og ", " zog", "zog ", " zog "}
        known = [w for t, w in zip(classifier.blocks[0].terms, classifier.weights, strict=True) if t in terms]
        expected = 1 / (1 + math.exp(-(classifier.slope * sum(known) / len(known) + classifier.offset)))
        assert classifier.probabilities([text])[0] == pytest.approx(expected, rel=1e-9)

    def test_bayes_weighs_a_term_by_its_smoothed_shares(self) -> None:
        texts = [f"{word} {number}" for word in ("abc", "xyz") for number in range(6)]  # numbers: rarer than any other
        fitted = fit_classifier(texts, [True] * 6 + [False] * 6, kind="bayes", most_terms=12, balanced=True)
        classifier = fitted.classifier
        # Six terms of either word; each stands in all 6 texts of its kind: (6 + 1) / (6·6 + 12) against 1 / (6·6 + 12).
        assert len(classifier.weights) == 12
        signs = np.array([1.0 if set(term) <= set(" abc") else -1.0 for term in classifier.blocks[0].terms])
        assert classifier.weights == pytest.approx(signs * math.log(7))

    def test_too_few_different_ones_of_one_kind_are_refused(self) -> None:
        # A second "same " is no other text, whatever its label.
        texts, positive = [*"abcd", "same", "Same ", *"efghij"], [True] * 4 + [False, True] + [False] * 6
        assert count_kinds(texts, positive) == (4, 7)
        with pytest.raises(ValueError, match="at least 5 different comments of either kind, got 4 positive and 7 nega"):
            fit_classifier(texts, positive, kind="bayes", most_terms=9, balanced=True)


class TestOutOfFold:
    def test_a_text_is_judged_by_weights_that_had_not_seen_it_nor_its_equal(self) -> None:
        # Two equal texts are alone in having the word "odd" and any of its letters' pairs, and both are positive: to
        # the other folds it has no weight, so that its sum is 0 and its probability that of the offset.
        texts = [*TEXTS, "odd", " ODD"]
        fitted = fit_classifier(texts, [*TRUTH, True, True], kind="logistic", most_terms=500, balanced=True)
        unseen = 1 / (1 + math.exp(-fitted.classifier.offset))
        assert fitted.out_of_fold[-2:] == pytest.approx([unseen] * 2, abs=1e-9)
        assert fitted.classifier.probabilities(["odd"])[0] > unseen + 0.1

    def test_it_tells_kinds_apart_that_others_of_the_kind_tell(self) -> None:
        fitted = fit_classifier(TEXTS, TRUTH, kind="logistic", most_terms=500, balanced=True)
        assert measure_auc(fitted.out_of_fold.tolist(), TRUTH).value == 1.0

    def test_a_recorded_text_is_judged_so_and_another_by_the_judge(self) -> None:
        judge = OutOfFold(LexiconJudge(), {"blorp": 0.25})
        assert judge.probabilities(["zoggle", "Blorp ", "fine", "blorp"]) == [1.0, 0.25, 0.0, 0.25]


class TestRemembered:
    def test_a_judge_is_asked_once_about_each_text(self) -> None:
        asked: list[str] = []

        class Counting:
            def probabilities(self, texts: list[str]) -> list[float]:
                asked.extend(texts)
                return [len(text) / 10 for text in texts]

        judge = Remembered(Counting())  # type: ignore[arg-type]
        assert judge.probabilities(["a", "bb", "a"]) == [0.1, 0.2, 0.1]
        assert judge.probabilities(["bb", "ccc"]) == [0.2, 0.3]
        assert asked == ["a", "bb", "ccc"]

    def test_the_lexicon_comes_back(self, tmp_path: Path) -> None:
        save_judge(LexiconJudge(), tmp_path / "judge")
        assert load_judge(tmp_path / "judge").probabilities(["You BLORP!", "blorpish grumf", "fine"]) == [1.0, 0.5, 0.0]


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a tiny classifier with random weights that knows eight words."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=12, pad_token_id=0, id2label={0: "fine", 1: "Toxic"}, initializer_range=1.0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    text = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token=UNKNOWN))
    text.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=text, unk_token=UNKNOWN, pad_token=UNKNOWN).save_pretrained(folder)
    return folder


class TestTransformer:
    SAID = ("you blorp", "a fine kettle", "you zoggle", "mossy", "you blorp a kettle", "unheard of")

    def test_it_gives_the_probability_of_the_toxic_label(self, brought: Path) -> None:
        judge = TransformerClassifier(brought, label="")
        model = BertForSequenceClassification.from_pretrained(brought).eval()
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[3, 2]])).logits[0]  # you, blorp
        expected = logits.softmax(-1)[1].item()
        assert judge.probabilities(["you blorp"]) == [pytest.approx(expected, abs=1e-4)]
        assert TransformerClassifier(brought, label="fine").probabilities(["you blorp"]) == [
            pytest.approx(1 - expected, abs=2e-4)
        ]

    def test_others_in_the_batch_and_the_way_over_the_disk_move_nothing(self, brought: Path, tmp_path: Path) -> None:
        judge = TransformerClassifier(brought, label="Toxic")
        together = judge.probabilities(self.SAID)
        assert [judge.probabilities([text])[0] for text in self.SAID] == together
        assert len(set(together)) > 3
        save_judge(judge, tmp_path / "judge")
        assert load_transformer(tmp_path / "judge").probabilities(self.SAID) == together
        assert {path.suffix for path in (tmp_path / "judge").iterdir()} == {".json", ".safetensors"}

    def test_a_text_longer_than_the_model_reads_loses_its_end(self, brought: Path) -> None:
        judge = TransformerClassifier(brought, label="")
        for last in WORDS:  # it reads ten of its twelve positions
            said = f"{last} " * 9
            assert judge.probabilities([f"{said} a {last}"]) == judge.probabilities([f"{said} a"])
            assert judge.probabilities([f"{said} a {'blorp ' * 20}"]) == judge.probabilities([f"{said} a"])

    def test_an_unknown_label_is_told_with_those_there_are(self, brought: Path) -> None:
        with pytest.raises(ValueError, match="must be one of fine, Toxic, got 'rude'"):
            TransformerClassifier(brought, label="rude")

    def test_labels_that_say_nothing_must_be_named(self, brought: Path, tmp_path: Path) -> None:
        for path in brought.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        config = json.loads((tmp_path / "config.json").read_text())
        config |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"world\.classifier_label=LABEL; its labels are LABEL_0, LABEL_1"):
            TransformerClassifier(tmp_path, label="")

    def test_a_model_without_a_trained_head_is_refused(self, brought: Path, tmp_path: Path) -> None:
        for path in brought.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        BertModel.from_pretrained(brought).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"must be a trained sequence classifier, got .* without classifier"):
            TransformerClassifier(tmp_path, label="")

    def test_a_folder_of_something_else_is_refused_in_a_line(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"must be a folder with config\.json"):
            transformer_digest(str(tmp_path / "none"))
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(ValueError, match="must be a sequence classifier with safetensors") as error:
            TransformerClassifier(tmp_path, label="")
        assert "\n" not in str(error.value)

    def test_its_digest_is_that_of_its_files(self, brought: Path) -> None:
        digest = transformer_digest(str(brought))
        assert digest == transformer_digest(str(brought))
        assert "model.safetensors=" in digest
