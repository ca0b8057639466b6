// The border: everything that comes from outside is measured here before it is read.
#pragma once

#include <stdexcept>
#include <string>

#include "model.h"

struct Refused : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

inline void require(bool is_so, const std::string& rule) {
  if (!is_so) throw Refused(rule);
}

inline void require_bytes(const Buffer& buffer, int64_t bytes, const std::string& name) {
  require(bytes >= 0 && buffer.bytes == bytes && (bytes == 0 || buffer.data != nullptr),
          name + ": must have " + std::to_string(bytes) + " bytes, not " + std::to_string(buffer.bytes));
}

template <class Number>
const Number* numbers_of(const Buffer& buffer, int64_t count, const std::string& name) {
  require_bytes(buffer, count * static_cast<int64_t>(sizeof(Number)), name);
  return static_cast<const Number*>(buffer.data);
}

template <class Number>
const Number* numbers_or_none(const Buffer& buffer, int64_t count, const std::string& name) {
  return buffer.bytes == 0 ? nullptr : numbers_of<Number>(buffer, count, name);
}

inline int64_t whole_panels(int64_t outputs) {
  return (outputs + kPanelColumns - 1) / kPanelColumns * kPanelColumns;
}

// `columns` of the packed weight are more than `outputs` where gate and up share their panels.
inline Linear checked_linear(const LinearWeights& given, int64_t bits, int64_t inputs, int64_t outputs,
                             const std::string& name) {
  require(given.inputs == inputs && given.outputs == outputs, name + ": must have the model's sizes");
  const int64_t columns = whole_panels(outputs);
  Linear linear{bits, inputs, outputs, nullptr, nullptr, nullptr, nullptr};
  linear.weights = numbers_of<uint8_t>(given.weights, columns * inputs * bits / 8, name + " weights");
  linear.bias = numbers_or_none<float>(given.bias, columns, name + " bias");
  if (bits == 16) return linear;
  linear.scales = numbers_of<float>(given.scales, columns, name + " scales");
  linear.first_sums = numbers_of<int32_t>(given.first_sums, columns, name + " first sums");
  return linear;
}

// Sums of 8 bit products must fit 32 bits, whatever the numbers are.
constexpr int64_t kMostInputs = (int64_t{1} << 31) / (255 * 127) - 1;

// Sizes above any model's, so that no product of sizes below overflows.
constexpr int64_t kMostSize = 1 << 24;

inline void check_shape(const Shape& shape) {
  for (const int64_t size : {shape.layers, shape.hidden, shape.intermediate, shape.heads, shape.key_heads,
                             shape.head_size, shape.vocabulary, shape.cache_blocks, shape.threads})
    require(size >= 1 && size <= kMostSize, "each size must be from 1 to 16777216");
  require(shape.bits == 16 || shape.bits == 8, "bits: must be 16 or 8");
  for (const int64_t size : {shape.hidden, shape.intermediate, shape.head_size})
    require(size % kLanes == 0, "hidden, intermediate and head size: must be multiples of 16");
  require(shape.head_size <= kMostHeadSize && shape.heads <= 1024 && shape.threads <= 1024,
          "heads: too many or too large");
  require(shape.heads % shape.key_heads == 0, "heads: must be a multiple of the key heads");
  require(shape.rotary_size >= 0 && shape.rotary_size % 2 == 0 && shape.rotary_size <= shape.head_size,
          "rotary size: must be even and at most the head size");
  require(std::max({shape.hidden, shape.intermediate, shape.heads * shape.head_size}) <= kMostInputs,
          "the model is too wide for sums of 32 bits");
}

// Columns of gate and up, which share panels in halves.
inline int64_t gate_up_columns(int64_t intermediate) {
  constexpr int64_t kHalf = kPanelColumns / 2;
  return (intermediate + kHalf - 1) / kHalf * kPanelColumns;
}

inline Layer checked_layer(const LayerWeights& given, const Model& model) {
  const Shape& shape = model.shape;
  const int64_t bits = shape.bits, hidden = shape.hidden;
  return {numbers_of<float>(given.input_norm, hidden, "input norm"),
          numbers_or_none<float>(given.query_norm, shape.head_size, "query norm"),
          numbers_or_none<float>(given.key_norm, shape.head_size, "key norm"),
          numbers_or_none<float>(given.attended_norm, hidden, "attended norm"),
          numbers_of<float>(given.mlp_input_norm, hidden, "MLP input norm"),
          numbers_or_none<float>(given.mlp_output_norm, hidden, "MLP output norm"),
          checked_linear(given.query_key_value, bits, hidden, model.query_width() + 2 * model.key_width(),
                         "query, key and value"),
          checked_linear(given.attended, bits, model.query_width(), hidden, "attended"),
          checked_linear(given.gate_up, bits, hidden, gate_up_columns(shape.intermediate), "gate and up"),
          checked_linear(given.down, bits, shape.intermediate, hidden, "down")};
}

