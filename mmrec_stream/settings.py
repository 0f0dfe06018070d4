"""Settings: every value the product can be told, read from `MMREC_*` variables and a `.env` file.

Secrets come from the environment alone and are never printed.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mmrec_stream.errors import UserError
from mmrec_stream.presets import SHOP, load_preset


class Settings(BaseSettings):
    """What can be set. The environment variable of a field is `MMREC_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="MMREC_", env_file=".env", extra="ignore", frozen=True)

    bootstrap: str = "127.0.0.1:9092"
    """Kafka's bootstrap servers, `host:port[,host:port…]`."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to talk to the brokers."""

    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """SASL mechanism, where the protocol is a SASL one."""

    sasl_username: str | None = None
    """SASL user."""

    sasl_password: SecretStr | None = None
    """SASL password."""

    ssl_ca: Path | None = None
    """Certificate authority file for TLS; the system's where unset."""

    prefix: str = "mmrec."
    """What the names of all our topics begin with."""

    app_id: str = "mmrec"
    """The workers' consumer group, and the beginning of the changelog's name."""

    behaviour_topics: Annotated[list[str], NoDecode] = []
    """Further topics with behaviour events of your own, comma-separated full names. They need as many partitions as
    ours, and events keyed by user id with murmur2 (`mmrec doctor` checks)."""

    partitions: Annotated[int, Field(ge=1, le=1024)] = 4
    """Partitions of the topics that `mmrec topics` creates: the most workers that can share the work."""

    replication: Annotated[int, Field(ge=1, le=9)] = 1
    """Replication factor of the topics that `mmrec topics` creates. Use 3 in production."""

    worker_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,200}$")] = ""
    """A name that stays the same when a worker is restarted, and is no other worker's (a pod's, say): the group keeps
    its partitions for it for 30 s, so that a restart moves none."""

    group_protocol: Literal["auto", "consumer", "classic"] = "auto"
    """Kafka's group protocol. `auto`: `consumer` (KIP-848) for workers without a name where the brokers offer it, else
    `classic`."""

    standbys: Annotated[int, Field(ge=0, le=8)] = 0
    """How many other workers keep each partition's profiles warm, so that one that takes it over reads the changelog's
    tail only. Each costs the memory of the profiles once more."""

    standbys_mb: Annotated[float, Field(gt=0)] = 2048.0
    """Memory of a worker for profiles that it keeps warm, 1.3 KB each; what does not fit is not kept."""

    preset: str = SHOP
    """What field this is, which says how much an event tells of a taste and how long that lasts, what replay calls an
    event, and defaults of other settings: `mmrec presets` lists them. A path that ends in `.toml` names one's own.
    The same for all workers and trainers of a prefix."""

    data_dir: Path = Path("var")
    """Where releases, logs and the play broker's data lie."""

    list_size: Annotated[int, Field(ge=1, le=200)] = 20
    """Items in a recommendation list."""

    image_folder: Path | None = None
    """Folder of products' pictures: a catalogue item's `image_url` that is a path, as `/img/lamp.jpg`, is read below it
    by workers and trainers. None are read where unset."""

    image_hosts: Annotated[list[str], NoDecode] = []
    """Hosts that products' pictures may be read from over HTTP(S), comma-separated: `cdn.example`, `cdn.example:8443`.
    Networks that are not public, as `10.0.0.0/8`, have to be listed too where hosts lie in them."""

    provider: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs. `auto` takes CUDA when a test run on it succeeds; `cuda` refuses to start without."""

    scoring_threads: Annotated[int, Field(ge=0, le=64)] = 1
    """Threads of one scoring run; 0 lets ONNX Runtime choose. A second one makes a run of 64 users over 10,000 items no
    faster and takes its core from folding; for a larger catalogue on more cores, measure."""

    retrieval: Literal["auto", "whole", "exact", "approximate"] = "auto"
    """How lists are made: `whole` scores every item, `exact` and `approximate` find candidates by an index first and
    rank those. `auto` scores the whole up to 100,000 items or on CUDA, and takes `exact` beyond."""

    score_batch: Annotated[int, Field(ge=1, le=4096)] = 128
    """Most users that are taken out of the line at once. The more there are, the better those with histories of like
    length are scored together (70 µs a user in 64, 65 in 128, 61 in 256), and the longer each waits for the others."""

    lists: bool = True
    """Whether the worker publishes recommendation lists; without, it only keeps profiles."""

    lists_max_age_s: Annotated[float, Field(ge=0)] = 60.0
    """A worker that is far behind makes no lists for events older than this: their users get one when it has caught
    up."""

    seen_days: Annotated[float, Field(ge=0)] = 30.0
    """How long what a user has looked at, clicked or rated stays out of their lists, as far as the profile remembers it
    (50 events). 0 where repeats are the point, as in music."""

    repurchase_days: Annotated[float, Field(ge=0)] = 30.0
    """How long a bought item stays out of its buyer's lists; 7 or less for groceries."""

    max_future_s: Annotated[float, Field(ge=0)] = 3600.0
    """How far an event time may lie ahead of the worker's clock: clocks disagree by seconds, a wrong time zone by
    an hour or more, and one event from next year would make a profile forget all that came before it."""

    max_event_bytes: Annotated[int, Field(ge=256)] = 65_536
    """Larger behaviour records go to the dead letters."""

    web_host: str = "127.0.0.1"
    """Where a worker serves health and metrics."""

    web_port: Annotated[int, Field(ge=0, le=65_535)] = 6066
    """Port of health and metrics; 0 takes a free one."""

    release_keys: str = ""
    """Public keys (ed25519, PEM), or the path of a file of them: one of them must have signed a release before it is
    loaded. Empty takes unsigned ones. `mmrec release new-key` makes a pair."""

    release_signing_key: SecretStr | None = None
    """The private key (ed25519, PEM), or the path of its file, that `mmrec release sign` and `mmrec train` sign with.
    Workers need none."""

    release_store: Annotated[str, Field(pattern=r"^(s3://[a-z0-9.-]+(/[^?#]*[^/?#])?/?)?$")] = ""
    """Where `mmrec train` and `mmrec release announce` put releases, and workers fetch them from: `s3://bucket/prefix`
    in any store that speaks S3. Empty: workers read them where the trainer has written them."""

    release_cache_mb: Annotated[float, Field(gt=0)] = 4096.0
    """What copies of releases out of a store may take on a worker's disk, in `MMREC_DATA_DIR/release-cache`."""

    storefront_host: str = "127.0.0.1"
    """Where `mmrec storefront` listens."""

    storefront_port: Annotated[int, Field(ge=0, le=65_535)] = 8070
    """Port of the storefront; 0 takes a free one."""

    storefront_keys: SecretStr | None = None
    """The keys that visitors' tokens are checked with: a JWK Set (RFC 7517) as JSON. `mmrec storefront --new-key` makes
    one. Several keys, told apart by `kid`, are what rotation is done with."""

    storefront_token_minutes: Annotated[float, Field(gt=0, le=1440)] = 30.0
    """The longest that a token may have to live; one that lasts longer is refused, as a stolen one would."""

    storefront_origins: Annotated[list[str], NoDecode] = []
    """Origins whose pages may call the storefront (CORS), comma-separated, as `https://shop.example`. The storefront's
    own origin always may."""

    storefront_gpc: bool = True
    """Whether `Sec-GPC: 1` (Global Privacy Control) counts as no consent."""

    storefront_currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "EUR"
    """Currency of the catalogue's prices, ISO 4217."""

    storefront_item_url: str = "/shop/item/{item_id}"
    """Address of a product's page; `{item_id}` stands for the id, percent-encoded."""

    storefront_lists_mb: Annotated[float, Field(gt=0)] = 256.0
    """Memory for users' newest lists. 256 MB hold some 150,000 lists of 20; the least recent ones make room."""

    storefront_streams: Annotated[int, Field(ge=1)] = 10_000
    """Most event streams open at a time, 20 KiB each; beyond, a widget is told to come back later."""

    storefront_streams_per_address: Annotated[int, Field(ge=1)] = 250
    """Most event streams that one address may hold open: an office behind one address has dozens."""

    storefront_rate: Annotated[float, Field(gt=0)] = 20.0
    """Requests a second that one user may make in the long run; ten seconds' worth may come at once."""

    storefront_address_rate: Annotated[float, Field(gt=0)] = 200.0
    """The same for one address, with or without a user."""

    storefront_proxies: Annotated[int, Field(ge=0, le=8)] = 0
    """Balancers in front whose `X-Forwarded-For` is believed, counted from here; 0 takes the peer's own address."""

    @field_validator("behaviour_topics", "storefront_origins", "image_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @property
    def releases_dir(self) -> Path:
        """Where releases are kept, one folder each."""
        return self.data_dir / "releases"


def load_settings(**overrides: object) -> Settings:
    """The settings from the environment, with `overrides` (those that are not None) on top.

    Raises:
        UserError: a value is wrong; names the variable. Or the preset is.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [f"MMREC_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        raise UserError("wrong setting: " + "; ".join(lines)) from None
    defaults = msgspec.structs.asdict(load_preset(settings.preset).defaults)
    return settings.model_copy(
        update={name: value for name, value in defaults.items() if name not in settings.model_fields_set}
    )
