"""The synchronous door over real gRPC on loopback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc
import pytest

from serve.gateway import Gateway, InspectorDoor, status_of
from services.adapters.clock import FakeClock
from services.domain.errors import LoupeError, ModelUnavailable, Overloaded
from services.domain.frame import Frame
from services.embedded.home import free_ports
from services.wire.gen.loupe.v1 import frame_pb2, inspector_pb2, inspector_pb2_grpc
from services.wire.inspection import from_message
from tests.unit.serve.fakes import BAD, MASK, FakeUnits
from tests.unit.serve.test_units import leaves


@pytest.fixture
def units() -> FakeUnits:
    return FakeUnits()


@pytest.fixture
def gateway(units: FakeUnits) -> Iterator[tuple[Gateway, inspector_pb2_grpc.InspectorStub]]:
    (port,) = free_ports(1, seed="gateway")
    made = Gateway(lambda: InspectorDoor(units, FakeClock()), lambda: f"127.0.0.1:{port}")
    made.reconfigure({"projects": ["plates"]})
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield made, inspector_pb2_grpc.InspectorStub(channel)
    made.__del__()


def ask(image: bytes, project: str = "") -> inspector_pb2.InspectRequest:
    return inspector_pb2.InspectRequest(frame=frame_pb2.Frame(image=image, project=project))


def refusal(stub: inspector_pb2_grpc.InspectorStub, request: inspector_pb2.InspectRequest) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Inspect(request, timeout=10)
    return caught.value


Door = tuple[Gateway, inspector_pb2_grpc.InspectorStub]


def test_an_image_alone_is_enough_while_one_project_is_hosted(gateway: Door) -> None:
    _, stub = gateway
    inspection = from_message(stub.Inspect(ask(b"good"), timeout=10).inspection)
    assert (inspection.project, inspection.camera) == ("plates", "gateway")


def test_a_mask_comes_only_when_it_is_asked_for(gateway: Door) -> None:
    _, stub = gateway
    assert stub.Inspect(ask(b"good"), timeout=10).mask_png == b""
    request = ask(b"good")
    request.mask = True
    answer = stub.Inspect(request, timeout=10)
    assert answer.mask_png == MASK
    assert from_message(answer.inspection).project == "plates"
    request.frame.image = BAD
    assert refusal(stub, request).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_unreadable_image_is_the_callers_fault(gateway: Door) -> None:
    error = refusal(gateway[1], ask(BAD))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "UnreadableImage: It is bad."


def test_a_project_that_is_not_hosted_is_not_found_and_the_hosted_ones_are_named(gateway: Door) -> None:
    error = refusal(gateway[1], ask(b"good", "screws"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "plates" in error.details()


def test_of_several_projects_one_must_be_named(gateway: Door) -> None:
    door, stub = gateway
    door.reconfigure({"projects": ["plates", "screws"]})
    assert refusal(stub, ask(b"good")).code() is grpc.StatusCode.NOT_FOUND
    stub.Inspect(ask(b"good", "screws"), timeout=10)


def test_a_frame_with_a_wrong_id_is_refused(gateway: Door) -> None:
    request = ask(b"good")
    request.frame.frame_id = "not a UUID"
    assert refusal(gateway[1], request).code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelUnavailable("loading"), grpc.StatusCode.UNAVAILABLE),
        (Overloaded("full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_what_may_work_later_says_so(
    gateway: Door, units: FakeUnits, error: LoupeError, code: grpc.StatusCode
) -> None:
    def refuse(project: str, frames: Sequence[Frame]) -> None:
        raise error

    units.before = refuse
    assert refusal(gateway[1], ask(b"good")).code() is code


@pytest.mark.parametrize("kind", leaves())
def test_every_error_has_a_status(kind: type[LoupeError]) -> None:
    assert status_of(kind("A sentence.")) is not grpc.StatusCode.UNKNOWN
