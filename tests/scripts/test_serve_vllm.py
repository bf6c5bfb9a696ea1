"""The server for other machines: an address at which they would not find it is refused before vLLM is loaded."""

import runpy
import socket
from collections.abc import Callable
from typing import Any

import pytest

from conftest import ROOT
from mini_r1.program.problems import UserError

Resolve = Callable[..., Any]


@pytest.fixture(scope="module")
def check_address() -> Callable[[str, int], None]:
    """The script's check, as it stands there."""
    check: Callable[[str, int], None] = runpy.run_path(str(ROOT / "scripts" / "serve_vllm.py"))["check_address"]
    return check


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_an_address_of_this_machine_is_taken(
    host: str, free_port: int, check_address: Callable[[str, int], None]
) -> None:
    """Loopback too, where it is asked for by that name."""
    check_address(host, free_port)


def test_a_name_that_stands_for_loopback_is_refused(
    free_port: int, check_address: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Debian and Ubuntu write a machine's own name into /etc/hosts."""
    resolve: Resolve = socket.getaddrinfo

    def by_hosts_file(host: str, *more: Any, **options: Any) -> Any:
        return resolve("127.0.1.1" if host == "node7" else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", by_hosts_file)
    with pytest.raises(UserError, match=r"--host node7 is 127\.0\.1\.1 on this machine .*hostname -I"):
        check_address("node7", free_port)


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.1", 8000), ("no-such-node.invalid", 8000), ("127.0.0.1", 70000), ("127.0.0.1", -1)]
)
def test_what_is_no_address_of_this_machine_or_no_port_is_refused(
    host: str, port: int, check_address: Callable[[str, int], None]
) -> None:
    with pytest.raises(UserError, match=f"the server can't listen at --host {host} --port {port}: .*free port"):
        check_address(host, port)


def test_a_port_that_is_taken_is_refused(check_address: Callable[[str, int], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match="Address already in use"):
            check_address("127.0.0.1", port)
