"""Every command of README.md and of docs/: it runs, or one line says which test runs it, or why none can here.

A command of ours runs as its page has it, in a folder with the files that the pages name, on the store that README's
Python example has filled, and with these replacements:

1. A word of capitals, such as SWEEP or DIR, becomes something real: `PLACEHOLDERS`.
2. A question is planned at its smallest size: `--preset smoke --plan` is put behind it, unless it only shows a preset.
   Its options, files and columns are read, its world is built and its trials are made; nothing is trained. A page's own
   preset stays; that of the paper begins with the tiny GPT-2 that stands for every model, since its own is on a hub.
3. What would take minutes is made small by options behind it: `SMALLER`. The last value of an option counts.

A new command of ours is run because it is written; one of another program must be put into `ELSEWHERE` or `NOT_HERE`,
and the options of those are held against their programs' own parsers as far as these are installed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sweeps import cli
from sweeps.asked import options_of
from sweeps.command_line import columns_said
from sweeps.options import Options
from sweeps.questions import question_named
from sweeps.store import Store

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),  # of MLflow's own classes
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated:DeprecationWarning"),  # MLflow's own, too
]

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
NO_SHELL = ("sweeps/      THE ROOF", "Grid(", "methods={", "## What is decided", "## What was asked")
"""How blocks begin that have no language and hold no commands."""

PLACEHOLDERS = {
    "--data DIR": "visdial",
    "--data FILE": "comments.csv",
    "--model DIR": "model",
    "--out DIR": "launched",
    "--words FILE": "words.txt",
    "-o DIR": "written",
    "QUESTION": "bandit",
    "SHELL": "bash",
    "STORE": "$STORE",  # the example's, like the next two
    "SWEEP": "pulls",
    "TRIAL": "$TRIAL",
    "TASK": "bandit",
    "WHERE": "slurm",
    "return_weighted": "cql",  # the method that docs/adding.md makes up
}
"""What stands for what; with the option before it where that tells more."""

SMALLER = {
    ("sweeps", "imagine"): "--model chain --reward brief.py:reward --count 6 --tries 20 --max-tokens 20",
    ("python", "-m", "benchmarks"): "--out measured",
}
"""By what a command begins with. The chain is the model that docs/imagined_dialogues.md makes."""

ON_A_CLUSTER = "python sweeps/visdial_ablation.py --plan --preset paper --cluster 4x8:80GB"

ELSEWHERE = {
    "tests/test_commands.py::test_the_papers_preset_is_planned_for_a_cluster_that_is_described": [
        ON_A_CLUSTER,
    ],
    "tests/sweeps/test_surrogate.py::test_the_table_is_what_would_be_recorded_now": [
        "make surrogate",
    ],
    "tests/sweeps/test_added.py::test_it_plays_trains_nothing_and_what_it_added_stays": [
        "sweeps eval SWEEP decode.beta=1,2,4,32",
    ],
    "tests/sweeps/test_vocabulary.py::TestExportOfValues::test_generation_says_what_the_policy_says": [
        "sweeps export TRIAL FOLDER --model DIR",
    ],
    "tests/sweeps/test_hindsight.py::test_the_command_takes_a_file_and_writes_one": [
        "sweeps hindsight mine.jsonl --model DIR --reward brief.py:reward",
        "sweeps hindsight mine.jsonl --description shop.txt --model DIR --reward brief.py:reward -o both.jsonl",
    ],
    "tests/sweeps/test_imagining.py::test_a_key_is_sent_and_stands_nowhere": [
        "sweeps imagine shop.txt --model NAME --endpoint http://127.0.0.1:8000/v1 --reward brief.py:reward",
    ],
    "tests/sweeps/test_task_questions.py::TestOwnDialogues::test_a_trained_policy_is_watched": [
        "sweeps play dialogues --trial TRIAL",
    ],
    "tests/sweeps/test_task_questions.py::TestReddit::test_stored_comments_are_scored_under_another_reward": [
        "sweeps rescore SWEEP --rewards R",
    ],
    "tests/sweeps/test_task_questions.py::TestOwnDialogues::test_it_ends_with_how_its_best_policy_replies": [
        "sweeps reply TRIAL my lamp flickers",
    ],
    "tests/ilql/test_reddit_packaged.py::TestWorld::test_it_is_measured_on_the_labels_and_pays": [
        "python sweeps/reddit_ablation.py --data FILE --classifier profanity-check",
    ],
    "tests/sweeps/test_replica.py::TestCommand::test_sync_makes_a_new_folder_a_whole_store": [
        "sweeps sync STORE",
        "sweeps sync --remote s3://bucket/prefix --store DIR",
    ],
    "tests/cluster/test_nodes.py::"
    "test_nodes_that_share_no_folder_work_on_one_store_by_an_object_store_though_one_is_killed": [
        "python sweeps/visdial_ablation.py --preset paper --remote s3://bucket/prefix",
    ],
    "tests/ilql/test_adding.py::test_the_example_passes_what_every_method_is_held_to": [
        "pytest tests/ilql/test_methods.py -k return_weighted",
    ],
    "tests/test_house.py::test_every_hyperparameter_stands_in_the_glossary_under_its_bag_and_no_other": [
        "pytest tests/test_house.py",
    ],
    "tests/test_site.py::test_every_page_of_the_folder_and_both_outside_it_are_built": [
        "make docs",
    ],
    "tests/sweeps/test_job.py::test_visual_dialogue_as_a_job_ends_in_its_table": [
        "ray job submit --working-dir . -- python sweeps/visdial_ablation.py --preset smoke",
    ],
}
"""What another test runs: it needs what only that test has, a model that answers, a sweep of comments, a cluster."""

SETS_UP = "it installs or sets up what the tests run in"
NO_PROGRAM = "its program, and the machines behind it, are not here"
NOT_HERE = {
    "make ablation": "it takes ten minutes or more; its recipe is planned",
    "make grid": "it takes half an hour or more; its recipe is planned",
    "make test": "it runs this test",
    "make long": "it takes hours",
    "python -m benchmarks scale": "it takes forty minutes; the line below it is the same in small",
    "make check": SETS_UP,
    ".ci/run": SETS_UP,
    "export PATH=$PWD/.venv/bin:$PATH": SETS_UP,
    "export RAY_AUTH_MODE=disabled": SETS_UP,
    "export RAY_USAGE_STATS_ENABLED=0": SETS_UP,
    "export RAY_ADDRESS=http://127.0.0.1:8265": SETS_UP,
    "python3 -m venv .venv": SETS_UP,
    ".venv/bin/pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu": SETS_UP,
    ".venv/bin/pip install -c constraints.txt -e .[dev]": SETS_UP,
    "touch .venv/installed": SETS_UP,
    "ray start --head --block": "its ports are fixed, and a Ray of somebody else's may have them",
    'ray job submit --working-dir . --runtime-env-json {"env_vars": {"SWEEPS_STORE": "/shared/store"}} -- '
    "python sweeps/visdial_ablation.py --preset paper": "it takes a cluster for hours",
    "ray up launch/ray-up.yaml": NO_PROGRAM,
    "sbatch launch/slurm.sh": NO_PROGRAM,
    "docker build --tag registry.example.org/ilql:0.1.0 .": NO_PROGRAM,
    "docker push registry.example.org/ilql:0.1.0": NO_PROGRAM,
    "kubectl apply -f launch/kuberay-job.yaml": NO_PROGRAM,
    "MLFLOW_TRACKING_URI=sqlite:////PATH/mlflow.db mlflow models serve -m models:/ID --env-manager local": "it serves "
    "until it is ended, on a port that may be taken; tests/sweeps/test_serving.py asks such a model without HTTP",
    'curl localhost:5000/invocations -H Content-Type: application/json -d {"dataframe_records": [{"turns": '
    '[{"text": "a dog on a beach", "by_agent": false}]}]}': "it asks the server of the line before",
    "python sweeps/dialogue_ablation.py --data mine.jsonl --model Qwen/Qwen2.5-0.5B": "it downloads a model",
    "python sweeps/dialogue_ablation.py --data mine.jsonl --model FILE.gguf --chat-template": "there is no such file "
    "small enough for a test; tests/ilql/test_chat.py reads one where gguf is installed",
}


@dataclass(frozen=True)
class Command:
    """A command of a page: its words, and where it stands."""

    words: tuple[str, ...]
    place: str

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def ours(self) -> bool:
        """Whether it is of this repository, and so can be run by being read."""
        return self.words[0] == "sweeps" or self.question is not None or self.begins("python", "-m", "benchmarks")

    @property
    def question(self) -> str | None:
        """The question whose file it runs."""
        found = re.fullmatch(r"sweeps/(\w+)_ablation\.py", self.words[1] if self.begins("python") else "")
        return None if found is None else found[1]

    def begins(self, *words: str) -> bool:
        return self.words[: len(words)] == words


def commands_of(page: Path) -> list[Command]:
    """The commands of a page's blocks without a language: one for each, also where `&&` joins them."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if block[1] or block[2].startswith(NO_SHELL):
            continue
        at = text[: block.start(2)].count("\n") + 1
        for line in re.sub(r"\\\n *", "\0", block[2]).splitlines():
            reader = shlex.shlex(line.replace("\0", " "), posix=True, punctuation_chars="&")
            reader.whitespace_split = True
            joined: list[list[str]] = [[]]
            for word in reader:
                if word in ("&", "&&"):
                    joined.append([])
                else:
                    joined[-1].append(word)
            found += [Command(tuple(words), f"{page.name}:{at}") for words in joined if words]
            at += 1 + line.count("\0")
    return found


