"""BatchNorm takes a single value, and in two processes gives what one gives for the images of both."""

import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thaw.model.backbone import Backbone
from thaw.model.batch_norm import BatchNorm, SharedBatchNorm, SyncBatchNorm
from thaw.model.head import Standardize

# What each process does with its share of the images; its loss depends on the statistics of all.
PROGRAM = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from thaw.model.batch_norm import share_statistics
from thaw.model.head import Standardize

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
results = {}
for name, case in torch.load(f"{folder}/cases.pt", weights_only=False).items():
    network, images = nn.Sequential(case["norm"]), case["images"][rank].requires_grad_()
    if not isinstance(case["norm"], Standardize):
        share_statistics(network, images.device)
    for _ in range(2):
        output = network(images)
    (output * case["factors"][rank]).sum().backward()
    results[name] = {
        "output": output.detach(),
        "gradient": images.grad,
        "gradients": [parameter.grad for parameter in network.parameters()],
        "state": dict(network[0].state_dict()),
    }
    if rank == 0:
        network.eval()(images)  # frozen layers wait for no one
torch.save(results, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@dataclass
class Case:
    """A layer in training mode, its images, what their outputs count in the loss, and each process's number of them."""

    norm: nn.BatchNorm1d | nn.BatchNorm2d
    images: Tensor
    factors: Tensor
    shares: tuple[int, int]


def make_case(norm: nn.BatchNorm1d | nn.BatchNorm2d, shape: tuple[int, ...], shares: tuple[int, int]) -> Case:
    generator = torch.Generator().manual_seed(0)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, generator=generator)
    images, factors = torch.randn(2, sum(shares), *shape, generator=generator, dtype=torch.double)
    return Case(norm.double().train(), 2 * images + 5, factors, shares)


CASES = {
    "images": make_case(nn.BatchNorm2d(3, eps=1e-3, momentum=0.2), (3, 4, 5), (6, 5)),
    "images of one": make_case(nn.BatchNorm2d(3), (3, 4, 5), (1, 0)),
    "a single value": make_case(BatchNorm(3), (3, 1, 1), (1, 0)),
    "head": make_case(Standardize(3), (3,), (16, 15)),
    "head, few": make_case(Standardize(3), (3,), (6, 5)),
    "head, few of one": make_case(Standardize(3), (3,), (6, 0)),
}
BF16_HEAD = Case(Standardize(3).train(), CASES["head"].images.bfloat16(), torch.ones(31, 3), (16, 15))
BF16 = Case(nn.BatchNorm2d(3, momentum=1), (CASES["images"].images + 100).bfloat16(), torch.ones(11, 3, 4, 5), (6, 5))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """What each of two processes gets for its share of every case, by name."""
    folder = tmp_path_factory.mktemp("batch_norm")
    cases = {
        name: {
            "norm": case.norm,
            "images": case.images.split(case.shares),
            "factors": case.factors.split(case.shares),
        }
        for name, case in {**CASES, "bf16": BF16, "bf16 head": BF16_HEAD}.items()
    }
    torch.save(cases, folder / "cases.pt")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", PROGRAM, str(folder), str(rank)], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(100) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 1, 2), (1, 3, 1, 1)])
def test_only_a_single_value_takes_the_running_statistics(shape: tuple[int, ...]) -> None:
    ours, torchs, images = BatchNorm(3), nn.BatchNorm2d(3), torch.randn(shape)
    for norm in (ours, torchs):
        norm(torch.arange(24.0).view(2, 3, 2, 2))
    if shape == (1, 3, 1, 1):
        torchs.eval()
    assert torch.equal(ours(images), torchs(images))
    torch.testing.assert_close(ours.state_dict(), torchs.state_dict(), rtol=0, atol=0)


def test_a_network_learns_from_a_single_small_image() -> None:
    backbone = Backbone("resnet18", 32)
    backbone(torch.randn(1, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in backbone.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_output_gradients_and_running_statistics_are_those_of_one_process(
    name: str, results: list[dict[str, dict[str, Any]]]
) -> None:
    first, second = (each[name] for each in results)
    norm, images = deepcopy(CASES[name].norm), CASES[name].images.clone().requires_grad_()
    for _ in range(2):
        output = norm(images)
    (output * CASES[name].factors).sum().backward()

    def assert_same(ours: object, theirs: object) -> None:
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)

    assert_same(torch.cat([first["output"], second["output"]]), output)
    assert_same(torch.cat([first["gradient"], second["gradient"]]), images.grad)
    for one, two, parameter in zip(first["gradients"], second["gradients"], norm.parameters(), strict=True):
        assert_same(one + two, parameter.grad)
    assert_same(first["state"], dict(norm.state_dict()))
    torch.testing.assert_close(first["state"], second["state"], rtol=0, atol=0)


@pytest.mark.slow
def test_statistics_are_in_float32_under_bf16(results: list[dict[str, dict[str, Any]]]) -> None:
    norm = deepcopy(BF16.norm)
    for _ in range(2):
        expected = norm(BF16.images.float())
    output = torch.cat([each["bf16"]["output"] for each in results])
    assert output.dtype == results[0]["bf16 head"]["output"].dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(results[0]["bf16"]["state"], dict(norm.state_dict()))


@pytest.mark.parametrize(("device", "kind"), [("cpu", SharedBatchNorm), ("cuda", SyncBatchNorm)])
def test_a_network_keeps_its_tensors_names_and_stages(device: str, kind: type[nn.Module]) -> None:
    backbone = Backbone("resnet18", 64)
    before, stages = backbone.state_dict(keep_vars=True), [list(stage.parameters()) for stage in backbone.stages]
    backbone.share_statistics(torch.device(device))
    after = backbone.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    for stage, parameters in zip(backbone.stages, stages, strict=True):
        assert list(map(id, stage.parameters())) == list(map(id, parameters))
    in_stages = [each for stage in backbone.stages for unit in stage.modules for each in unit.modules()]
    assert sum(type(each) is kind for each in in_stages) == 20
    assert not any(type(each) in (nn.BatchNorm2d, BatchNorm) for each in backbone.modules())


def test_a_gpu_without_images_shares_float32_as_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.dtype] = []
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda norm, images: given.append(images.dtype) or images)
    for number in (0, 1):
        SyncBatchNorm(2)(torch.zeros(number, 2, 3, 3, dtype=torch.bfloat16))
    assert given == [torch.float32, torch.bfloat16]
