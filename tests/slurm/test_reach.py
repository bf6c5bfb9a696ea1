"""Where two nodes of a job meet, on this machine's loopback network."""

import runpy
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from conftest import ROOT
from mini_r1.program.problems import UserError

REACH: Mapping[str, Any] = runpy.run_path(str(ROOT / "slurm" / "reach.py"))
FOREIGN = "192.0.2.1"  # reserved for documentation: no machine has it


def test_two_nodes_meet_at_an_address_of_the_first() -> None:
    address = REACH["address_for"]("127.0.0.9")
    port = REACH["free_port"](address)
    listener = threading.Thread(target=REACH["listen"], args=(address, port))
    listener.start()
    assert REACH["connect"](address, port) == "127.0.0.1"
    listener.join(5)
    assert not listener.is_alive()


def test_free_ports_are_different_ones() -> None:
    ports = REACH["free_ports"](20)
    assert len(set(ports)) == 20


def test_who_is_not_there_is_said_with_the_fix() -> None:
    port = REACH["free_port"]("127.0.0.1")
    with pytest.raises(UserError, match=f"can't reach 127.0.0.1, port {port}: .*refused.* one network"):
        REACH["connect"]("127.0.0.1", port, seconds=0)


def test_a_name_that_nobody_knows_is_said() -> None:
    with pytest.raises(UserError, match=r"finds no way to the node no-such-node\.invalid"):
        REACH["address_for"]("no-such-node.invalid")


def test_another_machines_address_is_not_listened_at() -> None:
    with pytest.raises(UserError, match=f"waited in vain at {FOREIGN}"):
        REACH["listen"](FOREIGN, 8000)
