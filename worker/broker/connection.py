"""How to reach the broker: parameters, and pika's errors in this project's words."""

import ssl
from urllib.parse import unquote, urlsplit

import pika
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ChannelClosed,
    ChannelClosedByBroker,
    ConnectionClosed,
)

from worker import __version__, config
from worker.errors import TsmWorkerError

_BLOCKED_TIMEOUT = 60  # seconds a broker that is short of memory or disk may keep a publish waiting
_SOCKET_TIMEOUT = 10  # seconds for TCP, TLS and the AMQP handshake
_GLANCE = 5  # seconds for a look whether a broker is there
ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED = 403, 404, 406  # AMQP's reply codes


class BrokerUnreachable(TsmWorkerError):
    """The broker cannot be reached, or will not have this account."""

    exit_code = 75


class BrokerRefused(BrokerUnreachable):
    """The broker is there and will not do it: a right is missing, or the topology."""


def parameters(settings: config.Config) -> pika.ConnectionParameters:
    """Given the configuration, return pika's parameters. Raise ConfigError if they cannot be had."""
    url = urlsplit(config.broker_url(settings))
    tls = url.scheme == "amqps"
    return pika.ConnectionParameters(
        host=url.hostname or "localhost",
        port=url.port or (5671 if tls else 5672),
        virtual_host=unquote(url.path[1:]) or "/",
        credentials=pika.PlainCredentials(unquote(url.username or "guest"), unquote(url.password or "guest")),
        heartbeat=settings.broker.heartbeat,
        blocked_connection_timeout=_BLOCKED_TIMEOUT,
        socket_timeout=_SOCKET_TIMEOUT,
        stack_timeout=2 * _SOCKET_TIMEOUT,
        ssl_options=pika.SSLOptions(_tls(settings.broker), url.hostname) if tls else None,
        client_properties={
            "connection_name": f"tsm-worker {settings.host}",
            "product": "tsm-worker",
            "version": __version__,
        },
    )


def _tls(settings: config.Broker) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:
        raise config.ConfigError(
            f"broker.ca_file, cert_file or key_file cannot be used: {error}; they are PEM files this user can read"
        ) from error
    return context


def obstacle(parameters: pika.ConnectionParameters) -> str | None:
    """Connect and disconnect; return what is in the way in one line, None if nothing is."""
    parameters.socket_timeout = parameters.stack_timeout = _GLANCE
    try:
        pika.BlockingConnection(parameters).close()
    except (AMQPError, OSError) as error:
        return out_of_reach(parameters, error)
    return None


def out_of_reach(parameters: pika.ConnectionParameters, error: BaseException) -> str:
    """Return that the broker cannot be reached, where, and why."""
    return f"the broker is out of reach at {parameters.host}:{parameters.port}: {explain(error)}"


def will_be_back(error: ChannelClosedByBroker) -> bool:
    """Whether the broker speaks of a queue whose node is down: it says 404 of that, too."""
    return "down or inaccessible" in error.reply_text


def explain(error: BaseException | None) -> str:
    """Given what pika raised or reported, return it as one short line."""
    if isinstance(error, (ChannelClosed, ConnectionClosed)):
        return f"{error.reply_code} {error.reply_text}"
    # pika's failures to connect hold, by one or two steps, what the system or the broker said.
    inner = getattr(error, "exception", None)
    if isinstance(error, AMQPConnectionError) and error.args:
        inner = error.args[0]
        if isinstance(inner, (list, tuple)) and inner:
            inner = inner[-1]
    if isinstance(inner, BaseException):
        return explain(inner)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