COMMANDS = [command for page in PAGES if page.name != "log.md" for command in commands_of(page)]
NOT_RUN = [*(text for texts in ELSEWHERE.values() for text in texts), *NOT_HERE]
RUN = {each.text: each for each in reversed(COMMANDS) if each.ours and each.text not in NOT_RUN}
"""Each once, by its text, with the first place where it stands."""


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page in a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Shelf:
    """A folder with every file that the pages name, and the store that README's example has filled.

    Attributes:
        folder: The folder; `store` is in it.
        said: What the example printed.
    """

    folder: Path
    said: str

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def trial(self) -> str:
        """The trial with the highest score."""
        rows = Store(self.store).runs("pulls").sort("score", descending=True)
        return str(rows["trial_id"][0])


def python(folder: Path, program: str) -> str:
    """What a program prints that runs in a folder, as a user's."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SWEEPS_", "MLFLOW_"))}
    environment = kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "program.py"],
        check=False, cwd=folder, capture_output=True, text=True, timeout=840, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    folder = tmp_path_factory.mktemp("pages")
    (example,) = blocks("README.md", "python")
    said = python(folder, example)
    fill(folder)
    return Shelf(folder, said)


def fill(folder: Path) -> None:
    """Write the files that the pages name."""
    python(folder, *blocks("docs/imagined_dialogues.md", "python"))  # chain, shop.txt
    brief, repair = blocks("docs/your_dialogues.md", "python")
    texts = {
        "brief.py": brief,
        "repair.py": repair,
        "me.py": repair,
        "mine.jsonl": _dialogues(),
        "imagined.jsonl": _dialogues(),
        "comments.csv": _comments(),
        "words.txt": "".join(f"{a}{b}{c}ol\n" for a in "cps" for b in "aeo" for c in "trn"),
        "study.yaml": "question: visdial\ntrials: 4\ntrain.tau: [0.6, 0.7, 0.9]\n",
        "theirs.yaml": "method: grid\nparameters:\n  tau: {values: [0.5, 0.9]}\n  beta: {value: 4}\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "visdial").mkdir()
    (folder / "visdial" / "visdial.jsonl").write_text(_scenes(), encoding="utf-8")
    _save_model(folder / "model")


def _dialogues() -> str:
    """The lines of docs/your_dialogues.md, each twenty times with another price."""
    (lines,) = blocks("docs/your_dialogues.md", "jsonl")
    rows = [json.loads(line) for line in lines.splitlines()]
    texts = [
        json.dumps(row | {"id": f"{row['id']}-{n}"}).replace("it for ", f"it for {n}")
        for row in rows
        for n in range(20)
    ]
    return "".join(f"{text}\n" for text in texts)


def _comments() -> str:
    words = ("kind", "soft", "vile", "foul")
    rows = [
        f"what of zorp{n % 40},{words[n % 4]} zorp{n} blim{n % 7},{n % 3 - 4 * (n % 4 // 2)},{n % 4 // 2}"
        for n in range(400)
    ]
    return "\n".join(["parent,text,score,label", *rows]) + "\n"


def _scenes() -> str:
    scenes = [
        {
            "image_id": n,
            "caption": f"a red kettle number {n}",
            "human": [["is there a kettle", "yes"], ["what colour is the kettle", "red"]],
        }
        for n in range(24)
    ]
    return "".join(f"{json.dumps(scene)}\n" for scene in scenes)


def _save_model(folder: Path) -> None:
    """A tiny GPT-2 with a byte-level tokeniser, as a folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel

    text = Tokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special: list[Any] = ["<|endoftext|>"]
    text.train_from_iterator(
        ["a red kettle"],
        trainer=trainers.BpeTrainer(
            vocab_size=260, initial_alphabet=alphabet, special_tokens=special, show_progress=False
        ),
    )
    folder.mkdir()
    text.save(str(folder / "tokenizer.json"))
    size = text.get_vocab_size()
    config = GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)