inline Model checked_model(const ModelWeights& given) {
  const Shape& shape = given.shape;
  check_shape(shape);
  require(given.layer_count == shape.layers && given.layers != nullptr,
          "layers: must be as many as the shape says");
  Model model{shape, {}, nullptr, nullptr, {}, nullptr, nullptr};
  for (int64_t layer = 0; layer < shape.layers; layer++)
    model.layers.push_back(checked_layer(given.layers[layer], model));
  model.embedding = numbers_of<bfloat16>(given.embedding, shape.vocabulary * shape.hidden, "embedding");
  model.final_norm = numbers_of<float>(given.final_norm, shape.hidden, "final norm");
  model.head = checked_linear(given.head, shape.bits, shape.hidden, shape.vocabulary, "head");
  const int64_t cached = shape.layers * shape.cache_blocks * model.block_numbers();
  model.keys = const_cast<bfloat16*>(numbers_of<bfloat16>(given.keys, cached, "keys"));
  model.values = const_cast<bfloat16*>(numbers_of<bfloat16>(given.values, cached, "values"));
  return model;
}

// A step whose every number has been looked at.
struct Step {
  int64_t rows, wanted_count, span_count;
  const int32_t *tokens, *positions, *slots, *spans, *blocks, *wanted;
  const float *cosines, *sines;
  float* logits;
};

inline void check_range(const int32_t* numbers, int64_t count, int64_t end, const std::string& name) {
  for (int64_t i = 0; i < count; i++)
    require(numbers[i] >= 0 && numbers[i] < end,
            name + ": " + std::to_string(numbers[i]) + " is not from 0 to below " + std::to_string(end));
}

// Each row of a span must stand where its place in the context says, in the blocks that the span names.
inline void check_span(const Step& step, const int32_t* span, int64_t block_count, int64_t next_row) {
  const int64_t first = span[0], rows = span[1], context = span[2], place = span[3];
  require(first == next_row && rows >= 1 && rows <= step.rows - first && context >= rows,
          "spans: must follow each other, each with rows of its own");
  require(place >= 0 && place + (context + kBlockTokens - 1) / kBlockTokens <= block_count,
          "blocks: fewer than the context needs");
  for (int64_t row = first; row < first + rows; row++) {
    const int64_t position = context - rows + row - first;
    const int64_t slot =
        step.blocks[place + position / kBlockTokens] * kBlockTokens + position % kBlockTokens;
    require(step.positions[row] == position && step.slots[row] == slot,
            "positions and slots: row " + std::to_string(row) + " is not where its span says");
  }
}

inline Step checked_step(const Model& model, const StepRows& given) {
  const Shape& shape = model.shape;
  Step step{};
  step.rows = given.tokens.bytes / 4;
  step.span_count = given.spans.bytes / 16;
  step.wanted_count = given.wanted.bytes / 4;
  const int64_t block_count = given.blocks.bytes / 4;
  require(step.rows >= 1 && step.rows <= kMostSize, "tokens: must be at least one");
  step.tokens = numbers_of<int32_t>(given.tokens, step.rows, "tokens");
  step.positions = numbers_of<int32_t>(given.positions, step.rows, "positions");
  step.slots = numbers_of<int32_t>(given.slots, step.rows, "slots");
  step.spans = numbers_of<int32_t>(given.spans, 4 * step.span_count, "spans");
  step.blocks = numbers_of<int32_t>(given.blocks, block_count, "blocks");
  step.wanted = numbers_of<int32_t>(given.wanted, step.wanted_count, "wanted");
  step.cosines = numbers_of<float>(given.cosines, step.rows * shape.rotary_size / 2, "cosines");
  step.sines = numbers_of<float>(given.sines, step.rows * shape.rotary_size / 2, "sines");
  step.logits =
      const_cast<float*>(numbers_of<float>(given.logits, step.wanted_count * shape.vocabulary, "logits"));
  check_range(step.tokens, step.rows, shape.vocabulary, "tokens");
  check_range(step.blocks, block_count, shape.cache_blocks, "blocks");
  check_range(step.wanted, step.wanted_count, step.rows, "wanted");
  int64_t next_row = 0;
  for (int64_t index = 0; index < step.span_count; index++) {
    check_span(step, step.spans + 4 * index, block_count, next_row);
    next_row += step.spans[4 * index + 1];
  }
  require(next_row == step.rows, "spans: must cover every row");
  return step;
}
