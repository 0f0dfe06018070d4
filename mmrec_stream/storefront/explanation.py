"""How the recommender works, in words that a shop may show its visitors (Digital Services Act, article 27)."""

from mmrec_stream.releases import Manifest
from mmrec_stream.storefront.api import Parameter, WhyAnswer
from mmrec_stream.storefront.modalities import ATTRIBUTES, BEHAVIOUR, PICTURE, TEXT, modality_of

_MODALITIES = {
    TEXT: "what is written about a product",
    PICTURE: "what it looks like",
    ATTRIBUTES: "its category, brand, price and tags",
    BEHAVIOUR: "what those who chose it chose besides",
}


def explanation(manifest: Manifest | None) -> WhyAnswer:
    """The main parameters, why some weigh more than others, and how to change them.

    Args:
        manifest: of the release that serves; its own weights are told where there is one.
    """
    parameters = [
        Parameter(
            name="own_behaviour",
            text="What you have lately looked at, put into the cart, bought and rated here: it is compared with what "
            "products look like and with what is said about them. The longer ago, the less it counts.",
            weight=_taste(manifest),
        ),
        Parameter(
            name="others_behaviour",
            text="What other shoppers chose after the products that you looked at last.",
            weight=None if manifest is None else 1 - (_taste(manifest) or 0.0),
        ),
        Parameter(
            name="going_together",
            text="Beside a product and your cart: what others look at in one go with it, or choose together with "
            "it, and what resembles it or goes with products of its kind.",
        ),
        Parameter(
            name="popularity",
            text="What is popular at the moment: it decides while nothing is known of you, and where you do not want "
            "personal recommendations.",
        ),
        Parameter(name="availability", text="What is sold out or was bought by you lately is left out."),
    ]
    for encoder, share in sorted((manifest.modality_weights if manifest else {}).items(), key=lambda pair: -pair[1]):
        name = modality_of(encoder)
        words = _MODALITIES.get(name, f"what {name} says of it")
        parameters.append(Parameter(name=f"product_{name}", text=f"How alike two products are: {words}.", weight=share))
    return WhyAnswer(
        text="Recommendations are ordered by how likely you are to choose a product next. Nobody pays for a place.",
        parameters=parameters,
        options=[
            Parameter(
                name="personalised=false",
                text="Recommendations that are the same for everybody, by popularity alone.",
            ),
            Parameter(
                name="consent",
                text="Without your consent nothing is remembered of what you do, and recommendations are the same for "
                "everybody.",
            ),
        ],
        release=manifest.version if manifest else "none",
    )


def _taste(manifest: Manifest | None) -> float | None:
    """The share of one's own taste for those of whom much is known."""
    return manifest.alpha[-1].alpha if manifest is not None and manifest.alpha else None
