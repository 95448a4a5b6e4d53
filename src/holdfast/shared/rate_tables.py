"""The two tables that rates need, opened together."""

from pathlib import Path

from holdfast.shared import pools, rates
from holdfast.shared.memory import SharedMemory
from holdfast.shared.pools import PoolTable
from holdfast.shared.private_memory import PrivateMemory
from holdfast.shared.rates import RateTable


class RateTables:
    """data_dir: the processes of this data directory share them; None: in private memory. Raises StorageError."""

    def __init__(self, data_dir: Path | None) -> None:
        if data_dir is None:
            self.rates, self.pools = RateTable(PrivateMemory(rates.SIZE)), PoolTable(PrivateMemory(pools.SIZE))
        else:
            self.rates = RateTable(SharedMemory(data_dir / "rates", rates.SIZE, rates.KIND))
            self.pools = PoolTable(SharedMemory(data_dir / "pools", pools.SIZE, pools.KIND))

    def release(self) -> None:
        """Let go of the memory; what lies in the data directory stays until the machine starts again."""
        self.rates.release()
        self.pools.release()
