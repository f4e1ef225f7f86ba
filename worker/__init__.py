"""tsm-worker: image backups of IBM Storage Protect (TSM) clients, asked for over RabbitMQ.

Read the rooms in the order a request walks through them: contract, volumes, dsmc, journal, broker, daemon.
"""

__version__ = "0.1.0"
