"""What travels over Kafka: one module a contract, JSON on the wire, checked when it is read.

This is the ground floor: it imports nothing else of the project.
"""
