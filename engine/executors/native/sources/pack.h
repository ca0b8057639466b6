// Laying weights out as panels; see tiles.h.
#pragma once

#include "check.h"

struct PackPlan {
  int64_t row_bytes, columns;
  std::vector<const uint8_t*> rows;  // the source of each packed column; null for one of zeros
  uint8_t* packed;
};

inline PackPlan checked_pack(const PackOrder& given) {
  require(given.inputs >= 1 && given.inputs <= kMostSize, "inputs: must be at least one");
  require(given.bytes_per_number == 1 || given.bytes_per_number == 2, "numbers: must have one or two bytes");
  PackPlan plan{given.inputs * given.bytes_per_number, given.order.bytes / 4, {}, nullptr};
  require(plan.row_bytes % 4 == 0, "rows: must have a multiple of four bytes");
  std::vector<const uint8_t*> sources;
  for (const Buffer& source : given.sources) {
    require(source.bytes >= 0 && source.bytes % plan.row_bytes == 0, "sources: must have whole rows");
    for (int64_t at = 0; at < source.bytes; at += plan.row_bytes)
      sources.push_back(static_cast<const uint8_t*>(source.data) + at);
  }
  const auto* order = numbers_of<int32_t>(given.order, plan.columns, "order");
  require(plan.columns >= 1 && plan.columns % kPanelColumns == 0, "order: must fill whole panels");
  for (int64_t column = 0; column < plan.columns; column++) {
    const int64_t row = order[column];
    require(row >= -1 && row < static_cast<int64_t>(sources.size()), "order: names a row that is not there");
    plan.rows.push_back(row < 0 ? nullptr : sources[static_cast<size_t>(row)]);
  }
  plan.packed =
      const_cast<uint8_t*>(numbers_of<uint8_t>(given.packed, plan.columns * plan.row_bytes, "packed"));
  return plan;
}

inline void pack_panel(const uint8_t* const* rows, int64_t row_bytes, uint8_t* panel) {
  for (int64_t at = 0; at < row_bytes; at += 4)
    for (int64_t column = 0; column < kPanelColumns; column++, panel += 4) {
      if (rows[column] == nullptr)
        std::memset(panel, 0, 4);
      else
        std::memcpy(panel, rows[column] + at, 4);
    }
}

inline void pack(const PackPlan& plan, int64_t threads) {
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(static)
  for (int64_t panel = 0; panel < plan.columns / kPanelColumns; panel++)
    pack_panel(plan.rows.data() + panel * kPanelColumns, plan.row_bytes,
               plan.packed + panel * kPanelColumns * plan.row_bytes);
}
