"""A real RabbitMQ for the demo and the tests: a private node of the installed server, or a container.

Each is a context manager that starts a broker of its own and takes all of it away again; several run side by side.
"""

import base64
import contextlib
import http.client
import importlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from worker.errors import TsmWorkerError

IMAGE = "rabbitmq:4-management"

_START_SECONDS = 120.0  # 7 to 17 s on two idle cores; a busy machine takes a multiple
_STOP_SECONDS = 60.0
_REQUEST_SECONDS = 30.0
_PING_SECONDS = 3
_PULL_SECONDS = 60.0
_LOG_LINES = 20

# The management API's counts follow within about 1 s instead of 5: three clocks work one after the other.
_SETTINGS = """\
collect_statistics_interval = 1000
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.detailed.minute = 1
"""
_ERL_ARGS = "-rabbit quorum_tick_interval 1000"


class BrokerError(TsmWorkerError):
    """No broker could be had, or it did not do what was asked."""

    exit_code = 75


class ManagementError(BrokerError):
    """The management API answered with an error; `status` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Broker(ABC):
    """A running RabbitMQ that is ours alone; the face that every provider has."""

    host = "127.0.0.1"
    username = "guest"
    password = "guest"  # noqa: S105 -- RabbitMQ's own default, of a broker that only this machine reaches

    def __init__(self) -> None:
        self.port, self.management_port = _free_ports(2)

    def __enter__(self) -> Self:
        """Start it and wait until it serves clients; whatever goes wrong on the way leaves nothing behind."""
        try:
            self._open()
            self._wait_until_ready()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def url(self) -> str:
        """The AMQP address of the default vhost, with an administrator's name and password."""
        return self._url(self.username, self.password, "/")

    @property
    def management_url(self) -> str:
        """Where the management plugin listens."""
        return f"http://{self.host}:{self.management_port}"

    @property
    def version(self) -> str:
        """RabbitMQ's version, as `3.10.8`."""
        return str(self.management("GET", "overview")["rabbitmq_version"])

    @property
    @abstractmethod
    def log(self) -> Path:
        """A file with what the broker has logged so far."""

    def vhost(self, name: str) -> str:
        """Create a fresh vhost (an older one of that name goes) and return its AMQP address."""
        self.delete_vhost(name)
        self.management("PUT", f"vhosts/{quote(name, safe='')}")
        self.permit(self.username, name)
        return self._url(self.username, self.password, name)

    def delete_vhost(self, name: str) -> None:
        """Remove a vhost with all that is in it; one that is not there is no error."""
        try:
            self.management("DELETE", f"vhosts/{quote(name, safe='')}")
        except ManagementError as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise

    def user(
        self, name: str, password: str, vhost: str, configure: str = "", write: str = "", read: str = ""
    ) -> str:
        """Create an account with these permissions (patterns; empty permits nothing); return its AMQP address."""
        self.management("PUT", f"users/{quote(name, safe='')}", {"password": password, "tags": ""})
        self.permit(name, vhost, configure, write, read)
        return self._url(name, password, vhost)

    def permit(
        self, name: str, vhost: str, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """Set what an account may do in a vhost."""
        path = f"permissions/{quote(vhost, safe='')}/{quote(name, safe='')}"
        self.management("PUT", path, {"configure": configure, "write": write, "read": read})

    def queue(self, vhost: str, name: str) -> dict[str, Any]:
        """Return what the management API tells about a queue: messages_ready, messages_unacknowledged and more."""
        answer = self.management("GET", f"queues/{quote(vhost, safe='')}/{quote(name, safe='')}")
        return dict(answer)

    def management(self, method: str, path: str, body: object = None) -> Any:
        """Ask the management API (`path` is what follows `/api/`) and return its JSON, or None if it has none."""
        target = "/api/" + path.removeprefix("/api/").lstrip("/")
        account = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {account}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self.host, self.management_port, timeout=_REQUEST_SECONDS)
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BrokerError(
                f"{method} {target} at {self.management_url}: no answer from RabbitMQ's management ({error!r})"
            ) from error
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            detail = content.decode(errors="replace")
            raise ManagementError(
                response.status, f"RabbitMQ answered {response.status} to {method} {target}: {detail}"
            )
        return json.loads(content) if content else None

    def stop(self) -> None:
        """Shut the broker down in order; what is durable stays for `start`."""
        self._stop()

    def start(self) -> None:
        """Start it again at the same address, with what it had; returns when it serves clients."""
        self._start()
        self._wait_until_ready()

    def restart(self) -> None:
        """Stop in order and start again."""
        self.stop()
        self.start()

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL, as a crash would."""

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _stop(self) -> None: ...

    @abstractmethod
    def _running(self) -> bool: ...

    def _url(self, name: str, password: str, vhost: str) -> str:
        account = f"{quote(name, safe='')}:{quote(password, safe='')}"
        return f"amqp://{account}@{self.host}:{self.port}/{quote(vhost, safe='')}"

    def _ready(self) -> bool:
        try:
            self.management("GET", "overview")
            with socket.create_connection((self.host, self.port), timeout=_REQUEST_SECONDS):
                return True
        except (BrokerError, OSError):
            return False

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if not self._running():
                raise BrokerError(f"RabbitMQ ended while it started. Its log ends with:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"RabbitMQ is not up after {_START_SECONDS:.0f} s. Its log ends with:\n{self._log_tail()}"
                )
            time.sleep(0.1)

    def _log_tail(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError as error:
            return f"(no log: {error})"
        # After its own last word on why it does not start come a hundred lines of Erlang.
        end = lines.index("BOOT FAILED") + 3 if "BOOT FAILED" in lines else len(lines)
        return "\n".join(lines[max(0, end - _LOG_LINES) : end])


class _Guard:
    """A shell that takes our things away when we end without having done so ourselves, by kill -9 even.

    It reads what we tell it until its stdin closes, as it does at our end. Its own session keeps Ctrl-C from it.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        self._shell = subprocess.Popen(
            ["sh", "-c", script, "tsm-worker-guard", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def tell(self, *words: object) -> None:
        if self._shell.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # nobody guards any more, so nobody needs telling
                self._shell.stdin.write((" ".join(map(str, words)) + "\n").encode())
                self._shell.stdin.flush()

    def dismiss(self) -> None:
        """All is taken away; the guard may go."""
        self.tell("done")
        self._shell.communicate()


_GUARD_NODE = """
node='' epmd=''
while read -r name pid; do
    case $name in
        node) node=$pid ;;
        epmd) epmd=$pid ;;
        done) exit 0 ;;
    esac
done
for pid in $node $epmd; do kill -s KILL -- "-$pid"; done
tries=0
while [ "$tries" -lt 50 ] && [ -n "$node" ] && kill -0 "$node"; do sleep 0.1; tries=$((tries + 1)); done
rm -rf -- "$1"
"""

_GUARD_CONTAINER = """
read -r word || { docker rm --force --volumes "$1"; rm -rf -- "$2"; }
"""

# The mounts are seen by the node alone and go with it.
_IN_ROOT = 'mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"'


class PrivateNode(Broker):
    """The installed rabbitmq-server as a node of our own: own ports, own directory, nothing system-wide.

    `root` names a folder with another Linux (by debootstrap) whose RabbitMQ is run, in a chroot. `config` is
    added to rabbitmq.conf and `advanced` is advanced.config. A `directory` that is given is kept at the end.
    """

    def __init__(
        self,
        directory: Path | None = None,
        root: Path | None = None,
        config: str = "",
        advanced: str = "[].",
    ) -> None:
        super().__init__()
        self._root = root
        self._config = config
        self._advanced = advanced
        self._given = directory
        self._directory = Path()
        self._dist_port, self._epmd_port = _free_ports(2)
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self._guard: _Guard | None = None

    @staticmethod
    def obstacle(root: Path | None = None) -> str | None:
        """Return what is missing to run one, in one line; None if nothing is."""
        if root is None:
            if _server() is None:
                return "no rabbitmq-server is installed (Debian, Ubuntu: apt-get install rabbitmq-server)"
        elif not (root / "usr/lib/rabbitmq/bin/rabbitmq-server").exists():
            return f"{root} has no rabbitmq-server (sh deploy/test.sh --all makes such a folder)"
        elif os.geteuid() != 0:
            return f"only root can run the RabbitMQ in {root}"
        return None

    @property
    def directory(self) -> Path:
        """Where all its files are."""
        return self._directory

    @property
    def log(self) -> Path:
        """What the node and its start wrote."""
        return self._directory / "rabbitmq.log"

    @property
    def pid(self) -> int:
        """The node's process id."""
        if self._node is None:
            raise BrokerError("the private RabbitMQ is not running")
        return self._node.pid

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._end(self._node)
        self._set_node(None)

    def _open(self) -> None:
        obstacle = self.obstacle(self._root)
        if obstacle:
            raise BrokerError(obstacle)
        inside = None if self._root is None else self._root / "tmp"
        self._directory = self._given or Path(tempfile.mkdtemp(prefix="tsm-worker-rabbitmq-", dir=inside))
        self._directory.mkdir(parents=True, exist_ok=True)
        self._guard = _Guard(_GUARD_NODE, "" if self._given else str(self._directory))
        self._write("rabbitmq.conf", self._settings())
        self._write("inetrc", '{lookup, [file, native]}.\n{host, {127,0,0,1}, ["localhost"]}.\n')
        self._write("advanced.config", self._advanced + "\n")
        self._write("enabled_plugins", "[rabbitmq_management].\n")
        self._epmd = self._popen(["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"])
        self._guard.tell("epmd", self._epmd.pid)
        self._start()

    def _close(self) -> None:
        self._end(self._node)
        self._end(self._epmd)
        self._node = self._epmd = None
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        if self._given is None and self._directory != Path():
            shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self) -> None:
        if self._node is not None:
            raise BrokerError("the private RabbitMQ is already running")
        server = _server() if self._root is None else Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        self._set_node(self._popen([str(server)]))

    def _stop(self) -> None:
        node = self._node
        if node is not None:
            node.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(_STOP_SECONDS)
            self._end(node)
            self._set_node(None)

    def _running(self) -> bool:
        return self._node is not None and self._node.poll() is None

    def _set_node(self, node: subprocess.Popen[bytes] | None) -> None:
        self._node = node
        if self._guard is not None:
            self._guard.tell("node", "" if node is None else node.pid)

    @staticmethod
    def _end(process: subprocess.Popen[bytes] | None) -> None:
        """End a process and its helpers, which share its group."""
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _popen(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """Start a command of RabbitMQ's, in the other root if there is one, as leader of its own session."""
        settings = self._environment()
        if self._root is not None:
            chroot = ["unshare", "--mount", "--", "sh", "-c", _IN_ROOT, str(self._root)]
            command = [
                *chroot,
                "env",
                "-i",
                *(f"{name}={value}" for name, value in settings.items()),
                *command,
            ]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=settings,
                start_new_session=True,
            )

    def _write(self, name: str, text: str) -> None:
        (self._directory / name).write_text(text)

    def _settings(self) -> str:
        return f"""\
listeners.tcp.local = {self.host}:{self.port}
management.tcp.ip = {self.host}
management.tcp.port = {self.management_port}
{_SETTINGS}{self._config}
"""

    def _environment(self) -> dict[str, str]:
        home = self._directory
        if self._root is not None:
            home = Path("/") / home.relative_to(self._root)
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(home),  # Erlang keeps its cookie there, so that no other node is let in
            "ERL_CRASH_DUMP_BYTES": "0",
            "ERL_INETRC": str(
                home / "inetrc"
            ),  # a bare container may have no /etc/hosts that tells of localhost
            "ERL_EPMD_ADDRESS": self.host,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"tsm-worker-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(home / "rabbitmq.pid"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq"),
            "RABBITMQ_CONFIG_FILES": str(home / "none.d/*.conf"),  # else it reads /etc/rabbitmq/conf.d
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_ERL_ARGS} -kernel inet_dist_use_interface {{127,0,0,1}}",
            # Makes the start script become the node instead of watching it, so that signals reach the node itself.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


