"""Breaks trainings on purpose, many times, and prints a table of what happened: `python benchmarks/torture.py`.

Each training downloads its images from a slow server on this machine, and is killed or ended somewhere between its
first second and the end of its interpreter. What it has left is examined, it is resumed, perhaps broken again, and in
the end compared bit by bit with an unbroken one. What does not go as it should is an outcome of its own, and the next
training follows. Files are mutated by the tests' own fuzzer.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from thaw.inspection.prediction_files import read_predictions

ROOT = Path(__file__).parents[1]
NUM_EPOCHS = 6
OPTIONS = [
    "dataset=hotdog", "dataset.root=data", "backbone=squeezenet1_1", "backbone.weights=null", "dataset.image_size=64",
    "trainer=cpu", "dataset.batch_size=4", "strategy=gradual", "strategy.head_epochs=2", "strategy.unfreeze_epochs=2",
    f"trainer.max_epochs={NUM_EPOCHS}", "head.dropout=0.2", "logger=csv", "report=true", "hydra.run.dir=run",
]  # fmt: skip
TRAIN = """
import runpy
from thaw.data.sources import SOURCES, Archive, Source
SOURCES["hotdog"] = Source("hotdog", ("train", "test"), (Archive({url!r}, {checksum!r}, {size}),))
runpy.run_path({train!r}, run_name="__main__")
"""
"""train.py with another address of the data set."""
ENDED = re.compile(r"Ended by .*\n")
"""All that a training says of a signal on its error stream."""
FILES = ("predictions.csv", "figures/predictions.jpg", "figures/confusion.png", "figures/training_batch.jpg")
"""Of a finished run, equal byte by byte."""
MOST_SECONDS = 600
"""Of a training, which has taken much less: with more it hangs."""
Reached = Callable[[], bool]
Hit = tuple[str, str, str]
"""Signal and precision, moment, outcome."""


class UnexpectedError(Exception):
    """What a training came to that it should not; the first line is an outcome of the table."""


drafts: Counter[str] = Counter()
"""Half-written files that were found beside the whole ones."""


def num_rows(place: Path) -> int:
    """Epochs that a run has finished."""
    path = place / "run" / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def in_epoch(place: Path, chance: random.Random) -> Reached:
    """A moment of one of the epochs."""
    epoch = chance.randrange(min(num_rows(place), NUM_EPOCHS - 1), NUM_EPOCHS)
    curves, begun = place / "run" / "metrics.csv", time.time()
    # A resumed training takes up the curves when it begins with an epoch.
    return lambda: num_rows(place) >= epoch and curves.exists() and curves.stat().st_mtime > begun


def is_writing(name: str, most: int) -> Callable[[Path, random.Random], Reached]:
    """The moment in which a draft appears, after one of the first epochs."""

    def moment(place: Path, chance: random.Random) -> Reached:
        epoch = chance.randrange(most)
        return lambda: num_rows(place) >= epoch and any((place / "run/checkpoints").glob(f".{name}.*.part"))

    return moment


def has(pattern: str) -> Callable[[Path, random.Random], Reached]:
    """The moment in which a file appears."""
    return lambda place, chance: lambda: any(place.glob(pattern))


MOMENTS: dict[str, tuple[Callable[[Path, random.Random], Reached], float]] = {
    "before the first epoch": (has("run/.lock"), 6.0),
    "during the download": (has("data/hotdog.zip.part"), 0.8),
    "while features are stored": (has("cache/features"), 0.003),
    "inside an epoch": (in_epoch, 0.3),
    "while `best.ckpt` is written": (is_writing("best.ckpt", 1), 0.004),
    "while `last.ckpt` is written": (is_writing("last.ckpt", NUM_EPOCHS), 0.004),
    "while results are written": (lambda place, chance: lambda: num_rows(place) == NUM_EPOCHS, 1.0),
    "during the report": (has("run/summary.json"), 1.0),
    "after the report": (has("run/report.html"), 0.3),
}
"""What has to be there, and seconds within which the signal follows."""


def draw_archive() -> bytes:
    """A zip file of noisy images of three colours: twelve of each to train on, six to test."""
    generator = np.random.default_rng(0)
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, colour in {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}.items():
            for number in range(18):
                pixels = np.clip(generator.normal(0, 40, (80, 90, 3)) + colour, 0, 255).astype(np.uint8)
                image = BytesIO()
                Image.fromarray(pixels).save(image, "PNG")
                split = "train" if number < 12 else "test"
                archive.writestr(f"hotdog/{split}/{name}/{number}.png", image.getvalue())
    return content.getvalue()


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """The address of a server that sends the bytes, from where it is asked to, within about a second."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            begin = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(body) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            for start in range(begin, len(body), 2**14):
                self.wfile.write(body[start : start + 2**14])
                time.sleep(2**14 / len(body))

        def log_message(self, *args: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # its reader was killed
                self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/hotdog.zip"
        web.shutdown()


def start(place: Path, options: list[str]) -> "subprocess.Popen[str]":
    """Begin a training, go on with it if it has a checkpoint, or write the report that a finished one lacks."""
    command = [str(place.parent / "train.py"), *OPTIONS, *options]
    if (place / "run" / "checkpoints" / "last.ckpt").exists():
        command = [str(place.parent / "train.py"), "resume=run"]
    if (place / "run" / "summary.json").exists():
        command = ["-m", "thaw.cli", "report", "run"]
    place.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=place,
        env=os.environ
        | {
            "THAW_CACHE": str(place / "cache"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT / "src"),
            "no_proxy": "127.0.0.1",
        },
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # `&` in a script ignores it
    )


