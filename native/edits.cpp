// Changes the rows of layers' outputs, as ggufsteer/maths/operations.py defines it.

#include "hook.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ggufsteer {
namespace {

bool has_gate(const ggufsteer_edit &step) noexcept {
    return step.kind == GGUFSTEER_EDIT_CHECK || step.kind == GGUFSTEER_EDIT_ADD;
}

// Product and sum are each rounded to double precision, as numpy does it, and the sum to single precision then.
void move(float *row, const float *direction, size_t width, double amount) noexcept {
    for (size_t element = 0; element < width; ++element) {
        row[element] = static_cast<float>(static_cast<double>(row[element]) + amount * static_cast<double>(direction[element]));
    }
}

bool is_sound(const ggufsteer_edits &edits) {
    if (edits.steps == nullptr || edits.numbers == nullptr || edits.directions == nullptr || edits.n_steps < 1 ||
        edits.n_directions < 1 || edits.n_gates < 0 || edits.n_embd < 1) {
        return false;
    }
    std::vector<bool> checked(static_cast<size_t>(edits.n_gates));
    int32_t layer = 0;
    for (int32_t index = 0; index < edits.n_steps; ++index) {
        const ggufsteer_edit &step = edits.steps[index];
        const bool is_known = step.kind >= GGUFSTEER_EDIT_ABLATE && step.kind <= GGUFSTEER_EDIT_ADD;
        if (!is_known || step.layer < layer || step.layer > largest_layer || !within(step.direction, edits.n_directions) ||
            !std::isfinite(edits.numbers[index]) || (has_gate(step) && !within(step.gate, edits.n_gates))) {
            return false;
        }
        if (step.kind == GGUFSTEER_EDIT_CHECK) {
            checked[static_cast<size_t>(step.gate)] = true;
        } else if (step.kind == GGUFSTEER_EDIT_ADD && !checked[static_cast<size_t>(step.gate)]) {
            return false;
        }
        layer = step.layer;
    }
    const size_t n_floats = static_cast<size_t>(edits.n_directions) * static_cast<size_t>(edits.n_embd);
    return std::all_of(edits.directions, edits.directions + n_floats, [](float value) { return std::isfinite(value); });
}

}  // namespace

bool Edits::set(const ggufsteer_edits *wanted) {
    if (wanted != nullptr && !is_sound(*wanted)) {
        return false;
    }
    steps.clear();  // nothing is half set if memory is short
    report = success;
    n_tokens = 0;
    if (wanted == nullptr) {
        return true;
    }
    const ggufsteer_edit *end = wanted->steps + wanted->n_steps;
    width = static_cast<size_t>(wanted->n_embd);
    n_gates = static_cast<size_t>(wanted->n_gates);
    numbers.assign(wanted->numbers, wanted->numbers + wanted->n_steps);
    directions.assign(wanted->directions, wanted->directions + static_cast<size_t>(wanted->n_directions) * width);
    rows.resize(rows_per_transfer * width);
    came.resize(static_cast<size_t>(end[-1].layer) + 1);
    begins.assign(came.size() + 1, 0);
    for (const ggufsteer_edit *step = wanted->steps; step != end; ++step) {
        ++begins[static_cast<size_t>(step->layer) + 1];
    }
    std::partial_sum(begins.begin(), begins.end(), begins.begin());
    steps.assign(wanted->steps, end);
    return true;
}

bool Edits::expect(int32_t tokens, const int32_t *positions, int32_t n_positions) {
    n_tokens = 0;
    if (tokens < 1 || !is_array(positions, n_positions) || !strictly_ascending(positions, n_positions, tokens)) {
        return false;
    }
    outputs.assign(positions, positions + n_positions);
    is_open.assign(n_gates * static_cast<size_t>(tokens), false);
    came.assign(came.size(), false);
    report = success;
    n_tokens = tokens;
    return true;
}

ggufsteer_report Edits::take_report(int32_t last_layer) noexcept {
    if (n_tokens == 0 && !have_failed()) {
        return ggufsteer_report{0, 0, GGUFSTEER_NOT_ARMED, -1};
    }
    for (int32_t layer = 0; layer < std::min(n_layers(), last_layer) && !have_failed(); ++layer) {
        if (act_on(layer) && !came[static_cast<size_t>(layer)]) {
            report = ggufsteer_report{0, n_tokens, GGUFSTEER_MISSING_ROWS, layer};
        }
    }
    n_tokens = 0;
    return report;
}

bool Edits::apply(ggml_tensor *tensor, int32_t layer) noexcept {
    if (!act_on(layer)) {
        return true;
    }
    const int64_t n_rows = accessors.nrows(tensor);
    const bool cut = n_rows != n_tokens;
    const auto place = static_cast<size_t>(layer);
    // A layer that comes twice belongs to a batch that llama.cpp has cut, and other rows than the first time.
    const bool fits = n_tokens != 0 && (!cut || n_rows == static_cast<int64_t>(outputs.size())) && !came[place];
    report = fits ? check_form(accessors, tensor, layer, static_cast<int64_t>(width))
                  : ggufsteer_report{n_rows, n_tokens, GGUFSTEER_WRONG_ROWS, layer};
    if (have_failed()) {
        return false;
    }
    const size_t row_bytes = width * sizeof(float);
    const auto count = static_cast<size_t>(n_rows);
    for (size_t first = 0; first < count; first += rows_per_transfer) {
        const size_t end = std::min(first + rows_per_transfer, count);
        bool changed = false;
        accessors.backend_tensor_get(tensor, rows.data(), first * row_bytes, (end - first) * row_bytes);
        for (size_t row = first; row < end; ++row) {
            const size_t position = cut ? static_cast<size_t>(outputs[row]) : row;
            changed = change(rows.data() + (row - first) * width, layer, position) || changed;
        }
        if (changed) {
            accessors.backend_tensor_set(tensor, rows.data(), first * row_bytes, (end - first) * row_bytes);
        }
    }
    came[place] = true;
    return true;
}

bool Edits::change(float *row, int32_t layer, size_t position) noexcept {
    bool changed = false;
    for (size_t index = begin(layer); index < begin(layer + 1); ++index) {
        const ggufsteer_edit &step = steps[index];
        const float *direction = directions.data() + static_cast<size_t>(step.direction) * width;
        const double number = numbers[index];
        const size_t gate = has_gate(step) ? static_cast<size_t>(step.gate) * static_cast<size_t>(n_tokens) + position : 0;
        if (step.kind == GGUFSTEER_EDIT_CHECK) {
            is_open[gate] = scalar_product(row, direction, width) > number;
        } else if (step.kind != GGUFSTEER_EDIT_ADD || is_open[gate]) {
            const double projection = step.kind == GGUFSTEER_EDIT_ADD ? 0.0 : scalar_product(row, direction, width);
            const double amount = step.kind == GGUFSTEER_EDIT_ABLATE ? -(number * projection) : number - projection;
            move(row, direction, width, amount);
            changed = true;
        }
    }
    return changed;
}

}  // namespace ggufsteer