class DockerBroker(Broker):
    """RabbitMQ in a container, by testcontainers; needs a Docker daemon and the image of `IMAGE`."""

    def __init__(self, config: str = "", advanced: str = "[].") -> None:
        super().__init__()
        self._config = config
        self._advanced = advanced
        self._container: Any = None
        self._guard: _Guard | None = None
        self._directory = Path()

    @staticmethod
    def obstacle(pull_seconds: float = _PULL_SECONDS) -> str | None:
        """Return what is missing to run one, in one line; None if nothing is. May pull the image."""
        if not _docker_listens():
            return "no Docker daemon answers"
        try:
            docker = importlib.import_module(
                "docker"
            )  # comes with testcontainers; read only where it is needed
        except ImportError:
            return "the Python package testcontainers is not installed"
        try:
            with contextlib.closing(docker.from_env(timeout=_PING_SECONDS)) as client:
                client.ping()
                _pull(client, pull_seconds)
        except (docker.errors.DockerException, OSError, TimeoutError) as error:
            return f"no Docker daemon with the image {IMAGE}: {str(error).splitlines()[0]}"
        return None

    @property
    def log(self) -> Path:
        """The container's output, fetched when asked for."""
        path = self._directory / "rabbitmq.log"
        if self._container is not None:
            path.write_bytes(b"".join(self._container.get_logs()))
        return path

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._container.get_wrapped_container().kill("SIGKILL")

    def _open(self) -> None:
        obstacle = self.obstacle()
        if obstacle:
            raise BrokerError(obstacle)
        # Its reaper is a second image to pull, for what our own __exit__ does.
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it warns of a decorator that it uses itself
            rabbitmq = importlib.import_module("testcontainers.community.rabbitmq")

        self._directory = Path(tempfile.mkdtemp(prefix="tsm-worker-rabbitmq-"))
        container = rabbitmq.RabbitMqContainer(IMAGE)
        container.readiness_probe = (
            bool  # it tries pika once a second, which complains each time; we wait ourselves
        )
        docker = container.get_docker_client()
        here = docker.get_connection_mode().value == "docker_host" and docker.host() in {
            "localhost",
            self.host,
        }
        # Fixed ports: those that Docker chooses change when a container is started again.
        for inside, outside in ((5672, self.port), (15672, self.management_port)):
            container.ports[str(inside)] = (self.host if here else "", outside)
        container.with_env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", _ERL_ARGS)
        for name, text in (
            ("conf.d/90-tsm-worker.conf", _SETTINGS + self._config),
            ("advanced.config", self._advanced),
        ):
            path = self._directory / Path(name).name
            path.write_text(text + "\n")
            container.with_volume_mapping(path, f"/etc/rabbitmq/{name}")
        self._container = container
        container.with_name(f"tsm-worker-rabbitmq-{self.port}")
        self._guard = _Guard(_GUARD_CONTAINER, f"tsm-worker-rabbitmq-{self.port}", str(self._directory))
        container.start()
        if not here:
            self.host = container.get_container_host_ip()
            self.port = container.get_exposed_port(5672)
            self.management_port = container.get_exposed_port(15672)

    def _close(self) -> None:
        if self._container is not None:
            self._container.stop()
            self._container = None
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        if self._directory != Path():
            shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self) -> None:
        self._container.get_wrapped_container().start()

    def _stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=int(_STOP_SECONDS))

    def _running(self) -> bool:
        container = self._container.get_wrapped_container()
        container.reload()
        return bool(container.status == "running")


