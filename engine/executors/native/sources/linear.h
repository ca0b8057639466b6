// Linear layers: which thread multiplies which panel with which rows, and what becomes of the sums.
#pragma once

#include <algorithm>
#include <type_traits>

#include "tiles.h"

// With so many panels for each thread they alone divide the work evenly; with fewer, rows are divided too.
constexpr int64_t kPanelsPerThread = 8;

// The greatest whole number that stands for an activation.
constexpr float kGreatestByte = 127.0f;

// The least scale of a row: one of smaller numbers is taken as zeros.
constexpr float kLeastScale = 1e-30f;

struct Linear {
  int64_t bits, inputs, outputs;
  const uint8_t* weights;
  const float* scales;        // of each column, 8 bits only
  const int32_t* first_sums;  // where each column's sums begin, 8 bits only
  const float* bias;          // may be null

  int64_t steps() const { return inputs * bits / 32; }
  int64_t panels() const { return (outputs + kPanelColumns - 1) / kPanelColumns; }
  const uint8_t* panel(int64_t index) const { return weights + index * steps() * kStepBytes; }
};

// Rows on their way into a linear layer: bfloat16, or bytes with a scale for each row.
struct Inputs {
  int64_t bits, width;
  uint8_t* numbers;
  float* scales;

  int64_t row_bytes() const { return width * bits / 8; }
  uint8_t* row(int64_t index) const { return numbers + index * row_bytes(); }
};

// Store a row whose 16 numbers from place k on are `numbers_at(k)`. What is not finite makes the whole row
// not a number, as it would be without rounding.
template <class NumbersAt>
void store_row(const Inputs& to, int64_t index, const NumbersAt& numbers_at) {
  if (to.bits == 16) {
    auto* pairs = reinterpret_cast<bfloat16*>(to.row(index));
    for (int64_t k = 0; k < to.width; k += kLanes) numbers_at(k).store(pairs + k);
    return;
  }
  Floats greatest = Floats::zero(), not_finite = Floats::zero();
  for (int64_t k = 0; k < to.width; k += kLanes) {
    const Floats numbers = numbers_at(k);
    greatest = greater(greatest, magnitude(numbers));
    not_finite = multiply_add(numbers, Floats::zero(), not_finite);
  }
  const float scale = std::max(greatest.greatest() / kGreatestByte, kLeastScale);
  to.scales[index] = scale + not_finite.sum();
  for (int64_t k = 0; k < to.width; k += kLanes)
    store_bytes(rounded(numbers_at(k) / Floats::all(scale)), to.row(index) + k);
}

// Call with the number of rows, and of lines asked for at each step, as constants.
template <int Rows, class Call>
void with_constants(int rows, int lines, const Call& call) {
  if constexpr (Rows > 1)
    if (rows < Rows) return with_constants<Rows - 1>(rows, lines, call);
  constexpr std::integral_constant<int, Rows> kRows;
  switch (lines) {
    case 0: return call(kRows, std::integral_constant<int, 0>{});
    case 1: return call(kRows, std::integral_constant<int, 1>{});
    case 2: return call(kRows, std::integral_constant<int, 2>{});
    default: return call(kRows, std::integral_constant<int, kStepLines>{});
  }
}

inline void tile_of_pairs(const void* const* rows, int count, const uint8_t* panel, int64_t steps,
                          const Ahead& ahead, float* sums) {
  with_constants<kTileRows>(count, ahead.lines, [&](auto kRows, auto kLines) {
    multiply_pairs<kRows, kLines>(rows, panel, steps, ahead.from, sums);
  });
}

inline void tile_of_bytes(const void* const* rows, int count, const uint8_t* panel, int64_t steps,
                          const Ahead& ahead, const int32_t* first, int32_t* sums) {
  with_constants<kTileRows>(count, ahead.lines, [&](auto kRows, auto kLines) {
    multiply_bytes<kRows, kLines>(rows, panel, steps, ahead.from, first, sums);
  });
}

