// What happens to a single row between the products: norms, rotary embedding, writing to the cache.
#pragma once

#include <cmath>

#include "attention.h"
#include "linear.h"

// 1 ÷ root mean square of a row.
inline float root_scale(const float* row, int64_t width, float epsilon) {
  Floats squares = Floats::zero();
  for (int64_t k = 0; k < width; k += kLanes) {
    const Floats numbers = Floats::load(row + k);
    squares = multiply_add(numbers, numbers, squares);
  }
  return 1.0f / std::sqrt(squares.sum() / static_cast<float>(width) + epsilon);
}

// Put a row, normalized and weighted, where a linear layer reads it.
inline void normalize(const float* row, const float* weight, float epsilon, int64_t index, const Inputs& to) {
  const Floats scale = Floats::all(root_scale(row, to.width, epsilon));
  store_row(to, index, [&](int64_t k) { return Floats::load(row + k) * scale * Floats::load(weight + k); });
}

// Put a row of bfloat16 where a linear layer reads it.
inline void round_row(const bfloat16* row, int64_t index, const Inputs& to) {
  store_row(to, index, [&](int64_t k) { return Floats::load(row + k); });
}

inline void widen(const bfloat16* from, int64_t width, float* to) {
  for (int64_t k = 0; k < width; k += kLanes) Floats::load(from + k).store(to + k);
}

// Add a block's output to the residual, normalized first where the architecture says so.
inline void add_to_residual(const float* output, const float* norm, float epsilon, int64_t width,
                            float* residual) {
  const Floats scale = Floats::all(norm == nullptr ? 1.0f : root_scale(output, width, epsilon));
  for (int64_t k = 0; k < width; k += kLanes) {
    Floats added = Floats::load(output + k);
    if (norm != nullptr) added = added * scale * Floats::load(norm + k);
    (Floats::load(residual + k) + added).store(residual + k);
  }
}

// Turn each (k, k + half) of a head by its angle. Heads whose pairs are neighbours (GLM's) come here with
// their pairs so arranged: the weights' rows were ordered when they were packed.
inline void rotate(float* head, const float* cosines, const float* sines, int64_t half) {
  for (int64_t k = 0; k < half; k++) {
    const float left = head[k], right = head[k + half];
    head[k] = left * cosines[k] - right * sines[k];
    head[k + half] = right * cosines[k] + left * sines[k];
  }
}

inline void normalize_head(float* head, const float* norm, float epsilon, int64_t size) {
  if (norm == nullptr) return;
  const Floats scale = Floats::all(root_scale(head, size, epsilon));
  for (int64_t k = 0; k < size; k += kLanes)
    (Floats::load(head + k) * scale * Floats::load(norm + k)).store(head + k);
}

inline void narrow(const float* from, int64_t width, bfloat16* to) {
  for (int64_t k = 0; k < width; k += kLanes) Floats::load(from + k).store(to + k);
}

// A token's key lies across its block: 16 tokens' pairs are one vector.
inline void write_key(const bfloat16* key, int64_t size, int64_t token, bfloat16* block) {
  for (int64_t d = 0; d < size; d += 2)
    std::memcpy(block + d * kBlockTokens + 2 * token, key + d, 2 * sizeof(bfloat16));
}

// A token's value lies beside its neighbour's: two tokens' numbers are one pair.
inline void write_value(const bfloat16* value, int64_t size, int64_t token, bfloat16* block) {
  bfloat16* to = block + token / 2 * 2 * size + token % 2;
  for (int64_t d = 0; d < size; d++) to[2 * d] = value[d];
}
