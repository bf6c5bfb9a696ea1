"""Where two nodes of a job meet: the address at which one can reach the other, tried before anything is loaded.

A node's own name may stand for 127.0.1.1 on that node (/etc/hosts of Debian and Ubuntu): a server that listens there
hears nobody else. So the address is that of the interface which leads to the other node.

python slurm/reach.py address PEER           prints this node's address for PEER, and a free port there
python slurm/reach.py listen ADDRESS PORT    waits for one connection
python slurm/reach.py connect ADDRESS PORT   makes it, and prints this node's address for that
python slurm/reach.py ports NUMBER           prints so many ports that are free on this node now
"""

import contextlib
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the mini_r1 beside this folder, installed or not

from mini_r1.program.failures import in_words
from mini_r1.program.problems import UserError

SECONDS = 120.0  # for the other node's step to start, which may have a container to unpack


def address_for(peer: str) -> str:
    """The address of this machine's interface that leads to another machine; nothing is sent."""
    try:
        places = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, place = min(places, key=lambda found: found[0] != socket.AF_INET)
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UserError(f"{socket.gethostname()} finds no way to the node {peer}: {error}") from error


def listen(address: str, port: int) -> None:
    """Wait for one connection.

    Raises:
        UserError: if this machine does not have the address, or nobody comes.
    """
    try:
        with socket.create_server((address, port), family=_family(address)) as server:
            server.settimeout(SECONDS)
            server.accept()[0].close()
    except OSError as error:
        raise UserError(f"{socket.gethostname()} waited in vain at {address}, port {port}: {error}") from error


def connect(address: str, port: int, seconds: float = SECONDS) -> str:
    """Connect to a machine that listens soon.

    Returns:
        this machine's own address for that.

    Raises:
        UserError: if it can't be reached.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((address, port), timeout=5) as connection:
                return str(connection.getsockname()[0])
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"{socket.gethostname()} can't reach {address}, port {port}: {error}. Ask for nodes of one network "
                    "(--constraint, --nodelist), or for the firewall between them to be opened"
                ) from error
        time.sleep(0.5)


def free_port(address: str) -> int:
    """A port that is free at an address now."""
    return free_ports(1, address)[0]


def free_ports(number: int, address: str = "") -> list[int]:
    """Different ports that are free now, at one address or on all interfaces."""
    with contextlib.ExitStack() as probes:
        servers = [socket.create_server((address, 0), family=_family(address)) for _ in range(number)]
        return [int(probes.enter_context(server).getsockname()[1]) for server in servers]


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def main() -> None:
    """Do as the command line says."""
    action, place, *port = sys.argv[1:]
    if action == "address":
        address = address_for(place)
        print(address, free_port(address))
    elif action == "ports":
        print(*free_ports(int(place)))
    elif action == "listen":
        listen(place, int(port[0]))
    else:
        print(connect(place, int(port[0])))


if __name__ == "__main__":
    with in_words():
        main()
