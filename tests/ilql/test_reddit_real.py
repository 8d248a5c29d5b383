"""The comments task on real data, where there is any beside the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ilql.tasks.reddit import build
from ilql.tasks.reddit.environment import RedditTask
from ilql.tasks.reddit.loading import load
from ilql.tasks.reddit.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
WIKI = SHARED / "toxicity" / "wiki_talk_context_toxicity.csv.gz"
DAVIDSON = SHARED / "toxicity" / "davidson_tweets.csv.gz"
EMOTIONS = SHARED / "goemotions" / "train.tsv.gz"
POSTS = SHARED / "reddit_top_posts" / "posts.parquet"


def built_task(folder: Path, settings: Settings, **sources: str) -> tuple[RedditTask, list[str]]:
    notes = build(settings, sources, folder)
    return load(folder), notes


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data of ../shared are not here")
class TestRealData:
    def test_talk_pages_with_tweets_for_a_second_judge(self, tmp_path: Path) -> None:
        settings = Settings(max_rows=4000, label_column="perspective_toxicity", label_threshold=0.3)
        task, notes = built_task(tmp_path, settings, data=str(WIKI), judge_data=str(DAVIDSON))
        assert "comment 'text', parent 'parent', label 'perspective_toxicity'" in notes[0]
        assert set(task.environment(0, "report").measures()) == {"words", "toxic", "judged_toxic"}
        openings = [task.environment(seed, "tune").opening for seed in range(100)]
        assert 20 < sum(opening is None for opening in openings) < 80  # half of the rows have no parent
        assert {d.total_reward for d in task.dialogues("report", "toxicity")} == {0.0, -5.0, -10.0}

    def test_comments_with_emotions_of_which_some_are_named_bad(self, tmp_path: Path) -> None:
        settings = Settings(max_rows=4000, columns="text,label", toxic_labels="2,3,10,11")
        task, notes = built_task(tmp_path, settings, data=str(EMOTIONS))
        assert task.rewards == ("toxicity", "toxicity_noised")
        area = next(float(m[1]) for note in notes if (m := re.search(r"ROC-AUC (\d\.\d+)", note)))
        assert area > 0.7

    def test_posts_above_the_median_score(self, tmp_path: Path) -> None:
        settings = Settings(max_rows=3000, score_column="score", score_kind="median", group_column="")
        task, notes = built_task(tmp_path, settings, data=str(POSTS))
        assert task.rewards == ("upvotes_real", "upvotes_model")
        assert any("above the median score" in note and "a proxy" in note for note in notes)
        bodies = [d for d in task.dialogues("train", "upvotes_real") if len(d.turns) == 2]
        assert 0.1 < len(bodies) / len(task.dialogues("train", "upvotes_real")) < 0.3  # 47,411 of 242,107 have a body
