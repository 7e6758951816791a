// Tests of the native capture with a graph and tensors of our own: what llama.cpp does, without llama.cpp.

#include "ggufsteer.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

// Our stand-in for ggml's tensor: a name, rows, and a byte count that a test may falsify.
struct ggml_tensor {
    std::string name;
    std::vector<float> data;
    int64_t width = 1;
    size_t bytes = 0;
};

namespace {

int failures = 0;
size_t bytes_read = 0;
int reads = 0;

#define CHECK(condition)                                                                                                       \
    do {                                                                                                                       \
        if (!(condition)) {                                                                                                    \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                               \
            ++failures;                                                                                                        \
        }                                                                                                                      \
    } while (false)

const char *get_name(const ggml_tensor *tensor) { return tensor->name.c_str(); }
int64_t nelements(const ggml_tensor *tensor) { return static_cast<int64_t>(tensor->data.size()); }
int64_t nrows(const ggml_tensor *tensor) { return nelements(tensor) / tensor->width; }
size_t nbytes(const ggml_tensor *tensor) { return tensor->bytes; }

void tensor_get(const ggml_tensor *tensor, void *data, size_t offset, size_t size) {
    if (offset + size > tensor->data.size() * sizeof(float)) {
        std::fprintf(stderr, "read past the end of %s\n", tensor->name.c_str());
        std::abort();
    }
    std::memcpy(data, reinterpret_cast<const char *>(tensor->data.data()) + offset, size);
    bytes_read += size;
    ++reads;
}

const ggufsteer_accessors accessors{get_name, nelements, nrows, nbytes, tensor_get};

constexpr int32_t width = 3;

// The value at a layer, batch position and column: all different, all exact in float.
float value(int32_t layer, int32_t position, int32_t column) {
    return static_cast<float>(layer * 10000 + position * 10 + column);
}

// The tensor of a layer for the given batch positions.
ggml_tensor layer_output(int32_t layer, const std::vector<int32_t> &positions) {
    ggml_tensor tensor{"l_out-" + std::to_string(layer), {}, width, 0};
    for (const int32_t position : positions) {
        for (int32_t column = 0; column < width; ++column) {
            tensor.data.push_back(value(layer, position, column));
        }
    }
    tensor.bytes = tensor.data.size() * sizeof(float);
    return tensor;
}

std::vector<int32_t> range(int32_t begin, int32_t end) {
    std::vector<int32_t> numbers;
    for (int32_t number = begin; number < end; ++number) {
        numbers.push_back(number);
    }
    return numbers;
}

// A plan that owns its arrays.
struct Wanted {
    std::vector<int32_t> layers{1, 3};
    std::vector<int32_t> rows{0, 2, 3};
    std::vector<int32_t> slots{0, 1, 2};
    int32_t n_slots = 3;
    int32_t n_tokens = 5;
    int32_t n_ubatch = 5;
    int32_t rows_are_outputs = 0;
    int32_t stop_early = 0;
    bool adds = false;
    std::vector<float> states;
    std::vector<double> sums;

    ggufsteer_plan plan() {
        const size_t size = static_cast<size_t>(n_slots) * layers.size() * width;
        states.assign(size, -1.0F);
        sums.assign(size, 0.0);
        ggufsteer_plan result{};
        result.layers = layers.data();
        result.rows = rows.data();
        result.slots = slots.data();
        result.states = adds ? nullptr : states.data();
        result.sums = adds ? sums.data() : nullptr;
        result.n_layers = static_cast<int32_t>(layers.size());
        result.n_rows = static_cast<int32_t>(rows.size());
        result.n_slots = n_slots;
        result.n_embd = width;
        result.n_tokens = n_tokens;
        result.n_ubatch = n_ubatch;
        result.rows_are_outputs = rows_are_outputs;
        result.stop_early = stop_early;
        return result;
    }
};

struct Capture {
    Capture() { CHECK(ggufsteer_capture_create(&accessors, &pointer) == GGUFSTEER_OK); }
    ~Capture() { ggufsteer_capture_destroy(pointer); }
    Capture(const Capture &) = delete;
    Capture &operator=(const Capture &) = delete;

    bool ask(ggml_tensor tensor) { return ggufsteer_capture_callback(&tensor, true, pointer); }
    bool give(ggml_tensor tensor) { return ggufsteer_capture_callback(&tensor, false, pointer); }