def obstacle(kind: str) -> str | None:
    """Return what is missing for a broker of this kind (`docker`, `private`, `private:ROOT`), or None."""
    if kind == "docker":
        return DockerBroker.obstacle()
    if kind == "private":
        return PrivateNode.obstacle()
    if kind.startswith("private:"):
        return PrivateNode.obstacle(Path(kind.removeprefix("private:")))
    return f"{kind!r} is no kind of broker: auto, docker, private or private:FOLDER"


def available(kind: str) -> bool:
    """Whether a broker of this kind can be had on this machine."""
    return obstacle(kind) is None


def choose(kind: str = "auto") -> str:
    """Return the kind to use: for `auto`, docker if it can be had, else private.

    Raises BrokerError with one line that says what to install.
    """
    if kind != "auto":
        problem = obstacle(kind)
        if problem:
            raise BrokerError(problem)
        return kind
    if available("docker"):
        return "docker"
    problem = obstacle("private")
    if problem:
        raise BrokerError(f"no RabbitMQ to be had: no Docker daemon answers and {problem}")
    return "private"


def open_broker(kind: str = "auto", config: str = "", advanced: str = "[].") -> Broker:
    """Return a broker of the kind that `choose` gives, to be used in a `with`."""
    chosen = choose(kind)
    if chosen == "docker":
        return DockerBroker(config, advanced)
    root = chosen.removeprefix("private").removeprefix(":")
    return PrivateNode(root=Path(root) if root else None, config=config, advanced=advanced)


