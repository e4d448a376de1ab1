import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from thaw.config import BackboneConfig, Config, DatasetConfig, LoggerConfig, StrategyConfig, TrainerConfig
from thaw.data.index import ImageIndex
from thaw.data.rows import Sample
from thaw.errors import ThawError
from thaw.inspection.predictions import Predictions
from thaw.inspection.report import judgement, most_confused, percent, weakest_first
from thaw.run import Run

TAGS_WITHOUT_END = {"meta", "link", "img", "br", "wbr"}
AWKWARD = ('<b>bold & "quoted"', "O'Neill's", "{{ 7 * 7 }}", "Ämeise")


class Page(HTMLParser):
    """Tags, attributes and text of a page; an end tag that does not fit its beginning is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in TAGS_WITHOUT_END:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split()).replace("\N{NO-BREAK SPACE}", " ")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(finished_run.report(tmp_path_factory.mktemp("report") / "page.html", top=5))


@pytest.fixture
def copy(finished_run: Run, tmp_path: Path) -> Run:
    """The finished run in a folder that may be changed."""
    shutil.copytree(finished_run.folder, tmp_path / "run")
    return Run(tmp_path / "run")


def make_awkward_run(folder: Path) -> Run:
    """One epoch on three images each of 37 classes, four of them with names that HTML has to escape."""
    generator = np.random.default_rng(0)
    for number in range(37):
        name = AWKWARD[number] if number < len(AWKWARD) else f"Staffordshire Bull Terrier {number}"
        for split in ("train", "val"):
            (folder / "images" / split / name).mkdir(parents=True)
            for copy in range(3):
                pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{copy} 'of' {number}.png")
    config = Config(
        dataset=DatasetConfig(root=str(folder / "images"), image_size=40),
        backbone=BackboneConfig("squeezenet1_1", None),
        strategy=StrategyConfig("scratch", backbone_factor=1.0, from_scratch=True),
        trainer=TrainerConfig(max_epochs=1, accelerator="cpu", precision="32"),
        logger=LoggerConfig("csv"),
        report=True,
    )
    from thaw.training.train import train

    train(config, folder / "run")
    return Run(folder / "run")


# ---- what it says


def test_the_page_has_the_figures_of_the_summary(page: Page, finished_run: Run) -> None:
    val, summary = finished_run.summary["val"], finished_run.summary
    low, high = val["acc_ci95"]
    assert f"{100 * val['acc']:.1f} %" in page.text
    assert f"95 % interval {100 * low:.1f} % to {100 * high:.1f} %, n = {val['n']}" in page.text
    assert f"Epoch {summary['best_epoch']} of 2" in page.text
    assert "was chosen on these same images" in page.text
    assert "Always answering “blue” would reach 33.3 %." in page.text
    assert "python train.py strategy=scratch" in page.text
    assert "dataset. image_size 64 null" in page.text
    assert summary["versions"]["torch"] in page.text
    assert summary["data_fingerprint"] in page.text
    assert "The files are those of the training." in page.text
    assert "The check found no probable mistake." in page.text
    assert "top-5" not in page.text


def test_the_page_is_whole_by_itself(page: Page) -> None:
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert all(address and address.startswith(("data:", "#")) for address in addresses)
    assert "url(http" not in page.source
    assert "@import" not in page.source
    assert not page.all("script")
    assert len(page.all("img")) == 5 * 3
    assert len(page.source) < 300_000


def test_the_page_can_be_read_without_eyes(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.all("img"))
    drawn = [svg for svg in page.all("svg") if "aria-hidden" not in svg]
    assert len(drawn) == 4
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in drawn)
    assert all(header.get("scope") in ("row", "col") or header.get("class") == "corner" for header in page.all("th"))
    sections = {section["id"] for section in page.all("section")}
    assert {f"#{name}" for name in sections} == {link["href"] for link in page.all("a")}


@pytest.mark.parametrize(("top", "number"), [(0, 0), (2, 6), (100, 27)])
def test_as_many_images_are_shown_as_are_asked_for(finished_run: Run, tmp_path: Path, top: int, number: int) -> None:
    page = Page(finished_run.report(tmp_path / "page.html", top))
    assert len(page.all("img")) == number


def test_a_page_without_images_has_no_sections_of_them(finished_run: Run, tmp_path: Path) -> None:
    page = Page(finished_run.report(tmp_path / "page.html", top=0))
    sections = {section["id"] for section in page.all("section")}
    assert not {"losses", "uncertain"} & sections
    assert {link["href"] for link in page.all("a")} == {f"#{name}" for name in sections}


def test_names_are_text_never_markup(tmp_path: Path) -> None:
    page = Page(make_awkward_run(tmp_path).folder / "report.html")  # by report=true
    assert all(name in page.text for name in AWKWARD)
    assert "<b>bold" not in page.source
    titles = [cell["title"] for cell in page.all("th") if cell.get("title")]
    assert titles.count(AWKWARD[0]) == 2
    assert "The run was started from Python." in page.text
    assert len(page.all("td")) > 37 * 37
    top_5 = Run(tmp_path / "run").summary["val"]["top5_acc"]
    assert f"top-5 accuracy {100 * top_5:.1f} %" in page.text


def test_a_resumed_run_is_said_to_be_one(copy: Run) -> None:
    config, summary = copy.folder / "config.yaml", copy.summary
    config.write_text(config.read_text().replace("resume: null", f"resume: {copy.folder}"))
    copy.summary_json.write_text(json.dumps(summary | {"command": "python train.py seed=1"}))
    page = Page(copy.report())
    assert "The run was resumed. This command trains it in one go" in page.text
    assert "This command makes the run again" not in page.text
    assert "<code>resume</code>" not in page.source


# ---- what may be gone


def test_without_the_images_the_report_says_so(copy: Run, tmp_path: Path) -> None:
    config = (copy.folder / "config.yaml").read_text()
    root = copy.config["dataset"]["root"]
    (copy.folder / "config.yaml").write_text(config.replace(root, str(tmp_path / "gone")))
    kept = copy.folder / "report.html"
    kept.write_text("the images")
    with pytest.raises(
        ThawError, match=r"report\.html would lose its images: the data is not at \S*gone\. Go where .* --out FILE\.$"
    ):
        copy.report()
    assert kept.read_text() == "the images"
    page = Page(copy.report(tmp_path / "other.html"))
    assert f"The data is not at {tmp_path / 'gone'}" in page.text
    assert "image not there" in page.text
    assert not page.all("img")
    assert f"{100 * copy.summary['val']['acc']:.1f} %" in page.text


def test_changed_data_is_told(copy: Run, image_folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(image_folder, images)
    shutil.copy(images / "train" / "red" / "0.png", images / "val" / "red" / "copy.png")
    config = (copy.folder / "config.yaml").read_text()
    (copy.folder / "config.yaml").write_text(config.replace(copy.config["dataset"]["root"], str(images)))
    page = Page(copy.report())
    assert "The files have changed since the training." in page.text
    assert "The check found what may be mistakes" in page.text
    assert "train/red/0.png = val/red/copy.png" in page.text
    shutil.rmtree(images / "train")
    assert "The data cannot be read any more" in Page(copy.report()).text


def test_without_the_checkpoint_there_are_no_pictures(copy: Run) -> None:
    copy.best.unlink()
    page = Page(copy.report())
    assert "best.ckpt" in page.text
    assert not page.all("img")


@pytest.mark.parametrize("lost", ["summary.json", "metrics.csv", "predictions.csv", "config.yaml"])
def test_an_unfinished_run_has_no_report(copy: Run, lost: str) -> None:
    (copy.folder / lost).unlink()
    with pytest.raises(ThawError, match=lost):
        copy.report()
    assert not (copy.folder / "report.html").exists()


def test_a_place_that_cannot_be_written_is_named(finished_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ThawError, match=r"The report cannot be written to .*nowhere/page\.html: No such file"):
        finished_run.report(tmp_path / "nowhere" / "page.html", top=0)


def test_a_probe_alone_has_no_curves(copy: Run) -> None:
    summary = copy.summary | {"epochs": 0, "best_epoch": 0, "probe": copy.summary["val"]}
    copy.write_summary(summary)
    copy.metrics_csv.unlink()
    page = Page(copy.report())
    assert "Nothing was trained: this is the probe" in page.text
    assert "#learning" not in {link["href"] for link in page.all("a")}


# ---- its words and tables


def make_predictions(labels: list[int], predicted: list[int]) -> Predictions:
    logits = torch.eye(3)[predicted]
    return Predictions([f"{number}.png" for number in range(len(labels))], torch.tensor(labels), logits, "abc")


def make_summary(**changes: Any) -> dict[str, Any]:
    figures = {"acc": 0.75, "acc_ci95": [0.5, 0.9], "n": 4}
    summary = {"val": figures, "last": figures | {"acc": 0.5}, "test": None, "best_epoch": 2, "epochs": 3}
    return summary | {"epoch_chosen_on": "val", "probe": None} | changes


def test_what_the_epoch_was_chosen_on_is_said() -> None:
    predictions = make_predictions([0, 0, 0, 1], [0, 0, 1, 1])
    figures = make_summary()["val"]
    on_val = " ".join(judgement(make_summary(), predictions, is_chosen=True))
    on_test = " ".join(judgement(make_summary(epoch_chosen_on="test"), predictions, is_chosen=True))
    tested = " ".join(judgement(make_summary(test=figures | {"acc": 0.25}), predictions, is_chosen=True))
    probed = " ".join(judgement(make_summary(probe=figures), predictions, is_chosen=True))
    assert "Epoch 2 of 3 was chosen on these same images: expect a little less" in on_val
    assert "The last epoch, which nobody chose, reaches 50.0" in on_val
    in_the_end = " ".join(judgement(make_summary(best_epoch=3), predictions, is_chosen=True))
    assert "Epoch 3 of 3, the last, was chosen on these same images: expect a little less" in in_the_end
    assert "nobody chose" not in in_the_end
    alone = " ".join(judgement(make_summary(best_epoch=3), predictions, is_chosen=False))
    assert "Epoch 3 of 3 is the only one that was validated: none was chosen." in alone
    assert "chosen on these same images, the test images, for want of others" in on_test
    assert "was chosen on val (75.0" in tested
    assert "played no part in the training" in tested
    assert "Always answering “a” would reach 75.0" in on_val
    assert "A logistic regression on the frozen features alone reaches 75.0" in probed
    assert "logistic" not in on_val


def test_pairs_confused_once_are_left_out_where_there_are_others() -> None:
    often = make_predictions([0, 0, 0, 0, 1, 2], [1, 1, 0, 0, 2, 2])
    assert most_confused(often) == [("a", "b", 2, 0.5)]
    once = make_predictions([0, 0, 1, 2], [1, 0, 2, 2])
    assert most_confused(once) == [("a", "b", 1, 0.5), ("b", "c", 1, 1.0)]


def test_classes_without_a_score_come_last() -> None:
    names = [score.name for score, _ in weakest_first(make_predictions([0, 0, 1], [0, 1, 1]), None)]
    assert set(names[:2]) == {"a", "b"}
    assert names[2] == "c"


def test_a_class_has_its_own_number_of_training_images_whatever_has_come_since() -> None:
    labels = {"a": 0, "aa": 1, "b": 2, "c": 3}
    train = [Sample(Path(f"{name}{n}.png"), label) for n, (name, label) in enumerate(labels.items()) for _ in range(n)]
    index = ImageIndex(Path(), tuple(labels), {"train": train}, "val", {}, ())
    rows = weakest_first(make_predictions([0, 1, 2], [0, 1, 2]), index)
    assert {score.name: number for score, number in rows} == {"a": 0, "b": 2, "c": 3}


def test_an_undefined_share_is_a_dash() -> None:
    assert percent(float("nan")) == "–"
    assert percent(0.12345, 2) == "12.35\N{NO-BREAK SPACE}%" or percent(0.12345, 2) == "12.34\N{NO-BREAK SPACE}%"


# ---- in a real browser


def open_page(chromium: Chrome, path: Path) -> None:
    """Open a page and wait for the whole of it, which `get` alone has been seen not to do."""
    chromium.get(path.as_uri())
    WebDriverWait(chromium, 20).until(lambda chrome: chrome.execute_script("return document.readyState") == "complete")


@pytest.mark.slow
@pytest.mark.parametrize("make_run", [lambda run, folder: run, lambda run, folder: make_awkward_run(folder)])
def test_it_looks_right_in_chromium(
    chromium: Chrome, finished_run: Run, tmp_path: Path, make_run: Callable[[Run, Path], Run]
) -> None:
    path = make_run(finished_run, tmp_path).report(tmp_path / "page.html")
    for width in (390, 1440):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        open_page(chromium, path)
        images, broken, wide, small = chromium.execute_script(
            """
            const text = [...document.querySelectorAll("svg text")].map(x => x.getBoundingClientRect().height);
            return [document.images.length, [...document.images].filter(x => !x.naturalWidth).length,
                    document.documentElement.scrollWidth, Math.min(...text)];
            """
        )
        assert images >= 27
        assert broken == 0
        assert wide <= width
        assert small >= 9  # pixels
        assert chromium.get_log("browser") == []


@pytest.mark.slow
def test_names_in_chinese_are_turned_like_others(chromium: Chrome, finished_run: Run, tmp_path: Path) -> None:
    open_page(chromium, finished_run.report(tmp_path / "page.html"))
    turned, level = chromium.execute_script(
        """
        const table = document.querySelector(".matrix"), name = table.querySelector("thead th span");
        name.textContent = "蚂蚁蜜蜂";
        const level = name.getBoundingClientRect().width;
        table.classList.remove("level");
        return [name.getBoundingClientRect().height, level];
        """
    )
    assert turned == pytest.approx(level, abs=1)  # upright, and so upside down, each letter would be a line high
