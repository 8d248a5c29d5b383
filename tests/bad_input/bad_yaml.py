"""YAML: a question with its options in a file, and the sweeps of others that `sweeps import` makes such files of."""

from __future__ import annotations

from collections.abc import Sequence

from faults import Fault, Place, Reader
from files import DIGITS, path_faults, text_faults

QUESTION = """\
question: bandit
preset: smoke
seeds: 1
trials: 0
methods: [bc, sarsa]
train.weight_decay: 0.1
world: {dialogues: 8}
"""

WANDB = """\
program: train.py
method: bayes
metric: {name: return, goal: maximize}
parameters:
  tau: {values: [0.5, 0.9]}
  beta: {value: 4}
  optimizer:
    parameters:
      lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}
"""

TRLX = """\
tune_config: {mode: max, metric: metrics/return, num_samples: 8}
method.tau: {strategy: uniform, values: [0.6, 0.9]}
steps_for_target_q_sync: {strategy: choice, values: [1, 5]}
"""

LEVELS = 9
"""Ten aliases in each of so many lines are a billion values, of a file of a few hundred bytes."""


def swollen(text: str, least: str = "a0: &a0 {k: 1}", more: str = "a%d: &a%d {%s}") -> str:
    """A text, and lines of mappings of ten aliases each of the line before."""
    lines = [more % (n, n, ", ".join(f"k{key}: *a{n - 1}" for key in range(10))) for n in range(1, LEVELS + 1)]
    return "\n".join([f"{text}{least}", *lines, ""])


def plan(path: str) -> Sequence[str]:
    """Nothing is trained by a plan; `run` reads the file by the same lines."""
    return ["plan", path]


def wandb(at: Place, path: str) -> Sequence[str]:
    return ["import", "wandb", path, "-o", str(at.folder / "ours.yaml")]


def trlx(at: Place, path: str) -> Sequence[str]:
    return ["import", "trlx", path, "-o", str(at.folder / "ours.yaml")]


def _asked(name: str, why: str, text: str | bytes, *says: str) -> Fault:
    return Fault(name, why, lambda at: plan(at.write("q.yaml", text)), ("q.yaml", *says))


QUESTIONS = Reader(
    "question files",
    sound=lambda at: plan(at.write("q.yaml", QUESTION)),
    faults=(
        *path_faults(plan, "q.yaml"),
        *text_faults(plan, "q.yaml", QUESTION.encode()),
        _asked("aliases that swell", "made to exhaust whoever reads it", swollen(QUESTION), "aliases", "&a0", "line 8"),
        _asked("anchor alone", "copied from a longer file", f"{QUESTION}name: &n x\n", "anchors", "&n", "line 8"),
        _asked("alias of nothing", "what it meant is in another file", f"{QUESTION}name: *n\n", "aliases", "*n"),
        _asked("alias of itself", "made to be followed for ever", f"{QUESTION}name: &n [*n]\n", "aliases"),
        _asked("merge key", "as other programs share settings", f"{QUESTION}<<: {{seeds: 3}}\n", "<<", "line 8"),
        _asked("tag of Python's", "made to run a program", f"{QUESTION}name: !!python/object/apply:os.system [x]\n",
               "without tags", "!!python/object/apply:os.system", "line 8"),
        _asked("number of no letters", "a tag and nothing behind it", f"{QUESTION}episodes: !!int ''\n", "!!int"),
        _asked("truth of no word", "the same", f"{QUESTION}transfer: !!bool x\n", "!!bool"),
        _asked("tag of one's own", "another program's", f"{QUESTION}name: !include x.yaml\n", "!include"),
        _asked("number to base 60", "an hour was meant", f"{QUESTION}episodes: 1:30\n", "1:30", "line 8"),
        _asked("number to base 60 beyond a float", "made to", f"{QUESTION}episodes: 1{':1' * 400}.5\n", "line 8"),
        _asked("number of 5,000 digits", "a file pasted", f"{QUESTION}episodes: {DIGITS}\n", "300 letters"),
        _asked("number to base 16", "the same", f"{QUESTION}episodes: 0x{'f' * 5000}\n", "300 letters"),
        _asked("letter beyond all letters", "an escape cut off", f'{QUESTION}name: "\\UFFFFFFFF"\n'),
        _asked("byte of Latin-1", "accents of before Unicode", QUESTION.encode() + b"name: \xe9\n", "utf-8"),
        _asked("control character", "a log's colours", f"{QUESTION}name: \x1b[1mx\n", "unacceptable"),
        _asked("bracket that is never closed", "cut off", f"{QUESTION}rewards: [standard\n"),
        _asked("quote that is never closed", "cut off", f"{QUESTION}name: 'x\n"),
        _asked("tab for spaces", "an editor's indentation", f"{QUESTION}decode:\n\tgreedy: true\n", "line 9"),
        _asked("indented by mistake", "moved by hand", f"{QUESTION} seeds: 3\n", "line"),
        _asked("brackets without end", "made to exhaust the stack", f"{QUESTION}rewards: {'[' * 100_000}\n",
               "recursion"),
        _asked("longer than anybody writes", "data for options", QUESTION + "# x\n" * 100_000, "262144 bytes"),
        _asked("two documents", "two files pasted together", f"{QUESTION}---\n{QUESTION}", "single document"),
        _asked("later YAML", "a version that there is not", f"%YAML 9.9\n---\n{QUESTION}", "version"),
        _asked("list", "options alone", "- bandit\n- smoke\n", "mapping", "list"),
        _asked("text", "the question alone", "bandit\n", "mapping", "str"),
        _asked("no question", "options alone", "preset: smoke\n", "question", "None"),
        _asked("question of a number", "the wrong line", "question: 3\n", "question", "3"),
        _asked("list of questions", "several were meant", "question: [bandit, visdial]\n", "question", "bandit"),
        _asked("key twice", "a copied line", f"{QUESTION}seeds: 3\n", "twice", "seeds"),
        _asked("column twice, nested and dotted", "both ways to write it", f"{QUESTION}world.dialogues: 9\n", "twice",
               "world.dialogues"),
        _asked("number for a key", "a list was meant", f"{QUESTION}1: x\n", "names", "1", "line 8"),
        _asked("truth for a key", "YAML reads `on` as one", f"{QUESTION}on: x\n", "names", "on", "line 8"),
        _asked("list for a key", "a question mark too many", f"{QUESTION}? [a]\n: x\n", "names", "sequence"),
        _asked("empty key", "a name was lost", f"{QUESTION}'': x\n", "--"),
        _asked("key in two lines", "a line end pasted with it", f'{QUESTION}"a\\nb": x\n', "--a\\nb"),
        _asked("column without values", "cut off", f"{QUESTION}train.tau: []\n", "train.tau", "[]"),
        _asked("list within a list", "brackets too many", f"{QUESTION}train.tau: [[0.5, 0.9]]\n", "train.tau",
               "[[0.5, 0.9]]"),
        _asked("mapping within a list", "a dash too many", f"{QUESTION}methods_: [bc: 1]\n", "methods_", "{'bc': 1}"),
        _asked("misspelt option", "typed by hand", f"{QUESTION}sedes: 3\n", "--sedes", "--seeds"),
        _asked("option without its value", "a name alone", f"{QUESTION}name: true\n", "--name"),
        _asked("word for a count", "written out", f"{QUESTION}episodes: two\n", "--episodes", "'two'"),
        _asked("count of nothing", "a zero", f"{QUESTION}episodes: 0\n", "--episodes", "'0'"),
        Fault("misspelt question", "typed by hand", lambda at: plan(at.write("q.yaml", "question: bandti\n")),
              ("'bandti'", "bandit")),
        Fault("misspelt column", "typed by hand", lambda at: plan(at.write("q.yaml", f"{QUESTION}train.tua: 0.5\n")),
              ("'train.tua'", "train.tau")),
    ),
)  # fmt: skip


