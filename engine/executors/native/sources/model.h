// A model as the step reads it, and the memory that a step works in.
#pragma once

#include <memory>
#include <new>
#include <vector>

#include "api.h"
#include "attention.h"
#include "linear.h"

// Memory of whole cache lines; what was in it is lost when it grows.
template <class Number>
class Workspace {
 public:
  void reserve(int64_t numbers) {
    if (numbers <= reserved_) return;
    memory_.reset();
    reserved_ = 0;
    const auto bytes = static_cast<size_t>(numbers) * sizeof(Number);
    memory_.reset(static_cast<Number*>(::operator new(bytes, std::align_val_t{64})));
    reserved_ = numbers;
  }
  Number* data() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(Number* memory) const { ::operator delete(memory, std::align_val_t{64}); }
  };
  std::unique_ptr<Number, Free> memory_;
  int64_t reserved_ = 0;
};

struct Layer {
  const float *input_norm, *query_norm, *key_norm, *attended_norm, *mlp_input_norm, *mlp_output_norm;
  Linear query_key_value, attended, gate_up, down;
};

struct Model {
  Shape shape;
  std::vector<Layer> layers;
  const bfloat16* embedding;
  const float* final_norm;
  Linear head;
  bfloat16 *keys, *values;

  int64_t query_width() const { return shape.heads * shape.head_size; }
  int64_t key_width() const { return shape.key_heads * shape.head_size; }
  int64_t group() const { return shape.heads / shape.key_heads; }
  int64_t block_numbers() const { return kBlockTokens * key_width(); }

  // Where the cache of a layer's key head begins: its part of the layer's first block.
  int64_t cache_place(int64_t layer, int64_t key_head) const {
    return layer * shape.cache_blocks * block_numbers() + key_head * kBlockTokens * shape.head_size;
  }
};

// Some neighbouring rows of a sequence that attend together.
struct RowRange {
  int64_t first_row, rows, first_limit;
  const int32_t* blocks;

  int64_t keys_seen() const { return rows * (2 * first_limit + rows - 1) / 2; }
};

// The step's rows between the phases, and what each thread needs for attention.
struct StepMemory {
  Workspace<float> residual, wanted_residual, projected, scales, sums, scores;
  Workspace<bfloat16> queries, attended, gated, shares;
  Workspace<uint8_t> numbers;
  std::vector<RowRange> ranges;

  // There may be more `wanted` rows than rows: the same one may be asked for several times.
  void reserve(const Model& model, int64_t step_rows, int64_t wanted) {
    const int64_t rows = std::max(step_rows, wanted);
    const Shape& shape = model.shape;
    const int64_t widest = std::max({shape.hidden, shape.intermediate, model.query_width()});
    residual.reserve(rows * shape.hidden);
    wanted_residual.reserve(wanted * shape.hidden);
    projected.reserve(rows * std::max(shape.hidden, model.query_width() + 2 * model.key_width()));
    scales.reserve(rows);
    queries.reserve(rows * model.query_width());
    attended.reserve(rows * model.query_width());
    gated.reserve(rows * shape.intermediate);
    numbers.reserve(rows * widest * shape.bits / 8);
    sums.reserve(shape.threads * sums_of_thread(model));
    scores.reserve(shape.threads * kQueriesTogether * kChunkKeys);
    shares.reserve(shape.threads * shares_of_thread(model));
  }

  Inputs inputs(const Shape& shape, int64_t width) const {
    return {shape.bits, width, numbers.data(), scales.data()};
  }

  AttentionScratch scratch(const Model& model, int64_t thread) const {
    const int64_t queries_most = most_queries(model);
    float* of_thread = sums.data() + thread * sums_of_thread(model);
    bfloat16* shares_begin = shares.data() + thread * shares_of_thread(model);
    return {of_thread,
            of_thread + queries_most * model.shape.head_size,
            of_thread + queries_most * (model.shape.head_size + kLanes),
            scores.data() + thread * kQueriesTogether * kChunkKeys,
            shares_begin,
            shares_begin + kQueriesTogether * kChunkKeys};
  }

 private:
  static int64_t most_queries(const Model& model) {
    return AttentionScratch::rounded_up(std::max(kTaskQueries, model.group()));
  }
  // Sixteen numbers apart, so that no two threads write to one cache line.
  static int64_t sums_of_thread(const Model& model) {
    return most_queries(model) * (model.shape.head_size + kLanes + 1) + kLanes;
  }
  static int64_t shares_of_thread(const Model& model) {
    return kQueriesTogether * kChunkKeys + kBlockTokens * model.shape.head_size + 2 * kLanes;
  }
};
