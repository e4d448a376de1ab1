import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from thaw.cli import main
from thaw.commands.train import close_sweep
from thaw.comparison.compare import compare
from thaw.config import Config, DatasetConfig, HeadConfig, OptimizerConfig, StrategyConfig, SweepConfig, TrainerConfig
from thaw.errors import ThawError
from thaw.launch.composing import compose
from thaw.launch.program import COMMANDS
from thaw.run import Run
from written_runs import write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed, acc in enumerate((0.90, 0.94)):
        overrides = f"dataset=digits seed={seed} logger=csv"
        write_run(tmp_path / f"a{seed}", f"{overrides} strategy=frozen hydra.run.dir=a{seed}", acc, seed=seed)
        write_run(tmp_path / f"b{seed}", f"{overrides} strategy=finetune", acc + 0.03, seed=seed)
    return tmp_path


def verdicts(*folders: Path) -> list[str]:
    return [str(verdict) for section in compare(folders).sections for verdict in section.verdicts]


# ---- settings


def test_seeds_are_pooled_and_what_differs_is_shown_best_first(sweep: Path) -> None:
    (section,) = compare([sweep]).sections
    best, other = section.settings
    assert (section.option_names, section.descriptions) == (["strategy"], ["finetune", "frozen"])
    figures = other.figures()
    assert (figures["runs"], figures["n"]) == (2, 200)
    assert figures["acc"] == pytest.approx(0.92)
    assert figures["spread"] == pytest.approx(0.0283, abs=1e-4)
    assert other.interval == (pytest.approx(0.8740, abs=1e-3), pytest.approx(0.9503, abs=1e-3))
    assert best.acc > other.acc


def test_the_interval_is_that_of_the_mean_accuracy_though_it_be_of_no_whole_number_of_images(tmp_path: Path) -> None:
    for strategy, num_right in (("frozen", (114, 115)), ("finetune", (114, 114))):
        for seed, right in enumerate(num_right):
            write_run(tmp_path / f"{strategy}{seed}", f"strategy={strategy}", right / 120, seed=seed, n=120)
    frozen, finetune = compare([tmp_path]).settings
    assert frozen.acc == pytest.approx(114.5 / 120)
    for bound in frozen.interval:  # Wilson's equation
        assert abs(bound - frozen.acc) == pytest.approx(1.959964 * (bound * (1 - bound) / 120) ** 0.5, abs=1e-6)
    assert finetune.interval == pytest.approx((0.8952, 0.9769), abs=5e-5)


def test_the_test_split_is_what_counts_where_there_is_one(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "strategy=frozen", acc=0.9, test=0.7)
    board = compare([tmp_path])
    assert board.settings[0].acc == 0.7
    assert "200 images of 2 classes (test)" in str(board)


def test_what_is_tested_are_the_answers_that_the_accuracy_counts(tmp_path: Path, finished_run: Run) -> None:
    def share(run: Run) -> float:
        (setting,) = compare([run.folder]).settings
        assert setting.answers is not None
        return float(setting.answers.num_right.mean())

    assert share(finished_run) == pytest.approx(finished_run.summary["last"]["acc"])
    assert share(Run(write_run(tmp_path / "run", "", test=0.75, wrong=range(50)))) == 0.75


def test_what_a_strategy_makes_of_an_option_that_all_have_is_not_shown(tmp_path: Path) -> None:
    for strategy in ("frozen", "probe"):
        config = Config(strategy=StrategyConfig(strategy), trainer=TrainerConfig(max_epochs=2))
        write_run(tmp_path / strategy, f"strategy={strategy} trainer.max_epochs=2", config=config)
    assert compare([tmp_path]).sections[0].option_names == ["strategy"]


def test_what_a_preset_sets_is_not_repeated(tmp_path: Path) -> None:
    frozen = Config(strategy=StrategyConfig("frozen"))
    tuned = Config(strategy=StrategyConfig("finetune", backbone_factor=1), optimizer=OptimizerConfig(lr=1e-3))
    write_run(tmp_path / "a", "strategy=frozen", config=frozen)
    write_run(tmp_path / "b", "strategy=finetune", config=tuned)
    assert compare([tmp_path]).sections[0].option_names == ["strategy"]
    write_run(tmp_path / "c", "strategy=frozen optimizer.lr=0.1", config=Config(optimizer=OptimizerConfig(lr=0.1)))
    (section,) = compare([tmp_path]).sections
    assert section.option_names == ["strategy", "optimizer.lr"]
    assert sorted(section.descriptions) == ["strategy finetune", "strategy frozen", "strategy frozen, lr 0.1"]


def test_a_run_of_which_nothing_was_typed_is_named_by_its_values(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "", config=Config())
    write_run(tmp_path / "b", "optimizer.lr=0.1", acc=0.8, config=Config(optimizer=OptimizerConfig(lr=0.1)))
    write_run(tmp_path / "c", "head.dropout=0.5", acc=0.7, config=Config(head=HeadConfig(dropout=0.5)))
    (section,) = compare([tmp_path]).sections
    assert section.descriptions == ["lr 0.003, dropout 0.0", "lr 0.1", "dropout 0.5"]


def test_runs_without_a_command_are_told_apart_by_their_configuration(tmp_path: Path) -> None:
    for number, lr in enumerate((0.01, 0.1)):
        config = Config(strategy=StrategyConfig("a" if number else "b"), optimizer=OptimizerConfig(lr=lr))
        write_run(tmp_path / f"{number}", "", acc=0.9 - lr, config=config)
    write_run(tmp_path / "2", "", acc=0.5, config=Config(strategy=StrategyConfig("a")))
    (section,) = compare([tmp_path]).sections
    assert section.option_names == ["strategy.name", "optimizer.lr"]
    assert section.descriptions == ["strategy b, lr 0.01", "strategy a, lr 0.1", "strategy a, lr 0.003"]


