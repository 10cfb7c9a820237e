"""The store keeps its promises on SQLite."""

from pairing_behaviour import PairingBehaviour
from queue_behaviour import DeliveryBehaviour, QueueBehaviour
from upkeep_behaviour import ReadingBehaviour, UpkeepBehaviour


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
