/* The C interface of ggufsteer's native library: reading hidden states inside llama.cpp's evaluation callback.
 *
 * No header of ggml or Python is needed. `ggml_tensor` stays opaque, and the few functions that look into one are handed over
 * as addresses when a capture is created, from the copy of ggml that llama.cpp itself runs on.
 *
 * How it is used, for one llama_context:
 *     create once -> pass ggufsteer_capture_callback and the capture as cb_eval and cb_eval_user_data
 *     for each llama_decode that is to be read: arm(plan) -> llama_decode -> finish(report)
 * A capture that is not armed wants no tensor, so that llama.cpp runs as if there were no callback.
 *
 * A capture belongs to one context and is used by one thread at a time. No function throws.
 */
#ifndef GGUFSTEER_H
#define GGUFSTEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define GGUFSTEER_API __declspec(dllexport)
#else
#define GGUFSTEER_API __attribute__((visibility("default")))
#endif

/* Raised with every change of a struct, a function or a code below. */
#define GGUFSTEER_ABI 2

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_tensor;
struct ggufsteer_capture;

enum ggufsteer_code {
    GGUFSTEER_OK = 0,
    GGUFSTEER_BAD_ARGUMENT = 1, /* a null pointer, an index out of range, an order that is not ascending */
    GGUFSTEER_OUT_OF_MEMORY = 2,
    GGUFSTEER_NOT_ARMED = 3,   /* finish without arm */
    GGUFSTEER_WRONG_TYPE = 4,  /* a layer's output is not a contiguous F32 tensor; seen: bytes, expected: bytes */
    GGUFSTEER_WRONG_WIDTH = 5, /* a row is not n_embd wide; seen: elements, expected: elements */
    GGUFSTEER_WRONG_ROWS = 6,  /* a layer's output has neither a row a token nor a row an output; seen, expected: rows */
    GGUFSTEER_MISSING_ROWS = 7 /* the graph ended before a layer came by; seen, expected: rows */
};

/* What can be done with the rows of a layer, one step after the other. "The state" is the float row that the last ROW or
 * MEAN has made; what is summed is summed in double precision, element by element in the order of the steps. */
enum ggufsteer_operation {
    GGUFSTEER_ROW = 0,    /* the state becomes wanted row `first` (its index in `rows`; never falls from step to step) */
    GGUFSTEER_MEAN = 1,   /* the state becomes accumulator `first`, divided by `second` >= 1 */
    GGUFSTEER_CLEAR = 2,  /* accumulator `first` becomes 0 */
    GGUFSTEER_COPY = 3,   /* accumulator `second` becomes accumulator `first` */
    GGUFSTEER_ADD = 4,    /* accumulator `first` grows by the state */
    GGUFSTEER_STORE = 5,  /* states[first] becomes the state */
    GGUFSTEER_SUM = 6,    /* sums[first] grows by `second` >= 1 times the state */
    GGUFSTEER_LENGTH = 7, /* lengths[first] becomes the state's Euclidean length */
    GGUFSTEER_SCORE = 8   /* scores[first] becomes the state's scalar product with the layer's direction */
};

struct ggufsteer_step {
    int32_t operation; /* enum ggufsteer_operation */
    int32_t first;
    int32_t second;
};

/* Addresses of ggml functions. */
struct ggufsteer_accessors {
    const char *(*get_name)(const struct ggml_tensor *tensor);
    int64_t (*nelements)(const struct ggml_tensor *tensor);
    int64_t (*nrows)(const struct ggml_tensor *tensor);
    size_t (*nbytes)(const struct ggml_tensor *tensor);
    void (*backend_tensor_get)(const struct ggml_tensor *tensor, void *data, size_t offset, size_t size);
};

/* What to read during one llama_decode, which must be one micro-batch of llama.cpp. Layers, rows and steps are copied by arm;
 * the other arrays are used until finish. Each of them may be NULL where its number is 0. */
struct ggufsteer_plan {
    const int32_t *layers;              /* (n_layers,) 0-based layer numbers, strictly ascending */
    const int32_t *rows;                /* (n_rows,) positions in the batch, strictly ascending */
    const struct ggufsteer_step *steps; /* (n_steps,) done once for each layer when its output comes by */
    const float *directions;            /* (n_layers, n_embd), or NULL when there is no score */
    float *states;                      /* (n_states, n_layers, n_embd) */
    double *accumulators;               /* (n_accumulators, n_layers, n_embd): they live on between decodes */
    double *sums;                       /* (n_sums, n_layers, n_embd) */
    double *lengths;                    /* (n_lengths, n_layers) */
    double *scores;                     /* (n_scores, n_layers) */
    int32_t n_layers;
    int32_t n_rows;
    int32_t n_steps;
    int32_t n_states;
    int32_t n_accumulators;
    int32_t n_sums;
    int32_t n_lengths;
    int32_t n_scores;
    int32_t n_embd;
    int32_t n_tokens;         /* tokens in the batch */
    int32_t rows_are_outputs; /* 1: logits are asked for on exactly these rows; some layers then hold no other rows */
    int32_t stop_early;       /* 1: end the graph after the deepest layer */
};

/* What became of a plan. */
struct ggufsteer_report {
    int64_t seen;
    int64_t expected;
    int32_t code;  /* enum ggufsteer_code */
    int32_t layer; /* the layer that the code is about, or -1 */
};

/* The GGUFSTEER_ABI that the library was built with. */
GGUFSTEER_API int32_t ggufsteer_abi(void);

/* Makes a capture that wants nothing yet. */
GGUFSTEER_API int32_t ggufsteer_capture_create(const struct ggufsteer_accessors *accessors, struct ggufsteer_capture **capture);

/* Frees a capture; NULL is allowed. The context that it was given to must be gone or never decode again. */
GGUFSTEER_API void ggufsteer_capture_destroy(struct ggufsteer_capture *capture);

/* Sets what the next llama_decode is read for; replaces an earlier plan. */
GGUFSTEER_API int32_t ggufsteer_capture_arm(struct ggufsteer_capture *capture, const struct ggufsteer_plan *plan);

/* Ends the reading and reports whether every wanted layer came by. Returns the report's code. */
GGUFSTEER_API int32_t ggufsteer_capture_finish(struct ggufsteer_capture *capture, struct ggufsteer_report *report);

/* The evaluation callback itself (ggml_backend_sched_eval_callback); `user_data` is the capture. */
GGUFSTEER_API bool ggufsteer_capture_callback(struct ggml_tensor *tensor, bool ask, void *user_data);

#ifdef __cplusplus
}
#endif

#endif