def test_runs_from_python_show_what_differs_from_their_strategys_preset(tmp_path: Path) -> None:
    options = {
        "a": ["optimizer.lr=0.1"],
        "b": ["optimizer.lr=0.01", "trainer.ema_decay=0.9", "head.dropout=0.3"],
        "c": ["strategy=gradual"],
    }
    for name, each in options.items():
        write_run(tmp_path / name, None, config=compose("dataset=digits", *each))
    (section,) = compare([tmp_path]).sections
    assert set(section.option_names) == {"strategy", "optimizer.lr", "head.dropout", "trainer.ema_decay"}
    assert section.descriptions == [
        "strategy frozen, lr 0.1",
        "strategy frozen, lr 0.01, dropout 0.3, ema_decay 0.9",
        "strategy gradual",
    ]
    write_run(tmp_path / "d", "dataset=digits strategy=finetune", config=compose("dataset=digits", "strategy=finetune"))
    (section,) = compare([tmp_path]).sections
    assert section.descriptions[3] == "strategy finetune"


def test_runs_from_python_without_a_preset_show_what_differs_from_the_defaults(tmp_path: Path) -> None:
    write_run(tmp_path / "a", None, config=Config(strategy=StrategyConfig("mine", head_epochs=2)))
    write_run(tmp_path / "b", None, config=Config(optimizer=OptimizerConfig(lr=0.1)))
    (section,) = compare([tmp_path]).sections
    assert section.descriptions == ["strategy mine, head_epochs 2", "strategy frozen, lr 0.1"]


def test_of_runs_that_were_typed_alike_all_that_differs_is_shown(tmp_path: Path) -> None:
    """As after a preset of one's own was edited."""
    write_run(tmp_path / "a", "experiment=mine", config=Config())
    edited = Config(optimizer=OptimizerConfig(lr=0.1), head=HeadConfig(dropout=0.5))
    write_run(tmp_path / "b", "experiment=mine", acc=0.8, config=edited)
    (section,) = compare([tmp_path]).sections
    assert sorted(section.option_names) == ["head.dropout", "optimizer.lr"]


def test_an_option_at_its_default_is_the_same_setting_typed_or_not(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "strategy=frozen", config=Config())
    write_run(tmp_path / "b", "optimizer.lr=3e-3 logger=csv", config=Config(), seed=1)
    (setting,) = compare([tmp_path]).settings
    assert setting.figures()["runs"] == 2


def test_options_that_change_no_result_make_no_setting(tmp_path: Path) -> None:
    write_run(tmp_path / "plain", "dataset=digits", config=Config())
    neutral = Config(dataset=DatasetConfig(num_workers=4), figures=False, report=True, sweep=SweepConfig(prune=True))
    write_run(tmp_path / "neutral", "dataset=digits figures=false dataset.num_workers=4", seed=1, config=neutral)
    (setting,) = compare([tmp_path]).settings
    assert setting.figures()["runs"] == 2


@pytest.mark.parametrize("option", ["optimizer.lr=auto", "experiment=mine"])
def test_seeds_that_have_each_found_a_rate_of_their_own_are_one_setting(tmp_path: Path, option: str) -> None:
    for seed, rate in enumerate((2e-3, 4e-3)):
        config = Config(optimizer=OptimizerConfig(lr=rate))
        run = Run(write_run(tmp_path / str(seed), f"{option} seed={seed}", seed=seed, config=config))
        run.rate_curve.touch()
    write_run(tmp_path / "given", "optimizer.lr=2e-3", config=Config(optimizer=OptimizerConfig(lr=2e-3)))
    leaderboard = compare([tmp_path])
    assert sorted(setting.figures()["runs"] for setting in leaderboard.settings) == [1, 2]
    assert "auto" in str(leaderboard)


def test_folds_are_pooled_to_one_accuracy_over_all_images(tmp_path: Path) -> None:
    for strategy, wrong in (("frozen", ([0], [1, 2])), ("finetune", ([0, 3], [1, 2, 4, 5]))):
        for fold, (n, each) in enumerate(zip((50, 49), wrong, strict=True)):
            config = Config(dataset=DatasetConfig(num_folds=2, fold=fold), strategy=StrategyConfig(strategy, 1.0))
            overrides = f"strategy={strategy} dataset.num_folds=2 dataset.fold={fold}"
            folder = tmp_path / f"{strategy}{fold}"
            write_run(folder, overrides, n=n, config=config, wrong=each, images=f"fold{fold}", test=0.5)
    (section,) = compare([tmp_path]).sections
    assert section.title.endswith("99 images of 2 classes (val of 2 folds, last epoch)")
    assert [setting.acc for setting in section.settings] == pytest.approx([96 / 99, 93 / 99])
    assert section.descriptions == ["frozen", "finetune"]
    assert section.settings[0].figures()["runs"] == 2
    assert section.verdicts[1].p == pytest.approx(binomtest(3, 3).pvalue)


def write_folds(folder: Path, accuracies: Sequence[float], seed: int = 0) -> None:
    for fold, acc in enumerate(accuracies):
        dataset = DatasetConfig(num_folds=len(accuracies), fold=fold)
        write_run(folder / f"{seed}_{fold}", f"dataset.fold={fold}", acc, seed=seed, config=Config(dataset=dataset))


