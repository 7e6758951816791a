// Reads wanted rows of wanted layers' outputs while llama.cpp evaluates its graph. The interface is told in ggufsteer.h.
//
// The Python twin, ggufsteer/engine/twin.py, does the same step by step; both are run by one test-suite.

#include "ggufsteer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

namespace {

constexpr char layer_output_prefix[] = "l_out-";
// Rows next to each other are fetched in one call, at most this many, so that the buffer stays small.
constexpr size_t rows_per_fetch = 64;

// The layer number in "l_out-12"; -1 for every other name, such as "mtp_l_out-0" or "l_out-12 (view)".
int32_t layer_of(const char *name) noexcept {
    constexpr size_t prefix_length = sizeof(layer_output_prefix) - 1;
    constexpr int32_t largest = 99999;
    if (name == nullptr || std::strncmp(name, layer_output_prefix, prefix_length) != 0) {
        return -1;
    }
    const char *digits = name + prefix_length;
    int32_t layer = 0;
    if (*digits == '\0') {
        return -1;
    }
    for (; *digits != '\0'; ++digits) {
        if (*digits < '0' || *digits > '9') {
            return -1;
        }
        layer = layer * 10 + (*digits - '0');
        if (layer > largest) {
            return -1;
        }
    }
    return layer;
}

bool strictly_ascending(const int32_t *values, int32_t count, int32_t end) noexcept {
    int32_t previous = -1;
    for (int32_t index = 0; index < count; ++index) {
        if (values[index] <= previous || values[index] >= end) {
            return false;
        }
        previous = values[index];
    }
    return true;
}

// An array that a step may write to: there is one exactly where there is something to write.
bool is_array(const void *array, int32_t count) noexcept { return count == 0 || (count > 0 && array != nullptr); }

bool within(int32_t index, int32_t count) noexcept { return index >= 0 && index < count; }

bool is_sound(const ggufsteer_plan &plan, const ggufsteer_step &step) noexcept {
    switch (step.operation) {
    case GGUFSTEER_ROW:
        return within(step.first, plan.n_rows);
    case GGUFSTEER_MEAN:
        return within(step.first, plan.n_accumulators) && step.second >= 1;
    case GGUFSTEER_CLEAR:
    case GGUFSTEER_ADD:
        return within(step.first, plan.n_accumulators);
    case GGUFSTEER_COPY:
        return within(step.first, plan.n_accumulators) && within(step.second, plan.n_accumulators);
    case GGUFSTEER_STORE:
        return within(step.first, plan.n_states);
    case GGUFSTEER_SUM:
        return within(step.first, plan.n_sums) && step.second >= 1;
    case GGUFSTEER_LENGTH:
        return within(step.first, plan.n_lengths);
    case GGUFSTEER_SCORE:
        return within(step.first, plan.n_scores) && plan.directions != nullptr;
    default:
        return false;
    }
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

double scalar_product(const float *one, const float *other, size_t width) noexcept {
    double sum = 0.0;
    for (size_t element = 0; element < width; ++element) {
        sum += static_cast<double>(one[element]) * static_cast<double>(other[element]);
    }
    return sum;
}

}  // namespace

struct ggufsteer_capture {
    explicit ggufsteer_capture(const ggufsteer_accessors &functions) : accessors(functions) {}

    void arm(const ggufsteer_plan &wanted);
    ggufsteer_report finish() noexcept;
    bool wants(const ggml_tensor *tensor) const noexcept;
    bool receive(const ggml_tensor *tensor) noexcept;

  private:
    // The position of a layer among the wanted ones, or -1.
    int32_t index_of(const ggml_tensor *tensor) const noexcept;
    bool read(const ggml_tensor *tensor, size_t layer) noexcept;
    bool has_expected_form(const ggml_tensor *tensor, size_t layer, int64_t n_rows) noexcept;
    // Gives wanted row `index` of a tensor, fetching the wanted rows right after it too where it is not there yet.
    const float *row(const ggml_tensor *tensor, size_t index, bool cut) noexcept;
    const float *mean(const ggufsteer_step &step, size_t layer) noexcept;
    void consume(const ggufsteer_step &step, size_t layer, const float *state) noexcept;
    double *of_layer(double *array, int32_t index, size_t layer) const noexcept;
    void fail(ggufsteer_code code, int32_t layer, int64_t seen, int64_t expected) noexcept;

