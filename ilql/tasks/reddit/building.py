"""From sources to a task's folder: which judges can be had, how good they are, and what the comments earn."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ilql.task import SPLITS, TaskFault
from ilql.tasks.reddit.auc import Auc, measure_auc
from ilql.tasks.reddit.classifier import FEWEST, LinearClassifier, count_kinds, fit_classifier
from ilql.tasks.reddit.comments import Comment, check_sizes, keys, split_comments, with_votes
from ilql.tasks.reddit.data import Corpus, read_corpus, read_labelled
from ilql.tasks.reddit.generated import draw_comments
from ilql.tasks.reddit.judges import (
    BroughtClassifier,
    Judge,
    LexiconJudge,
    OutOfFold,
    Remembered,
    brought_classifier,
    save_judge,
)
from ilql.tasks.reddit.loading import JUDGED_TOXIC, SETTINGS_FILE, TOXIC, UPVOTES, make_rewards
from ilql.tasks.reddit.packaged import LEARNT_FROM, PACKAGE, PackagedClassifier
from ilql.tasks.reddit.recordings import write_recordings
from ilql.tasks.reddit.rewards import VOTED_UP, Reward, find_function
from ilql.tasks.reddit.settings import Settings
from ilql.tasks.reddit.tables import Skipped
from ilql.tasks.reddit.texts import text_key, uniform

Labelled = Sequence[tuple[str, bool]]
"""Texts and whether each is positive: toxic, or voted up."""


@dataclass(frozen=True)
class _Parts:
    """Labelled texts in two: those that teach and those that measure."""

    train: Labelled
    held_out: Labelled


@dataclass(frozen=True)
class _Taught:
    """A judge and the texts that it learnt from.

    Attributes:
        judge: As agents meet it.
        learnt: What it says of its own texts without having seen them, by `text_key`.
    """

    judge: LinearClassifier | BroughtClassifier | LexiconJudge
    learnt: Mapping[str, float]


def build(settings: Settings, sources: Mapping[str, str], folder: Path) -> list[str]:
    """Write the world of `sources` into `folder`; the notes say what was read, skipped, trained and measured.

    Raises:
        ValueError: A source cannot be read or used, a classifier is too bad, or no reward can be had; one line.
    """
    corpus = read_corpus(sources["data"], settings) if "data" in sources else generated_corpus(settings)
    notes = [*corpus.notes, _sizes_note(corpus)]
    labelled, about_labelled = _labelled(corpus, settings, sources)
    notes += about_labelled
    judges: dict[str, _Taught] = {}
    if (toxic := _toxicity_judge(settings, sources, labelled, notes)) is not None:
        judges[TOXIC] = toxic
    if (second := _second_judge(corpus, settings, sources, labelled, notes)) is not None:
        judges[JUDGED_TOXIC] = second
    if (votes := _votes_model(corpus, settings, notes)) is not None:
        judges[UPVOTES] = votes
    of_recorded = {name: Remembered(OutOfFold(each.judge, each.learnt)) for name, each in judges.items()}
    notes += _checks(corpus, of_recorded)
    rewards = make_rewards(settings, of_recorded)
    if not rewards:
        raise ValueError(
            "the task must have a reward, got no labels, no --labelled, no --classifier, no scores, and "
            "neither regex nor callable; see the columns and --set world.label_column=COLUMN"
        )
    values = _values(corpus, settings, rewards)
    notes += _distributions(values)
    if settings.noise:
        noisy = ", ".join(reward.name for reward in rewards if reward.levels)
        calm = ", ".join(reward.name for reward in rewards if not reward.levels)
        notes.append(
            f"label noise: in training {settings.noise:.0%} of the comments earn a level drawn uniformly ({noisy})"
            + (f"; {calm} has no levels, and no noise" if calm else "")
        )
    for name, each in judges.items():
        save_judge(each.judge, folder / name)
    write_recordings(folder, corpus.splits, values)
    (folder / SETTINGS_FILE).write_text(json.dumps(dataclasses.asdict(settings)), encoding="utf-8")
    return notes


def generated_corpus(settings: Settings) -> Corpus:
    """The generated comments, split and voted on like any others.

    Raises:
        ValueError: There are too few for three splits.
    """
    skipped = Skipped()
    splits, note = with_votes(split_comments(draw_comments(settings), settings, skipped), "votes", skipped)
    check_sizes(splits)
    return Corpus(splits, (f"generated from seed {settings.seed}; {note}", *skipped.notes("the generated world")))


def _labelled(corpus: Corpus, settings: Settings, sources: Mapping[str, str]) -> tuple[_Parts | None, list[str]]:
    """The labelled texts that the toxicity reward learns from or is measured on, and notes."""
    if "labelled" in sources:
        texts, notes = read_labelled("labelled", sources["labelled"], settings)
        texts, left_out = _without(texts, _texts_of(corpus, "report"))
        if left_out:
            notes.append(f"skipped {left_out} rows of labelled: the report split has their text")
        return _in_two(texts, "labelled", settings), notes
    own = {split: [(c.text, c.toxic) for c in corpus.splits[split] if c.toxic is not None] for split in SPLITS}
    if not own["train"]:
        return None, []
    unlabelled = sum(len(corpus.splits[split]) - len(own[split]) for split in SPLITS)
    notes = [f"{unlabelled} comments have no label: they teach and measure no classifier"] if unlabelled else []
    return _Parts(own["train"], own["tune"]), notes


def _toxicity_judge(
    settings: Settings, sources: Mapping[str, str], labelled: _Parts | None, notes: list[str]
) -> _Taught | None:
    """The classifier behind `toxicity`, or None where there is nothing to make it of."""
    if "classifier" in sources:
        brought = brought_classifier(sources["classifier"], label=str(settings.classifier_label))
        what, measured_on = "the classifier of --classifier", "all labelled ones"
        if isinstance(brought, PackagedClassifier):
            what += f" ({PACKAGE} {brought.version})"
            measured_on += f"; it learnt from {LEARNT_FROM}, which may be among them"
        taught_nothing = [] if labelled is None else [*labelled.train, *labelled.held_out]
        if len({bad for _, bad in taught_nothing}) == 2:
            area = _measured(brought, taught_nothing, what, settings)
            notes.append(f"toxicity: {what}, {area} ({measured_on}){_doubt(area, 'toxicity')}")
        else:
            notes.append(f"toxicity: {what}, not measured since there are no labelled comments")
        return _Taught(brought, {})
    if labelled is None:
        notes.append("no toxicity rewards: no labels in the data, no --labelled and no --classifier")
        return None
    origin = "--labelled" if "labelled" in sources else "the training split's labels"
    return _taught(
        labelled,
        f"toxicity, learnt from {origin}",
        "logistic",
        settings,
        notes,
        balanced=settings.balanced,
        positive="toxic",
        remedy="--labelled FILE brings other comments, --set world.label_column= does without",
    )


def _second_judge(
    corpus: Corpus, settings: Settings, sources: Mapping[str, str], labelled: _Parts | None, notes: list[str]
) -> _Taught | None:
    """The classifier that only checks, or None."""
    if "judge_data" not in sources:
        if "data" in sources:
            notes.append("no second judge: --judge-data FILE brings comments for one")
            return None
        notes.append("second judge: the lexicon that the comments were generated with")
        return _Taught(LexiconJudge(), {})
    texts, more = read_labelled("judge_data", sources["judge_data"], settings)
    notes += more
    texts, left_out = _without(texts, _texts_of(corpus, "report"))
    if left_out:
        notes.append(f"skipped {left_out} rows of judge_data: the report split has their text")
    if labelled is not None:
        texts, shared = _without(texts, {text_key(text) for text, _ in labelled.train})
        if shared:
            notes.append(f"skipped {shared} rows of judge_data: the first classifier learnt from them, too")
    return _taught(
        _in_two(texts, "judge_data", settings),
        "second judge, learnt from --judge-data",
        "bayes",
        settings,
        notes,
        balanced=settings.balanced,
        positive="toxic",
        remedy="--judge-data FILE can bring others",
    )


def _votes_model(corpus: Corpus, settings: Settings, notes: list[str]) -> _Taught | None:
    """The model of the votes, trained on the training split alone, or None where nothing was voted on."""
    voted = {split: [(c.text, c.upvoted) for c in corpus.splits[split] if c.upvoted is not None] for split in SPLITS}
    if not voted["train"]:
        notes.append("no upvotes rewards: no comment of the training split has votes")
        return None
    parts = _Parts(voted["train"], voted["tune"])
    model = _taught(
        parts,
        "upvotes_model, learnt from the training split",
        "logistic",
        settings,
        notes,
        balanced=False,
        positive="voted up",
        remedy="--set world.score_kind=median compares with the median, --set world.score_column= does without votes",
    )
    found = model.judge.probabilities([text for text, _ in parts.held_out])
    up = sum(bad for _, bad in parts.held_out) / len(found)
    brier = sum((p - bad) ** 2 for p, (_, bad) in zip(found, parts.held_out, strict=True)) / len(found)
    constant = up * (1 - up)
    doubt = "; the constant is the better forecast: this reward is doubtful" if brier >= constant else ""
    notes.append(
        f"upvotes_model on the tune split: mean probability {sum(found) / len(found):.3f}, voted up {up:.3f}; Brier "
        f"score {brier:.3f} against {constant:.3f} of the constant{doubt}"
    )
    without = [sum(comment.upvoted is None for comment in corpus.splits[split]) for split in SPLITS]
    sizes = ", ".join(f"{split} {number}" for split, number in zip(SPLITS, without, strict=True))
    notes.append(
        "upvotes_real: recorded comments by their votes; what an agent writes has none, and is judged by upvotes_model"
        + (f", as are recorded comments without any ({sizes})" if any(without) else "")
    )
    return model


def _taught(
    parts: _Parts,
    what: str,
    kind: str,
    settings: Settings,
    notes: list[str],
    *,
    balanced: bool,
    positive: str,
    remedy: str,
) -> _Taught:
    """A classifier that learnt from one part and was good enough on the other."""
    for name, part in (("to learn from", parts.train), ("to be measured on", parts.held_out)):
        some, others = count_kinds(*_columns(part))
        if min(some, others) < FEWEST:
            raise ValueError(
                f"{what}: there must be {FEWEST} different comments of either kind {name}, got {some} {positive} and "
                f"{others} others; {remedy}"
            )
    texts, truths = _columns(parts.train)
    fitted = fit_classifier(
        texts,
        truths,
        kind=kind,
        most_terms=settings.classifier_features,
        balanced=balanced,
    )
    area = _measured(fitted.classifier, parts.held_out, what, settings, remedy)
    out_of_fold = fitted.out_of_fold.tolist()
    notes.append(
        f"{what}: {len(texts)} comments ({sum(truths) / len(texts):.1%} {positive}), {area} held out ({area.positives} "
        f"{positive}); {measure_auc(out_of_fold, truths)} of its own, each judged by folds that had not seen it, as "
        f"recorded comments are{_doubt(area, what.partition(',')[0])}"
    )
    learnt: dict[str, float] = {}
    for text, probability in zip(texts, out_of_fold, strict=True):
        learnt.setdefault(text_key(text), probability)
    return _Taught(fitted.classifier, learnt)


def _columns(part: Labelled) -> tuple[list[str], list[bool]]:
    return [text for text, _ in part], [truth for _, truth in part]


def _measured(judge: Judge, part: Labelled, what: str, settings: Settings, remedy: str = "") -> Auc:
    """The area of a judge, which must be good enough to be used."""
    area = measure_auc(judge.probabilities([text for text, _ in part]), [bad for _, bad in part])
    if area.value < settings.least_auc:
        raise ValueError(
            f"{what}: a classifier must have a ROC-AUC of at least {settings.least_auc:g} on comments it has not seen, "
            f"got {area}; {remedy + ', and ' if remedy else ''}--set world.least_auc=NUMBER allows less"
        )
    return area


def _doubt(area: Auc, name: str) -> str:
    """What to say of a judge that chance can equal. None is refused: few held-out comments leave good ones in doubt."""
    return f"; it may be blind here: {name} then says nothing" if area.low <= 0.5 else ""


def _in_two(texts: Labelled, source: str, settings: Settings) -> _Parts:
    parts: dict[bool, list[tuple[str, bool]]] = {True: [], False: []}
    for text, bad in texts:
        parts[uniform(settings.seed, f"{source} held out", text_key(text)) < settings.held_out_share].append(
            (text, bad)
        )
    return _Parts(parts[False], parts[True])


def _texts_of(corpus: Corpus, split: str) -> set[str]:
    return {key for comment in corpus.splits[split] for key in keys(comment)}


def _without(texts: Labelled, known: set[str]) -> tuple[list[tuple[str, bool]], int]:
    kept = [(text, bad) for text, bad in texts if text_key(text) not in known]
    return kept, len(texts) - len(kept)


def _checks(corpus: Corpus, judges: Mapping[str, Judge]) -> list[str]:
    """How the second judge sees the tune split: against the data's labels, and against the first."""
    if JUDGED_TOXIC not in judges:
        return []
    notes, part = [], corpus.splits["tune"]
    second = judges[JUDGED_TOXIC].probabilities([comment.text for comment in part])
    pairs = [(p, comment.toxic) for p, comment in zip(second, part, strict=True) if comment.toxic is not None]
    if len({bad for _, bad in pairs}) == 2:
        area = measure_auc([p for p, _ in pairs], [bool(bad) for _, bad in pairs])
        notes.append(f"second judge against the data's labels, tune split: {area}{_doubt(area, 'judged_toxic')}")
    if TOXIC in judges:
        first = [p >= 0.5 for p in judges[TOXIC].probabilities([comment.text for comment in part])]
        if len(set(first)) == 2:
            notes.append(f"second judge against the first one's verdicts, tune split: {measure_auc(second, first)}")
    return notes


