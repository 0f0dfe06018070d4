"""Kafka from the outside of the stream: clients, administration, bounded reading."""