def wait(process: "subprocess.Popen[str]") -> str:
    """What a training has said on its error stream when it has ended.

    Raises:
        UnexpectedError: It does not end.
    """
    try:
        return process.communicate(timeout=MOST_SECONDS)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        raise UnexpectedError(f"hung\n{process.communicate()[1]}") from None


def finish(place: Path, options: list[str]) -> None:
    """Train to the end and write the report, whatever came before.

    Raises:
        UnexpectedError: That was not possible.
    """
    while not (place / "run" / "report.html").exists():
        process = start(place, options)
        errors = wait(process)
        if process.returncode or errors:
            raise UnexpectedError(f"did not go on: code {process.returncode}\n{errors}")


def hit(place: Path, number: int, name: str, chance: random.Random, options: list[str]) -> bool:
    """Send a signal at a moment of a training; returns whether it came before the end.

    Raises:
        UnexpectedError: It was neither ended by the signal, with the line that says so, nor whole with exit code 0.
    """
    lock = place / "run" / ".lock"  # there while the training listens to signals
    report = place / "run" / "report.html"
    lock.unlink(missing_ok=True)
    process = start(place, options)
    reached, spread = MOMENTS[name][0](place, chance), MOMENTS[name][1]
    deadline = time.monotonic() + MOST_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if (lock.exists() or report.exists()) and reached():
            break
        time.sleep(0.0005)
    time.sleep(chance.uniform(0, spread))
    is_too_late = process.poll() is not None
    process.send_signal(number)
    errors = wait(process)
    is_whole, is_kill = report.exists(), number == signal.SIGKILL
    if process.returncode == 0 and is_whole and not errors:
        return not is_too_late
    says_so = is_kill or ENDED.fullmatch(errors) or (is_whole and not errors)  # then there is nothing to go on with
    if process.returncode != (-number if is_kill else 128 + number) or not says_so:
        raise UnexpectedError(f"ended with code {process.returncode}\n{errors}")
    return True


def examine(place: Path) -> None:
    """Read every file that a broken training has left under its name; count the drafts beside them."""
    run = place / "run"
    for path in run.glob("checkpoints/*.ckpt"):
        torch.load(path, weights_only=True)
    for path in run.glob("summary.json"):
        json.loads(path.read_text())
    for path in run.glob("predictions.csv"):
        read_predictions(path)
    for path in run.glob("report.html"):
        assert path.read_text().rstrip().endswith("</html>"), path
    drafts.update(finished_name(path) for path in place.rglob("*.part"))


def finished_name(draft: Path) -> str:
    """What a draft would have been called; `features` for stored ones, which are called by their key."""
    name = re.sub(r"^\.|(\.[0-9a-f]{8})?\.part$", "", draft.name)
    return re.sub(r"^[0-9a-f]{64}\.safetensors$", "features", name)


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two finished runs; everything is compared bit by bit, but for seconds."""
    found = [
        name
        for name in ("best.ckpt", "last.ckpt")
        if not same(*(torch.load(place / "run/checkpoints" / name, weights_only=True) for place in (first, second)))
    ]
    texts = [[(place / "run" / name).read_bytes() for place in (first, second)] for name in FILES]
    found += [name for name, (one, other) in zip(FILES, texts, strict=True) if one != other]
    curves = [re.sub(r"(?m)^(\d+),[\d.]+", r"\1", (place / "run/metrics.csv").read_text()) for place in (first, second)]
    return found + ["metrics.csv"] * (curves[0] != curves[1])


def same(first: dict[str, object], second: dict[str, object]) -> bool:
    """True if weights, buffers and the optimizer's state, which `best.ckpt` lacks, are equal to the bit."""
    parts = ("state_dict", "optimizer_states", "epoch", "global_step", "thaw")
    return all(equal(first.get(part), second.get(part)) for part in parts)


