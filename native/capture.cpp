// Reads wanted rows of wanted layers' outputs.

#include "hook.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace ggufsteer {
namespace {

bool is_sound(const ggufsteer_plan &plan, const ggufsteer_step &step) noexcept {
    // How many `first` there are for each operation, in the order of their numbers.
    const std::array<int32_t, GGUFSTEER_SCORE + 1> counts{
        plan.n_rows,         plan.n_accumulators, plan.n_accumulators,
        plan.n_accumulators, plan.n_accumulators, plan.n_states,
        plan.n_sums,         plan.n_lengths,      plan.directions == nullptr ? 0 : plan.n_scores};
    const bool is_known = within(step.operation, static_cast<int32_t>(counts.size()));
    const bool counts_rows = step.operation == GGUFSTEER_MEAN || step.operation == GGUFSTEER_SUM;
    return is_known && within(step.first, counts[static_cast<size_t>(step.operation)]) && (!counts_rows || step.second >= 1) &&
           (step.operation != GGUFSTEER_COPY || within(step.second, plan.n_accumulators));
}

bool are_sound_steps(const ggufsteer_plan &plan) noexcept {
    bool has_state = false;
    int32_t row = 0;
    for (int32_t index = 0; index < plan.n_steps; ++index) {
        const ggufsteer_step &step = plan.steps[index];
        has_state = has_state || step.operation == GGUFSTEER_ROW || step.operation == GGUFSTEER_MEAN;
        const bool needs_state = step.operation != GGUFSTEER_CLEAR && step.operation != GGUFSTEER_COPY;
        const bool goes_back = step.operation == GGUFSTEER_ROW && step.first < row;
        if (!is_sound(plan, step) || (needs_state && !has_state) || goes_back) {
            return false;
        }
        row = step.operation == GGUFSTEER_ROW ? step.first : row;
    }
    return true;
}

bool is_sound(const ggufsteer_plan &plan) noexcept {
    const bool has_arrays = plan.layers != nullptr && is_array(plan.rows, plan.n_rows) && is_array(plan.steps, plan.n_steps) &&
                            is_array(plan.states, plan.n_states) && is_array(plan.accumulators, plan.n_accumulators) &&
                            is_array(plan.sums, plan.n_sums) && is_array(plan.lengths, plan.n_lengths) &&
                            is_array(plan.scores, plan.n_scores);
    return has_arrays && plan.n_layers >= 1 && plan.n_embd >= 1 && plan.n_tokens >= 1 &&
           strictly_ascending(plan.layers, plan.n_layers, INT32_MAX) &&
           strictly_ascending(plan.rows, plan.n_rows, plan.n_tokens) && are_sound_steps(plan);
}

void add(const float *state, size_t width, double factor, double *sum) noexcept {
    for (size_t element = 0; element < width; ++element) {
        sum[element] += factor * static_cast<double>(state[element]);
    }
}

}  // namespace

bool Capture::arm(const ggufsteer_plan &wanted) {
    armed = false;
    if (!is_sound(wanted)) {
        return false;
    }
    width = static_cast<size_t>(wanted.n_embd);
    layers.assign(wanted.layers, wanted.layers + wanted.n_layers);
    rows.assign(wanted.rows, wanted.rows + wanted.n_rows);
    steps.assign(wanted.steps, wanted.steps + wanted.n_steps);
    came.assign(layers.size(), false);
    fetched.resize(std::min(rows_per_transfer, rows.size()) * width);
    mean_state.resize(width);
    plan = wanted;
    report = success;
    ended_at = INT32_MAX;
    armed = true;
    return true;
}

ggufsteer_report Capture::finish() noexcept {
    if (!armed) {
        return ggufsteer_report{0, 0, GGUFSTEER_NOT_ARMED, -1};
    }
    for (size_t index = 0; index < layers.size() && report.code == GGUFSTEER_OK; ++index) {
        if (!came[index]) {
            fail({0, plan.n_rows, GGUFSTEER_MISSING_ROWS, layers[index]});
        }
    }
    armed = false;
    return report;
}

bool Capture::fail(const ggufsteer_report &failure) noexcept {
    report = failure;
    ended_at = failure.layer;
    return false;
}

