"""The gateway between shop pages and Kafka: takes behaviour events in, hands recommendation lists out.

What decides is pure and has a module of its own (tokens, limits, events, shaping, joining); threads that follow topics
and the web application are thin shells around it. All state that requests see is changed on the event loop alone.
"""
