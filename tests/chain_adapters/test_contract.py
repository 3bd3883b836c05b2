"""The Merkle log is a ledger, and a replica of it reads like one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fedhouse.governance.contract import LedgerContract, Rig
from fedhouse.governance.reading_contract import ReadingContract, Recorded, corpus

if TYPE_CHECKING:
    from conftest import House


class TestMerkleLog(LedgerContract):
    """The whole contract."""

    @pytest.fixture
    def rig(self, rig: Rig) -> Rig:
        return rig


class TestReplica(ReadingContract):
    """The reading half, on a replica that came to it in steps and was opened again."""

    @pytest.fixture
    def recorded(self, house: House) -> Recorded:
        envelopes = [house.consortium.founding(), *corpus(house.consortium)]
        half = len(envelopes) // 2
        replica = house.replica()
        for start, stop in ((1, half), (half, len(envelopes))):
            house.clock.advance(1)
            house.log.append(envelopes[start:stop])
            house.cosign()
            replica.catch_up()
        replica.close()
        return Recorded(house.replica(), tuple(envelopes), house.trust)