def as_run(command: Command, shelf: Shelf) -> list[str]:
    """A command as it is run: placeholders replaced, and made small."""
    words = list(command.words)
    for at, word in enumerate(command.words):
        option = f"{words[at - 1]} {word}" if at else word
        words[at] = PLACEHOLDERS.get(option, PLACEHOLDERS.get(word, word))
        words[at] = {"$STORE": str(shelf.store), "$TRIAL": shelf.trial}.get(words[at], words[at])
        if words[at] == word and re.fullmatch(r"[A-Z]{2,}", word):
            pytest.fail(f"{command.place}: nothing real stands for {word} of `{command.text}` in PLACEHOLDERS")
    for beginning, more in SMALLER.items():
        if command.begins(*beginning):
            words += more.split()
    asks = command.question is not None or command.begins("sweeps", "run") or command.begins("sweeps", "plan")
    if asks and "--show" not in words:
        own = [words[at + 1] for at, word in enumerate(words) if word == "--preset"]
        words += ["--plan"] if own else ["--preset", "smoke", "--plan"]
        if "paper" in own and "--model" not in words:
            words += ["--model", PLACEHOLDERS["--model DIR"]]
    return words


def run(words: Sequence[str]) -> int:
    """Do what a command of ours does, in this process; its exit status."""
    if words[0] == "sweeps":
        return cli.main(words[1:])
    if words[1] == "-m":
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, *words[1:]], check=False, timeout=600, env=environment).returncode
    assert (ROOT / words[1]).is_file(), words[1]
    return cli.main(["run", Path(words[1]).stem.removesuffix("_ablation"), *words[2:]])


