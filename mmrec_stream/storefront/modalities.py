"""What the encoders of a release look at, in words for people."""

TEXT, PICTURE, ATTRIBUTES, BEHAVIOUR = "text", "picture", "attributes", "behaviour"

_BY_ENCODER = {
    "lstm": TEXT,
    "sentence-transformers": TEXT,
    "cnn": PICTURE,
    "timm": PICTURE,
    "attributes": ATTRIBUTES,
    "id": BEHAVIOUR,
}


def modality_of(encoder: str) -> str:
    """What an encoder of a release looks at, in a word for people."""
    kind, _, column = encoder.partition(":")
    return _BY_ENCODER.get(kind, column or encoder)
