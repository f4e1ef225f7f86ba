"""All that knows pika: the connection, the topology, requests coming in, messages going out.

pika's errors are translated in here and nowhere else.
"""
