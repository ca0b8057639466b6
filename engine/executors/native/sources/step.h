// One step: every row through every layer, in a single parallel region.
//
// All threads run these functions side by side. Each `omp for` shares its loop out and lets nobody go on
// before all are done, so that a phase reads what the phase before has written:
//
//   embed, norm ─▶ for each layer: QKV ─▶ rotate, write to cache ─▶ attend ─▶ output ─▶ add, norm
//                                  ─▶ gate · up ─▶ down ─▶ add, norm for the next ─▶ … ─▶ head
//
// The residual is float32 from the first layer to the last; what goes into a product is bfloat16 or 8 bits.
#pragma once

#include <omp.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "check.h"
#include "rows.h"

class StepRun {
 public:
  StepRun(const Model& model, const Step& step, StepMemory& memory)
      : model_(model), shape_(model.shape), step_(step), memory_(memory), rows_(step.rows) {
    memory_.reserve(model, step.rows, step.wanted_count);
    residual_ = memory_.residual.data();
    memory_.ranges.clear();
    for (int64_t span = 0; span < step.span_count; span++) divide(step.spans + 4 * span);
    longest_first(memory_.ranges);
  }

  void run() {
#pragma omp parallel num_threads(static_cast<int>(shape_.threads))
    {
      embed();
      for (size_t layer = 0; layer < model_.layers.size(); layer++) run_layer(static_cast<int64_t>(layer));
      head();
    }
  }

 private:
  // Divide a span's rows into tasks of attention.
  void divide(const int32_t* span) {
    const int64_t first = span[0], rows = span[1], before = span[2] - rows;
    const int64_t together = std::max<int64_t>(1, kTaskQueries / model_.group());
    for (int64_t row = 0; row < rows; row += together)
      memory_.ranges.push_back(
          {first + row, std::min(together, rows - row), before + row + 1, step_.blocks + span[3]});
  }

  // Whoever gets the last task of attention makes the others wait: let it be a short one.
  static void longest_first(std::vector<RowRange>& ranges) {
    std::sort(ranges.begin(), ranges.end(),
              [](const RowRange& one, const RowRange& other) { return one.keys_seen() > other.keys_seen(); });
  }

  void run_layer(int64_t index) {
    const Layer& layer = model_.layers[static_cast<size_t>(index)];
    multiply(layer.query_key_value, inputs(shape_.hidden),
             WriteFloats{projected(), layer.query_key_value.outputs});
    place_heads(layer, index);
    attend(index);
    if (index + 1 == shape_.layers) keep_wanted();
    multiply(layer.attended, attended_inputs(), WriteFloats{projected(), shape_.hidden});
    add_and_normalize(layer.attended_norm, layer.mlp_input_norm);
    multiply(layer.gate_up, inputs(shape_.hidden), WriteGated{memory_.gated.data(), shape_.intermediate});
    multiply(layer.down, gated_inputs(), WriteFloats{projected(), shape_.hidden});
    add_and_normalize(layer.mlp_output_norm, norm_after(index));
  }

  // The norm of what comes next: of the next layer, or of the head.
  const float* norm_after(int64_t layer) const {
    const auto next = static_cast<size_t>(layer + 1);
    return next < model_.layers.size() ? model_.layers[next].input_norm : model_.final_norm;
  }