    ggufsteer_accessors accessors;
    ggufsteer_plan plan{};
    size_t width = 0;
    std::vector<int32_t> layers;
    std::vector<int32_t> rows;
    std::vector<ggufsteer_step> steps;
    std::vector<bool> came;      // for each wanted layer whether it was read
    std::vector<float> fetched;  // rows [fetched_begin, fetched_end) of the tensor that is being read
    size_t fetched_begin = 0;
    size_t fetched_end = 0;
    std::vector<float> mean_state;
    ggufsteer_report report{0, 0, GGUFSTEER_OK, -1};
    bool armed = false;
    bool stopped = false;
};

void ggufsteer_capture::arm(const ggufsteer_plan &wanted) {
    armed = false;
    width = static_cast<size_t>(wanted.n_embd);
    layers.assign(wanted.layers, wanted.layers + wanted.n_layers);
    rows.assign(wanted.rows, wanted.rows + wanted.n_rows);
    steps.assign(wanted.steps, wanted.steps + wanted.n_steps);
    came.assign(layers.size(), false);
    fetched.resize(std::min(rows_per_fetch, rows.size()) * width);
    mean_state.resize(width);
    plan = wanted;
    report = ggufsteer_report{0, 0, GGUFSTEER_OK, -1};
    stopped = false;
    armed = true;
}

ggufsteer_report ggufsteer_capture::finish() noexcept {
    if (!armed) {
        return ggufsteer_report{0, 0, GGUFSTEER_NOT_ARMED, -1};
    }
    for (size_t index = 0; index < layers.size() && report.code == GGUFSTEER_OK; ++index) {
        if (!came[index]) {
            fail(GGUFSTEER_MISSING_ROWS, layers[index], 0, plan.n_rows);
        }
    }
    armed = false;
    return report;
}

void ggufsteer_capture::fail(ggufsteer_code code, int32_t layer, int64_t seen, int64_t expected) noexcept {
    report = ggufsteer_report{seen, expected, code, layer};
    stopped = true;
}

int32_t ggufsteer_capture::index_of(const ggml_tensor *tensor) const noexcept {
    const int32_t layer = layer_of(accessors.get_name(tensor));
    const auto found = std::lower_bound(layers.begin(), layers.end(), layer);
    if (layer < 0 || found == layers.end() || *found != layer) {
        return -1;
    }
    return static_cast<int32_t>(found - layers.begin());
}

bool ggufsteer_capture::wants(const ggml_tensor *tensor) const noexcept {
    // After a stop the scheduler goes on with its next split, if layers are spread over devices. Wanting that split's first
    // node, and refusing it when it arrives, ends the split after one node.
    return armed && (stopped || index_of(tensor) >= 0);
}

bool ggufsteer_capture::receive(const ggml_tensor *tensor) noexcept {
    if (!armed) {
        return true;
    }
    if (stopped) {
        return false;
    }
    const int32_t layer_index = index_of(tensor);
    if (layer_index < 0) {
        return true;
    }
    if (!read(tensor, static_cast<size_t>(layer_index))) {
        return false;
    }
    stopped = plan.stop_early != 0 && layer_index == plan.n_layers - 1;
    return !stopped;
}

bool ggufsteer_capture::read(const ggml_tensor *tensor, size_t layer) noexcept {
    const int64_t n_rows = accessors.nrows(tensor);
    const bool whole = n_rows == plan.n_tokens;
    const bool cut = !whole && plan.rows_are_outputs != 0 && n_rows == plan.n_rows;
    // A layer that comes twice belongs to a batch that llama.cpp has cut: its rows are not the ones that were meant.
    if ((!whole && !cut) || came[layer]) {
        fail(GGUFSTEER_WRONG_ROWS, layers[layer], n_rows, plan.n_tokens);
        return false;
    }
    if (!has_expected_form(tensor, layer, n_rows)) {
        return false;
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

bool ggufsteer_capture::has_expected_form(const ggml_tensor *tensor, size_t layer, int64_t n_rows) noexcept {
    const int64_t expected = n_rows * plan.n_embd;
    const int64_t elements = accessors.nelements(tensor);
    if (elements != expected) {
        fail(GGUFSTEER_WRONG_WIDTH, layers[layer], elements / n_rows, plan.n_embd);
        return false;
    }
    // ggml counts the gaps of a strided tensor as bytes, so this also says that the rows lie one after the other.
    const int64_t bytes = static_cast<int64_t>(accessors.nbytes(tensor));
    const int64_t expected_bytes = expected * static_cast<int64_t>(sizeof(float));
    if (bytes != expected_bytes) {
        fail(GGUFSTEER_WRONG_TYPE, layers[layer], bytes, expected_bytes);
        return false;
    }
    return true;
}

const float *ggufsteer_capture::row(const ggml_tensor *tensor, size_t index, bool cut) noexcept {
    if (index < fetched_begin || index >= fetched_end) {
        const auto place = [&](size_t of) { return cut ? of : static_cast<size_t>(rows[of]); };
        size_t end = index + 1;
        while (end < rows.size() && end - index < rows_per_fetch && place(end) == place(end - 1) + 1) {
            ++end;
        }
        const size_t row_bytes = width * sizeof(float);
        accessors.backend_tensor_get(tensor, fetched.data(), place(index) * row_bytes, (end - index) * row_bytes);
        fetched_begin = index;
        fetched_end = end;
    }
    return fetched.data() + (index - fetched_begin) * width;
}

const float *ggufsteer_capture::mean(const ggufsteer_step &step, size_t layer) noexcept {
    const double *sum = of_layer(plan.accumulators, step.first, layer);
    const double count = step.second;
    std::transform(sum, sum + width, mean_state.begin(), [count](double value) { return static_cast<float>(value / count); });
    return mean_state.data();
}

double *ggufsteer_capture::of_layer(double *array, int32_t index, size_t layer) const noexcept {
    return array + (static_cast<size_t>(index) * layers.size() + layer) * width;
}

void ggufsteer_capture::consume(const ggufsteer_step &step, size_t layer, const float *state) noexcept {
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

int32_t ggufsteer_abi(void) { return GGUFSTEER_ABI; }

int32_t ggufsteer_capture_create(const ggufsteer_accessors *accessors, ggufsteer_capture **capture) {
    if (accessors == nullptr || capture == nullptr || accessors->get_name == nullptr || accessors->nelements == nullptr ||
        accessors->nrows == nullptr || accessors->nbytes == nullptr || accessors->backend_tensor_get == nullptr) {
        return GGUFSTEER_BAD_ARGUMENT;
    }
    *capture = new (std::nothrow) ggufsteer_capture(*accessors);
    return *capture == nullptr ? GGUFSTEER_OUT_OF_MEMORY : GGUFSTEER_OK;
}

void ggufsteer_capture_destroy(ggufsteer_capture *capture) { delete capture; }

int32_t ggufsteer_capture_arm(ggufsteer_capture *capture, const ggufsteer_plan *plan) {
    if (capture == nullptr || plan == nullptr || !is_sound(*plan)) {
        return GGUFSTEER_BAD_ARGUMENT;
    }
    try {
        capture->arm(*plan);
    } catch (...) {  // only allocations can throw, and nothing may cross into C
        return GGUFSTEER_OUT_OF_MEMORY;
    }
    return GGUFSTEER_OK;
}

int32_t ggufsteer_capture_finish(ggufsteer_capture *capture, ggufsteer_report *report) {
    if (capture == nullptr || report == nullptr) {
        return GGUFSTEER_BAD_ARGUMENT;
    }
    *report = capture->finish();
    return report->code;
}

bool ggufsteer_capture_callback(ggml_tensor *tensor, bool ask, void *user_data) {
    auto *capture = static_cast<ggufsteer_capture *>(user_data);
    if (tensor == nullptr || capture == nullptr) {
        return !ask;  // want nothing, stop nothing
    }
    return ask ? capture->wants(tensor) : capture->receive(tensor);
}
