"""An installed package as the judge of toxicity: its name, its version, what is stored of it, and what it refuses."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import sys
import tomllib
import types
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ilql.tasks.reddit import build, source_digest
from ilql.tasks.reddit.__main__ import main
from ilql.tasks.reddit.judges import brought_classifier, brought_digest, load_judge, save_judge
from ilql.tasks.reddit.loading import load
from ilql.tasks.reddit.packaged import PACKAGE, PACKAGED_NAME, PackagedClassifier, load_packaged
from ilql.tasks.reddit.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(tune_share=0.25, report_share=0.25)
BROUGHT = {"classifier": PACKAGED_NAME}
INSTALLED = importlib.util.find_spec("profanity_check") is not None


def predict_prob(texts: list[str]) -> npt.NDArray[np.float64]:
    """Stand in for the package: it, too, refuses no texts, and its last digits may follow from their number."""
    if not texts:
        raise ValueError("Found array with 0 sample(s)")
    found: npt.NDArray[np.float64] = np.array([0.91234 if "blorp" in text else 0.1 for text in texts])
    return found + 1e-9 * len(texts)


def install(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """Let `version` of the package be what is installed, whatever is; None for none."""
    real = importlib.metadata.version

    def fake(name: str) -> str:
        if name != PACKAGE:
            return real(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", fake)
    module = types.ModuleType("profanity_check")
    module.predict_prob = predict_prob  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "profanity_check", module if version else None)  # type: ignore[arg-type]


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "1.9.1")


def write_table(folder: Path, *, rude: str = "blorp") -> str:
    """Write comments of which every third is rude and labelled so."""
    rows = [f"such a {rude if i % 3 == 0 else 'day'} {i},asked {i},{int(i % 3 == 0)}" for i in range(120)]
    (folder / "data.csv").write_text("text,parent,label\n" + "\n".join(rows), encoding="utf-8")
    return str(folder / "data.csv")


@pytest.mark.usefixtures("_installed")
class TestPackaged:
    def test_the_reserved_name_means_the_package_and_a_path_a_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / PACKAGED_NAME).mkdir()
        monkeypatch.chdir(tmp_path)
        assert isinstance(brought_classifier(PACKAGED_NAME, label=""), PackagedClassifier)
        for asks in (brought_digest, lambda name: brought_classifier(name, label="")):
            with pytest.raises(ValueError, match=r"must be a folder with config\.json, .* got \./profanity-check$"):
                asks(f"./{PACKAGED_NAME}")

    def test_a_misspelt_name_is_told_the_right_one(self) -> None:
        with pytest.raises(ValueError, match="or profanity-check, got profanity_check, which is no folder"):
            brought_digest("profanity_check")

    def test_the_digest_is_name_and_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert source_digest(SETTINGS, BROUGHT) == "classifier:alt-profanity-check==1.9.1"
        install(monkeypatch, "1.9.0")
        assert source_digest(SETTINGS, BROUGHT) == "classifier:alt-profanity-check==1.9.0"

    def test_probabilities_have_four_digits_and_others_beside_a_text_move_nothing(self) -> None:
        judge = PackagedClassifier()
        said = ["a blorp", "a day", "blorp", ""]
        assert judge.probabilities(said) == [0.9123, 0.1, 0.9123, 0.1]
        assert [judge.probabilities([text])[0] for text in said] == judge.probabilities(said)
        assert judge.probabilities([]) == []

    def test_only_name_and_version_are_stored(self, tmp_path: Path) -> None:
        save_judge(PackagedClassifier(), tmp_path / "judge")
        assert sorted(path.name for path in (tmp_path / "judge").iterdir()) == ["judge.json", "package.json"]
        assert json.loads((tmp_path / "judge" / "package.json").read_text()) == {"package": PACKAGE, "version": "1.9.1"}
        assert load_judge(tmp_path / "judge").probabilities(["a blorp", "a day"]) == [0.9123, 0.1]

    @pytest.mark.parametrize(("other", "said"), [("1.9.0", "1.9.0"), (None, "none")])
    def test_what_was_saved_is_not_judged_by_another_version(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str | None, said: str
    ) -> None:
        PackagedClassifier().save(tmp_path)
        install(monkeypatch, other)
        with pytest.raises(ValueError, match="alt-profanity-check") as error:
            load_packaged(tmp_path)
        assert str(error.value) == (
            "a task that was built with alt-profanity-check 1.9.1 must be judged by that version, "
            f"got {said} installed; pip install alt-profanity-check==1.9.1 installs it"
        )

    def test_a_package_that_is_not_installed_is_a_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(monkeypatch, None)
        line = (
            "--classifier profanity-check must find the package alt-profanity-check, got none installed; "
            "pip install -c constraints.txt -e '.[profanity]' installs it"
        )
        with pytest.raises(ValueError, match="got none installed") as error:
            source_digest(SETTINGS, BROUGHT)
        assert str(error.value) == line
        assert main(["--data", write_table(tmp_path), "--classifier", PACKAGED_NAME]) == 2
        assert capsys.readouterr().err == f"{line}\n"

    def test_a_model_that_another_scikit_learn_would_read_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "profanity_check.py").write_text(
            "import warnings\n"
            "from sklearn.exceptions import InconsistentVersionWarning\n"
            "warnings.warn(InconsistentVersionWarning(\n"
            "    estimator_name='LinearSVC', current_sklearn_version='1.7.2', original_sklearn_version='1.9.1'))\n"
            "predict_prob = None\n",
            encoding="utf-8",
        )
        monkeypatch.delitem(sys.modules, "profanity_check")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ValueError, match="must load") as error:
            PackagedClassifier()
        assert str(error.value) == (
            "alt-profanity-check 1.9.1 must load, with the scikit-learn that it was made for, got Trying to unpickle "
            "estimator LinearSVC from version 1.9.1 when using version 1.7.2; "
            "pip install alt-profanity-check==1.9.1 brings what it needs"
        )

    def test_a_package_without_its_module_is_a_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "profanity_check", None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"alt-profanity-check 1\.9\.1 must load, .*profanity_check.* brings"):
            PackagedClassifier()

    def test_it_has_no_labels_to_choose_from(self) -> None:
        with pytest.raises(ValueError, match=r"classifier_label must be empty with .*, got 'rude'"):
            brought_classifier(PACKAGED_NAME, label="rude")


@pytest.mark.usefixtures("_installed")
class TestWorld:
    def test_it_is_measured_on_the_labels_and_pays(self, tmp_path: Path) -> None:
        data = write_table(tmp_path)
        (tmp_path / "world").mkdir()
        notes = build(SETTINGS, {"data": data, **BROUGHT}, tmp_path / "world")
        about = next(note for note in notes if note.startswith("toxicity: "))
        assert about.startswith("toxicity: the classifier of --classifier (alt-profanity-check 1.9.1), ROC-AUC 1.000 [")
        assert about.endswith(
            "(all labelled ones; it learnt from Davidson's tweets and Jigsaw's Wikipedia comments, "
            "which may be among them)"
        )
        task = load(tmp_path / "world")
        assert task.rewards == ("toxicity", "toxicity_noised")
        assert task.score(["what a blorp", "what a day"], [None, None], "toxicity") == [-10.0, 0.0]
        environment = task.environment(0, "report")
        task.step([environment], ["a blorp"])
        assert environment.measures()["toxic"] == 0.9123

    def test_without_labels_it_is_not_measured(self, tmp_path: Path) -> None:
        settings = dataclasses.replace(SETTINGS, label_column="")
        notes = build(settings, {"data": write_table(tmp_path), **BROUGHT}, tmp_path)
        assert (
            "toxicity: the classifier of --classifier (alt-profanity-check 1.9.1), not measured since there are no "
            "labelled comments"
        ) in notes

    def test_one_that_is_blind_to_the_labels_is_refused(self, tmp_path: Path) -> None:
        data = write_table(tmp_path, rude="zoggle")  # of which the stand-in knows nothing: all ties, an area of a half
        with pytest.raises(ValueError, match=r"\(alt-profanity-check 1\.9\.1\): .* at least 0\.55 .* got ROC-AUC 0\.5"):
            build(SETTINGS, {"data": data, **BROUGHT}, tmp_path)


def test_the_extra_asks_for_one_version_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert len(extras["profanity"]) == 1
    assert extras["profanity"][0].startswith(f"{PACKAGE}==")


@pytest.mark.skipif(not INSTALLED, reason="needs the extra: pip install -c constraints.txt -e '.[profanity]'")
class TestRealPackage:
    SAID = ("go to hell, you scum", "", "what a lovely day", "shut up, idiot", "\ud800 unheard öf", "I agree")

    def test_it_tells_rude_from_kind_and_comes_back(self, tmp_path: Path) -> None:
        judge = PackagedClassifier()
        together = judge.probabilities(self.SAID)
        assert min(together[0], together[3]) > 0.9
        assert max(together[1], together[2], together[5]) < 0.2
        assert [judge.probabilities([text])[0] for text in self.SAID] == together
        save_judge(judge, tmp_path / "judge")
        assert load_judge(tmp_path / "judge").probabilities(self.SAID) == together

    def test_its_version_is_the_extras(self) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert extras["optional-dependencies"]["profanity"] == [brought_digest(PACKAGED_NAME)]
