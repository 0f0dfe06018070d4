"""The start from content alone: what it teaches, and that what was learned stays as it is and is what is exported."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model_export.encoders import ID, CnnImage, LstmText, RawEncoder
from model_export.inputs import describe
from model_export.items import ContentEncoder
from model_export.pretext import begin, picture_views
from model_export.rounds import release_split
from model_export.training import fit, learn_from_content
from tests.tiny import TINY, tiny_dataset

CONFIG = replace(TINY, encoders=(ID, "lstm", "cnn"), pretext=2)


@pytest.mark.parametrize("name", ["lstm", "cnn"])
def test_an_item_comes_to_be_nearer_to_its_own_view_than_to_others(name: str) -> None:
    inputs = describe(tiny_dataset(), CONFIG)
    content = {key: torch.from_numpy(array) for key, array in inputs.content.feed().items()}
    torch.manual_seed(0)
    encoder: RawEncoder = LstmText(16, inputs.sizes["tokens"]) if name == "lstm" else CnnImage(16, 16)

    raw = content[encoder.inputs[0]]
    generator = torch.Generator().manual_seed(9)
    kept = torch.rand(raw.shape, generator=generator) > 0.5
    view = picture_views(raw, generator) if name == "cnn" else raw * kept

    def confusion() -> float:
        """How badly a view of an item is told to be of that item and no other, nats."""
        with torch.no_grad():
            one, other = (torch.nn.functional.normalize(encoder.trunk(each), dim=1) for each in (raw, view))
        cosines = 10 * other @ one.T
        return float(torch.nn.functional.cross_entropy(cosines, torch.arange(len(one))))

    before = confusion()
    begun = begin({name: encoder}, content, passes=40, seed=0)
    assert confusion() < before
    assert begun.seen[name].shape == (len(inputs.catalogue), encoder.width)


def test_views_are_pictures_of_the_same_thing() -> None:
    pictures = torch.from_numpy(describe(tiny_dataset(), CONFIG).content.images[:16])
    views = picture_views(pictures, torch.Generator().manual_seed(0))
    assert views.shape == pictures.shape
    assert views.min() >= 0
    assert views.max() <= 255
    assert (views.byte() != pictures).any()


def test_what_trunks_have_learned_stays_and_what_they_see_is_what_is_exported() -> None:
    dataset = tiny_dataset()
    begun = learn_from_content(CONFIG, describe(dataset, CONFIG))
    assert begun is not None
    model = fit(dataset, release_split(dataset), CONFIG)
    for name, encoder in zip(model.items.names, model.items.encoders, strict=False):
        for weight, values in encoder.state_dict().items():
            assert torch.equal(values, begun.trunks[name][weight]) != weight.startswith("project"), weight
    unknown = np.flatnonzero(~model.items.known.numpy())
    encode = ContentEncoder(model.items).eval()
    feed = model.inputs.content.feed()
    with torch.no_grad():
        vectors = encode(*(torch.from_numpy(feed[name][:20]) for name in encode.inputs))
        hidden = model.items.fusion(
            *(
                torch.cat([each, torch.zeros_like(each[:, :1])], 1)
                for each in model.items.encode(
                    {
                        **{name: torch.from_numpy(array) for name, array in feed.items()},
                        "tokens": begun.seen["lstm"],
                        "images": begun.seen["cnn"],
                    }
                )
            )
        )[:20]
    assert torch.allclose(vectors, hidden, atol=1e-5)
    assert np.allclose(model.vectors[unknown[unknown < 20]], vectors.numpy()[unknown[unknown < 20]], atol=1e-5)
