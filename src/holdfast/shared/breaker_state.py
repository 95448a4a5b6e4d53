"""All that circuit breakers share between processes, opened together: the table of what was counted, and what people hold open."""

from pathlib import Path

from holdfast.shared.breakers import KIND, SIZE, BreakerTable
from holdfast.shared.isolations import SharedIsolations
from holdfast.shared.memory import SharedMemory

FILE = "breakers"


class BreakerState:
    """Of a data directory. Raises StorageError."""

    def __init__(self, data_dir: Path) -> None:
        self.table = open_table(data_dir)
        try:
            self.isolations = SharedIsolations(data_dir)
        except BaseException:
            self.table.release()
            raise

    def release(self) -> None:
        """Let go of the memory; what lies in the data directory stays, the counts until the machine starts again."""
        self.isolations.close()
        self.table.release()


def open_table(data_dir: Path) -> BreakerTable:
    """The table alone; made where it is missing. Raises StorageError."""
    return BreakerTable(SharedMemory(data_dir / FILE, SIZE, KIND))
