"""What the gateway counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """One registry a gateway, so that several in one process do not mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "mmrec_storefront_requests_total", "Requests answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "mmrec_storefront_request_seconds",
            "From a request's head to its answer; streams are left out.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.denied = Counter(
            "mmrec_storefront_denied_total", "Tokens and origins refused.", ["reason"], registry=registry
        )
        self.limited = Counter("mmrec_storefront_limited_total", "Requests told to wait.", ["by"], registry=registry)
        self.events = Counter(
            "mmrec_storefront_events_total", "Events by what became of them.", ["outcome"], registry=registry
        )
        self.lists_received = Counter(
            "mmrec_storefront_lists_received_total", "Lists read from the topic.", registry=registry
        )
        self.lists_pushed = Counter(
            "mmrec_storefront_lists_pushed_total", "Lists written to open streams.", registry=registry
        )
        self.lists_replaced = Counter(
            "mmrec_storefront_lists_replaced_total",
            "Lists that a newer one replaced before their reader took them.",
            registry=registry,
        )
        self.push_seconds = Histogram(
            "mmrec_storefront_push_seconds",
            "From a worker's publishing to the stream.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.served = Counter(
            "mmrec_storefront_lists_served_total", "Lists answered, by strategy.", ["strategy"], registry=registry
        )
        self.slow = Counter(
            "mmrec_storefront_slow_readers_total", "Connections cut whose reader did not read.", registry=registry
        )
        self.unreadable = Counter(
            "mmrec_storefront_unreadable_total", "Records that could not be used.", ["topic"], registry=registry
        )
        self.streams = Gauge("mmrec_storefront_streams", "Open event streams.", registry=registry)
        self.lists_held = Gauge("mmrec_storefront_lists_held", "Users whose list is in memory.", registry=registry)
        self.list_bytes = Gauge("mmrec_storefront_list_bytes", "Memory of those lists.", registry=registry)
        self.waiting = Gauge("mmrec_storefront_events_waiting", "Events not yet confirmed by Kafka.", registry=registry)
        self.products = Gauge("mmrec_storefront_products", "Products in the catalogue.", registry=registry)