// One row's 64 results from whole sums: they mean sum · scale of the row · scale of the column.
inline void scale_sums(const int32_t* sums, float row_scale, const float* scales, float* results) {
  for (int64_t c = 0; c < kPanelColumns; c++)
    results[c] = static_cast<float>(sums[c]) * (row_scale * scales[c]);
}

// The results of up to kTileRows rows and one panel, float32 [count][64].
inline void multiply_tile(const Linear& linear, const Inputs& inputs, int64_t panel, int64_t first_row,
                          int count, const Ahead& ahead, float* results) {
  const void* rows[kTileRows];
  for (int r = 0; r < count; r++) rows[r] = inputs.row(first_row + r);
  const int64_t column = panel * kPanelColumns;
  if (linear.bits == 16) {
    tile_of_pairs(rows, count, linear.panel(panel), linear.steps(), ahead, results);
  } else {
    alignas(64) int32_t sums[kTileRows * kPanelColumns];
    tile_of_bytes(rows, count, linear.panel(panel), linear.steps(), ahead, linear.first_sums + column, sums);
    for (int r = 0; r < count; r++)
      scale_sums(sums + r * kPanelColumns, inputs.scales[first_row + r], linear.scales + column,
                 results + r * kPanelColumns);
  }
  if (linear.bias == nullptr) return;
  for (int64_t i = 0; i < count * kPanelColumns; i++) results[i] += linear.bias[column + i % kPanelColumns];
}

// Into how many groups rows are divided where panels alone would leave threads without work.
inline int64_t row_groups(int64_t panels, int64_t tiles, int64_t threads) {
  const int64_t wanted = (kPanelsPerThread * threads + panels - 1) / panels;
  return std::max<int64_t>(1, std::min(tiles, wanted));
}

// Multiply, called by every thread of a region, which all wait for each other at the end. Each row's 64
// results of a panel go to `write(row, panel, results)`. A panel goes through all its rows before the
// next one comes: it is read from memory once.
template <class Write>
void multiply(const Linear& linear, const Inputs& inputs, int64_t rows, int64_t threads, const Write& write) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t groups = row_groups(linear.panels(), tiles, threads);
#pragma omp for schedule(static)
  for (int64_t item = 0; item < linear.panels() * groups; item++) {
    const int64_t panel = item / groups, group = item % groups;
    const int64_t first = tiles * group / groups, last = tiles * (group + 1) / groups;
    const uint8_t* next = group + 1 < groups ? nullptr : linear.panel(panel + 1);
    for (int64_t tile = first; tile < last; tile++) {
      const int64_t begin = rows * tile / tiles, end = rows * (tile + 1) / tiles;
      const Ahead ahead =
          ahead_of_tile(linear.panel(panel), next, linear.steps(), tile - first, last - first);
      alignas(64) float results[kTileRows * kPanelColumns];
      multiply_tile(linear, inputs, panel, begin, static_cast<int>(end - begin), ahead, results);
      for (int64_t row = begin; row < end; row++) write(row, panel, results + (row - begin) * kPanelColumns);
    }
  }
}

// Writes results as they are, float32 [rows, outputs].
struct WriteFloats {
  float* to;
  int64_t outputs;

  void operator()(int64_t row, int64_t panel, const float* results) const {
    const int64_t column = panel * kPanelColumns, count = std::min(kPanelColumns, outputs - column);
    std::memcpy(to + row * outputs + column, results, static_cast<size_t>(count) * sizeof(float));
  }
};

// Writes silu(gate) · up, bfloat16 [rows, width]. Each panel holds 32 columns of the gate, then the same of
// up, so that both are there at once and neither is ever in memory.
struct WriteGated {
  bfloat16* to;
  int64_t width;

  void operator()(int64_t row, int64_t panel, const float* results) const {
    constexpr int64_t kHalf = kPanelColumns / 2;
    const int64_t column = panel * kHalf, count = std::min(kHalf, width - column);
    for (int64_t c = 0; c < count; c += kLanes) {
      const Floats gate = Floats::load(results + c), up = Floats::load(results + kHalf + c);
      const Floats below = Floats::all(1.0f) + power_of_two(gate * Floats::all(-kLog2OfE));
      (gate / below * up).store(to + row * width + column + c);
    }
  }
};