def _swept(name: str, why: str, text: str, *says: str) -> Fault:
    return Fault(name, why, lambda at: wandb(at, at.write("w.yaml", text)), says)


def _with(parameter: str) -> str:
    """W&B's sweep with a parameter more."""
    return f"{WANDB}  {parameter}\n"


IN_PARAMETERS = ("  a0: &a0 {value: 1}", "  a%d: &a%d {parameters: {%s}}")

OF_WANDB = Reader(
    "sweeps of W&B's",
    sound=lambda at: wandb(at, at.write("w.yaml", WANDB)),
    faults=(
        _swept("aliases that swell", "made to exhaust whoever reads it", swollen(WANDB, *IN_PARAMETERS),
               "w.yaml", "aliases", "&a0", "line 10"),
        _swept("anchor and alias", "as its own pages write it", _with("gamma: &g {value: 1}"), "w.yaml", "aliases"),
        _swept("merge key", "settings shared", _with("<<: {gamma: {value: 1}}"), "w.yaml", "<<", "line 10"),
        _swept("tag of Python's", "made to run a program", _with("gamma: !!python/name:os.system ''"), "w.yaml",
               "without tags"),
        _swept("cut off", "a download that broke off", WANDB[:-10], "w.yaml"),
        _swept("list", "parameters alone", "- tau\n", "w.yaml", "mapping"),
        _swept("another program's file", "the wrong file", TRLX, "parameters"),
        _swept("no parameters", "not yet written", "parameters: {}\n", "vary"),
        _swept("parameters of a list", "dashes for keys", "parameters: [tau]\n", "parameters"),
        _swept("parameter of a number", "its braces were lost", _with("gamma: 1"), "gamma", "values", "got 1"),
        _swept("parameter of nothing", "not yet written", _with("gamma: {}"), "gamma", "min", "None"),
        _swept("values of a word", "brackets were lost", _with("gamma: {values: high}"), "gamma", "'high'"),
        _swept("values of lists", "brackets too many", _with("gamma: {values: [[0.9]]}"), "gamma", "[[0.9]]"),
        _swept("no values", "none were meant", _with("gamma: {values: []}"), "gamma", "[]"),
        _swept("misspelt parameter", "typed by hand", _with("gama: {value: 1}"), "'gama'", "--rename", "gamma"),
        _swept("two names of one column", "an old and a new name", _with("lr_init: {value: 1}"),
               "lr_init", "train.learning_rate"),
        _swept("word for an end", "written out", _with("gamma: {min: low, max: 1}"), "gamma", "min", "'low'"),
        _swept("end of a list", "brackets too many", _with("gamma: {min: [0], max: 1}"), "gamma", "min", "[0]"),
        _swept("ends in the wrong order", "swapped", _with("gamma: {min: 1, max: 0.5}"), "gamma", "lower"),
        _swept("logarithm of zero", "another scale's ends",
               _with("gamma: {distribution: log_uniform_values, min: 0, max: 1}"), "gamma", "above 0"),
        _swept("NaN for an end", "a division by zero", _with("gamma: {min: .nan, max: 1}"), "gamma", "finite", "nan"),
        _swept("infinity for an end", "no bound", _with("gamma: {min: 0.5, max: .inf}"), "gamma", "finite", "inf"),
        _swept("infinity in whole steps", "the same",
               _with("gamma: {distribution: int_uniform, min: 0, max: .inf}"), "gamma", "finite"),
        _swept("exponent beyond a float", "its end for its exponent",
               _with("gamma: {distribution: log_uniform, min: 0, max: 1000}"), "gamma", "finite"),
        _swept("ends too far apart", "made to", _with("gamma: {min: -1e308, max: 1e308}"), "gamma", "finite"),
        _swept("step too small to count", "made to",
               _with("gamma: {distribution: q_uniform, min: 0, max: 1.0e+300, q: 1.0e-300}"), "gamma", "finite"),
        _swept("step of NaN", "a division by zero",
               _with("gamma: {distribution: q_uniform, min: 0, max: 1, q: .nan}"), "gamma", "finite"),
        _swept("step below zero", "a sign", _with("gamma: {distribution: q_uniform, min: 0, max: 1, q: -1}"), "gamma"),
        _swept("step beyond the ends", "another parameter's",
               _with("gamma: {distribution: q_uniform, min: 0.5, max: 0.9, q: 1}"), "gamma", "multiple"),
        _swept("distribution without ends", "a bell", _with("gamma: {distribution: normal, min: 0, max: 1}"),
               "gamma", "'normal'", "--drop"),
        _swept("distribution of a list", "brackets too many", _with("gamma: {distribution: [x], min: 0, max: 1}"),
               "gamma", "['x']"),
    ),
)  # fmt: skip


