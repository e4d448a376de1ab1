import os
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from thaw.comparison.accuracy_chart import OTHER, accuracy_chart
from thaw.comparison.compare import compare
from thaw.config import Config, DatasetConfig, StrategyConfig
from thaw.errors import printable
from thaw.inspection.figures import RIGHT, WRONG
from written_runs import write_run


def test_a_line_a_setting_with_its_interval_its_runs_and_its_verdict(tmp_path: Path) -> None:
    for name, wrong in (("frozen", [0, 1]), ("gradual", [0, 1, 2]), ("finetune", list(range(40)))):
        for seed in range(2):
            write_run(tmp_path / f"{name}{seed}", f"strategy={name}", wrong=wrong[seed:], seed=seed)
    board = compare([tmp_path])
    figure = accuracy_chart(board)
    (panel,) = figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "strategy frozen",
        "strategy gradual",
        "strategy finetune",
    ]
    assert [to_hex(line.get_color()) for line in panel.lines] == [RIGHT, OTHER, WRONG]
    for line, setting in zip(panel.lines, board.settings, strict=True):
        assert tuple(line.get_xdata()) == pytest.approx(setting.interval)
    (right,) = panel.child_axes
    assert right.get_yticklabels()[2].get_text() == "worse, p < 0.0001"
    assert [text.get_text() for text in panel.texts] == ["99.2", "98.8", "80.2"]


def test_folds_are_dots(tmp_path: Path) -> None:
    for fold in range(3):
        typed = f"dataset.num_folds=3 dataset.fold={fold}"
        write_run(tmp_path / f"{fold}", typed, n=10, wrong=range(fold), images=f"fold{fold}")
    (panel,) = accuracy_chart(compare([tmp_path])).axes
    dots, mean = (places.get_offsets()[:, 0].tolist() for places in panel.collections)
    assert dots == pytest.approx([1.0, 0.9, 0.8])
    assert mean == pytest.approx([0.9])


def test_other_images_have_a_panel_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        write_run(tmp_path / f"{number}", f"optimizer.lr={number}", n=100 + 50 * (number == 2))
    figure = accuracy_chart(compare([tmp_path]))
    assert [panel.get_title("left").split()[1] for panel in figure.axes] == ["100", "150"]
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim()
    assert [label.get_text() for label in first.get_yticklabels()] == ["lr 0", "lr 1"]
    figure.draw_without_rendering()
    assert all(panel.get_xticklabels()[0].get_visible() for panel in figure.axes)


@pytest.mark.parametrize("name", ["d$x_{$", os.fsdecode(b"caf\xe9")])
def test_a_folders_and_an_options_name_are_drawn_as_they_are(tmp_path: Path, name: str) -> None:
    for number in range(2):
        config = Config(DatasetConfig(root=name), strategy=StrategyConfig(f"{name}{number}"))
        write_run(tmp_path / f"{number}", "", config=config)
    figure = accuracy_chart(compare([tmp_path]))
    figure.draw_without_rendering()
    (panel,) = figure.axes
    assert panel.get_title("left").startswith(printable(name))
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        f"strategy {printable(name)}{i}" for i in range(2)
    ]


@pytest.mark.filterwarnings("ignore:Glyph .* missing from .*font")
def test_long_names_are_neither_cut_nor_over_one_another(tmp_path: Path) -> None:
    names = [
        "a_long_name_without_any_space",
        "설정 이름이 길다",
        "一个很长的设置名称用来测试图片里面会不会被截断的情况",
    ]
    for number in range(12):
        config = Config(DatasetConfig(root=f"/{names[0]}_{names[0]}"), strategy=StrategyConfig(names[number % 3]))
        config.optimizer.lr, config.head.dropout = 0.01 * (number + 1), 0.05 * (number + 1)
        write_run(tmp_path / f"{number}", "optimizer.lr= head.dropout=", config=config, images=f"{number // 6}")
    figure = accuracy_chart(compare([tmp_path]))
    figure.draw_without_rendering()
    for panel in figure.axes:
        drawn, labels = panel.get_tightbbox(), panel.get_yticklabels()
        assert drawn is not None
        assert 0 <= drawn.x0 < drawn.x1 <= figure.bbox.width
        assert len({label.get_text() for label in labels}) == 12
        boxes = [label.get_window_extent() for label in labels]
        assert not any(upper.overlaps(lower) for upper, lower in pairwise(boxes))


def test_many_options_are_all_drawn(tmp_path: Path) -> None:
    keys = (
        "optimizer.lr",
        "head.dropout",
        "augment.mixup",
        "augment.cutmix",
        "optimizer.weight_decay",
        "augment.erasing",
    )
    for number in range(3):
        values = " ".join(f"{key}=0.{number}{rank}4567" for rank, key in enumerate(keys))
        write_run(tmp_path / f"{number}", f"{values} trainer.max_epochs=2{number} dataset.batch_size=3{number}")
    (panel,) = accuracy_chart(compare([tmp_path])).axes
    ends = {label.get_text().split()[-1] for label in panel.get_yticklabels()}
    assert ends == {"30", "31", "32"}
