// What crosses the border to Python: plain structures, every address with the bytes behind it.
// engine/executors/native/structures.py describes the same ones; their order and types must agree.
#pragma once

#include <cstdint>

extern "C" {

// No bytes where a model has no such thing (a bias, a norm of queries).
struct Buffer {
  const void* data;
  int64_t bytes;
};

// A packed weight [outputs, inputs]; scales and first sums belong to 8 bits. See tiles.h and linear.h.
struct LinearWeights {
  Buffer weights, scales, first_sums, bias;
  int64_t inputs, outputs;
};

struct LayerWeights {
  Buffer input_norm, query_norm, key_norm, attended_norm, mlp_input_norm, mlp_output_norm;
  LinearWeights query_key_value, attended, gate_up, down;
};

struct Shape {
  int64_t bits, layers, hidden, intermediate, heads, key_heads, head_size, rotary_size, vocabulary;
  int64_t cache_blocks, threads;
  float epsilon, attention_scale;
};

// Norms are float32, the embedding bfloat16 [vocabulary, hidden]. Keys and values are bfloat16, for each
// layer, block of 16 tokens and head: keys [head size ÷ 2][16 tokens][2], values [8][head size][2 tokens].
struct ModelWeights {
  Shape shape;
  const LayerWeights* layers;
  int64_t layer_count;
  Buffer embedding, final_norm;
  LinearWeights head;
  Buffer keys, values;
};

// Rows of (token, position, slot), int32; cosines and sines float32 [rows, rotary size ÷ 2]; spans int32
// [spans, 4]: first row, rows, tokens of context, place of the first block in `blocks`; `wanted` the rows
// whose logits are asked for, float32 [wanted, vocabulary].
struct StepRows {
  Buffer tokens, positions, slots, cosines, sines, spans, blocks, wanted;
  Buffer logits;
};

// Rows of up to three matrices [rows, inputs], one behind the other, of bfloat16 or float32 (`source_bits`);
// `order` int32 says which of them each packed column is, -1 for one of zeros. Scales and first sums are
// those of 8 bits, for each packed column.
struct PackOrder {
  Buffer sources[3];
  Buffer order;
  int64_t inputs, source_bits, bits;
  Buffer packed, scales, first_sums;
};

struct Message {
  char text[256];
};

#define LECTERN_EXPORT __attribute__((visibility("default")))

// These return 0, or another number with the reason in the message.
LECTERN_EXPORT int lectern_pack(const PackOrder* order, int64_t threads, Message* message);
LECTERN_EXPORT int lectern_open(const ModelWeights* weights, void** model, Message* message);
LECTERN_EXPORT int lectern_step(void* model, const StepRows* rows, Message* message);
LECTERN_EXPORT void lectern_close(void* model);
}