    // What ggml's scheduler does with one split of a graph; returns how many nodes were computed.
    size_t run(const std::vector<ggml_tensor> &nodes) {
        for (size_t node = 0; node < nodes.size(); ++node) {
            if (ask(nodes[node]) && !give(nodes[node])) {
                return node + 1;
            }
        }
        return nodes.size();
    }

    ggufsteer_report finish() {
        ggufsteer_report report{};
        CHECK(ggufsteer_capture_finish(pointer, &report) == report.code);
        return report;
    }

    ggufsteer_capture *pointer = nullptr;
};

std::vector<ggml_tensor> graph(const std::vector<int32_t> &positions) {
    std::vector<ggml_tensor> nodes;
    nodes.push_back({"inp_embd", {}, 1, 0});
    for (int32_t layer = 0; layer < 5; ++layer) {
        nodes.push_back({"attn_out-" + std::to_string(layer), {}, 1, 0});
        nodes.push_back(layer_output(layer, positions));
    }
    nodes.push_back({"result_output", {}, 1, 0});
    return nodes;
}

void reads_the_wanted_rows_only() {
    Capture capture;
    Wanted wanted;
    ggufsteer_plan plan = wanted.plan();
    CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
    bytes_read = 0;
    CHECK(capture.run(graph(range(0, 5))) == 12);
    CHECK(capture.finish().code == GGUFSTEER_OK);
    CHECK(bytes_read == 2 * 3 * width * sizeof(float));
    for (size_t slot = 0; slot < 3; ++slot) {
        for (size_t layer = 0; layer < 2; ++layer) {
            for (int32_t column = 0; column < width; ++column) {
                const float seen = wanted.states[(slot * 2 + layer) * width + static_cast<size_t>(column)];
                CHECK(seen == value(wanted.layers[layer], wanted.rows[slot], column));
            }
        }
    }
}

void adds_rows_of_one_slot() {
    Capture capture;
    Wanted wanted;
    wanted.adds = true;
    wanted.n_slots = 2;
    wanted.slots = {1, 1, 0};
    ggufsteer_plan plan = wanted.plan();
    CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
    capture.run(graph(range(0, 5)));
    CHECK(capture.finish().code == GGUFSTEER_OK);
    CHECK(wanted.sums[0] == value(1, 3, 0));
    CHECK(wanted.sums[2 * width] == static_cast<double>(value(1, 0, 0)) + static_cast<double>(value(1, 2, 0)));
}

void follows_a_batch_that_comes_in_pieces() {
    Capture capture;
    Wanted wanted;
    wanted.n_ubatch = 2;
    ggufsteer_plan plan = wanted.plan();
    CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
    capture.run(graph({0, 1}));
    capture.run(graph({2, 3}));
    capture.run(graph({4}));
    CHECK(capture.finish().code == GGUFSTEER_OK);
    CHECK(wanted.states[(2 * 2 + 1) * width + 1] == value(3, 3, 1));
}

void reads_a_layer_that_holds_output_rows_only() {
    Capture capture;
    Wanted wanted;
    wanted.n_ubatch = 3;
    wanted.rows_are_outputs = 1;
    ggufsteer_plan plan = wanted.plan();
    CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
    capture.run({layer_output(1, {0, 1, 2}), layer_output(3, {0, 2})});
    capture.run({layer_output(1, {3, 4}), layer_output(3, {3})});
    CHECK(capture.finish().code == GGUFSTEER_OK);
    for (size_t slot = 0; slot < 3; ++slot) {
        CHECK(wanted.states[(slot * 2 + 1) * width] == value(3, wanted.rows[slot], 0));
    }
}

void an_empty_layer_of_a_piece_without_outputs_is_fine() {
    Capture capture;
    Wanted wanted;
    wanted.rows = {4};
    wanted.slots = {0};
    wanted.n_ubatch = 3;
    wanted.rows_are_outputs = 1;
    ggufsteer_plan plan = wanted.plan();
    CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
    capture.run({layer_output(1, {0, 1, 2}), layer_output(3, {})});
    capture.run({layer_output(1, {3, 4}), layer_output(3, {4})});
    CHECK(capture.finish().code == GGUFSTEER_OK);
}

void stops_after_the_deepest_layer_and_stays_stopped() {
    Capture capture;
    Wanted wanted;
    wanted.stop_early = 1;
    ggufsteer_plan plan = wanted.plan();
    CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
    CHECK(capture.run(graph(range(0, 5))) == 9);  // l_out-3 is the ninth node
    CHECK(capture.run(graph(range(0, 5))) == 1);  // a further split of the same graph ends after its first node
    CHECK(capture.finish().code == GGUFSTEER_OK);
    CHECK(capture.run(graph(range(0, 5))) == 12);  // not armed: every graph runs to its end
}

void matches_exact_names_only() {
    Capture capture;
    Wanted wanted;
    ggufsteer_plan plan = wanted.plan();
    CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
    for (const char *name : {"mtp_l_out-1", "l_out-1 (view)", "l_out-", "l_out", "l_out--1", "l_out-1a", " l_out-1", "l_out-2",
                             "l_out-4294967297", "l_out-99999999999999999999", "", "CUDA0#l_out-1#0"}) {
        CHECK(!capture.ask({name, {}, 1, 0}));
        CHECK(capture.give({name, {}, 1, 0}));
    }
    CHECK(capture.ask(layer_output(1, range(0, 5))));
    CHECK(capture.finish().code == GGUFSTEER_MISSING_ROWS);
}

void reports_what_is_not_as_expected() {
    const std::vector<std::pair<std::function<ggml_tensor()>, ggufsteer_report>> cases{
        {[] { return layer_output(1, range(0, 4)); }, {4, 5, GGUFSTEER_WRONG_ROWS, 1}},
        {[] { return layer_output(1, {}); }, {0, 5, GGUFSTEER_WRONG_ROWS, 1}},
        {[] {
             ggml_tensor tensor = layer_output(1, range(0, 5));
             tensor.bytes /= 2;  // as F16 would be
             return tensor;
         },
         {30, 60, GGUFSTEER_WRONG_TYPE, 1}},
        {[] {
             ggml_tensor tensor = layer_output(1, range(0, 5));
             tensor.bytes += 4;  // as a tensor with gaps would be
             return tensor;
         },
         {64, 60, GGUFSTEER_WRONG_TYPE, 1}},
        {[] {
             ggml_tensor tensor = layer_output(1, range(0, 10));
             tensor.width = 2 * width;
             return tensor;
         },
         {2 * width, width, GGUFSTEER_WRONG_WIDTH, 1}},
    };
    for (const auto &[tensor, expected] : cases) {
        Capture capture;
        Wanted wanted;
        ggufsteer_plan plan = wanted.plan();
        CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
        CHECK(!capture.give(tensor()));
        CHECK(capture.ask({"anything", {}, 1, 0}));  // the next split is to be refused as well
        const ggufsteer_report report = capture.finish();
        CHECK(report.code == expected.code);
        CHECK(report.layer == expected.layer);
        CHECK(report.seen == expected.seen);
        CHECK(report.expected == expected.expected);
    }
}

void reports_a_batch_that_ends_half_way() {
    Capture capture;
    Wanted wanted;
    wanted.n_ubatch = 3;
    ggufsteer_plan plan = wanted.plan();
    CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
    CHECK(capture.give(layer_output(1, range(0, 3))));
    CHECK(capture.give(layer_output(3, range(0, 3))));
    CHECK(capture.give(layer_output(1, range(3, 5))));
    const ggufsteer_report report = capture.finish();
    CHECK(report.code == GGUFSTEER_MISSING_ROWS);
    CHECK(report.layer == 3);
    CHECK(report.seen == 2);
    CHECK(report.expected == 3);
}

void reports_a_layer_that_comes_twice() {
    Capture capture;
    Wanted wanted;
    ggufsteer_plan plan = wanted.plan();
    CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
    CHECK(capture.give(layer_output(1, range(0, 5))));
    CHECK(!capture.give(layer_output(1, range(0, 5))));
    CHECK(capture.finish().code == GGUFSTEER_WRONG_ROWS);
}

void refuses_plans_that_could_write_astray() {
    Capture capture;
    const std::vector<std::function<void(Wanted &, ggufsteer_plan &)>> spoilers{
        [](Wanted &, ggufsteer_plan &plan) { plan.layers = nullptr; },
        [](Wanted &, ggufsteer_plan &plan) { plan.rows = nullptr; },
        [](Wanted &, ggufsteer_plan &plan) { plan.slots = nullptr; },
        [](Wanted &, ggufsteer_plan &plan) { plan.states = nullptr; },
        [](Wanted &wanted, ggufsteer_plan &plan) { plan.sums = wanted.sums.data(); },
        [](Wanted &, ggufsteer_plan &plan) { plan.n_layers = 0; },
        [](Wanted &, ggufsteer_plan &plan) { plan.n_rows = -1; },
        [](Wanted &, ggufsteer_plan &plan) { plan.n_slots = 2; },
        [](Wanted &, ggufsteer_plan &plan) { plan.n_embd = 0; },
        [](Wanted &, ggufsteer_plan &plan) { plan.n_tokens = 3; },
        [](Wanted &, ggufsteer_plan &plan) { plan.n_ubatch = 0; },
        [](Wanted &, ggufsteer_plan &plan) { plan.n_ubatch = 4, plan.stop_early = 1; },
        [](Wanted &wanted, ggufsteer_plan &) { wanted.layers[0] = 3; },
        [](Wanted &wanted, ggufsteer_plan &) { wanted.layers[0] = -1; },
        [](Wanted &wanted, ggufsteer_plan &) { wanted.rows[1] = 0; },
        [](Wanted &wanted, ggufsteer_plan &) { wanted.slots[2] = -1; },
    };
    for (const auto &spoil : spoilers) {
        Wanted wanted;
        ggufsteer_plan plan = wanted.plan();
        spoil(wanted, plan);
        CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_BAD_ARGUMENT);
    }
    CHECK(capture.finish().code == GGUFSTEER_NOT_ARMED);
}

