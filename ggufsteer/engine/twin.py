"""The reader of hidden states in Python: the definition that the native library is tested against, and its stand-in.

It does what ``native/capture.cpp`` does, step by step, and gives the same numbers bit for bit. It is slower where
little is computed a call (about 0.4 µs a graph node), which capture does not notice.
"""

import ctypes
import re
from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy as np

from ggufsteer.engine import backend
from ggufsteer.engine.reading import Code, Reading, Report

_LAYER_OUTPUT = re.compile(rb"l_out-([0-9]{1,5})", re.ASCII)


class _Refusal(Exception):
    """The graph is not as expected; carries the report."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report


class PythonReader:
    """Reads hidden states through a ctypes callback."""

    name = "python"
    user_data: int | None = None

    def __init__(self) -> None:
        tensor = ctypes.c_void_p
        self._get_name = backend.ggml_function("ggml_get_name", ctypes.c_char_p, tensor)
        self._nelements = backend.ggml_function("ggml_nelements", ctypes.c_int64, tensor)
        self._nrows = backend.ggml_function("ggml_nrows", ctypes.c_int64, tensor)
        self._nbytes = backend.ggml_function("ggml_nbytes", ctypes.c_size_t, tensor)
        self._tensor_get: Callable[..., Any] = backend.ggml_function(
            "ggml_backend_tensor_get", None, tensor, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
        )
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._called)
        self._reading: Reading | None = None
        self._index: dict[int, int] = {}
        self._tokens: list[int] = []
        self._rows: list[int] = []
        self._report = Report(Code.NOT_ARMED)
        self._raised: BaseException | None = None
        self._stopped = False

    def arm(self, reading: Reading) -> None:
        """Set what the next decode is read for.

        Raises:
            ValueError: The reading is not sound.
        """
        self._reading = None
        if not reading.is_sound():
            raise ValueError("the reading is not sound")
        self._index = {int(layer): index for index, layer in enumerate(reading.layers)}
        self._tokens = [0] * len(reading.layers)
        self._rows = [0] * len(reading.layers)
        self._report = Report(Code.OK)
        self._raised = None
        self._stopped = False
        self._reading = reading

    def finish(self) -> Report:
        """End the reading; raises what was raised inside the callback, such as KeyboardInterrupt."""
        reading, self._reading = self._reading, None
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if reading is None:
            return Report(Code.NOT_ARMED)
        if self._report.code is Code.OK:
            for layer, seen in zip(reading.layers, self._rows, strict=True):
                if seen != len(reading.rows):
                    return Report(Code.MISSING_ROWS, int(layer), seen, len(reading.rows))
        return self._report

    def close(self) -> None:
        """Nothing to free: Python owns it all."""

    def _called(self, tensor: int | None, ask: bool, _user_data: int | None) -> bool:
        """Answer llama.cpp; an exception must not cross into C, so it waits for `finish`."""
        try:
            if self._reading is None or tensor is None:
                return not ask
            return self._wants(tensor) if ask else self._receive(self._reading, tensor)
        except _Refusal as refusal:
            self._report = refusal.report
        except BaseException as raised:  # noqa: BLE001 - raised again by finish, on the other side of the C code
            self._raised = raised
        self._stopped = True
        return False

    def _layer_of(self, tensor: int) -> int:
        match = _LAYER_OUTPUT.fullmatch(self._get_name(tensor) or b"")
        return int(match.group(1)) if match else -1

    def _wants(self, tensor: int) -> bool:
        # After a stop, wanting a further split's first node and refusing it ends that split after one node.
        return self._stopped or self._layer_of(tensor) in self._index

    def _receive(self, reading: Reading, tensor: int) -> bool:
        if self._stopped:
            return False
        layer_index = self._index.get(self._layer_of(tensor))
        if layer_index is None:
            return True
        self._read(reading, tensor, layer_index)
        self._stopped = reading.stop_early and layer_index == len(reading.layers) - 1
        return not self._stopped

    def _read(self, reading: Reading, tensor: int, layer_index: int) -> None:
        layer = int(reading.layers[layer_index])
        n_rows = self._nrows(tensor)
        done = self._tokens[layer_index]
        piece = min(reading.n_ubatch, reading.n_tokens - done)
        first = self._rows[layer_index]
        last = int(np.searchsorted(reading.rows, done + piece))
        whole = n_rows == piece and piece > 0
        if not whole and not (reading.rows_are_outputs and n_rows == last - first):
            raise _Refusal(Report(Code.WRONG_ROWS, layer, n_rows, piece))
        if last > first:
            self._check_form(reading, tensor, layer, n_rows)
        row_bytes = 4 * reading.n_embd
        row = np.empty(reading.n_embd, dtype=np.float32)
        for index in range(first, last):
            place = int(reading.rows[index]) - done if whole else index - first
            self._tensor_get(tensor, row.ctypes.data, place * row_bytes, row_bytes)
            target = reading.target[reading.slots[index], layer_index]
            if reading.adds:
                target += row
            else:
                target[:] = row
        self._tokens[layer_index] = done + piece
        self._rows[layer_index] = last

    def _check_form(self, reading: Reading, tensor: int, layer: int, n_rows: int) -> None:
        expected = n_rows * reading.n_embd
        elements = self._nelements(tensor)
        if elements != expected:
            raise _Refusal(Report(Code.WRONG_WIDTH, layer, elements // n_rows, reading.n_embd))
        n_bytes = self._nbytes(tensor)
        if n_bytes != 4 * expected:
            raise _Refusal(Report(Code.WRONG_TYPE, layer, n_bytes, 4 * expected))
