"""Command lines: what is wrong with the options of a question, and with the words of every other command."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faults import Fault, Place, Reader
from files import DEEP, DIGITS
from sound import SWEEP, trial_of

HUGE = "9" * 30


def ask(*options: str) -> Sequence[str]:
    """Nothing is trained by a plan, and what is wrong with its options is wrong with those of `run`."""
    return ["plan", "bandit", "--preset", "smoke", *options]


def _asked(name: str, why: str, options: Sequence[str], *says: str) -> Fault:
    return Fault(name, why, lambda at: ask(*options), says)


def _of_column(name: str, why: str, value: str, *says: str) -> Fault:
    return _asked(name, why, ["--set", value], *says)


def _command(name: str, why: str, arguments: Sequence[str], *says: str) -> Fault:
    return Fault(name, why, lambda at: arguments, says)


OPTIONS = Reader(
    "options of a question",
    sound=lambda at: ask("--seeds", "1", "--trials", "0", "--methods", "bc", "--set", "world.dialogues=8"),
    faults=(
        _asked("misspelt option", "typed by hand", ["--seds", "3"], "--seds", "--seeds"),
        _asked("abbreviated option", "argparse would guess", ["--episode", "3"], "--episode", "--episodes"),
        _asked("option of another program", "copied", ["--lr", "0.1"], "--lr"),
        _asked("option in two lines", "a line end pasted with it", ["--a\nb"], "--a\\nb"),
        _asked("option without its value", "cut off", ["--seeds"], "--seeds"),
        _asked("word too many", "an option's dashes were lost", ["seeds", "3"], "seeds"),
        _asked("no seeds", "a zero", ["--seeds", "0"], "--seeds", "'0'"),
        _asked("negative count", "a dash of a range", ["--episodes", "-5"], "--episodes"),
        _asked("broken count", "a division", ["--trials", "1.5"], "--trials", "'1.5'"),
        _asked("count in scientific writing", "typed as a float", ["--episodes", "1e3"], "--episodes", "'1e3'"),
        _asked("count of nothing", "an empty variable of the shell", ["--seeds", ""], "--seeds", "''"),
        _asked("count of 30 digits", "a number pasted twice", ["--seeds", HUGE], "--seeds"),
        _asked("more seeds than anybody trains", "an id for a count", ["--seeds", "1000000000"], "--seeds"),
        _asked("more proposals than anybody tries", "an id for a count", ["--trials", "1000000000"], "--trials"),
        _asked("more episodes than anybody plays", "an id for a count", ["--episodes", HUGE], "--episodes"),
        _asked("seed beyond 64 bits", "a hash for a seed", ["--search-seed", HUGE], "--search-seed"),
        _asked("count of 5,000 digits", "a file pasted", ["--seeds", DIGITS], "--seeds"),
        _asked("share of NaN", "a division by zero", ["--gpus-per-worker", "nan"], "--gpus-per-worker", "'nan'"),
        _asked("share of infinity", "beyond a float", ["--gpus-per-worker", "1e999"], "--gpus-per-worker"),
        _asked("a GPU and a half", "a division", ["--cluster", "4x8:80GB", "--gpus-per-worker", "1.5"], "got 1.5"),
        _asked("job that fits no machine", "GPUs of all machines for one worker",
               ["--cluster", "4x8:80GB", "--gpus-per-worker", "32"], "4x8:80GB", "room for 0"),
        _asked("cluster of 30 digits", "a number pasted twice", ["--cluster", HUGE + "x8:80GB"], "100,000"),
        _asked("misspelt method", "typed by hand", ["--methods", "bc,iqll"], "iqll", "ilql"),
        _asked("method in capitals", "as the paper writes it", ["--methods", "ILQL"], "'ILQL'", "ilql"),
        _asked("no methods", "an empty variable of the shell", ["--methods", ""], "--methods"),
        _asked("commas alone", "names lost from a list", ["--methods", ", ,"], "--methods"),
        _asked("method that is not run is refined", "options that contradict each other",
               ["--methods", "bc", "--refine", "ilql"], "--refine", "ilql"),
        _asked("method without a space is refined", "it has nothing to search", ["--refine", "bc"], "bc"),
        _asked("misspelt reward", "typed by hand", ["--rewards", "standrad"], "standrad", "standard"),
        _asked("two rewards, one judge", "options that contradict each other",
               ["--rewards", "standard,other", "--evaluation-reward", "standard"], "--evaluation-reward"),
        _asked("misspelt convention", "typed by hand", ["--convention", "trxl"], "trxl", "trlx"),
        _asked("misspelt preset", "typed by hand", ["--preset", "lapotp"], "lapotp", "laptop"),
        _asked("preset in two lines", "a line end pasted with it", ["--preset", "smo\nke"], "smo\\nke"),
        _asked("escape sequence", "coloured output pasted", ["--preset", "\x1b[31msmoke"], "\\x1b"),
        _asked("vocabulary cut without a model", "an option that means nothing here", ["--cut-vocabulary"],
               "--cut-vocabulary"),
        _asked("data for a world without", "copied from another question", ["--data", "x"], "--data"),
        _asked("varied without values", "cut off", ["--vary", "world.dialogues="], "--vary"),
        _asked("varied by no column", "values alone", ["--vary", "=1,2"], "--vary"),
        _asked("misspelt column is varied", "typed by hand", ["--vary", "world.dialouges=4,8"], "world.dialouges",
               "world.dialogues"),
        _asked("varied and fixed", "options that contradict each other",
               ["--vary", "world.dialogues=4,8", "--set", "world.dialogues=6"], "--vary", "world.dialogues"),
        _asked("varied and transferred", "options that contradict each other",
               ["--vary", "world.dialogues=4,8", "--transfer"], "--vary", "--transfer"),
        _asked("name that is a path", "a folder was meant", ["--name", "../../elsewhere"], "--name", "../../elsewhere"),
        _asked("name in two lines", "a line end pasted with it", ["--name", "a\nb"], "--name"),
        _asked("empty name", "an empty variable of the shell", ["--name", ""], "--name"),
        _asked("name of 300 letters", "a sentence", ["--name", "x" * 300], "--name"),
    ),
)  # fmt: skip

COLUMNS = Reader(
    "columns of --set",
    sound=lambda at: ask("--set", "world.dialogues=8", "--set", "train.weight_decay=0.1"),
    faults=(
        _of_column("no value", "cut off", "train.steps", "--set", "'train.steps'"),
        _of_column("empty value", "an empty variable of the shell", "train.steps=", "--set"),
        _of_column("no column", "an empty variable of the shell", "=5", "--set"),
        _of_column("misspelt column", "typed by hand", "train.polyack=0.5", "train.polyack", "train.polyak"),
        _of_column("misspelt bag", "typed by hand", "trian.polyak=0.5", "trian.polyak", "train.polyak"),
        _of_column("column without a bag", "as other programs write it", "polyak=0.5", "'polyak'", "train.polyak"),
        _of_column("column of no bag", "a field of Python's", "train.__class__=1", "train.__class__"),
        _of_column("column in two lines", "a line end pasted with it", "train.po\nlyak=1", "train.po\\nlyak"),
        _of_column("several values", "commas of the other spelling", "train.tau=0.5,0.6", "--set", "train.tau"),
        _command("proposals' own column", "it is searched already",
                 ["plan", "visdial", "--preset", "smoke", "--methods", "ilql", "--refine", "ilql", "--trials", "1",
                  "--set", "train.cql_weight=0.1"], "proposals", "train.cql_weight"),
        _of_column("word for a number", "written out", "train.weight_decay=small", "train.weight_decay", "'small'"),
        _of_column("broken number for a whole one", "a division", "train.batch_size=1.5", "train.batch_size", "1.5"),
        _of_column("truth for a number", "another column's value", "train.polyak=true", "train.polyak", "True"),
        _of_column("number for a truth", "as C writes it", "decode.greedy=1", "decode.greedy", "1"),
        _of_column("NaN", "a division by zero", "train.weight_decay=NaN", "train.weight_decay", "nan"),
        _of_column("infinity", "no bound", "train.weight_decay=inf", "train.weight_decay", "inf"),
        _of_column("beyond a float", "an exponent too many", "train.weight_decay=1e999", "train.weight_decay", "inf"),
        _of_column("integer beyond a float", "an integer of 400 digits", f"train.weight_decay={'9' * 400}",
                   "train.weight_decay"),
        _of_column("integer of 30 digits", "a number pasted twice", f"train.batch_size={HUGE}", "train.batch_size"),
        _of_column("number of 5,000 digits", "a file pasted", f"train.batch_size={DIGITS}", "train.batch_size"),
        _of_column("brackets without end", "made to exhaust the stack", f"train.batch_size={DEEP}", "train.batch_size"),
        _of_column("list", "several values were meant", "train.batch_size=[1,2]", "train.batch_size", "[1,2]"),
        _of_column("null", "none was meant", "train.batch_size=null", "train.batch_size", "null"),
        _of_column("negative", "a sign", "train.batch_size=-4", "train.batch_size", "-4"),
        _of_column("zero", "none were meant", "train.max_tokens=0", "train.max_tokens", "0"),
        _of_column("above its range", "percents for shares", "train.gamma=99", "train.gamma", "99"),
        _of_column("word of another list", "a value that is none", "train.start=scratch", "train.start", "scratch"),
        _of_column("longer than the model reads", "another model's context", "train.max_tokens=4096",
                   "train.max_tokens", "16"),
        _of_column("cloning longer than the model reads", "another model's context", "behaviour.max_tokens=4096",
                   "behaviour.max_tokens", "16"),
        _command("word for a seed", "written out", ["plan", "visdial", "--set", "world.seed=one"], "world.seed", "int"),
        _command("truth for a share", "another setting's", ["plan", "visdial", "--set", "world.stop_fraction=true"],
                 "world.stop_fraction"),
        _of_column("misspelt setting of the world", "typed by hand", "world.dialouges=4", "world.dialouges",
                   "world.dialogues"),
        _of_column("world of nothing", "none were meant", "world.dialogues=0", "world.dialogues", "0"),
        _of_column("world beyond memory", "a number pasted twice", f"world.dialogues={HUGE}", "world.dialogues"),
        _of_column("misspelt behaviour", "typed by hand", "behaviour.stpes=4", "behaviour.stpes", "behaviour.steps"),
        _of_column("behaviour of no steps", "none were meant", "behaviour.steps=0", "behaviour.steps", "0"),
    ),
)  # fmt: skip


def _with(make: Callable[[Place], Sequence[str]], name: str, why: str, *says: str) -> Fault:
    return Fault(name, why, make, says)


def _export_into_something(at: Place) -> Sequence[str]:
    at.write("out/thesis.tex", "x")
    return ["export", trial_of(at.store, "bc"), str(at.folder / "out")]


COMMANDS = Reader(
    "words of the commands",
    sound=lambda at: ["status", SWEEP],
    faults=(
        _command("no command", "the beginning of a line", [], "command"),
        _command("misspelt command", "typed by hand", ["stauts"], "'stauts'", "status"),
        _command("command in two lines", "a line end pasted with it", ["sta\ntus"], "sta\\ntus"),
        _command("no question", "cut off", ["run"], "question"),
        _command("misspelt question", "typed by hand", ["run", "visdail"], "visdail", "visdial"),
        _command("question that is a path", "completed by the shell", ["plan", "sweeps/bandit_ablation.py"],
                 "sweeps/bandit_ablation.py", "bandit"),
        _command("no sweep, remove", "cut off", ["remove"], "sweep"),
        _command("misspelt sweep, status", "typed by hand", ["status", "suond"], "suond", SWEEP),
        _command("misspelt sweep, report", "typed by hand", ["report", "suond"], "suond", SWEEP),
        _command("misspelt sweep, remove", "typed by hand", ["remove", "suond"], "suond", SWEEP),
        _command("misspelt sweep, rescore", "typed by hand", ["rescore", "suond", "--rewards", "standard"],
                 "suond", SWEEP),
        _command("sweep that is a path", "completed by the shell", ["report", "../sound"], "../sound"),
        _command("rescored by no reward", "an option forgotten", ["rescore", SWEEP], "--rewards"),
        _command("rescored where there is none", "only one utterance can be", ["rescore", SWEEP, "--rewards",
                 "standard"], "bandit"),
        _command("word too many", "two names", ["list", "sound"], "sound"),
        _command("option of another command", "copied", ["list", "--methods", "bc"], "--methods"),
        _command("misspelt trial, reply", "typed by hand", ["reply", "zzz", "pull"], "zzz"),
        _command("misspelt trial, export", "typed by hand", ["export", "zzz", "out"], "zzz"),
        _command("misspelt trial, advantages", "typed by hand", ["advantages", "zzz"], "zzz"),
        _command("misspelt trial, play", "typed by hand", ["play", "bandit", "--trial", "zzz"], "zzz"),
        _command("beginning of several trials", "an empty variable of the shell", ["reply", "", "pull"], "2"),
        _with(lambda at: ["reply", trial_of(at.store, "bc")], "nothing to reply to", "cut off", "text"),
        _with(lambda at: ["reply", trial_of(at.store, "bc"), "pull \udcff"], "bytes that are no text",
              "another encoding in the terminal", "\\udcff"),
        _with(lambda at: ["reply", trial_of(at.store, "bc"), "pull " * 100], "more than the model reads",
              "a whole log", "16"),
        _with(lambda at: ["advantages", trial_of(at.store, "bc")], "method without values", "the wrong row", "bc"),
        _with(lambda at: ["advantages", trial_of(at.store, "sarsa"), "--split", "tset"], "misspelt split",
              "typed by hand", "tset", "report"),
        _with(lambda at: ["advantages", trial_of(at.store, "sarsa"), "--dialogues", "0"], "no dialogues", "a zero",
              "--dialogues"),
        _with(lambda at: ["advantages", trial_of(at.store, "sarsa"), "--dialogues", "-3"], "negative count",
              "a dash of a range", "--dialogues"),
        _with(_export_into_something, "export over something", "the wrong folder", "out"),
        _with(lambda at: ["export", trial_of(at.store, "bc"), at.write("file", "x") + "/out"], "export under a file",
              "the wrong folder", "file/out"),
        _command("no task", "cut off", ["play"], "task"),
        _command("misspelt task", "typed by hand", ["play", "wrodle"], "wrodle", "wordle"),
        _command("negative seed", "a dash of a range", ["play", "bandit", "--seed", "-1"], "--seed"),
        _command("seed that is a word", "typed by hand", ["play", "bandit", "--seed", "one"], "--seed", "'one'"),
        _command("setting of another world", "copied", ["play", "bandit", "--set", "world.noise=0.5"], "world.noise"),
        _command("no file to validate", "cut off", ["validate"], "file"),
        _command("store of two names", "the old way and the new one", ["doctor", "x", "--store", "y"], "--store"),
        _with(lambda at: ["list", "--store", str(at.folder / "soter")], "misspelt store, list", "typed by hand",
              "soter"),
        _with(lambda at: ["status", SWEEP, "--store", str(at.folder / "soter")], "misspelt store, status",
              "typed by hand", "soter"),
        _with(lambda at: ["doctor", str(at.folder / "soter")], "misspelt store, doctor", "typed by hand", "soter"),
        _with(lambda at: ["list", "--store", at.write("file", "x")], "store that is a file", "the wrong path", "file"),
        _with(lambda at: ["list", "--store", at.write("file", "x") + "/store"], "store under a file",
              "the wrong path", "file/store"),
        _with(lambda at: ["list", "--store", f"{at.folder}/\udcff"], "bytes that are no text in the store's name",
              "another encoding in the terminal", "\\udcff"),
        _command("store of 300 letters", "a sentence", ["list", "--store", "x" * 300], "x" * 300),
    ),
)  # fmt: skip

READERS = (OPTIONS, COLUMNS, COMMANDS)