int32_t Capture::index_of(int32_t layer) const noexcept {
    const auto found = std::lower_bound(layers.begin(), layers.end(), layer);
    const bool is_wanted = armed && layer >= 0 && found != layers.end() && *found == layer;
    return is_wanted ? static_cast<int32_t>(found - layers.begin()) : -1;
}

bool Capture::receive(const ggml_tensor *tensor, int32_t layer) noexcept {
    const int32_t index = index_of(layer);
    if (index < 0) {
        return true;
    }
    if (!read(tensor, static_cast<size_t>(index))) {
        return false;
    }
    const bool is_last = plan.stop_early != 0 && index == plan.n_layers - 1;
    ended_at = is_last ? layer : INT32_MAX;
    return !is_last;
}

bool Capture::read(const ggml_tensor *tensor, size_t layer) noexcept {
    const int64_t n_rows = accessors.nrows(tensor);
    const bool whole = n_rows == plan.n_tokens;
    const bool cut = !whole && plan.rows_are_outputs != 0 && n_rows == plan.n_rows;
    // A layer that comes twice belongs to a batch that llama.cpp has cut: its rows are not the ones that were meant.
    if ((!whole && !cut) || came[layer]) {
        return fail({n_rows, plan.n_tokens, GGUFSTEER_WRONG_ROWS, layers[layer]});
    }
    const ggufsteer_report form = check_form(accessors, tensor, layers[layer], plan.n_embd);
    if (form.code != GGUFSTEER_OK) {
        return fail(form);
    }
    fetched_begin = fetched_end = 0;
    const float *state = nullptr;
    for (const ggufsteer_step &step : steps) {
        if (step.operation == GGUFSTEER_ROW) {
            state = row(tensor, static_cast<size_t>(step.first), cut);
        } else if (step.operation == GGUFSTEER_MEAN) {
            state = mean(step, layer);
        } else {
            consume(step, layer, state);
        }
    }
    came[layer] = true;
    return true;
}

const float *Capture::row(const ggml_tensor *tensor, size_t index, bool cut) noexcept {
    if (index < fetched_begin || index >= fetched_end) {
        const auto place = [&](size_t of) { return cut ? of : static_cast<size_t>(rows[of]); };
        size_t end = index + 1;
        while (end < rows.size() && end - index < rows_per_transfer && place(end) == place(end - 1) + 1) {
            ++end;
        }
        const size_t row_bytes = width * sizeof(float);
        accessors.backend_tensor_get(tensor, fetched.data(), place(index) * row_bytes, (end - index) * row_bytes);
        fetched_begin = index;
        fetched_end = end;
    }
    return fetched.data() + (index - fetched_begin) * width;
}

const float *Capture::mean(const ggufsteer_step &step, size_t layer) noexcept {
    const double *sum = of_layer(plan.accumulators, step.first, layer);
    const double count = step.second;
    std::transform(sum, sum + width, mean_state.begin(), [count](double value) { return static_cast<float>(value / count); });
    return mean_state.data();
}

double *Capture::of_layer(double *array, int32_t index, size_t layer) const noexcept {
    return array + (static_cast<size_t>(index) * layers.size() + layer) * width;
}

void Capture::consume(const ggufsteer_step &step, size_t layer, const float *state) noexcept {
    const size_t first = static_cast<size_t>(step.first);
    switch (step.operation) {
    case GGUFSTEER_CLEAR:
        std::fill_n(of_layer(plan.accumulators, step.first, layer), width, 0.0);
        break;
    case GGUFSTEER_COPY:
        std::copy_n(of_layer(plan.accumulators, step.first, layer), width, of_layer(plan.accumulators, step.second, layer));
        break;
    case GGUFSTEER_ADD:
        add(state, width, 1.0, of_layer(plan.accumulators, step.first, layer));
        break;
    case GGUFSTEER_STORE:
        std::copy_n(state, width, plan.states + (first * layers.size() + layer) * width);
        break;
    case GGUFSTEER_SUM:
        add(state, width, step.second, of_layer(plan.sums, step.first, layer));
        break;
    case GGUFSTEER_LENGTH:
        plan.lengths[first * layers.size() + layer] = std::sqrt(scalar_product(state, state, width));
        break;
    case GGUFSTEER_SCORE:
        plan.scores[first * layers.size() + layer] = scalar_product(state, plan.directions + layer * width, width);
        break;
    default:
        break;
    }
}

}  // namespace ggufsteer
