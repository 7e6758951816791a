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
from ggufsteer.engine.reading import Code, Float32, Operation, Reading, Report, Targets

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
        self._came: set[int] = set()
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
        self._came = set()
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
            for layer, index in self._index.items():
                if index not in self._came:
                    return Report(Code.MISSING_ROWS, layer, 0, len(reading.rows))
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
        whole = n_rows == reading.n_tokens
        cut = not whole and reading.rows_are_outputs and n_rows == len(reading.rows)
        # A layer that comes twice belongs to a batch that llama.cpp has cut: its rows are not the ones that were meant.
        if not (whole or cut) or layer_index in self._came:
            raise _Refusal(Report(Code.WRONG_ROWS, layer, n_rows, reading.n_tokens))
        self._check_form(reading, tensor, layer, n_rows)
        row_bytes = 4 * reading.targets.n_embd
        state = np.zeros(reading.targets.n_embd, dtype=np.float32)
        for operation, first, second in reading.steps.tolist():
            if operation == Operation.ROW:
                place = first if cut else int(reading.rows[first])
                self._tensor_get(tensor, state.ctypes.data, place * row_bytes, row_bytes)
            elif operation == Operation.MEAN:
                state[:] = reading.targets.accumulators[first, layer_index] / second
            else:
                _consume(reading.targets, operation, first, second, layer_index, state)
        self._came.add(layer_index)

    def _check_form(self, reading: Reading, tensor: int, layer: int, n_rows: int) -> None:
        expected = n_rows * reading.targets.n_embd
        elements = self._nelements(tensor)
        if elements != expected:
            raise _Refusal(Report(Code.WRONG_WIDTH, layer, elements // n_rows, reading.targets.n_embd))
        n_bytes = self._nbytes(tensor)
        if n_bytes != 4 * expected:
            raise _Refusal(Report(Code.WRONG_TYPE, layer, n_bytes, 4 * expected))


def _consume(targets: Targets, operation: int, first: int, second: int, layer: int, state: Float32) -> None:
    """Do one step that makes no state."""
    if operation == Operation.CLEAR:
        targets.accumulators[first, layer] = 0.0
    elif operation == Operation.COPY:
        targets.accumulators[second, layer] = targets.accumulators[first, layer]
    elif operation == Operation.ADD:
        targets.accumulators[first, layer] += state
    elif operation == Operation.STORE:
        targets.states[first, layer] = state
    elif operation == Operation.SUM:
        targets.sums[first, layer] += second * state.astype(np.float64)
    elif operation == Operation.LENGTH:
        targets.lengths[first, layer] = np.sqrt(_scalar_product(state, state))
    elif operation == Operation.SCORE and targets.directions is not None:
        targets.scores[first, layer] = _scalar_product(state, targets.directions[layer])


def _scalar_product(one: Float32, other: Float32) -> float:
    """Multiply and sum up from the first element to the last, as the native library does; `@` adds in another order."""
    return float(np.add.accumulate(one.astype(np.float64) * other)[-1])
