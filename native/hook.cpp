// The C interface, and the callback that lets layers' outputs be changed first and read then. It is told in ggufsteer.h.
//
// The Python twin, ggufsteer/engine/twin.py, does the same step by step; both are run by one test-suite.

#include "hook.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <new>
#include <numeric>

namespace ggufsteer {
namespace {

// The layer number in "l_out-12"; -1 for every other name, such as "mtp_l_out-0" or "l_out-12 (view)".
int32_t layer_of(const char *name) noexcept {
    constexpr char prefix[] = "l_out-";
    constexpr size_t prefix_length = sizeof(prefix) - 1;
    if (name == nullptr || std::strncmp(name, prefix, prefix_length) != 0 || name[prefix_length] == '\0') {
        return -1;
    }
    int32_t layer = 0;
    for (const char *digits = name + prefix_length; *digits != '\0'; ++digits) {
        layer = layer * 10 + (*digits - '0');
        if (*digits < '0' || *digits > '9' || layer > largest_layer) {
            return -1;
        }
    }
    return layer;
}

// Does what may allocate, and gives the code of it: nothing may be thrown into C.
template <typename Action> int32_t guarded(Action action) noexcept {
    try {
        return action() ? GGUFSTEER_OK : GGUFSTEER_BAD_ARGUMENT;
    } catch (...) {  // only allocations can throw
        return GGUFSTEER_OUT_OF_MEMORY;
    }
}

}  // namespace

bool strictly_ascending(const int32_t *values, int32_t count, int32_t end) noexcept {
    const bool ascends = std::adjacent_find(values, values + count, std::greater_equal<>()) == values + count;
    return ascends && (count == 0 || (values[0] >= 0 && values[count - 1] < end));
}

double scalar_product(const float *one, const float *other, size_t width) noexcept {
    // In the order of the elements, which the standard promises for this algorithm, and not for std::reduce.
    return std::inner_product(one, one + width, other, 0.0, std::plus<>(), [](double a, double b) { return a * b; });
}

ggufsteer_report check_form(const ggufsteer_accessors &accessors, const ggml_tensor *tensor, int32_t layer,
                            int64_t width) noexcept {
    const int64_t n_rows = accessors.nrows(tensor);
    const int64_t elements = accessors.nelements(tensor);
    if (elements != n_rows * width) {
        return ggufsteer_report{elements / n_rows, width, GGUFSTEER_WRONG_WIDTH, layer};
    }
    // ggml counts the gaps of a strided tensor as bytes, so this also says that the rows lie one after the other.
    const int64_t bytes = static_cast<int64_t>(accessors.nbytes(tensor));
    const int64_t expected_bytes = elements * static_cast<int64_t>(sizeof(float));
    return bytes == expected_bytes ? success : ggufsteer_report{bytes, expected_bytes, GGUFSTEER_WRONG_TYPE, layer};
}

}  // namespace ggufsteer

using namespace ggufsteer;

struct ggufsteer_hook {
    explicit ggufsteer_hook(const ggufsteer_accessors &functions)
        : accessors(functions), capture(functions), edits(functions) {}

    bool is_called(ggml_tensor *tensor, bool ask) noexcept;

    ggufsteer_accessors accessors;
    Capture capture;
    Edits edits;
};

bool ggufsteer_hook::is_called(ggml_tensor *tensor, bool ask) noexcept {
    // llama.cpp asks about every node of every graph, and most of the time there is nothing to want or to stop.
    if (tensor == nullptr || (!capture.is_armed() && !edits.are_set())) {
        return !ask;
    }
    // After a stop the scheduler goes on with its next split, if layers are spread over devices. Wanting that split's first
    // node, and refusing it when it arrives, ends the split after one node.
    if (edits.have_failed() || capture.last_layer() != INT32_MAX) {
        return ask;
    }
    const int32_t layer = layer_of(accessors.get_name(tensor));
    if (ask) {
        return edits.act_on(layer) || capture.wants(layer);
    }
    return edits.apply(tensor, layer) && capture.receive(tensor, layer);
}

int32_t ggufsteer_abi(void) { return GGUFSTEER_ABI; }

int32_t ggufsteer_hook_create(const ggufsteer_accessors *accessors, ggufsteer_hook **hook) {
    if (accessors == nullptr || hook == nullptr || accessors->get_name == nullptr || accessors->nelements == nullptr ||
        accessors->nrows == nullptr || accessors->nbytes == nullptr || accessors->backend_tensor_get == nullptr ||
        accessors->backend_tensor_set == nullptr) {
        return GGUFSTEER_BAD_ARGUMENT;
    }
    *hook = new (std::nothrow) ggufsteer_hook(*accessors);
    return *hook == nullptr ? GGUFSTEER_OUT_OF_MEMORY : GGUFSTEER_OK;
}

void ggufsteer_hook_destroy(ggufsteer_hook *hook) { delete hook; }

int32_t ggufsteer_hook_arm(ggufsteer_hook *hook, const ggufsteer_plan *plan) {
    return guarded([=] { return hook != nullptr && plan != nullptr && hook->capture.arm(*plan); });
}

int32_t ggufsteer_hook_finish(ggufsteer_hook *hook, ggufsteer_report *report) {
    if (hook == nullptr || report == nullptr) {
        return GGUFSTEER_BAD_ARGUMENT;
    }
    *report = hook->capture.finish();
    return report->code;
}

int32_t ggufsteer_hook_set_edits(ggufsteer_hook *hook, const ggufsteer_edits *edits) {
    return guarded([=] { return hook != nullptr && hook->edits.set(edits); });
}

int32_t ggufsteer_hook_expect(ggufsteer_hook *hook, int32_t n_tokens, const int32_t *outputs, int32_t n_outputs) {
    return guarded([=] { return hook != nullptr && hook->edits.expect(n_tokens, outputs, n_outputs); });
}

int32_t ggufsteer_hook_edits_report(ggufsteer_hook *hook, ggufsteer_report *report) {
    if (hook == nullptr || report == nullptr) {
        return GGUFSTEER_BAD_ARGUMENT;
    }
    *report = hook->edits.take_report(hook->capture.last_layer());
    return report->code;
}

bool ggufsteer_hook_callback(ggml_tensor *tensor, bool ask, void *user_data) {
    auto *hook = static_cast<ggufsteer_hook *>(user_data);
    return hook == nullptr ? !ask : hook->is_called(tensor, ask);
}
