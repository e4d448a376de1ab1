import pytest
import torch

from thaw.config import TrainerConfig
from thaw.training.precision import choose_precision


@pytest.mark.parametrize("accelerator", ["auto", "cpu", "gpu"])
@pytest.mark.parametrize("precision", ["32", "64", "bf16-mixed", "16-mixed"])
def test_a_precision_by_name_is_taken_as_it_is(precision: str, accelerator: str) -> None:
    assert choose_precision(TrainerConfig(precision=precision, accelerator=accelerator)) == precision


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({}, "32"),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "32"),
        ({"amx_bf16": True}, "bf16-mixed"),
        ({"avx512_bf16": True}, "bf16-mixed"),
    ],
)
@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
def test_a_cpu_gets_bf16_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, capabilities: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision(TrainerConfig(accelerator=accelerator)) == precision


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_a_gpu_gets_bf16_where_it_is_not_emulated(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, has_bf16: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or including_emulation)
    assert choose_precision(TrainerConfig(accelerator=accelerator)) == precision


def test_the_cpu_of_a_machine_with_a_gpu_is_judged_as_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert choose_precision(TrainerConfig(accelerator="cpu")) == "32"


@pytest.mark.parametrize("accelerator", ["auto", "mps"])
def test_apples_gpu_gets_32(monkeypatch: pytest.MonkeyPatch, accelerator: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_precision(TrainerConfig(accelerator=accelerator)) == "32"
