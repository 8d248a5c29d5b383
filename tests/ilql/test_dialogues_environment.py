"""A user's environment and reward function: what they must do, and the one line that says so when they do not."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ilql.task import Reply, TaskFault
from ilql.tasks.dialogues import KIND
from ilql.tasks.dialogues.environment import LiveEpisode, Rules
from ilql.tasks.dialogues.payment import RewardFunction, as_number, paid
from ilql.tasks.dialogues.settings import Settings
from ilql.tasks.dialogues.world import DialoguesTask

WIDE = (-100.0, 100.0)


class Echo:
    """Repeats what it hears, pays 1 for it, and ends when told to."""

    def __init__(self, seed: int = 0, split: str = "train") -> None:
        self.seed, self.split, self.heard = seed, split, list[str]()

    def reset(self) -> str | None:
        return f"hello {self.seed} {self.split}"

    def step(self, text: str) -> tuple[str | None, float | Mapping[str, float], bool]:
        self.heard.append(text)
        return text or None, 1.0, text == "bye"


def rules(
    factory: object = Echo,
    *,
    reward: RewardFunction | None = None,
    max_turns: int = 3,
    template: str = "",
    names: tuple[str, ...] = ("recorded",),
) -> Rules:
    return Rules(
        factory=factory,  # type: ignore[arg-type]
        bounds=dict.fromkeys(names, WIDE),
        reward=reward,
        max_turns=max_turns,
        template=template,
        agent_role="agent",
        agent_roles=("agent", "bot"),
        world_role="user",
    )


def replies(episode: LiveEpisode, *texts: str) -> list[Reply]:
    return [episode.say(text) for text in texts]


class TestEpisodes:
    def test_the_factory_gets_seed_and_split_and_the_opening_is_what_reset_gives(self) -> None:
        episode = LiveEpisode(rules(), 7, "tune")
        assert (episode.opening, episode.scene) == ("hello 7 tune", "tune-7")

    def test_a_reply_is_what_step_gives(self) -> None:
        assert replies(LiveEpisode(rules(), 0, "tune"), "a", "", "bye") == [
            Reply("a", {"recorded": 1.0}, ended=False),
            Reply(None, {"recorded": 1.0}, ended=False, understood=False),
            Reply("bye", {"recorded": 1.0}, ended=True),
        ]

    def test_it_is_over_after_the_largest_number_of_turns(self) -> None:
        assert [reply.ended for reply in replies(LiveEpisode(rules(), 0, "tune"), "a", "b", "c")] == [
            False,
            False,
            True,
        ]

    def test_nothing_said_is_none(self) -> None:
        class Silent(Echo):
            def reset(self) -> str | None:
                return ""

        assert LiveEpisode(rules(Silent), 0, "tune").opening is None

    def test_the_template_is_for_the_policy_alone(self) -> None:
        worlds: list[Echo] = []

        def factory(seed: int, split: str) -> Echo:
            worlds.append(Echo(seed, split))
            return worlds[-1]

        episode = LiveEpisode(rules(factory, template="{role}: {text}"), 0, "tune")
        assert episode.opening == "user: hello 0 tune"
        first, second = replies(episode, "bot: good morning", "good morning")
        assert worlds[0].heard == ["good morning", "good morning"]
        assert (first.text, first.understood) == ("user: good morning", True)
        assert second.understood is False

    def test_rewards_by_name_are_paid_by_name(self) -> None:
        class Rich(Echo):
            def step(self, text: str) -> tuple[str | None, float | Mapping[str, float], bool]:
                return None, {"recorded": 2, "kind": 0.5}, True

        (reply,) = replies(LiveEpisode(rules(Rich, names=("recorded", "kind")), 0, "tune"), "a")
        assert reply.rewards == {"recorded": 2.0, "kind": 0.5}


class TestPaying:
    BOUNDS = {"recorded": (0.0, 2.0), "kind": WIDE}  # noqa: RUF012  a constant of the test

    def test_a_number_is_the_recorded_reward(self) -> None:
        assert paid(1, {"recorded": WIDE}) == {"recorded": 1.0}

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (1.0, "every reward .recorded, kind., got a single number, which is 'recorded', without kind"),
            ({"recorded": 1.0}, "got numbers by name, without kind"),
            ({"recorded": 1.0, "kind": 0.0, "brief": 1.0}, "got str 'brief' besides"),
            ({"recorded": None, "kind": 0.0}, "finite numbers, got NoneType None for recorded"),
            ({"recorded": 1.0, "kind": float("nan")}, "finite numbers, got float nan for kind"),
            ({"recorded": 3.0, "kind": 0.0}, r"recorded in \[0, 2\], got 3; say what it may be"),
        ],
    )
    def test_everything_else_is_refused(self, value: object, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            paid(value, self.BOUNDS)

    def test_truth_and_words_are_no_numbers(self) -> None:
        assert [as_number(value) for value in (True, "1", None, float("inf"), 10**400, 2)] == [None] * 5 + [2.0]


def world_with(**methods: object) -> type:
    return type("Broken", (Echo,), methods)


BROKEN = [
    (world_with(step=lambda _, text: text[9]), "failed: step raised IndexError.*test_dialogues_environment.py line"),
    (world_with(step=lambda _, text: ("a", 1.0)), r"step must give \(reply, reward, ended\), got tuple"),
    (world_with(step=lambda _, text: None), "got NoneType None"),
    (world_with(step=lambda _, text: (5, 1.0, True)), "reply with what the world says, a string or None, got int 5"),
    (world_with(step=lambda _, text: ("a", "1", True)), "finite numbers, got str '1' for recorded"),
    (world_with(step=lambda _, text: ("a", float("nan"), True)), "finite numbers, got float nan"),
    (world_with(step=lambda _, text: ("a", 1.0, 1)), "True or False whether the episode has ended, got int 1"),
    (world_with(step=lambda _, text: ("a", 101.0, True)), r"recorded in \[-100, 100\], got 101"),
    (world_with(reset=lambda _: 5), "reset must give what the world says first, a string or None, got int 5"),
    (world_with(step=lambda _, text: sys.exit(3)), "failed: step raised SystemExit: 3"),
    (world_with(reset=lambda _: {}["day"]), "failed: reset raised KeyError: 'day'"),
    (world_with(step=None), "an object with reset.. and step.text., got Broken without step"),
    (lambda seed: seed, "failed: the factory raised TypeError"),
    (lambda seed, split: None, "got NoneType without reset"),
]


@pytest.mark.parametrize(("factory", "said"), BROKEN, ids=[said[:30] for _, said in BROKEN])
def test_a_broken_environment_is_a_fault_of_one_line(factory: object, said: str) -> None:
    with pytest.raises(TaskFault, match=said) as caught:
        LiveEpisode(rules(factory), 0, "tune").say("a")
    assert "\n" not in str(caught.value)


class TestRewardFunctions:
    def test_it_gets_the_dialogue_and_the_turns_place(self) -> None:
        function = RewardFunction(lambda dialogue, turn: len(dialogue[turn]["text"]) + 10 * turn, *WIDE)
        assert function.pay([("user", "hi"), ("agent", "abc")], 1, "d") == 13.0

    def test_it_may_spoil_what_it_gets(self) -> None:
        said = [("agent", "abc")]
        assert RewardFunction(lambda dialogue, turn: dialogue.clear() or 1, *WIDE).pay(said, 0, "d") == 1.0
        assert said == [("agent", "abc")]

    @pytest.mark.parametrize(
        ("function", "said"),
        [
            (
                lambda dialogue, turn: 1 / 0,
                "it raised ZeroDivisionError: division by zero .test_dialogues_environment.py",
            ),
            (lambda dialogue, turn: float("nan"), "got float nan"),
            (lambda dialogue, turn: None, "got NoneType None"),
            (lambda dialogue, turn: "1", "got str '1'"),
            (lambda dialogue, turn: True, "got bool True"),
            (lambda dialogue, turn: 500, r"in \[-100, 100\], got 500"),
            (lambda dialogue: 1, "it raised TypeError"),
        ],
    )
    def test_what_it_must_not_give_is_one_line_with_dialogue_and_turn(self, function: object, said: str) -> None:
        with pytest.raises(ValueError, match=rf"turn 1 \(from 0\) of dialogue 'a17'.*{said}") as caught:
            RewardFunction(function, *WIDE).pay([("user", "hi"), ("agent", "abc")], 1, "a17")  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    def test_an_episodes_return_is_what_it_says_of_the_whole_though_it_looks_ahead(self) -> None:
        # It pays the number of turns behind the agent's: of [user, a, a, b, b] that is 3 for the first and 1 for the
        # second. After one turn the dialogue is [user, a, a], of which it says 1: so 1 is paid, then 4 − 1 = 3.
        function = RewardFunction(lambda dialogue, turn: len(dialogue) - 1 - turn, *WIDE)
        first, second = replies(LiveEpisode(rules(reward=function), 0, "tune"), "a", "b")
        assert (first.rewards["custom"], second.rewards["custom"]) == (1.0, 3.0)

    def test_its_failure_in_an_episode_is_a_fault(self) -> None:
        function = RewardFunction(lambda dialogue, turn: 1 / 0, *WIDE)
        with pytest.raises(TaskFault, match=r"dialogue 'tune-0'.*ZeroDivisionError"):
            LiveEpisode(rules(reward=function), 0, "tune").say("a")


ENVIRONMENT = """
import dataclasses