def _tuned(name: str, why: str, text: str, *says: str) -> Fault:
    return Fault(name, why, lambda at: trlx(at, at.write("t.yaml", text)), says)


OF_TRLX = Reader(
    "sweeps of trlX's",
    sound=lambda at: trlx(at, at.write("t.yaml", TRLX)),
    faults=(
        _tuned("aliases that swell", "made to exhaust whoever reads it", swollen(TRLX), "t.yaml", "aliases", "line 4"),
        _tuned("alias of a list", "values shared", f"{TRLX}beta: {{strategy: choice, values: *v}}\n", "t.yaml", "*v"),
        _tuned("key twice", "a copied line", f"{TRLX}tune_config: {{}}\n", "t.yaml", "twice"),
        _tuned("number for a key", "a list was meant", f"{TRLX}1: x\n", "t.yaml", "names"),
        _tuned("no tune_config", "the wrong file", WANDB, "tune_config"),
        _tuned("nothing to tune", "not yet written", "tune_config: {}\n", "vary"),
        _tuned("no strategy", "not yet written", f"{TRLX}beta: {{values: [1, 2]}}\n", "beta", "None"),
        _tuned("no values", "the same", f"{TRLX}beta: {{strategy: choice}}\n", "beta", "values"),
        _tuned("parameter of a list", "its braces were lost", f"{TRLX}beta: [1, 2]\n", "beta", "[1, 2]"),
        _tuned("misspelt strategy", "typed by hand", f"{TRLX}beta: {{strategy: chioce, values: [1]}}\n", "'chioce'"),
        _tuned("strategy of a mapping", "braces too many", f"{TRLX}beta: {{strategy: {{}}, values: [1]}}\n", "{}"),
        _tuned("one end", "cut off", f"{TRLX}beta: {{strategy: uniform, values: [1]}}\n", "beta", "2 values"),
        _tuned("step that is missing", "another strategy", f"{TRLX}beta: {{strategy: quniform, values: [0, 1]}}\n",
               "beta", "3 values"),
        _tuned("word for an end", "written out", f"{TRLX}beta: {{strategy: uniform, values: [0, high]}}\n", "'high'"),
        _tuned("infinity for an end", "no bound", f"{TRLX}beta: {{strategy: randint, values: [0, .inf]}}\n", "finite"),
        _tuned("logarithm of zero", "another scale's ends", f"{TRLX}beta: {{strategy: loguniform, values: [0, 1]}}\n",
               "beta", "above 0"),
        _tuned("misspelt parameter", "typed by hand", f"{TRLX}tua: {{strategy: choice, values: [1]}}\n", "'tua'"),
    ),
)  # fmt: skip

READERS = (QUESTIONS, OF_WANDB, OF_TRLX)