def equal(first: object, second: object) -> bool:
    """Equality that looks into tensors."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def break_run(place: Path, unbroken: Path, number: int, name: str, chance: random.Random, options: list[str]) -> str:
    """One broken training to its end; returns what came of it, empty if the signal came too late."""
    # In half of the runs last.ckpt is held back: a kill then costs epochs, and a signal has to wait for the epoch.
    options = [*options, f"trainer.checkpoint_seconds={3600 * (chance.random() < 0.5 and 'last' not in name)}"]
    was_hit = hit(place, number, name, chance, options)
    examine(place)
    is_again = chance.random() < 0.3 and not (place / "run" / "summary.json").exists()
    if is_again:
        hit(place, number, "inside an epoch", chance, options)
        examine(place)
    finish(place, options)
    examine(place)
    found = differences(unbroken, place)
    outcome = "different: " + ", ".join(found) if found else "identical"
    when = name + ", and again" * is_again if was_hit else "too late"
    print(f"{place.name} {signal.Signals(number).name} {when}: {outcome}", flush=True)
    return outcome if was_hit or found else ""


def break_runs(folder: Path, precision: str, kills: int, signals: int, chance: random.Random) -> Counter[Hit]:
    """How many times each signal at each moment came to each outcome.

    Raises:
        UnexpectedError: The unbroken training, to compare with, has not come to its end.
    """
    options = [f"trainer.precision={precision}"]
    unbroken = folder / f"{precision}-unbroken"
    finish(unbroken, options)
    counts: Counter[Hit] = Counter()
    rounds = [signal.SIGKILL] * kills + [signal.SIGTERM, signal.SIGINT] * signals
    for attempt, (number, name) in enumerate((number, name) for number in rounds for name in MOMENTS):
        place = folder / f"{precision}-{attempt}"
        try:
            outcome = break_run(place, unbroken, number, name, chance, options)
        except Exception as error:  # a torn file too
            print(f"{place.name} {signal.Signals(number).name} {name}: {type(error).__name__}: {error}", flush=True)
            outcome = (str(error) or type(error).__name__).partition("\n")[0]
        if outcome:
            counts[f"{signal.Signals(number).name}, {precision}", name, outcome] += 1
        shutil.rmtree(place)
    return counts


def table(counts: Counter[Hit]) -> str:
    """A row a moment, a column a signal at a precision."""
    columns = list(dict.fromkeys(column for column, _, _ in counts))
    lines = [f"| moment | {' | '.join(columns)} | outcome |", f"|---|{'---:|' * len(columns)}---|"]
    for moment in MOMENTS:
        cells = [sum(n for hit, n in counts.items() if hit[:2] == (column, moment)) for column in columns]
        outcomes = {outcome for _, its_moment, outcome in counts if its_moment == moment}
        lines.append(f"| {moment} | {' | '.join(map(str, cells))} | {'; '.join(sorted(outcomes))} |")
    return "\n".join(lines)


def fuzz(cases: int) -> bool:
    """True if each of so many mutated image files is an image or a named file."""
    command = [sys.executable, "-m", "pytest", "tests/data/test_hostile_images.py", "-k", "mutated"]
    environment = os.environ | {"THAW_FUZZ_CASES": str(cases), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    print(
        f"{cases} mutated image files: " + ("an image or a named file" if not done.returncode else done.stdout[-2000:])
    )
    return done.returncode == 0


def main() -> int:
    """Print the table; returns 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=3, help="by SIGKILL, at each moment and precision")
    parser.add_argument("--signals", type=int, default=1, help="SIGTERM and Ctrl-C, at each moment and precision")
    parser.add_argument("--precision", nargs="*", default=["32", "bf16-mixed"])
    parser.add_argument("--cases", type=int, default=20_000, help="mutated image files; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    counts: Counter[Hit] = Counter()
    body = draw_archive()
    with tempfile.TemporaryDirectory() as place, serving(body) as url:
        checksum = f"sha256:{hashlib.sha256(body).hexdigest()}"
        script = TRAIN.format(url=url, checksum=checksum, size=len(body), train=str(ROOT / "train.py"))
        Path(place, "train.py").write_text(script)
        for precision in options.precision:
            counts += break_runs(Path(place), precision, options.kills, options.signals, chance)
    left = ", ".join(f"{name} {n}" for name, n in drafts.most_common())
    print(f"\n{table(counts)}\n\nHalf-written files found beside the whole ones: {left}")
    is_fuzzed = options.cases == 0 or fuzz(options.cases)
    return int(not (is_fuzzed and all(outcome == "identical" for _, _, outcome in counts)))


if __name__ == "__main__":
    sys.exit(main())
