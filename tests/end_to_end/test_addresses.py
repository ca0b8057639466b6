"""One gateway on several addresses, the classic ports among them."""

import os
import socket

import pytest
import requests

from settings import CLASSIC_PORTS
from tests.end_to_end.running import ANSWER_SECONDS, free_port
from tests.processes import wait_for

#: An address of this machine that nobody else listens on, so that fixed ports are free there.
OWN_HOST = f"127.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}.1"


def ask(address):
    body = {"msg": "hello", "temperature": 0}
    return requests.post(f"http://{address}/chat", json=body, timeout=ANSWER_SECONDS).json()


def test_every_address_is_served_by_the_one_gateway(serve):
    others = [f"127.0.0.1:{free_port()}", f"{OWN_HOST}:{free_port()}"]
    server = serve("--listen", others[0], "--listen", others[1], "--gateways", "2").wait_ready()
    for address in (f"127.0.0.1:{server.port}", *others):
        answer = wait_for(lambda address=address: answer_at(address), ANSWER_SECONDS, server.output)
        assert answer == {"respond": "the quick brown fox"}
    assert len(server.workers) == 1


def test_the_classic_ports_are_served_beside_the_usual_one(run, folder):
    usual = free_port()
    flags = ("--host", OWN_HOST, "--port", str(usual), "--classic-ports")
    model = ("--name", "chatglm3", "--model", "scripted:hello", "--database", f"sqlite:///{folder}/none.db")
    server = run("serveapi.py", *flags, *model)
    for port in (usual, *CLASSIC_PORTS):
        answer = wait_for(
            lambda port=port: answer_at(f"{OWN_HOST}:{port}"), ANSWER_SECONDS, f"{port}: {server.output}"
        )
        assert answer == {"respond": "hello"}
    workers = requests.get(f"http://{OWN_HOST}:{usual}/workers", timeout=ANSWER_SECONDS).json()["workers"]
    assert [worker["model"]["name"] for worker in workers] == ["chatglm3"]
    assert server.stop() == 0


def answer_at(address):
    """Return the answer of a server that is there and has a worker, else nothing."""
    try:
        answer = ask(address)
    except requests.ConnectionError:
        return None
    return answer if "error" not in answer else None


@pytest.mark.parametrize("port", CLASSIC_PORTS)
def test_a_classic_port_that_is_taken_ends_with_one_line(run, port):
    with socket.create_server((OWN_HOST, port)):
        server = run("serveapi.py", "-H", OWN_HOST, "-P", str(free_port()), "--classic-ports")
        assert server.wait() == 1
    (line,) = server.output.splitlines()
    assert line == (
        f"serveapi: {OWN_HOST}:{port} is in use by another program: end that one, or choose another address"
    )
