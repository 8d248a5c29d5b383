"""A made-up booking desk: what the task is without data, so that everything can be tried before one has dialogues.

A caller wants a table for so many people, on a day, at an hour, and says some of it at once. The agent is the desk: it
asks for the rest and offers a table; the right offer ends the call. Every turn costs 1 and the right offer pays 5. A
second reward, `courtesy`, pays 1 for every turn with a kind word, so that politeness and brevity pull apart.

`make_desk` is an environment exactly as `docs/your_dialogues.md` asks for one.
"""

from __future__ import annotations

import json

import numpy as np

from ilql.task import SPLITS

PEOPLE = ("two", "three", "four", "five", "six")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
HOURS = ("noon", "half past one", "seven", "half past seven", "eight", "nine")
SLOTS = {"people": PEOPLE, "day": DAYS, "hour": HOURS}
LEADS = {"people": "for", "day": "on", "hour": "at"}
QUESTIONS = {"people": "for how many people ?", "day": "on which day ?", "hour": "at what hour ?"}
KIND_WORDS = ("please", "welcome", "gladly")
LOST = "sorry , i do not follow"
TURN_COST, BOOKED = -1.0, 5.0
LONGEST_CALL = 5
"""The agent's turns after which a recorded call is cut off."""

BOUNDS = {"recorded": (TURN_COST, TURN_COST + BOOKED), "courtesy": (0.0, 1.0)}
"""The least and the most that one turn is paid."""


class Desk:
    """One call."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.wanted = {slot: str(generator.choice(values)) for slot, values in SLOTS.items()}
        self._told = [slot for slot in SLOTS if generator.random() < 0.35]

    def reset(self) -> str | None:
        """The caller's first words."""
        return " ".join(["hello i would like a table", *(self._say(slot) for slot in self._told)])

    def step(self, text: str) -> tuple[str | None, dict[str, float], bool]:
        """The caller's answer to a question or an offer."""
        said = text.lower().split()
        rewards = {"recorded": TURN_COST, "courtesy": float(any(word in said for word in KIND_WORDS))}
        offered = mentioned(text)
        asked = [slot for slot, question in QUESTIONS.items() if question.split()[-2] in said]
        if len(offered) == len(SLOTS):
            wrong = next((slot for slot in SLOTS if offered[slot] != self.wanted[slot]), None)
            if wrong is None:
                return "yes thank you", rewards | {"recorded": TURN_COST + BOOKED}, True
            return f"no , {self._say(wrong)}", rewards, False
        if asked:
            return self._say(asked[0]), rewards, False
        return LOST, rewards, False

    def _say(self, slot: str) -> str:
        return f"{LEADS[slot]} {self.wanted[slot]}"


def make_desk(seed: int, split: str) -> Desk:
    """A call that the seed and the split decide."""
    return Desk(np.random.default_rng([seed, SPLITS.index(split)]))


def mentioned(text: str) -> dict[str, str]:
    """What a text says about people, day and hour."""
    words = f" {' '.join(text.lower().split())} "
    said = {slot: [value for value in values if f" {LEADS[slot]} {value} " in words] for slot, values in SLOTS.items()}
    return {slot: values[0] for slot, values in said.items() if values}


def offer(slots: dict[str, str]) -> str:
    """The desk's offer."""
    return " ".join(["so a table", *(f"{LEADS[slot]} {slots[slot]}" for slot in SLOTS), "?"])


def recorded_calls(seed: int, count: int) -> bytes:
    """So many calls as the lines of a file: clerks who ask, who guess, who ask again, and who are kind or short."""
    lines = []
    for number in range(count):
        generator = np.random.default_rng([seed, number, 0xDE5C])
        lines.append(json.dumps({"id": f"call-{number}", **_call(Desk(generator), generator)}))
    return "".join(f"{line}\n" for line in lines).encode()


def _call(desk: Desk, generator: np.random.Generator) -> dict[str, object]:
    """One call of a clerk whose habits are drawn."""
    guessing, forgetful = generator.choice([0.0, 0.3]), generator.choice([0.0, 0.4])
    kindness = generator.choice([0.1, 0.8])
    heard = desk.reset()
    assert heard is not None
    turns: list[dict[str, object]] = [{"role": "user", "text": heard}]
    known, ended = mentioned(heard), False
    for _ in range(LONGEST_CALL):
        missing = [slot for slot in SLOTS if slot not in known]
        if not missing or generator.random() < guessing:
            said = offer({slot: known.get(slot) or str(generator.choice(SLOTS[slot])) for slot in SLOTS})
        else:
            again = generator.random() < forgetful
            said = QUESTIONS[str(generator.choice(list(SLOTS) if again else missing))]
        if generator.random() < kindness:
            said = f"{generator.choice(KIND_WORDS)} , {said}"
        answer, rewards, ended = desk.step(said)
        paid = {"reward": rewards["recorded"], "rewards": {"courtesy": rewards["courtesy"]}}
        turns.append({"role": "agent", "text": said, **paid})
        if answer is not None:
            turns.append({"role": "user", "text": answer})
            known |= mentioned(answer)
        if ended:
            break
    return {"turns": turns, "ended": bool(ended)}