def test_folds_have_a_spread_beside_their_pooled_accuracy(tmp_path: Path) -> None:
    write_folds(tmp_path, [0.9, 0.8, 0.7])
    board = compare([tmp_path])
    figures = board.settings[0].figures()
    assert figures["acc"] == pytest.approx(0.8)
    assert (figures["fold_spread"], figures["spread"]) == (pytest.approx(0.1), 0)
    assert "0.8000 ± 0.1000" in str(board)
    assert "± of one seed's folds: standard deviation of their accuracies" in " ".join(str(board).split())


def test_macro_f1_of_folds_is_that_of_all_their_images(tmp_path: Path) -> None:
    for fold, wrong in enumerate((range(10), [])):
        config = Config(dataset=DatasetConfig(num_folds=2, fold=fold))
        write_run(tmp_path / f"{fold}", "", n=50, wrong=wrong, images=f"fold{fold}", config=config)
    (setting,) = compare([tmp_path]).settings
    assert setting.figures()["macro_f1"] == pytest.approx((2 * 90 / (100 + 90) + 0) / 2)  # of ants and of bees
    assert "accuracy, interval and macro F1 are of all their images" in " ".join(str(compare([tmp_path])).split())


def test_macro_f1_of_folds_that_have_kept_no_predictions_is_open(tmp_path: Path) -> None:
    write_folds(tmp_path, [0.9, 0.8])
    board = compare([tmp_path])
    assert board.settings[0].figures()["macro_f1"] is None
    assert board.sections[0].table()[1][0][5] == "–"


def test_over_several_seeds_of_all_folds_the_spread_is_that_of_the_seeds(tmp_path: Path) -> None:
    write_folds(tmp_path, [0.9, 0.8, 0.7])
    write_folds(tmp_path, [0.9, 0.9, 0.9], seed=1)
    board = compare([tmp_path])
    figures = board.settings[0].figures()
    assert figures["spread"] == pytest.approx(0.1 / 2**0.5)
    assert figures["fold_spread"] == pytest.approx(0.1 / 2**0.5)  # root of the mean variance
    assert "0.8500 ± 0.0707" in str(board)
    assert "±: standard deviation over the seeds." in str(board)
    assert "folds: standard" not in str(board)


def test_a_missing_fold_is_said(tmp_path: Path) -> None:
    config = Config(dataset=DatasetConfig(num_folds=5, fold=3))
    write_run(tmp_path / "run", "dataset.num_folds=5 dataset.fold=3", config=config)
    assert "(val of 1 of 5 folds, last epoch)" in str(compare([tmp_path]))


def write_fold(folder: Path, fold: int, seed: int, wrong: int, lr: float = 0.1, fingerprint: str = "") -> None:
    overrides = f"optimizer.lr={lr} dataset.num_folds=3 dataset.fold={fold}"
    write_run(
        folder, overrides, n=100, wrong=range(wrong), seed=seed, images=f"fold{fold}", fingerprint=fingerprint
    )  # fmt: skip


@pytest.mark.parametrize(
    ("made", "kept", "judged_on"),
    [
        (["1_0", "1_1", "1_2", "2_0", "2_1"], ["1_0", "1_1", "1_2"], "val of 3 folds"),
        (["1_0", "1_1", "2_0", "2_1", "2_2"], ["2_0", "2_1", "2_2"], "val of 3 folds"),
        (["1_0", "1_1", "2_1", "2_2", "3_1", "3_2"], ["2_1", "2_2", "3_1", "3_2"], "val of 2 of 3 folds"),
        (["1_0", "2_1", "3_2"], ["1_0"], "val of 1 of 3 folds"),
    ],
    ids=["one lost", "lost by the first", "as many folds, more seeds", "each seed another"],
)
def test_seeds_are_pooled_on_the_same_folds(tmp_path: Path, made: list[str], kept: list[str], judged_on: str) -> None:
    for number, name in enumerate(made):
        seed, fold = map(int, name.split("_"))
        write_fold(tmp_path / name, fold, seed, wrong=10 * fold + number)
    board = compare([tmp_path])
    (setting,) = board.settings
    assert [record.run.folder.name for record in setting.records] == kept
    assert f"{setting.n} images of 2 classes ({judged_on}, last epoch)" in str(board)
    assert setting.answers is not None
    assert setting.acc == pytest.approx(setting.answers.num_right.mean() / setting.answers.num_repeats)
    assert board.best is None
    note = f"Left out: {len(made) - len(kept)} of a seed that lacks folds of another ("
    assert note in " ".join(str(board).split())
    assert note in board.markdown()


def test_runs_on_images_that_have_changed_are_no_seeds_of_one_setting(tmp_path: Path) -> None:
    for number, fingerprint in enumerate(("before", "before", "after")):
        write_run(tmp_path / str(number), "dataset=digits", seed=number, wrong=[number], fingerprint=fingerprint)
    (section,) = compare([tmp_path]).sections
    assert section.option_names == ["data_fingerprint"]
    assert {setting.option("data_fingerprint"): len(setting.records) for setting in section.settings} == {
        "before": 2, "after": 1
    }  # fmt: skip
    assert [verdict.word for verdict in section.verdicts] == ["best", "undecided"]  # on images of the same names