def test_the_example_of_the_readme_does_what_arithmetic_says(shelf: Shelf) -> None:
    lines = shelf.said.splitlines()
    found = re.findall(r"arm b in (\d+)% of 1,000 pulls; by arithmetic in (\d+)%", shelf.said)
    assert len(found) == 3
    for drawn, exact in found:
        assert abs(int(drawn) - int(exact)) <= 6  # of 1,000 draws, whose own error is 1.6, by a Q that was trained
    assert "arm b" in lines
    assert "shape: (7, 5)" in lines
    (example,) = blocks("README.md", "python")
    assert len([line for line in example.splitlines() if line.strip() and "import" not in line]) <= 20


@pytest.mark.parametrize("command", RUN.values(), ids=lambda each: each.place)
def test_it_runs(
    command: Command, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = as_run(command, shelf)
    here = tmp_path / "here"
    shutil.copytree(shelf.folder, here, ignore=shutil.ignore_patterns("store", "policy"))
    for name in re.findall(r"-o (\S+)", " ".join(words)):
        (here / name).unlink(missing_ok=True)  # what a command writes is not there yet
    monkeypatch.chdir(here)
    monkeypatch.setenv("SWEEPS_STORE", str(shelf.store))

    def nobody(_: object = "") -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)  # who plays leaves at once
    try:
        status = run(words)
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    said = capsys.readouterr()
    assert status == 0, f"{command.place}: `{shlex.join(words)}` ended with {status}\n{said.out[-2000:]}{said.err}"


