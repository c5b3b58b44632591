"""Isolated sessions: the outputs of a session, behind a wall that crashes, hangs and exhausted memory do not pass."""

import gc
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.cases.test_hostile import FILES, SCALAR_X, SCALAR_Y, node, sealed
from tests.runtime import reference
from tests.samples import conv_net, lstm, quantized

from attar._src.artifact.manifest import Port
from attar._src.artifact.writer import pack
from attar._src.core.errors import ArtifactError, DataError, UnknownName
from attar._src.runtime import isolated
from attar._src.runtime.channel import Channel, shared_memory
from attar._src.runtime.session import Session

pytestmark = pytest.mark.skipif(os.name != "posix", reason="isolated sessions need POSIX")


@pytest.fixture(scope="module")
def conv():
    with Session(pack(conv_net()), threads=1, isolated=True) as session:
        yield session


def process_of(session):
    return session._isolated._process


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_weights_are_packed_there_as_well():
    weight = quantized(np.random.default_rng(0), (256, 300))
    gemm = reference.node("Gemm", "x w", "y", transB=1)
    artifact = reference.file_of([gemm], {"w": weight}, x=("batch", 300), y=("batch", 256))
    with Session(artifact, threads=1, isolated=True, weights="packed") as walled:
        assert walled.dequantized == {}
        assert [layer.plan for layer in walled.layers] == ["packed weights"]


@pytest.mark.parametrize("make", [conv_net, lstm])
def test_all_is_as_in_process(make):
    data = pack(make())
    rng = np.random.default_rng(0)
    with Session(data, threads=1, isolated=True) as walled:
        plain = Session(data, threads=1)
        assert (walled.inputs, walled.outputs) == (plain.inputs, plain.outputs)
        assert walled.dequantized == plain.dequantized
        assert walled.layers == plain.layers
        assert walled.main_output == plain.main_output
        for batch in (1, 3, 2):
            feed = plain.example(batch)
            for name, array in feed.items():
                if array.dtype.kind == "f":
                    feed[name] = rng.normal(size=array.shape).astype(array.dtype)
            found, wanted = walled.run(feed), plain.run(feed)
            assert [*found] == [*wanted]
            for name, array in wanted.items():
                np.testing.assert_array_equal(found[name], array)
                assert found[name].dtype == array.dtype


def test_errors_are_those_of_a_session(conv):
    with pytest.raises(DataError, match="takes float32"):
        conv.run(np.zeros((1, 3, 8, 8)))
    with pytest.raises(DataError, match="empty axis"):
        Session(pack(lstm()), isolated=True).run({"tokens": np.zeros((0, 5), np.int64)})
    with pytest.raises(UnknownName):
        Session(pack(conv_net()), graph="other", isolated=True)
    with pytest.raises(ArtifactError, match=r"graph main, node .*empty axis"):
        Session(FILES["norm_no_space"][0]().seal(), isolated=True)


def test_a_crash_is_an_error_here():
    session = Session(pack(conv_net()), threads=1, isolated=True)
    os.kill(process_of(session).pid, signal.SIGSEGV)
    with pytest.raises(ArtifactError, match="broke the process that runs it: it was ended by SIGSEGV"):
        session.run(session.example())
    with pytest.raises(ArtifactError, match="is closed"):
        session.run(session.example())


def slow():
    """A file that multiplies (4000, 4000) matrices fifty times: minutes on one core."""
    nodes = [node("Mul", ["x", "k"], ["c0"])]
    nodes += [node("MatMul", [f"c{n}", f"c{n}"], [f"c{n + 1}"]) for n in range(50)]
    nodes += [node("ReduceSum", ["c50"], ["y"], keepdims=0)]
    port = {**SCALAR_X, "shape": [4000, 4000], "example": [4000, 4000]}
    return sealed(nodes, {"k": np.float32(0)}, (port,), ({**SCALAR_Y, "shape": []},)).seal()


def large():
    """A file that repeats its input 2^27 times, thrice."""
    nodes = [node("Expand", ["x", "s"], ["e"]), node("Exp", ["e"], ["f"]), node("Mul", ["e", "f"], ["g"])]
    nodes += [node("ReduceSum", ["g"], ["y"], keepdims=0)]
    return sealed(nodes, {"s": np.array([2**27])}, (SCALAR_X,), ({**SCALAR_Y, "shape": []},)).seal()


def test_a_hang_is_an_error_here():
    session = Session(slow(), threads=1, isolated=True, seconds=1.5)
    with pytest.raises(ArtifactError, match=r"it took more than 1.5 s"):
        session.run(session.example())
    assert not alive(process_of(session).pid)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not bound address spaces")
def test_a_lack_of_memory_is_an_error_here():
    session = Session(large(), threads=1, isolated=True, memory=1 << 30)
    with pytest.raises(ArtifactError, match=r"memory of its process is used up|broke the process"):
        session.run({"x": np.ones(1, np.float32)})