void keeps_its_own_copy_of_the_plan() {
    Capture capture;
    Wanted wanted;
    {
        Wanted passing = wanted;
        ggufsteer_plan plan = passing.plan();
        wanted.plan();
        plan.states = wanted.states.data();
        CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
    }
    capture.run(graph(range(0, 5)));
    CHECK(capture.finish().code == GGUFSTEER_OK);
    CHECK(wanted.states[0] == value(1, 0, 0));
}

void reads_neighbouring_rows_together() {
    Capture capture;
    Wanted wanted;
    wanted.layers = {1};
    wanted.rows = range(0, 200);
    wanted.slots = range(0, 200);
    wanted.n_slots = 200;
    wanted.n_tokens = wanted.n_ubatch = 200;
    ggufsteer_plan plan = wanted.plan();
    CHECK(ggufsteer_capture_arm(capture.pointer, &plan) == GGUFSTEER_OK);
    reads = 0;
    capture.run(graph(range(0, 200)));
    CHECK(capture.finish().code == GGUFSTEER_OK);
    CHECK(reads == 4);
    for (int32_t row = 0; row < 200; ++row) {
        CHECK(wanted.states[static_cast<size_t>(row) * width + 2] == value(1, row, 2));
    }
}

void survives_null_pointers() {
    ggufsteer_capture *capture = nullptr;
    CHECK(ggufsteer_capture_create(nullptr, &capture) == GGUFSTEER_BAD_ARGUMENT);
    CHECK(ggufsteer_capture_create(&accessors, nullptr) == GGUFSTEER_BAD_ARGUMENT);
    ggufsteer_accessors incomplete = accessors;
    incomplete.nrows = nullptr;
    CHECK(ggufsteer_capture_create(&incomplete, &capture) == GGUFSTEER_BAD_ARGUMENT);
    CHECK(ggufsteer_capture_arm(nullptr, nullptr) == GGUFSTEER_BAD_ARGUMENT);
    CHECK(ggufsteer_capture_finish(nullptr, nullptr) == GGUFSTEER_BAD_ARGUMENT);
    ggufsteer_capture_destroy(nullptr);
    CHECK(!ggufsteer_capture_callback(nullptr, true, nullptr));
    CHECK(ggufsteer_capture_callback(nullptr, false, nullptr));
    CHECK(ggufsteer_abi() == GGUFSTEER_ABI);
}

}  // namespace

int main() {
    reads_the_wanted_rows_only();
    adds_rows_of_one_slot();
    follows_a_batch_that_comes_in_pieces();
    reads_a_layer_that_holds_output_rows_only();
    an_empty_layer_of_a_piece_without_outputs_is_fine();
    stops_after_the_deepest_layer_and_stays_stopped();
    matches_exact_names_only();
    reports_what_is_not_as_expected();
    reports_a_batch_that_ends_half_way();
    reports_a_layer_that_comes_twice();
    refuses_plans_that_could_write_astray();
    keeps_its_own_copy_of_the_plan();
    reads_neighbouring_rows_together();
    survives_null_pointers();
    if (failures == 0) {
        std::puts("all native tests passed");
    }
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
