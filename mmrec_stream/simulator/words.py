"""The words, colours and relations that the synthetic shop is made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """A leaf of the category tree."""

    name: str
    """Path in the tree, parts joined by dots."""
    nouns: tuple[str, ...]
    price: float
    """Median price."""
    materials: tuple[str, ...]
    complements: tuple[str, ...]
    """Categories that are bought along with it."""
    share: float
    """Share of the assortment, relative to the others."""


CATEGORIES: tuple[Category, ...] = (
    Category(
        "clothing.dresses",
        ("dress", "gown", "wrap dress"),
        59.0,
        ("cotton", "linen", "viscose", "silk"),
        ("bags.handbags", "shoes.boots"),
        1.4,
    ),
    Category(
        "clothing.shirts",
        ("shirt", "blouse", "tee"),
        29.0,
        ("cotton", "linen", "jersey", "silk"),
        ("clothing.jackets", "shoes.sneakers"),
        1.6,
    ),
    Category(
        "clothing.jackets",
        ("jacket", "coat", "blazer"),
        99.0,
        ("wool", "denim", "leather", "nylon"),
        ("shoes.boots", "clothing.shirts"),
        1.1,
    ),
    Category(
        "shoes.sneakers",
        ("sneakers", "trainers", "runners"),
        79.0,
        ("canvas", "leather", "mesh"),
        ("bags.backpacks", "sport.bottles"),
        1.3,
    ),
    Category(
        "shoes.boots",
        ("boots", "ankle boots", "chelsea boots"),
        119.0,
        ("leather", "suede", "rubber"),
        ("clothing.jackets", "bags.handbags"),
        0.9,
    ),
    Category(
        "bags.backpacks",
        ("backpack", "rucksack", "daypack"),
        69.0,
        ("canvas", "nylon", "leather"),
        ("sport.bottles", "shoes.sneakers"),
        0.8,
    ),
    Category(
        "bags.handbags",
        ("handbag", "tote", "shoulder bag"),
        89.0,
        ("leather", "suede", "canvas"),
        ("clothing.dresses", "shoes.boots"),
        0.9,
    ),
    Category(
        "home.lamps",
        ("lamp", "table lamp", "pendant light"),
        54.0,
        ("brass", "glass", "rattan", "steel"),
        ("home.cushions", "kitchen.mugs"),
        0.8,
    ),
    Category(
        "home.cushions",
        ("cushion", "pillow", "throw pillow"),
        24.0,
        ("cotton", "linen", "wool", "velvet"),
        ("home.lamps",),
        1.0,
    ),
    Category(
        "kitchen.mugs",
        ("mug", "cup", "tumbler"),
        14.0,
        ("stoneware", "porcelain", "glass", "steel"),
        ("kitchen.pans", "home.cushions"),
        1.0,
    ),
    Category(
        "kitchen.pans", ("pan", "skillet", "casserole"), 49.0, ("steel", "iron", "copper"), ("kitchen.mugs",), 0.6
    ),
    Category(
        "sport.bottles",
        ("bottle", "flask", "canteen"),
        22.0,
        ("steel", "glass", "tritan"),
        ("bags.backpacks", "shoes.sneakers"),
        0.7,
    ),
)

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (200, 40, 45),
    "orange": (232, 126, 38),
    "yellow": (236, 200, 52),
    "green": (58, 145, 72),
    "teal": (30, 142, 150),
    "blue": (45, 88, 190),
    "purple": (124, 66, 160),
    "pink": (226, 120, 168),
    "brown": (122, 80, 50),
    "black": (38, 38, 42),
}
"""Colour names with their sRGB values: far enough apart to be told from each other in a small JPEG."""

STYLES: dict[str, tuple[str, ...]] = {
    "minimal": ("minimal", "clean", "understated", "simple", "pared-back"),
    "rustic": ("rustic", "handmade", "country", "earthy", "cosy"),
    "sporty": ("sporty", "athletic", "dynamic", "lightweight", "active"),
    "elegant": ("elegant", "refined", "graceful", "polished", "classic"),
    "retro": ("retro", "vintage", "seventies", "nostalgic", "old-school"),
    "playful": ("playful", "quirky", "cheerful", "bold", "funny"),
}
"""Styles with the words that hint at them. Each has a pattern in pictures, in this order: see `pictures.PATTERNS`."""

USES: dict[str, tuple[str, ...]] = {
    "office": ("for the office", "for long working days", "made for meetings"),
    "travel": ("for travelling", "easy to pack", "made for the road"),
    "party": ("for evenings out", "made for parties", "for festive days"),
    "outdoor": ("for the outdoors", "ready for rain and wind", "made for the trail"),
    "home": ("for slow days at home", "made for quiet evenings", "for the living room"),
    "gift": ("a lovely gift", "comes gift-wrapped", "made for giving"),
}

FILLERS: tuple[str, ...] = (
    "Free returns within 30 days.",
    "Designed in our studio.",
    "A customer favourite.",
    "Limited numbers.",
    "Easy to care for.",
    "Made to last.",
    "New this season.",
)

BRANDS: tuple[str, ...] = (
    "Alder & Co",
    "Bellavita",
    "Northfold",
    "Kestrel",
    "Marlowe",
    "Oddment",
    "Pinewood",
    "Quillon",
    "Rivage",
    "Sablon",
    "Tandem",
    "Umbra Lane",
    "Velora",
    "Wrenfield",
    "Xanthe",
    "Yonder",
    "Zephyrine",
    "Brightside",
    "Copperline",
    "Driftwood",
    "Ember",
    "Fableton",
    "Grainhouse",
    "Halden",
)
