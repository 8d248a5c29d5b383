"""What decides a comments task besides its sources: hashed, so without paths."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ilql.hyperparameters import AT_LEAST_ONE, NOT_NEGATIVE, UNIT, Range, check, hyper

AUTO = "auto"
"""The value of a column setting that lets the usual names decide; "" says that there is no such column."""

OPEN_UNIT = Range(0.0, 1.0, open_low=True, open_high=True)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_WORDS = ("classifier_label", "toxic_labels", "labelled_toxic_labels", "judge_toxic_labels", "regex")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which columns are what, where the splits and thresholds lie, and which rewards are asked for.

    A column setting is a name, `auto` (the first of the usual names that the file has) or empty (no such column).

    Raises:
        TypeError: A field has another type.
        ValueError: A field is out of range, or two of them cannot stand together.
    """

    seed: int = hyper(
        0,
        NOT_NEGATIVE,
        meaning="decides the splits, the noise, what is left out of too many rows, and the generated comments",
    )
    comments: int = hyper(8000, AT_LEAST_ONE, meaning="comments of the generated world; a file has as many as it has")
    tune_share: float = hyper(0.1, OPEN_UNIT, meaning="share of the parents on which settings are chosen")
    report_share: float = hyper(0.2, OPEN_UNIT, meaning="share of the parents that tables score")
    max_rows: int = hyper(20_000, AT_LEAST_ONE, meaning="rows used of a file, those with the lowest hash")
    max_parent_characters: int = hyper(500, AT_LEAST_ONE, meaning="a longer parent loses its end")
    max_comment_characters: int = hyper(500, AT_LEAST_ONE, meaning="a longer comment loses its end")

    comment_column: str = hyper(AUTO, meaning="what was written")
    parent_column: str = hyper(AUTO, meaning="what it answers; a comment without one opens")
    title_column: str = hyper(
        AUTO,
        meaning="where there is no parent column: the parent of a comment that is not "
        "empty, and the comment itself where that is",
    )
    score_column: str = hyper(AUTO, meaning="votes")
    label_column: str = hyper(AUTO, meaning="toxic or not")
    group_column: str = hyper(AUTO, meaning="within what scores are compared, such as the subreddit")
    columns: str = hyper("", meaning="names of the columns of a file that has no header, with commas between")
    quotes: str = hyper(
        AUTO,
        Range(choices=(AUTO, "yes", "no")),
        meaning="whether cells may stand in double quotes; auto: in CSV, not in TSV",
    )
    deleted: str = hyper("[deleted],[removed]", meaning="texts that stand for one that is gone, with commas between")

    score_kind: str = hyper(
        AUTO,
        Range(choices=(AUTO, "votes", "percentile", "median")),
        meaning="upvoted is above 0 votes, the 50th percentile, or the median of the group's training comments (of all "
        "where there is no group column); auto: percentile where the column is named so, else votes",
    )
    toxic_labels: str | int | bool = hyper(
        "",
        meaning="the labels that are toxic, with commas between; empty: the "
        "usual words, and numbers from the threshold on",
    )
    label_threshold: float = hyper(0.5, meaning="a label that is a number is toxic from here on")

    labelled_text_column: str = hyper(AUTO, meaning="text of `labelled`")
    labelled_label_column: str = hyper(AUTO, meaning="label of `labelled`")
    labelled_toxic_labels: str | int | bool = hyper("", meaning="as toxic_labels, of `labelled`")
    labelled_threshold: float = hyper(0.5, meaning="as label_threshold, of `labelled`")
    labelled_columns: str = hyper("", meaning="as columns, of `labelled`")
    judge_text_column: str = hyper(AUTO, meaning="text of `judge_data`")
    judge_label_column: str = hyper(AUTO, meaning="label of `judge_data`")
    judge_toxic_labels: str | int | bool = hyper("", meaning="as toxic_labels, of `judge_data`")
    judge_threshold: float = hyper(0.5, meaning="as label_threshold, of `judge_data`")
    judge_columns: str = hyper("", meaning="as columns, of `judge_data`")
    held_out_share: float = hyper(0.2, OPEN_UNIT, meaning="share of `labelled` and of `judge_data` that only measures")

    classifier_features: int = hyper(50_000, AT_LEAST_ONE, meaning="terms of each kind, the most frequent ones")
    classifier_label: str | int | bool = hyper(
        "", meaning="name of the toxic label of the classifier in `classifier`; empty: the usual words"
    )
    balanced: bool = hyper(
        default=True,
        meaning="probabilities of toxicity are those among as many toxic comments as "
        "others; false: those at the rate of the labels",
    )
    least_auc: float = hyper(
        0.55,
        UNIT,
        meaning="a classifier with less on held-out comments is refused, and one whose interval reaches .5 is doubted",
    )
    doubtful_threshold: float = hyper(0.5, OPEN_UNIT, meaning="from this probability on toxicity pays -5")
    toxic_threshold: float = hyper(0.8, OPEN_UNIT, meaning="from this probability on toxicity pays -10")
    noise: float = hyper(
        0.0, UNIT, meaning="probability that a training comment's reward is that of a label drawn uniformly"
    )

    regex: str | int | bool = hyper("", meaning="a pattern searched for in the comment; empty: no such reward")
    regex_reward: float = hyper(-10.0, meaning="what a comment gets where the pattern matches, else 0")
    callable: str = hyper("", meaning="module:function, a list of texts to a list of floats; empty: no such reward")
    callable_low: float = hyper(-10.0, meaning="the lowest value of the callable")
    callable_high: float = hyper(10.0, meaning="the highest value of the callable")

    def __post_init__(self) -> None:
        check(self)
        for name in _WORDS:  # a command line reads 2 as a number and true as a truth; both are words here
            value = getattr(self, name)
            if not isinstance(value, str):
                object.__setattr__(self, name, str(value).lower() if isinstance(value, bool) else str(value))
        if self.tune_share + self.report_share >= 1.0:
            raise ValueError(
                f"tune_share and report_share must leave something to train on, got {self.tune_share} and "
                f"{self.report_share}"
            )
        if self.doubtful_threshold > self.toxic_threshold:
            raise ValueError(
                f"doubtful_threshold must not exceed toxic_threshold, got {self.doubtful_threshold} and "
                f"{self.toxic_threshold}"
            )
        if self.callable_low >= self.callable_high:
            raise ValueError(
                f"callable_low must be below callable_high, got {self.callable_low} and {self.callable_high}"
            )
        if self.regex_reward == 0.0:
            raise ValueError("regex_reward must differ from 0, which is what a comment without a match gets, got 0")
        try:
            re.compile(str(self.regex))
        except re.error as error:
            raise ValueError(f"regex must be a regular expression, got {self.regex!r}: {error}") from None
        if self.callable and not _FUNCTION.fullmatch(self.callable):
            raise ValueError(f"callable must be module:function, got {self.callable!r}")


@dataclass(frozen=True)
class Labelling:
    """How the toxic rows of a file are told from the others.

    Attributes:
        toxic: The labels that are toxic, in lower case; empty where the usual words and the threshold decide.
        threshold: A number is toxic from here on, where `toxic` is empty.
        setting: The setting that names toxic labels, for messages.
    """

    toxic: tuple[str, ...]
    threshold: float
    setting: str


def labelling(settings: Settings, source: str) -> Labelling:
    """The labelling of `data`, `labelled` or `judge_data`."""
    prefix = {"data": "", "labelled": "labelled_", "judge_data": "judge_"}[source]
    threshold = settings.label_threshold if source == "data" else getattr(settings, f"{prefix}threshold")
    setting = f"{prefix}toxic_labels"
    return Labelling(listed(str(getattr(settings, setting))), float(threshold), setting)


def listed(text: str) -> tuple[str, ...]:
    """The entries of a list with commas between, in lower case and without spaces around them."""
    return tuple(entry for part in text.split(",") if (entry := part.strip().lower()))