@pytest.mark.parametrize("end", ["close", "with", "garbage"])
def test_the_process_ends_with_the_session(end):
    session = Session(pack(conv_net()), threads=1, isolated=True)
    pid = process_of(session).pid
    if end == "close":
        session.close()
    elif end == "with":
        with session:
            pass
    del session
    gc.collect()
    assert not alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_has_bounds_and_no_secrets(conv, monkeypatch):
    status = Path(f"/proc/{process_of(conv).pid}")
    limits = {line[:25].strip(): line[26:].split() for line in (status / "limits").read_text().splitlines()}
    assert limits["Max address space"][:2] == [str(4 << 30)] * 2
    assert limits["Max core file size"][:2] == ["0", "0"]
    monkeypatch.setenv("TOKEN", "secret")
    with Session(pack(conv_net()), isolated=True) as session:
        assert b"secret" not in Path(f"/proc/{process_of(session).pid}/environ").read_bytes()


LIES = {
    "no JSON": (b"\x80\x04\x95", "JSON"),
    "a huge message": (None, "longer than"),
    "no shapes": ({}, "it sent no shapes"),
    "too few shapes": ({"shapes": []}, "it sent no shapes"),
    "another rank": ({"shapes": [[1]]}, "came with the shape"),
    "another size": ({"shapes": [[1, 11]]}, "came with the shape"),
    "a negative size": ({"shapes": [[-1, 10]]}, "came with the shape"),
    "a boolean size": ({"shapes": [[True, 10]]}, "came with the shape"),
    "a huge size": ({"shapes": [[2**60, 10]]}, "larger than its memory"),
    "more than the memory has": ({"shapes": [[2**20, 10]]}, "cut short"),
    "an error of its own": ({"error": "os.system", "message": "\x1b[2Jhm"}, "^.\\[2Jhm$"),
    "an error without words": ({"error": "DataError"}, "^$"),
}


@pytest.mark.parametrize("name", LIES)
def test_what_the_process_says_is_checked(monkeypatch, name):
    reply, match = LIES[name]

    def start(theirs, memory, bounds):
        """A process that waits, in place of the one that runs the file; the test speaks for it."""
        held.append(theirs.dup())
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    held: list[socket.socket] = []
    monkeypatch.setattr(isolated, "_start", start)
    monkeypatch.setattr(Channel, "receive", lambda self, seconds: {"dequantized": "none"})
    session = Session(pack(conv_net()), isolated=True)
    monkeypatch.undo()
    text = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    held[0].sendall(struct.pack(">I", 2**31 if reply is None else len(text)) + text)
    with pytest.raises((ArtifactError, DataError), match=match) as caught:
        session.run(session.example(1))
    assert "\x1b" not in str(caught.value)
    session.close()
    held[0].close()


def test_a_script_needs_no_guard(tmp_path):
    (tmp_path / "m.attar").write_bytes(pack(conv_net()))
    (tmp_path / "socket.py").write_text("raise SystemExit('imported from the current folder')")
    code = "import sys, attar\ns = attar.Session('m.attar', isolated=True)\nprint(s.run(s.example(2))['y'].shape)\n"
    (tmp_path / "script").write_text(code)
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-P", "script"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("(2, 10)\n", "")


def test_arrays_cross_as_they_are():
    ours, theirs = socket.socketpair()
    channel = Channel(ours, shared_memory())
    arrays = [np.arange(7, dtype=np.int64), np.zeros((0, 3), np.float32), np.array(True), np.ones((2, 3), np.float16).T]
    channel.put(arrays)
    found = channel.take([(array.dtype, array.shape) for array in arrays])
    for array, wanted in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(array, wanted)
        assert array.shape == wanted.shape
    theirs.close()
    with pytest.raises(EOFError):
        channel.receive()
    channel.close()


def test_a_message_has_a_time_however_many_bytes_trickle_in():
    ours, theirs = socket.socketpair()
    channel, done = Channel(ours, shared_memory()), threading.Event()

    def trickle():
        theirs.sendall(struct.pack(">I", 1 << 20))
        while not done.wait(0.05):
            theirs.sendall(b" ")

    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        with pytest.raises(TimeoutError):
            channel.receive(0.3)
    finally:
        done.set()
        sender.join()
        theirs.close()
        channel.close()


@pytest.mark.parametrize("shape", [[1 << 62, 0], [10**30, 0], [-1, 3], [True, 3]])
def test_shapes_that_no_array_can_have_are_refused(monkeypatch, shape):
    port = Port(name="y", dtype="f32", shape=("a", "b"))
    with Session(pack(conv_net()), threads=1, isolated=True) as session:
        inner = session._isolated
        monkeypatch.setattr(inner, "_outputs", [port])
        monkeypatch.setattr(inner, "_ask", lambda *_: {"shapes": [shape]})
        with pytest.raises(ArtifactError, match="the file broke the process"):
            inner.run({})