@dataclasses.dataclass
class World:
    seed: int

    def reset(self):
        return "hello"

    def step(self, text):
        return "thanks", PAID, True

def factory(seed, split):
    return World(seed)

PAID = 1.5
number = 5
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = [
        {"turns": [{"role": "user", "text": "hi"}, {"role": "agent", "text": f"a{number}", "reward": number}]}
        for number in range(12)
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return file


def build(data: Path, settings: Settings | None = None, **sources: str) -> tuple[DialoguesTask, list[str]]:
    folder = data.parent / "world"
    folder.mkdir(exist_ok=True)
    notes = KIND.build(settings or Settings(), {"data": str(data), **sources}, folder)
    task = KIND.load(folder)
    assert isinstance(task, DialoguesTask)
    return task, notes


class TestBuilding:
    def test_a_file_is_copied_and_nothing_else_is_left_beside_it(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "dont_write_bytecode", False)
        file = tmp_path / "mine.py"
        file.write_text(f"{ENVIRONMENT}\n# a source that no other test has loaded\n", encoding="utf-8")
        build(data, environment=f"{file}:factory")
        world = tmp_path / "world"
        assert sorted(str(path.relative_to(world)) for path in world.rglob("*") if path.is_file()) == [
            "dialogues.json",
            "environment/mine.py",
            "world.json",
        ]
        file.unlink()  # a worker elsewhere never had it
        task = KIND.load(tmp_path / "world")
        episode = task.environment(0, "report")
        assert task.step([episode], ["a"]) == [Reply("thanks", {"recorded": 1.5}, ended=True)]

    def test_with_an_environment_it_can_be_played_and_its_range_holds(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(ENVIRONMENT, encoding="utf-8")
        settings = Settings(max_turns=4, lowest_reward=-1.0, highest_reward=2.0)
        task, _ = build(data, settings, environment=f"{tmp_path / 'mine.py'}:factory")
        assert (task.playable, task.max_turns) == (True, 4)
        assert task.score_range("recorded") == (-4.0, 11.0)  # 4 · −1; the data's 11 is above 4 · 2

    def test_unknown_bounds_are_wide_and_noted(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(ENVIRONMENT, encoding="utf-8")
        task, notes = build(data, environment=f"{tmp_path / 'mine.py'}:factory")
        assert task.score_range("recorded") == (-20e9, 20e9)  # 20 turns of at most 1e9
        assert any("nobody has said what a turn can be paid under recorded" in note for note in notes)

    def test_a_broken_environment_is_refused_when_it_is_built(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(ENVIRONMENT.replace("PAID = 1.5", "PAID = None"), encoding="utf-8")
        with pytest.raises(ValueError, match="--environment: step must pay finite numbers, got NoneType None"):
            build(data, environment=f"{tmp_path / 'mine.py'}:factory")

    def test_what_a_file_raises_is_told_with_the_files_own_name(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "desk.py").write_text(ENVIRONMENT.replace("PAID = 1.5", "PAID = 1 / 0"), encoding="utf-8")
        with pytest.raises(ValueError, match=r"desk\.py raised ZeroDivisionError: .* \(desk\.py line \d+\)"):
            build(data, environment=f"{tmp_path / 'desk.py'}:factory")

    def test_an_environment_and_a_reward_function_may_be_two_files_of_one_name(
        self, data: Path, tmp_path: Path
    ) -> None:
        for folder, text in (("one", ENVIRONMENT), ("other", "def reward(dialogue, turn):\n    return 7.0\n")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "mine.py").write_text(text, encoding="utf-8")
        one, other = f"{tmp_path / 'one' / 'mine.py'}:factory", f"{tmp_path / 'other' / 'mine.py'}:reward"
        task, _ = build(data, environment=one, reward=other)
        assert task.step([task.environment(0, "report")], ["a"])[0].rewards == {"recorded": 1.5, "custom": 7.0}

    def test_a_world_that_was_built_when_copies_had_names_of_ours_is_loaded(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(ENVIRONMENT, encoding="utf-8")
        build(data, environment=f"{tmp_path / 'mine.py'}:factory")
        folder = tmp_path / "world"
        (folder / "environment" / "mine.py").rename(folder / "your_environment.py")
        stored = json.loads((folder / "world.json").read_text(encoding="utf-8"))
        del stored["environment"]["file"]
        (folder / "world.json").write_text(json.dumps(stored), encoding="utf-8")
        assert KIND.load(folder).playable

    def test_one_that_the_seed_does_not_decide_is_noted(self, data: Path, tmp_path: Path) -> None:
        text = ENVIRONMENT.replace('"thanks"', "str(COUNT.append(1) or len(COUNT))") + "\nCOUNT = []\n"
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        _, notes = build(data, environment=f"{tmp_path / 'mine.py'}:factory")
        assert any("answered differently to the same seed" in note for note in notes)

    def test_what_lies_beside_a_file_and_is_imported_is_noted(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "my_prices.py").touch()
        (tmp_path / "mine.py").write_text(f"import my_prices\n{ENVIRONMENT}", encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        _, notes = build(data, environment=f"{tmp_path / 'mine.py'}:factory")
        assert any("imports my_prices, which may lie beside it" in note for note in notes)

    def test_a_module_is_imported_by_its_name(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "my_installed_world.py").write_text(ENVIRONMENT, encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        task, _ = build(data, environment="my_installed_world:factory")
        assert task.playable
        assert not (tmp_path / "world" / "your_environment.py").exists()
        monkeypatch.undo()
        monkeypatch.delitem(sys.modules, "my_installed_world")
        with pytest.raises(ValueError, match="my_installed_world raised ModuleNotFoundError"):
            KIND.load(tmp_path / "world")

    def test_a_bare_name_is_first_a_file_in_the_working_directory(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "mine.py").write_text(ENVIRONMENT, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        build(data, environment="mine:factory")
        assert (tmp_path / "world" / "environment" / "mine.py").is_file()

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("factory", "must be FILE.py:NAME or MODULE:NAME, got 'factory'"),
            ("mine.py:", "must be FILE.py:NAME"),
            ("nowhere.py:factory", "must name a file that exists, got nowhere.py"),
            ("no.such.module:factory", r"file \(FILE.py:factory\) or a module that is installed, got 'no.such.module'"),
            ("MINE:number", "must name a function in mine.py, got 'number'; there: World, factory"),
            ("MINE:nothing", "got 'nothing'"),
            ("BAD:factory", "bad.py raised SyntaxError"),
            ("EXIT:factory", "exit.py raised SystemExit"),
        ],
    )
    def test_what_cannot_be_found_is_one_line(self, data: Path, tmp_path: Path, given: str, said: str) -> None:
        (tmp_path / "mine.py").write_text(ENVIRONMENT, encoding="utf-8")
        (tmp_path / "bad.py").write_text("def factory(:\n", encoding="utf-8")
        (tmp_path / "exit.py").write_text("import sys\nsys.exit()\n", encoding="utf-8")
        named = given
        for name in ("mine", "bad", "exit"):
            named = named.replace(name.upper(), f"{tmp_path / name}.py")
        with pytest.raises(ValueError, match=said) as caught:
            build(data, environment=named)
        assert "\n" not in str(caught.value)

    def test_a_reward_function_pays_the_recorded_turns(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "pay.py").write_text("def pay(dialogue, turn):\n    return -len(dialogue[turn]['text'])\n")
        task, _ = build(data, reward=f"{tmp_path / 'pay.py'}:pay")
        assert task.rewards == ("recorded", "custom")
        for split in ("train", "tune", "report"):
            for dialogue in task.dialogues(split, "custom"):
                assert dialogue.turns[1].reward == -len(dialogue.turns[1].text)
        assert task.score_range("custom") == (-3.0, 0.0)  # "a10" and "a11"
        assert task.playable is False

    def test_a_reward_function_that_fails_stops_building(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "pay.py").write_text("def pay(dialogue, turn):\n    return None\n")
        with pytest.raises(ValueError, match=r"turn 1 \(from 0\) of dialogue 'line 1', got NoneType None"):
            build(data, reward=f"{tmp_path / 'pay.py'}:pay")

    def test_its_source_counts_and_its_place_does_not(self, data: Path, tmp_path: Path) -> None:
        def digest(name: str, text: str, function: str = "factory") -> str:
            (tmp_path / name).write_text(text, encoding="utf-8")
            sources = {"data": str(data), "environment": f"{tmp_path / name}:{function}"}
            return KIND.source_digest(Settings(), sources)

        first = digest("one.py", ENVIRONMENT)
        assert digest("two.py", ENVIRONMENT) == first
        assert digest("two.py", ENVIRONMENT + "\n") != first
        assert digest("one.py", ENVIRONMENT, "World") != first
