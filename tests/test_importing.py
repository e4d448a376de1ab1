import gc
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

import thaw
from thaw.importing import heavy_imports
from thaw.run import Run

ROOT = Path(__file__).parents[1]


class Knot:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_what_was_made_inside_is_left_alone_and_what_came_later_is_collected() -> None:
    with heavy_imports():
        assert not gc.isenabled()
        kept = weakref.ref(Knot())
    assert gc.isenabled()
    collected = weakref.ref(Knot())
    gc.collect()
    assert kept() is not None
    assert collected() is None


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with heavy_imports():
        pass
    assert not gc.isenabled()


IMPORTS = """
import os, sys
from thaw.importing import heavy_imports
from thaw.signals import catching
with catching():
    with heavy_imports():
        for _ in range(int(sys.argv[2])):
            try:
                os.kill(os.getpid(), int(sys.argv[1]))
            except BaseException:  # as a module without which another does
                pass
        print("all of it", flush=True)
    print("goes on", flush=True)
"""


@pytest.mark.parametrize(("times", "imported"), [(1, "all of it\n"), (2, "")])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_end_of_the_imports_and_a_second_one_does_not(
    number: int, code: int, times: int, imported: str
) -> None:
    command = [sys.executable, "-c", IMPORTS, str(int(number)), str(times)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, imported, "")


def test_a_library_for_texts_is_not_loaded_along_and_can_be_imported_afterwards(tmp_path: Path) -> None:
    (tmp_path / "transformers-5.0.0.dist-info").mkdir()
    (tmp_path / "transformers-5.0.0.dist-info" / "METADATA").write_text("Name: transformers\nVersion: 5.0.0\n")
    (tmp_path / "transformers.py").write_text("print('loaded')\nAutoModel = AutoTokenizer = 1\n")
    imports = """
from thaw.importing import heavy_imports
with heavy_imports():
    import lightning.pytorch
print("ready")
from transformers import AutoModel
print(AutoModel)
"""
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}"}
    done = subprocess.run([sys.executable, "-c", imports], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("ready\nloaded\n1\n", "")


@pytest.mark.parametrize(
    ("own", "count"), [({}, "2000"), ({"GOMP_SPINCOUNT": "9"}, "9"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_waiting_threads_sleep_soon_unless_the_user_has_said_how_long(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, str], count: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    with heavy_imports():
        assert os.environ.get("GOMP_SPINCOUNT") == count


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["report RUN --out a.html", "compare RUN --plot chart.png", "check IMAGES", "pack IMAGES packed"]
)
def test_a_command_that_imports_torch_leaves_it_alone(
    command: str, finished_run: Run, image_folder: Path, tmp_path: Path
) -> None:
    if command.startswith("pack"):
        pytest.importorskip("litdata")
    places = {"RUN": str(finished_run.folder), "IMAGES": str(image_folder)}
    arguments = [places.get(word, word) for word in command.split()]
    code = "import gc, sys; from thaw.cli import main; main(sys.argv[1:]); sys.exit(gc.get_freeze_count() < 100_000)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_parts_that_are_used_from_python_do_without_hydra() -> None:
    names = "Classifier, Config, ImageDataModule, find_weights, load_weights"
    program = f"import sys; from thaw import {names}; sys.exit('hydra' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_only_comparisons_and_searches_need_is_not_imported() -> None:
    program = (
        "import sys\nfrom thaw.importing import heavy_imports\nwith heavy_imports():\n    import thaw.training.train\n"
        "print([name for name in ('scipy.stats', 'scipy.optimize', 'sklearn.linear_model', 'onnx', 'litdata', 'optuna')"
        " if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "use",
    [
        "from scipy.signal import savgol_filter",
        "import scipy.signal as module; module.savgol_filter; module.butter",
        "import scipy; scipy.signal.butter",
        "import scipy.signal.windows; scipy.signal.windows.hamming",
        "from scipy import signal; signal.butter; assert [] == [name for name in vars(signal) if name == 'no']",
    ],
)
def test_scipys_signals_are_there_when_they_are_used(use: str) -> None:
    program = f"from thaw.importing import heavy_imports\nwith heavy_imports():\n    import scipy.signal\n{use}"
    subprocess.run([sys.executable, "-c", program], check=True)


COMPILES = "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)).item() == 2"


@pytest.mark.slow
@pytest.mark.parametrize(
    "use",
    [
        "from torch._dynamo import allow_in_graph; assert torch._dynamo.config.recompile_limit",
        "from torch._dynamo.eval_frame import OptimizedModule; assert torch._dynamo.OptimizedModule is OptimizedModule",
        "from torchvision.ops.roi_align import is_compile_supported as asked; asked('cpu')",
        "from lightning.pytorch.utilities.compile import OptimizedModule as known\nnetwork = torch.nn.Linear(1, 1)\n"
        "assert not isinstance(network, known) and isinstance(torch.compile(network, backend='eager'), known)",
    ],
)
def test_torchs_compiler_is_there_when_it_is_used(use: str) -> None:
    program = (
        "import sys\nfrom thaw.importing import heavy_imports\nwith heavy_imports():\n"
        "    import lightning.pytorch, torch\nassert 'torch._dynamo.eval_frame' not in sys.modules\n"
        f"{use}\nassert 'torch._dynamo.eval_frame' in sys.modules\n{COMPILES}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_training_does_without_torchs_compiler(tmp_path: Path) -> None:
    program = (
        "import runpy, sys\nrunpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        "sys.exit('torch._dynamo.eval_frame' in sys.modules)"
    )
    options = ["dataset=digits", "backbone=squeezenet1_1", "strategy=scratch", "trainer.max_epochs=1"]
    options += ["dataset.image_size=32", "dataset.train_per_class=8", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "train.py"), *options], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_public_names_are_those_that_are_shown() -> None:
    assert dir(thaw) == thaw.__all__
    assert {"Config", "Predictor", "Run", "train"} < set(dir(thaw))
