"""The store keeps its promises on SQLite."""

from tests.unit.storage.commitment_behaviour import CommitmentBehaviour, RequestBehaviour
from tests.unit.storage.pairing_behaviour import PairingBehaviour
from tests.unit.storage.queue_behaviour import DeliveryBehaviour, QueueBehaviour
from tests.unit.storage.shadow_behaviour import ShadowBehaviour
from tests.unit.storage.upkeep_behaviour import ReadingBehaviour, UpkeepBehaviour


class TestPairing(PairingBehaviour):
    pass


class TestQueue(QueueBehaviour):
    pass


class TestDeliveries(DeliveryBehaviour):
    pass


class TestReading(ReadingBehaviour):
    pass


class TestUpkeep(UpkeepBehaviour):
    pass


class TestShadow(ShadowBehaviour):
    pass


class TestCommitmentRequests(RequestBehaviour):
    pass


class TestCommitments(CommitmentBehaviour):
    pass