def test_a_part_of_the_training_images_makes_another_setting_on_the_same_images(tmp_path: Path) -> None:
    for number in (5, 10):
        config = Config(DatasetConfig(train_per_class=number))
        write_run(
            tmp_path / str(number), f"dataset.train_per_class={number}", config=config, wrong=[number],
            fingerprint=str(number),
        )  # fmt: skip
    (section,) = compare([tmp_path]).sections
    assert section.option_names == ["dataset.train_per_class"]
    assert [verdict.word for verdict in section.verdicts] == ["best", "undecided"]


def test_images_of_other_data_are_others_whatever_they_are_called(tmp_path: Path) -> None:
    for site, wrong in (("a", 10), ("a", 20), ("b", 30), ("b", 40)):
        config = Config(DatasetConfig(root=f"{site}/photos"), optimizer=OptimizerConfig(lr=wrong / 1000))
        options = f"dataset.root={site}/photos optimizer.lr={wrong / 1000}"
        write_run(
            tmp_path / f"{site}{wrong}", options, config=config, wrong=range(wrong), fingerprint=site, n=100
        )  # fmt: skip
    board = compare([tmp_path])
    assert [section.title.rpartition(", ")[2] for section in board.sections] == [
        "image set 1 of 2", "image set 2 of 2"
    ]  # fmt: skip
    assert [[verdict.word for verdict in section.verdicts] for section in board.sections] == [["best", "worse"]] * 2
    assert board.best is None


@pytest.mark.parametrize("is_copy", [True, False])
def test_folds_of_other_data_below_a_root_of_the_same_name_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_copy: bool
) -> None:
    for seed, site in enumerate("ab" if is_copy else "aab"):
        (tmp_path / site).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / site)
        for fold in range(2):
            config = Config(DatasetConfig(root="photos", num_folds=2, fold=fold))
            fingerprint = f"{fold}" if is_copy else f"{site}{fold}"
            write_run(
                tmp_path / site / f"{seed}_{fold}", f"dataset.root=photos dataset.fold={fold}", config=config,
                seed=seed % 2, wrong=[seed], images=f"fold{fold}", fingerprint=fingerprint,
            )  # fmt: skip
    board = compare([tmp_path])
    assert board.superseded == []
    assert [len(setting.repeats) for setting in board.settings] == ([2] if is_copy else [2, 1])
    if not is_copy:
        assert board.sections[0].descriptions == [str(tmp_path / site / "photos") for site in "ab"]
        assert board.best is None


def test_one_folder_that_is_named_in_two_ways_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, root in enumerate(["photos", "photos", str(tmp_path / "photos")]):
        config = Config(DatasetConfig(root=root))
        write_run(tmp_path / f"{seed}", f"dataset.root={root} seed={seed}", config=config, seed=seed, wrong=[seed])
    (setting,) = compare([tmp_path]).settings
    assert len(setting.repeats) == 3


def test_roots_that_end_alike_are_shown_in_full(tmp_path: Path) -> None:
    for site in "ab":
        config = Config(DatasetConfig(root=f"{site}/photos"))
        write_run(tmp_path / site, f"dataset.root={site}/photos", config=config, wrong=[0], fingerprint=site)
    text = str(compare([tmp_path]))
    assert "a/photos" in text
    assert "b/photos" in text


@pytest.mark.parametrize("changed", [(), (1,), (0, 1, 2)])
def test_folds_of_other_images_are_no_repeat(tmp_path: Path, changed: Sequence[int]) -> None:
    for seed in (1, 2):
        for fold in range(3):
            fingerprint = f"{fold} {'after' if seed == 2 and fold in changed else 'before'}"
            write_fold(tmp_path / f"{seed}_{fold}", fold, seed, wrong=10, fingerprint=fingerprint)
    (setting,) = compare([tmp_path]).settings
    assert len(setting.repeats) == (1 if changed else 2)
    assert len(setting.left_out) == (3 if changed else 0)