def test_the_papers_preset_is_planned_for_a_cluster_that_is_described(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = next(each for each in COMMANDS if each.text == ON_A_CLUSTER)
    words = as_run(command, shelf)
    assert words == [*command.words, "--plan", "--model", "model"]
    monkeypatch.chdir(shelf.folder)
    monkeypatch.setenv("SWEEPS_STORE", str(tmp_path / "store"))
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "preset paper; against the paper it changes" in said
    assert "  behaviour.steps: 2048 (paper: " in said  # the preset's own, as no other has it
    _, plan = said.split("on a cluster 4x8:80GB, of its design:\n")
    trainings, hours, memory, gpu, disk = plan.splitlines()[:5]
    # 55 cells on two blocks of scenes; four machines of eight GPUs, one for each job.
    assert trainings == (
        "  18 trainings and 110 evaluations are to be done, 32 jobs at a time (1 worker with 1 CPU and 1 GPU each)"
    )
    low_to_high = re.match(
        r"  GPU-hours: (\S+) \((\S+) to (\S+)\), by .+ counted operations at a peak of 19.5 TFLOP/s", hours
    )
    assert low_to_high is not None
    expected, low, high = map(float, low_to_high.groups())
    assert 0 < low < expected < high
    assert re.match(r"  memory of a training, the largest, on each GPU: 0\.\d GiB \(weights ", memory)
    assert gpu.startswith("  a GPU has 80.0 GiB: ")
    assert re.match(r"  disk: \S+ MiB \(weights \S+ MiB, episodes \S+ MiB, checkpoints while it runs ", disk)


def test_every_command_is_run_or_accounted_for() -> None:
    for each in (each for each in COMMANDS if not each.ours and each.text not in NOT_RUN):
        pytest.fail(
            f"{each.place}: `{each.text}` must be run, or stand in ELSEWHERE or NOT_HERE of tests/test_commands.py"
        )
    assert len(RUN) > 50
    assert len(NOT_RUN) == len(set(NOT_RUN))


def test_nothing_is_accounted_for_that_no_page_has() -> None:
    texts = {each.text for each in COMMANDS}
    assert [text for text in NOT_RUN if text not in texts] == []
    used = " ".join(texts)
    assert [name for name in PLACEHOLDERS if name not in used] == []


@pytest.mark.parametrize("test", ELSEWHERE)
def test_the_test_that_runs_it_is_there(test: str) -> None:
    file, *names = test.split("::")
    source = (ROOT / file).read_text(encoding="utf-8")
    for name in names:
        assert re.search(rf"^ *(?:def|class) {name}\b", source, re.MULTILINE), test


@pytest.mark.parametrize("text", NOT_RUN)
def test_the_options_of_what_is_not_run_are_options(text: str) -> None:
    command = next(each for each in COMMANDS if each.text == text)
    understand([word for word in command.words if not re.match(r"[A-Z_]+=", word)])
    if "--" in command.words:  # behind it stands another command
        understand(command.words[command.words.index("--") + 1 :])


def understand(words: Sequence[str]) -> None:
    """Do nothing if a program takes these words, or is not installed here; fail as it does if it takes them not."""
    program, *rest = words
    if program == "sweeps":
        parser, parsers = cli.make_parser()
        given, more = parser.parse_known_args(rest)
        if given.command == "rescore":
            assert more == ["--rewards", "R"]
        elif given.command == "play":
            assert set(more) <= {"--trial", "TRIAL"}
        elif given.command == "eval":
            assert columns_said(parsers["eval"], more)
        else:
            assert more == []
    elif program == "python" and rest[0].startswith("sweeps/"):
        asked(Path(rest[0]).stem.removesuffix("_ablation"), rest[1:])
    elif program == "ray":
        from ray.scripts.scripts import cli as of_ray

        taken(of_ray, rest)
    elif program == "mlflow":
        from mlflow.cli import cli as of_mlflow

        taken(of_mlflow, rest)
    elif program == "make":
        recipe = re.search(rf"^{rest[0]}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        assert recipe is not None, f"make {rest[0]}"
        for line in re.findall(r"\$\(BIN\)/(python sweeps/.*) \$\(ARGS\)", recipe[1]):
            understand(line.split())
    elif program.endswith("pip"):
        from pip._internal.commands import create_command

        create_command(rest[0]).parse_args(list(rest[1:]))
    elif program == "pytest":
        assert (ROOT / rest[0]).is_file()
    elif program.startswith("."):
        assert (ROOT / program).is_file()


def asked(question: str, words: Sequence[str]) -> Options:
    """What a question reads of a command line."""
    found = question_named(question)
    options = options_of(found, question, words)
    assert options.preset in found.presets
    return options


def taken(program: Any, words: Sequence[str]) -> None:
    """Let a program made with click read its words up to where it would begin."""
    context = program.make_context(None, list(words), resilient_parsing=False)
    while hasattr(context.command, "resolve_command"):
        name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
