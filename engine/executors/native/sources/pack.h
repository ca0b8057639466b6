// Laying weights out as panels, in 16 bits as they are or rounded to 8; see tiles.h.
#pragma once

#include <omp.h>

#include "check.h"

// The greatest whole number that stands for a weight.
constexpr float kGreatestWeight = 127.0f;

struct PackPlan {
  int64_t inputs, source_bits, bits;
  std::vector<const uint8_t*> rows;  // the source of each packed column; null for one of zeros
  uint8_t* packed;
  float* scales;        // 8 bits only, as in Linear
  int32_t* first_sums;  // the same

  int64_t panels() const { return static_cast<int64_t>(rows.size()) / kPanelColumns; }
  int64_t panel_bytes() const { return kPanelColumns * inputs * bits / 8; }
};

template <class Number>
Number* writable(const Buffer& buffer, int64_t count, const std::string& name) {
  return const_cast<Number*>(numbers_of<Number>(buffer, count, name));
}

inline PackPlan checked_pack(const PackOrder& given) {
  require(given.inputs >= 1 && given.inputs <= kMostSize, "inputs: must be at least one");
  require(given.inputs % kLanes == 0, "inputs: must be a multiple of 16");
  require(given.source_bits == 16 || given.source_bits == 32, "source bits: must be 16 or 32");
  require(given.bits == 8 || (given.bits == 16 && given.source_bits == 16),
          "bits: must be 8, or 16 as the sources have");
  require(given.bits == 16 || given.inputs <= kMostInputs, "inputs: too many for sums of 8 bits");
  PackPlan plan{given.inputs, given.source_bits, given.bits, {}, nullptr, nullptr, nullptr};
  const int64_t row_bytes = given.inputs * given.source_bits / 8, columns = given.order.bytes / 4;
  std::vector<const uint8_t*> sources;
  for (const Buffer& source : given.sources) {
    require(source.bytes >= 0 && source.bytes % row_bytes == 0, "sources: must have whole rows");
    require(source.bytes == 0 || source.data != nullptr, "sources: must have an address");
    for (int64_t at = 0; at < source.bytes; at += row_bytes)
      sources.push_back(static_cast<const uint8_t*>(source.data) + at);
  }
  const auto* order = numbers_of<int32_t>(given.order, columns, "order");
  require(columns >= 1 && columns % kPanelColumns == 0, "order: must fill whole panels");
  for (int64_t column = 0; column < columns; column++) {
    const int64_t row = order[column];
    require(row >= -1 && row < static_cast<int64_t>(sources.size()), "order: names a row that is not there");
    plan.rows.push_back(row < 0 ? nullptr : sources[static_cast<size_t>(row)]);
  }
  plan.packed = writable<uint8_t>(given.packed, plan.panels() * plan.panel_bytes(), "packed");
  plan.scales = writable<float>(given.scales, given.bits == 8 ? columns : 0, "scales");
  plan.first_sums = writable<int32_t>(given.first_sums, given.bits == 8 ? columns : 0, "first sums");
  return plan;
}

// Columns of a panel lie beside each other, 32 bits of each, then the next 32 bits; null stands for zeros.
inline void interleave(const uint8_t* const* columns, int64_t column_bytes, uint8_t* panel) {
  for (int64_t at = 0; at < column_bytes; at += 4)
    for (int64_t column = 0; column < kPanelColumns; column++, panel += 4) {
      if (columns[column] == nullptr)
        std::memset(panel, 0, 4);
      else
        std::memcpy(panel, columns[column] + at, 4);
    }
}

// Round one column's weights to whole numbers from -127 to 127 and return what these are multiplied by:
// not a number if one of the weights is not finite.
template <class Number>
float round_weights(const Number* weights, int64_t inputs, int8_t* to) {
  Floats greatest = Floats::zero(), not_finite = Floats::zero();
  for (int64_t k = 0; k < inputs; k += kLanes) {
    const Floats numbers = Floats::load(weights + k);
    greatest = greater(greatest, magnitude(numbers));
    not_finite = multiply_add(numbers, Floats::zero(), not_finite);
  }
  const float scale = greatest.greatest() / kGreatestWeight, divisor = scale > 0.0f ? scale : 1.0f;
  for (int64_t k = 0; k < inputs; k += kLanes)
    store_whole(rounded(Floats::load(weights + k) / Floats::all(divisor)), to + k);
  return divisor + not_finite.sum();
}

// Round a panel's columns, each into its row of `whole`, and say how its products are to be read.
inline void round_panel(const PackPlan& plan, int64_t panel, int8_t* whole, const uint8_t** columns) {
  for (int64_t column = 0; column < kPanelColumns; column++) {
    const int64_t place = panel * kPanelColumns + column;
    const uint8_t* source = plan.rows[static_cast<size_t>(place)];
    int8_t* to = whole + column * plan.inputs;
    columns[column] = source == nullptr ? nullptr : reinterpret_cast<const uint8_t*>(to);
    plan.scales[place] = 0.0f;
    plan.first_sums[place] = 0;
    if (source == nullptr) continue;
    plan.scales[place] =
        plan.source_bits == 16 ? round_weights(reinterpret_cast<const bfloat16*>(source), plan.inputs, to)
                               : round_weights(reinterpret_cast<const float*>(source), plan.inputs, to);
    int32_t sum = 0;
    for (int64_t k = 0; k < plan.inputs; k++) sum += to[k];
    plan.first_sums[place] = -kByteOffset * sum;
  }
}

inline void pack_panel(const PackPlan& plan, int64_t panel, int8_t* whole) {
  uint8_t* packed = plan.packed + panel * plan.panel_bytes();
  if (plan.bits == 16) return interleave(plan.rows.data() + panel * kPanelColumns, plan.inputs * 2, packed);
  const uint8_t* columns[kPanelColumns];
  round_panel(plan, panel, whole, columns);
  interleave(columns, plan.inputs, packed);
}

// Whoever is done takes the next panel: other threads of the process may be busy meanwhile.
inline void pack(const PackPlan& plan, int64_t threads) {
  const auto whole_numbers = static_cast<size_t>(plan.bits == 8 ? kPanelColumns * plan.inputs : 0);
  std::vector<std::vector<int8_t>> whole(static_cast<size_t>(threads), std::vector<int8_t>(whole_numbers));
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(dynamic, 1)
  for (int64_t panel = 0; panel < plan.panels(); panel++)
    pack_panel(plan, panel, whole[static_cast<size_t>(omp_get_thread_num())].data());
}