def test_folds_with_images_in_common_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As when the data has changed between them."""
    for seed, places in ((1, "012"), (2, "011")):
        for fold, place in enumerate(places):
            options = f"dataset.num_folds=3 dataset.fold={fold}"
            write_run(tmp_path / f"{seed}_{fold}", options, wrong=[0], seed=seed, images=f"fold{place}")
    board = compare([tmp_path])
    assert [record.run.folder.name for record in board.settings[0].records] == ["1_0", "1_1", "1_2"]
    note = "Left out: 3 of folds with images in common, as the data has changed between them ("
    assert note in " ".join(str(board).split())
    for fold in range(3):
        shutil.rmtree(tmp_path / f"1_{fold}")
    assert main(["compare", str(tmp_path), "--predictions", str(tmp_path / "all.csv")]) == 2
    assert capsys.readouterr().err == (
        f"All runs in {tmp_path} are of folds with images in common, as the data has changed between them: train them "
        "again.\n"
    )
    assert not (tmp_path / "all.csv").exists()


def test_a_fold_made_twice_counts_once(tmp_path: Path) -> None:
    for name in ("1_0", "1_1", "1_1_again", "1_2"):
        write_fold(tmp_path / name, fold=int(name[2]), seed=1, wrong=10)
    board = compare([tmp_path])
    assert [record.run.folder.name for record in board.settings[0].records] == ["1_0", "1_1_again", "1_2"]
    assert board.superseded == [tmp_path / "1_1"]
    assert "of a seed that lacks folds" not in str(board)


def test_a_lost_fold_makes_no_setting_the_best(tmp_path: Path) -> None:
    for lr, last in ((0.1, 50), (0.2, 40)):
        for seed in (1, 2):
            for fold, wrong in enumerate((20, 20, last)):
                write_fold(tmp_path / f"{lr}_{seed}_{fold}", fold, seed, wrong, lr)
    shutil.rmtree(tmp_path / "0.1_2_2")
    (section,) = compare([tmp_path]).sections
    assert section.descriptions == ["0.2", "0.1"]
    assert [setting.acc for setting in section.settings] == pytest.approx([1 - 80 / 300, 1 - 90 / 300])
    assert [verdict.word for verdict in section.verdicts] == ["best", "worse"]


# ---- tests


def test_a_setting_is_tested_against_the_best_on_the_same_images(tmp_path: Path) -> None:
    best, worse = [0, 1], [0, *range(10, 24)]
    write_run(tmp_path / "a", "strategy=frozen", wrong=best)
    write_run(tmp_path / "b", "strategy=finetune", wrong=worse)
    (section,) = compare([tmp_path]).sections
    first, second = section.verdicts
    assert (str(first), second.word) == ("best", "worse")
    assert (second.num_better, second.num_worse) == (1, 14)
    assert second.p == second.corrected == pytest.approx(binomtest(1, 15).pvalue)
    assert str(second) == "worse, p = 0.00098"


def test_a_difference_that_the_images_cannot_tell_is_not_called_one(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "strategy=frozen", wrong=[0, 1])
    write_run(tmp_path / "b", "strategy=finetune", wrong=[0, 2, 3, 4])
    assert verdicts(tmp_path) == ["best", "undecided, p = 0.62"]


def test_the_more_settings_the_more_it_takes(tmp_path: Path) -> None:
    for number, wrong in enumerate(([0], [1, *range(3, 11)], [2, 3], [4, 5])):
        write_run(tmp_path / f"{number}", f"optimizer.lr={number}", wrong=wrong)
    (section,) = compare([tmp_path]).sections
    last = section.verdicts[-1]
    assert last.p == pytest.approx(binomtest(1, 10).pvalue)
    assert last.corrected == pytest.approx(6 * binomtest(1, 10).pvalue)
    assert str(last) == "undecided, p = 0.13"
    note = "against the best; Bonferroni over the pairs of settings on those images (up to 6). Worse: p is below 0.05."
    assert note in " ".join(str(compare([tmp_path])).split())


def test_an_image_counts_once_however_many_seeds(tmp_path: Path) -> None:
    for seed in range(5):
        write_run(tmp_path / f"a{seed}", "strategy=frozen", wrong=[0], seed=seed)
        write_run(tmp_path / f"b{seed}", "strategy=finetune", wrong=[0, 1, 2, 3], seed=seed)
    assert verdicts(tmp_path) == ["best", "undecided, p = 0.25"]


def test_other_images_are_not_tested_across(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "dataset.split_seed=0", wrong=[0])
    write_run(tmp_path / "b", "dataset.split_seed=1", wrong=[0, 1], images="train/ants")
    assert verdicts(tmp_path) == ["other images", "other images"]
    assert "no test across" in str(compare([tmp_path]))


def test_each_set_of_images_has_its_best(tmp_path: Path) -> None:
    for split_seed, images in enumerate(("val/ants", "train/ants")):
        for strategy, wrong in (("frozen", [0]), ("finetune", [0, 1]))[: 2 - split_seed]:
            name = f"{strategy}{split_seed}"
            write_run(
                tmp_path / name, f"strategy={strategy} dataset.split_seed={split_seed}", wrong=wrong, images=images
            )
    write_run(tmp_path / "unknown", "strategy=gradual")
    first, second, third = compare([tmp_path]).sections
    assert first.title.endswith("(val, last epoch), image set 1 of 3")
    assert second.title.endswith("(val, last epoch), image set 2 of 3")
    assert list(map(str, third.verdicts)) == ["no predictions"]
    assert list(map(str, first.verdicts)) == ["best", "undecided, p = 1"]
    assert list(map(str, second.verdicts)) == ["other images"]


def test_other_data_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    for name in ("digits", "hotdog"):
        for strategy, wrong in (("frozen", [0]), ("finetune", [0, 1])):
            config = Config(dataset=DatasetConfig(name), strategy=StrategyConfig(strategy, 1.0))
            write_run(tmp_path / name / strategy, f"dataset={name} strategy={strategy}", wrong=wrong, config=config)
    board = compare([tmp_path])
    assert [section.title.partition(":")[0] for section in board.sections] == ["digits", "hotdog"]
    assert [section.option_names for section in board.sections] == [["strategy"], ["strategy"]]
    assert verdicts(tmp_path) == ["best", "undecided, p = 1"] * 2


@pytest.mark.parametrize(
    ("runs", "best"),
    [
        ([{"overrides": "strategy=frozen", "wrong": [0]}], "0"),
        ([{"overrides": "strategy=frozen", "wrong": [0, 1]}, {"overrides": "strategy=finetune", "wrong": [0]}], "1"),
        (
            [
                {"overrides": f"dataset.num_folds=3 dataset.fold={fold}", "wrong": [fold], "images": f"fold{fold}"}
                for fold in range(3)
            ],
            None,
        ),
        ([{"overrides": "strategy=frozen", "wrong": [seed], "seed": seed} for seed in range(3)], None),
        (
            [
                {"overrides": "dataset.split_seed=0", "wrong": [0]},
                {"overrides": "dataset.split_seed=1", "wrong": [0, 1], "images": "train/ants"},
            ],
            None,
        ),
        (
            [
                {"overrides": "dataset=digits", "wrong": [0]},
                {"overrides": "dataset=hymenoptera", "wrong": [0, 1], "n": 100},
            ],
            None,
        ),
    ],
    ids=["one run", "two settings", "folds of one", "seeds of one", "other images", "other data"],
)
def test_a_best_run_is_named_where_there_is_one(
    tmp_path: Path, runs: list[dict[str, Any]], best: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, run in enumerate(runs):
        write_run(tmp_path / f"{number}", **run)
    told = f"\nBest: {tmp_path / best}\n" if best else ""
    for end, more in (
        (lambda: main(["compare", str(tmp_path)]), ""),
        (lambda: close_sweep(tmp_path), f"Next: thaw report {tmp_path / best}\n" if best else ""),
    ):
        assert not end()
        printed = capsys.readouterr().out
        if best:
            assert printed.endswith(told + more)
        else:
            assert "Best:" not in printed


@pytest.mark.parametrize(("num_seeds", "median"), [(3, 2), (4, 2)])
def test_of_several_seeds_the_best_run_is_the_median_one(
    tmp_path: Path, num_seeds: int, median: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for strategy, accuracies in (("frozen", (0.8, 0.95, 0.9, 0.99)), ("finetune", (0.7, 0.7, 0.7, 0.7))):
        for seed, acc in enumerate(accuracies[:num_seeds]):
            write_run(tmp_path / f"{strategy}{seed}", f"strategy={strategy}", acc, seed=seed)
    close_sweep(tmp_path)
    best = tmp_path / f"frozen{median}"
    end = f"\nBest: {best} (the median of its {num_seeds} seeds)\nNext: thaw report {best}\n"
    assert capsys.readouterr().out.endswith(end)
    for other in tmp_path.glob("finetune*"):
        shutil.rmtree(other)
    close_sweep(tmp_path)
    end = f"\nThe median of its {num_seeds} seeds: {best}\nNext: thaw report {best}\n"
    assert capsys.readouterr().out.endswith(end)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["optimizer.lr=0.1", "optimizer.lr=0.2"], "lr 0.1"),
        (["strategy=a head.dropout=1", "strategy=b"], "strategy a"),
    ],
)
@pytest.mark.parametrize("num_seeds", [1, 2])
def test_of_folds_the_best_setting_is_named_and_no_run(
    tmp_path: Path,
    options: Sequence[str],
    words: str,
    num_seeds: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number, option in enumerate(options):
        for seed in range(num_seeds):
            for fold in range(3):
                dataset = f"dataset.num_folds=3 dataset.fold={fold}"
                images = f"fold{fold}"
                folder = tmp_path / f"{number}_{seed}_{fold}"
                write_run(folder, f"{option} {dataset}", n=50, wrong=range(number), seed=seed, images=images)
    monkeypatch.setattr("sys.argv", ["train.py"])
    close_sweep(tmp_path)
    *_, best, last = capsys.readouterr().out.splitlines()
    assert best.startswith(f"Best: {words}")
    assert best.endswith(f"; a run a fold, in {tmp_path}")
    assert last == f"Next: python train.py {options[0]} dataset.num_folds=10 dataset.fold=0"


def test_after_folds_of_one_setting_the_model_to_use_is_trained_by_what_was_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fold in range(2):
        typed = f"'dataset.root=my photos' dataset.val_fraction=0.3 dataset.num_folds=2 dataset.fold={fold} seed=0"
        write_run(tmp_path / f"{fold}", typed, wrong=[fold], images=f"fold{fold}")
    monkeypatch.setattr("sys.argv", [str(COMMANDS / "train.py")])
    close_sweep(tmp_path)
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "Next: thaw train 'dataset.root=my photos' seed=0 dataset.num_folds=10 dataset.fold=0"


def test_the_model_to_use_leaves_out_no_more_images_than_there_are_of_the_rarest_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fold in range(2):
        typed = f"dataset=folder dataset.root=a dataset.num_folds=2 dataset.fold={fold} seed=0"
        write_run(tmp_path / f"{fold}", typed, n=3, wrong=[fold], images=f"fold{fold}")
    monkeypatch.setattr("sys.argv", [str(COMMANDS / "train.py")])
    close_sweep(tmp_path)
    assert capsys.readouterr().out.endswith(" dataset.num_folds=6 dataset.fold=0\n")


def test_the_model_to_use_leaves_out_no_more_groups_than_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fold in range(2):
        data = DatasetConfig(csv="labels.csv", csv_group="patient", num_folds=2, fold=fold)
        options = f"dataset.csv_group=patient dataset.num_folds=2 dataset.fold={fold}"
        folder, images = tmp_path / f"{fold}", f"fold{fold}"
        write_run(folder, options, n=20, wrong=[fold], images=images, config=Config(data), group_size=7)
    monkeypatch.setattr("sys.argv", [str(COMMANDS / "train.py")])
    close_sweep(tmp_path)
    assert " dataset.csv_group=patient dataset.num_folds=6 dataset.fold=0\n" in capsys.readouterr().out


def test_the_model_to_use_keeps_the_folds_that_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fold in range(2):
        data = DatasetConfig(csv="labels.csv", csv_fold="site", num_folds=2, fold=fold)
        options = f"dataset.csv_fold=site dataset.num_folds=2 dataset.fold={fold}"
        write_run(tmp_path / f"{fold}", options, n=20, wrong=[fold], images=f"fold{fold}", config=Config(data))
    monkeypatch.setattr("sys.argv", [str(COMMANDS / "train.py")])
    close_sweep(tmp_path)
    assert " dataset.csv_fold=site dataset.num_folds=2 dataset.fold=0\n" in capsys.readouterr().out


def test_runs_without_predictions_are_ranked_but_not_tested(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "strategy=frozen", wrong=[0, 1])
    write_run(tmp_path / "b", "strategy=finetune", acc=0.9)
    write_run(tmp_path / "c", "strategy=gradual", wrong=[3])
    (tmp_path / "b" / "predictions_last.csv").write_text("half a file")
    assert verdicts(tmp_path) == ["best", "undecided, p = 1", "no predictions"]
    assert verdicts(tmp_path / "a", tmp_path / "b") == ["best", "no predictions"]


def test_one_without_predictions_is_not_called_best_beside_those_that_are_tested(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "strategy=frozen", acc=1.0)
    write_run(tmp_path / "b", "strategy=finetune", wrong=[0])
    write_run(tmp_path / "c", "strategy=gradual", wrong=[0, 1])
    assert verdicts(tmp_path) == ["no predictions", "best", "undecided, p = 1"]


def test_data_is_named_by_its_folder_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("photos", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos/labels.csv").touch()
    for number, options in enumerate((DatasetConfig(root="."), DatasetConfig(csv="labels.csv"))):
        run = write_run(tmp_path / f"run{number}", None, config=Config(options))
        (run / "started_in.txt").write_text(str(tmp_path / "photos"))
        for folder in ("photos", "here"):
            monkeypatch.chdir(tmp_path / folder)
            (section,) = compare([run]).sections
            assert section.title.startswith("photos: ")


def test_equal_accuracies_are_ranked_by_macro_f1_and_then_by_loss(tmp_path: Path) -> None:
    for lr, macro_f1, loss in ((1, 0.48, 0.3), (2, 0.73, 0.9), (3, 0.73, 0.5)):
        write_run(tmp_path / f"{lr}", f"optimizer.lr={lr}", macro_f1=macro_f1, loss=loss)
    write_run(tmp_path / "4", "optimizer.lr=4", acc=0.91, macro_f1=0.1)
    board = compare([tmp_path])
    assert board.sections[0].descriptions == ["4", "3", "2", "1"]
    assert "Ranked by" not in str(board)


def test_a_trial_that_was_stopped_early_is_marked_and_ranked_behind_equal_ones(tmp_path: Path) -> None:
    for lr, pruned in ((1, True), (2, False)):
        write_run(tmp_path / f"{lr}", f"optimizer.lr={lr}", loss=lr, pruned=pruned)
    write_run(tmp_path / "3", "optimizer.lr=3", acc=0.8)
    board = compare([tmp_path])
    (section,) = board.sections
    assert section.descriptions == ["2", "1", "3"]
    assert [row[1] for row in section.table()[1]] == ["1", "1*", "1"]
    assert [setting.figures()["pruned"] for setting in section.settings] == [0, 1, 0]
    assert f"*: 1 of 3 runs stopped early by sweep.prune ({tmp_path / '1'})." in board.notes()
    (tmp_path / "1" / "summary.json").unlink()
    assert "sweep.prune" not in str(compare([tmp_path]))


@pytest.mark.parametrize(("others", "order"), [("val/macro_f1", ["1", "0", "2"]), ("val/acc", ["2", "0", "1"])])
def test_runs_that_all_go_by_macro_f1_are_ranked_by_it(tmp_path: Path, others: str, order: list[str]) -> None:
    for lr, (num_wrong, macro_f1) in enumerate(((10, 0.6), (40, 0.8), (5, 0.5))):
        monitor = "val/macro_f1" if lr == 0 else others
        options = f"optimizer.lr={lr} trainer.monitor={monitor}"
        write_run(tmp_path / f"{lr}", options, wrong=range(num_wrong), macro_f1=macro_f1)
    board = compare([tmp_path])
    (section,) = board.sections
    assert [setting.option("optimizer.lr") for setting in section.settings] == order
    is_by_macro_f1 = others == "val/macro_f1"
    assert (
        "Ranked by macro F1, as trainer.monitor says. The test is one of accuracies." in board.notes()
    ) == is_by_macro_f1
    if is_by_macro_f1:
        assert [verdict.word for verdict in section.verdicts] == ["best", "more accurate", "more accurate"]


@pytest.mark.parametrize("wrong", [[0], None])
def test_a_setting_without_others_is_not_called_the_best(tmp_path: Path, wrong: list[int] | None) -> None:
    write_run(tmp_path / "only", "strategy=frozen", wrong=wrong)
    assert verdicts(tmp_path) == ["–"]


# ---- what is found


def test_a_single_run_is_a_table_too(finished_run: Run) -> None:
    board = compare([str(finished_run.folder)])
    assert str(board).splitlines()[0].endswith("9 images of 3 classes (val, last epoch)")
    assert "p:" not in str(board)


def test_unfinished_runs_and_strange_files_are_counted(sweep: Path) -> None:
    (sweep / "broken" / ".hydra").mkdir(parents=True)
    (sweep / "failed" / ".hydra").mkdir(parents=True)
    (sweep / "failed" / "error.log").write_text("dataset.root is no folder.")
    Run(sweep / "training").write_config(Config())
    (sweep / "other").mkdir()
    (sweep / "other" / "summary.json").write_text('{"val": 1}')
    (sweep / "half").mkdir()
    (sweep / "half" / "summary.json").write_text('{"val": ')
    board = compare([sweep])
    assert [path.name for path in board.unfinished] == ["broken", "failed", "training"]
    assert [path.name for path in board.unreadable] == ["half", "other"]
    assert len(board.settings) == 2
    assert "Left out: 2 unfinished" in str(board)
    assert "Left out: 1 failed, each error.log says why" in str(board)


def test_a_run_that_is_named_twice_counts_once(sweep: Path) -> None:
    assert [setting.figures()["runs"] for setting in compare([sweep, sweep / "a0", sweep]).settings] == [2, 2]


def test_a_seed_counts_once_copied_or_trained_again(sweep: Path) -> None:
    spread = compare([sweep]).settings[0].spread
    shutil.copytree(sweep / "a0", sweep / "a0 copy")
    again = shutil.copytree(sweep / "b0", sweep / "b0 again")
    summary = json.loads((again / "summary.json").read_text())
    (again / "summary.json").write_text(json.dumps(summary | {"seconds": {"total": 11.0}}))
    board = compare([sweep])
    assert [setting.figures()["runs"] for setting in board.settings] == [2, 2]
    assert board.settings[0].spread == spread
    assert board.settings[0].records[0].run.folder == again
    assert board.superseded == [sweep / "a0", sweep / "b0"]
    assert "Left out: 2 with the options, seed and fold of a later one (" in " ".join(str(board).split())


def test_one_run_trained_again_is_the_best(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / f"{number}", "strategy=frozen", wrong=[0])
    board = compare([tmp_path])
    assert board.best == tmp_path / "1"
    assert "±" not in str(board)


def test_a_folder_without_runs_is_a_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ThawError, match="No finished runs in"):
        compare([tmp_path])
    assert main(["compare", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("No finished runs in")
    assert main(["compare", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is not a folder." in capsys.readouterr().err


def test_of_equal_runs_the_one_that_was_finished_last_counts(tmp_path: Path) -> None:
    for name, when in (("z", 1), ("a", 2)):
        os.utime(write_run(tmp_path / name, "seed=0") / "summary.json", (when, when))
    os.utime(tmp_path / "z" / "summary.json", (3, 3))
    assert compare([tmp_path]).superseded == [tmp_path / "a"]


@pytest.mark.parametrize(
    "place", ["last.macro_f1", "last.loss", "val.n", "val.acc", "seconds.total", "classes", "seed"]
)
@pytest.mark.parametrize("value", [None, "x"])
def test_a_summary_that_lacks_a_figure_is_left_out(tmp_path: Path, place: str, value: str | None) -> None:
    write_run(tmp_path / "good", "strategy=frozen")
    file = write_run(tmp_path / "odd", "strategy=finetune") / "summary.json"
    summary = json.loads(file.read_text())
    group, _, name = place.rpartition(".")
    owner = summary[group] if group else summary
    owner.pop(name)
    if value is not None and place != "classes" and place != "seed":
        owner[name] = value
    file.write_text(json.dumps(summary))
    board = compare([tmp_path])
    assert [record.run.folder.name for setting in board.settings for record in setting.records] == ["good"]
    assert board.unreadable == [tmp_path / "odd"]


def test_intervals_and_p_go_by_groups(tmp_path: Path) -> None:
    for folder, group_size in (("single", 0), ("grouped", 20)):
        for seed in range(2):
            typed = f"dataset.csv=a.csv seed={seed}" + " dataset.csv_group=patient" * bool(group_size)
            write_run(tmp_path / f"{folder}/a{seed}", typed, wrong=[0], seed=seed, group_size=group_size)
            write_run(
                tmp_path / f"{folder}/b{seed}", f"{typed} lr=1", wrong=range(40), seed=seed, group_size=group_size
            )
    single, grouped = compare([tmp_path / "single"]), compare([tmp_path / "grouped"])
    note = (
        "Images of one group (dataset.csv_group) may be alike: their intervals and p go by groups, and of fewer than 6"
    )
    assert note in " ".join(str(grouped).split())
    assert note not in " ".join(str(single).split())
    p = [board.sections[0].verdicts[1].p for board in (single, grouped)]
    assert p == pytest.approx([2 * 0.5**39, 2 * 0.5**2])  # 39 images of two groups
    narrow, wide = (board.settings[1].interval for board in (single, grouped))
    assert wide[0] < narrow[0] < 0.8 < narrow[1] < wide[1]


def test_runs_that_do_not_tell_their_groups_are_named(tmp_path: Path) -> None:  # as before these were written down
    for lr in (0.1, 0.2):
        write_run(tmp_path / f"{lr}", f"optimizer.lr={lr} dataset.csv=a.csv dataset.csv_group=patient", wrong=[0])
    note = "may be alike, and some runs do not tell theirs: their intervals are too narrow, and p too small."
    assert note in " ".join(str(compare([tmp_path])).split())


def test_groups_are_those_of_whichever_seed_tells_them(tmp_path: Path) -> None:
    for seed, group_size in enumerate((0, 20)):
        write_run(tmp_path / f"{seed}", f"seed={seed}", wrong=[0], seed=seed, group_size=group_size)
    board = compare([tmp_path])
    (setting,) = board.settings
    assert setting.answers is not None
    assert len(set(setting.answers.groups)) == 10
    assert "their intervals and p go by groups" in " ".join(str(board).split())  # of shards, no option tells them


def test_a_run_that_knows_no_groups_is_tested_by_those_of_the_other(tmp_path: Path) -> None:
    write_run(tmp_path / "best", "lr=1", wrong=[0])
    write_run(tmp_path / "other", "lr=2", wrong=range(40), group_size=20)
    assert compare([tmp_path]).sections[0].verdicts[1].p == pytest.approx(2 * 0.5**2)