  void embed() {
    const float* norm = model_.layers[0].input_norm;
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows_; row++) {
      widen(model_.embedding + step_.tokens[row] * shape_.hidden, shape_.hidden, residual(row));
      normalize(residual(row), norm, shape_.epsilon, row, inputs(shape_.hidden));
    }
  }

  // Add what a block gave to the residual, and get it ready for the next one.
  void add_and_normalize(const float* output_norm, const float* input_norm) {
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows_; row++) {
      add_to_residual(projected() + row * shape_.hidden, output_norm, shape_.epsilon, shape_.hidden,
                      residual(row));
      normalize(residual(row), input_norm, shape_.epsilon, row, inputs(shape_.hidden));
    }
  }

  // Queries are normed, turned and kept for attention; keys and values go to their slots.
  void place_heads(const Layer& layer, int64_t index) {
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows_; row++) {
      float* heads = projected() + row * layer.query_key_value.outputs;
      for (int64_t head = 0; head < shape_.heads + shape_.key_heads; head++) {
        float* one = heads + head * shape_.head_size;
        normalize_head(one, head < shape_.heads ? layer.query_norm : layer.key_norm, shape_.epsilon,
                       shape_.head_size);
        rotate_head(one, row);
      }
      narrow(heads, model_.query_width(), memory_.queries.data() + row * model_.query_width());
      write_cache(heads + model_.query_width(), row, index);
    }
  }

  void rotate_head(float* head, int64_t row) const {
    const int64_t half = shape_.rotary_size / 2;
    rotate(head, step_.cosines + row * half, step_.sines + row * half, half);
  }

  // `keys` holds a row's keys and behind them its values.
  void write_cache(const float* keys, int64_t row, int64_t layer) const {
    const int64_t size = shape_.head_size, slot = step_.slots[row];
    bfloat16 narrowed[kMostHeadSize];
    for (int64_t head = 0; head < shape_.key_heads; head++) {
      const int64_t block = model_.cache_place(layer, head) + slot / kBlockTokens * model_.block_numbers();
      narrow(keys + head * size, size, narrowed);
      write_key(narrowed, size, slot % kBlockTokens, model_.keys + block);
      narrow(keys + (shape_.key_heads + head) * size, size, narrowed);
      write_value(narrowed, size, slot % kBlockTokens, model_.values + block);
    }
  }

  // Tasks differ in how many keys they have: whoever is done takes the next one.
  void attend(int64_t layer) {
    const AttentionScratch scratch = memory_.scratch(model_, omp_get_thread_num());
    const auto tasks = static_cast<int64_t>(memory_.ranges.size()) * shape_.key_heads;
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < tasks; item++) {
      const RowRange& range = memory_.ranges[static_cast<size_t>(item / shape_.key_heads)];
      const AttentionTask task = task_of(range, layer, item % shape_.key_heads);
      Attention(task, scratch).run();
    }
  }

  AttentionTask task_of(const RowRange& range, int64_t layer, int64_t key_head) const {
    const int64_t place = model_.cache_place(layer, key_head);
    const int64_t first =
        range.first_row * model_.query_width() + key_head * model_.group() * shape_.head_size;
    const HeadCache cache{model_.keys + place, model_.values + place, model_.block_numbers(),
                          shape_.head_size, range.blocks};
    return {cache,
            memory_.queries.data() + first,
            memory_.attended.data() + first,
            model_.query_width(),
            range.rows,
            model_.group(),
            range.first_limit,
            shape_.attention_scale};
  }

  // Once the last layer's attention is done, a row matters only if its logits are asked for: from here on
  // the rows are those. What is attended moves to where the queries were.
  void keep_wanted() {
    const int64_t width = model_.query_width();
#pragma omp for schedule(static)
    for (int64_t index = 0; index < step_.wanted_count; index++) {
      const int64_t row = step_.wanted[index];
      std::copy_n(residual(row), shape_.hidden, memory_.wanted_residual.data() + index * shape_.hidden);
      std::copy_n(memory_.attended.data() + row * width, width, memory_.queries.data() + index * width);
    }
#pragma omp single
    {
      rows_ = step_.wanted_count;
      residual_ = memory_.wanted_residual.data();
      std::swap(memory_.attended, memory_.queries);
    }
  }

  void head() { multiply(model_.head, inputs(shape_.hidden), WriteFloats{step_.logits, shape_.vocabulary}); }

  Inputs attended_inputs() { return rounded_inputs(memory_.attended.data(), model_.query_width()); }
  Inputs gated_inputs() { return rounded_inputs(memory_.gated.data(), shape_.intermediate); }

  // Rows of bfloat16 as a product takes them: as they are, or rounded to 8 bits first.
  Inputs rounded_inputs(bfloat16* rows, int64_t width) {
    if (shape_.bits == 16) return {16, width, reinterpret_cast<uint8_t*>(rows), nullptr};
    const Inputs to = inputs(width);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows_; row++) round_row(rows + row * width, row, to);
    return to;
  }

  template <class Write>
  void multiply(const Linear& linear, const Inputs& from, const Write& write) const {
    ::multiply(linear, from, rows_, shape_.threads, write);
  }

  Inputs inputs(int64_t width) const { return memory_.inputs(shape_, width); }
  float* residual(int64_t row) const { return residual_ + row * shape_.hidden; }
  float* projected() const { return memory_.projected.data(); }

  const Model& model_;
  const Shape& shape_;
  const Step& step_;
  StepMemory& memory_;
  int64_t rows_;     // rows that are computed now
  float* residual_;  // theirs
};
