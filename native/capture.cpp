// Reads wanted rows of wanted layers' outputs while llama.cpp evaluates its graph. The interface is told in ggufsteer.h.
//
// The Python twin, ggufsteer/engine/twin.py, does the same step by step; both are run by one test-suite.

#include "ggufsteer.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
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

bool all_below(const int32_t *values, int32_t count, int32_t end) noexcept {
    return std::all_of(values, values + count, [end](int32_t value) { return value >= 0 && value < end; });
}

bool is_sound(const ggufsteer_plan &plan) noexcept {
    if (plan.layers == nullptr || plan.rows == nullptr || plan.slots == nullptr) {
        return false;
    }
    if ((plan.states == nullptr) == (plan.sums == nullptr)) {
        return false;
    }
    if (plan.n_layers < 1 || plan.n_rows < 1 || plan.n_slots < 1 || plan.n_embd < 1) {
        return false;
    }
    if (plan.n_tokens < 1 || plan.n_ubatch < 1) {
        return false;
    }
    // A stop lasts until the next arm, so it would cut off the batch's second piece.
    if (plan.stop_early != 0 && plan.n_tokens > plan.n_ubatch) {
        return false;
    }
    return strictly_ascending(plan.layers, plan.n_layers, INT32_MAX) &&
           strictly_ascending(plan.rows, plan.n_rows, plan.n_tokens) && all_below(plan.slots, plan.n_rows, plan.n_slots);
}

// How far a layer has been read: the batch arrives in pieces, and each layer comes by once a piece.
struct Progress {
    int32_t tokens = 0;
    int32_t rows = 0;
};

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
    bool read(const ggml_tensor *tensor, int32_t layer_index) noexcept;
    bool has_expected_form(const ggml_tensor *tensor, int32_t layer, int64_t n_rows) noexcept;
    // Copies rows [first, last) of the plan, whose first token in the tensor is number `origin` of the batch, or which are cut.
    void fetch(const ggml_tensor *tensor, int32_t layer_index, int32_t first, int32_t last, int32_t origin, bool cut) noexcept;
    void store(const float *row, int32_t row_index, int32_t layer_index) noexcept;
    void fail(ggufsteer_code code, int32_t layer, int64_t seen, int64_t expected) noexcept;

    ggufsteer_accessors accessors;
    ggufsteer_plan plan{};
    std::vector<int32_t> layers;
    std::vector<int32_t> rows;
    std::vector<int32_t> slots;
    std::vector<Progress> progress;
    std::vector<float> fetched;
    ggufsteer_report report{0, 0, GGUFSTEER_OK, -1};
    bool armed = false;
    bool stopped = false;
};

void ggufsteer_capture::arm(const ggufsteer_plan &wanted) {
    armed = false;
    layers.assign(wanted.layers, wanted.layers + wanted.n_layers);
    rows.assign(wanted.rows, wanted.rows + wanted.n_rows);
    slots.assign(wanted.slots, wanted.slots + wanted.n_rows);
    progress.assign(layers.size(), Progress{});
    fetched.resize(std::min(rows_per_fetch, rows.size()) * static_cast<size_t>(wanted.n_embd));
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
        if (progress[index].rows != plan.n_rows) {
            fail(GGUFSTEER_MISSING_ROWS, layers[index], progress[index].rows, plan.n_rows);
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
    if (!read(tensor, layer_index)) {
        return false;
    }
    stopped = plan.stop_early != 0 && layer_index == plan.n_layers - 1;
    return !stopped;
}

bool ggufsteer_capture::read(const ggml_tensor *tensor, int32_t layer_index) noexcept {
    Progress &reached = progress[static_cast<size_t>(layer_index)];
    const int32_t layer = layers[static_cast<size_t>(layer_index)];
    const int64_t n_rows = accessors.nrows(tensor);
    const int32_t piece = std::min(plan.n_ubatch, plan.n_tokens - reached.tokens);
    const int32_t end = reached.tokens + piece;
    const auto first = rows.begin() + reached.rows;
    const auto last = std::lower_bound(first, rows.end(), end);
    const int32_t wanted = static_cast<int32_t>(last - first);
    const bool whole = n_rows == piece && piece > 0;
    const bool cut = !whole && plan.rows_are_outputs != 0 && n_rows == wanted;
    if (!whole && !cut) {
        fail(GGUFSTEER_WRONG_ROWS, layer, n_rows, piece);
        return false;
    }
    if (wanted > 0) {
        if (!has_expected_form(tensor, layer, n_rows)) {
            return false;
        }
        fetch(tensor, layer_index, reached.rows, reached.rows + wanted, reached.tokens, cut);
    }
    reached.tokens = end;
    reached.rows += wanted;
    return true;
}

bool ggufsteer_capture::has_expected_form(const ggml_tensor *tensor, int32_t layer, int64_t n_rows) noexcept {
    const int64_t expected = n_rows * plan.n_embd;
    const int64_t elements = accessors.nelements(tensor);
    if (elements != expected) {
        fail(GGUFSTEER_WRONG_WIDTH, layer, elements / n_rows, plan.n_embd);
        return false;
    }
    // ggml counts the gaps of a strided tensor as bytes, so this also says that the rows lie one after the other.
    const int64_t bytes = static_cast<int64_t>(accessors.nbytes(tensor));
    const int64_t expected_bytes = expected * static_cast<int64_t>(sizeof(float));
    if (bytes != expected_bytes) {
        fail(GGUFSTEER_WRONG_TYPE, layer, bytes, expected_bytes);
        return false;
    }
    return true;
}

void ggufsteer_capture::fetch(const ggml_tensor *tensor, int32_t layer_index, int32_t first, int32_t last, int32_t origin,
                              bool cut) noexcept {
    const size_t row_bytes = static_cast<size_t>(plan.n_embd) * sizeof(float);
    const auto place = [&](int32_t index) { return cut ? index - first : rows[static_cast<size_t>(index)] - origin; };
    for (int32_t begin = first; begin < last;) {
        int32_t end = begin + 1;
        while (end < last && static_cast<size_t>(end - begin) < rows_per_fetch && place(end) == place(end - 1) + 1) {
            ++end;
        }
        const size_t offset = static_cast<size_t>(place(begin)) * row_bytes;
        accessors.backend_tensor_get(tensor, fetched.data(), offset, static_cast<size_t>(end - begin) * row_bytes);
        for (int32_t index = begin; index < end; ++index) {
            store(fetched.data() + static_cast<size_t>(index - begin) * static_cast<size_t>(plan.n_embd), index, layer_index);
        }
        begin = end;
    }
}

void ggufsteer_capture::store(const float *row, int32_t row_index, int32_t layer_index) noexcept {
    const size_t width = static_cast<size_t>(plan.n_embd);
    const size_t slot = static_cast<size_t>(slots[static_cast<size_t>(row_index)]);
    const size_t offset = (slot * layers.size() + static_cast<size_t>(layer_index)) * width;
    if (plan.states != nullptr) {
        std::copy_n(row, width, plan.states + offset);
        return;
    }
    double *sums = plan.sums + offset;
    for (size_t element = 0; element < width; ++element) {
        sums[element] += static_cast<double>(row[element]);
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