def _server() -> Path | None:
    """Return the start script itself: Debian's command on the PATH is a wrapper that switches the account."""
    packaged = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if packaged.exists():
        return packaged
    found = shutil.which("rabbitmq-server")
    return Path(found) if found else None


def _docker_listens() -> bool:
    """Whether somebody listens where the Docker daemon would; asked first, since the Docker library is slow to say no."""
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not address.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(address.removeprefix("unix://")) == 0


def _pull(client: Any, seconds: float) -> None:
    """Make sure of the image; TimeoutError if pulling it takes longer than this."""
    if client.images.list(IMAGE):
        return
    deadline = time.monotonic() + seconds
    repository, tag = IMAGE.split(":")
    for progress in client.api.pull(repository, tag, stream=True, decode=True):
        if "error" in progress:
            raise OSError(progress["error"])
        if time.monotonic() > deadline:
            raise TimeoutError(f"pulling it takes longer than {seconds:.0f} s")


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on.

    They lie below those that the kernel gives to outgoing connections: a client that tries again and again to
    reach a stopped broker would else, one day, be given the broker's own port and talk to itself.
    """
    ports: list[int] = []
    for port in _candidates():
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            break
    return ports


def _candidates() -> Iterator[int]:
    numbers = list(range(10_000, 32_000))
    random.SystemRandom().shuffle(numbers)
    return iter(numbers)