def _values(corpus: Corpus, settings: Settings, rewards: Sequence[Reward]) -> dict[str, dict[str, list[float]]]:
    """What each recorded comment earns, by split and reward.

    Raises:
        ValueError: The callable failed.
    """
    if settings.callable:
        try:
            find_function(settings.callable)
        except TaskFault as fault:
            raise ValueError(str(fault)) from fault
    values: dict[str, dict[str, list[float]]] = {}
    for split in SPLITS:
        part = corpus.splits[split]
        texts, parents = [comment.text for comment in part], [comment.parent for comment in part]
        values[split] = {}
        for reward in rewards:
            try:
                found = reward.score(texts, parents)
            except TaskFault as fault:
                raise ValueError(str(fault)) from fault
            if reward.name == "upvotes_real":
                found = [
                    value if comment.upvoted is None else VOTED_UP if comment.upvoted else 0.0
                    for value, comment in zip(found, part, strict=True)
                ]
            values[split][reward.name] = found
    return values


def _sizes_note(corpus: Corpus) -> str:
    """Comments and parents of each split."""
    sizes = []
    for split in SPLITS:
        part: tuple[Comment, ...] = corpus.splits[split]
        parents = len({comment.parent for comment in part if comment.parent is not None})
        alone = sum(comment.parent is None for comment in part)
        sizes.append(f"{split} {len(part)} comments ({parents} parents, {alone} without one)")
    return "; ".join(sizes)


def _distributions(values: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """A line for each reward: how often which value in which split, or its mean and range where there are many.

    A reward that is the same for all comments of a split has nothing to teach there, or to choose by: that is said.
    """
    notes = []
    for name in values["train"]:
        parts = []
        for split in SPLITS:
            found = values[split][name]
            counts = Counter(found)
            shown = (
                ", ".join(f"{value:g}: {counts[value] / len(found):.1%}" for value in sorted(counts, reverse=True))
                if len(counts) <= 3
                else f"from {min(found):g} to {max(found):g}"
            )
            parts.append(f"{split} mean {sum(found) / len(found):.2f} ({shown})")
        flat = [split for split in SPLITS if len(set(values[split][name])) == 1]
        doubt = f"; it never varies in {', '.join(flat)}: there it tells no comment from another" if flat else ""
        notes.append(f"reward {name}: {'; '.join(parts)}{doubt}")
    return notes
