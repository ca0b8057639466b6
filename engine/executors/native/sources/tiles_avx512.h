// The register tile with AVX-512: R × 64 at once.
#pragma once

constexpr int kTileRows = 6;
constexpr int kTileVectors = 4;

// Sums of products of bfloat16 pairs, float32 [Rows][64].
template <int Rows, int Lines>
void multiply_pairs(const void* const* rows, const uint8_t* panel, int64_t steps, const uint8_t* ahead,
                    float* sums) {
  Floats tile[Rows][kTileVectors];
  for (auto& row : tile)
    for (auto& one : row) one = Floats::zero();
  for (int64_t step = 0; step < steps; step++, panel += kStepBytes) {
    fetch<Lines>(ahead, step);
    Pairs weights[kTileVectors];
    for (int c = 0; c < kTileVectors; c++) weights[c] = Pairs::load(panel + 64 * c);
    for (int r = 0; r < Rows; r++) {
      const Pairs inputs = Pairs::all(step_of(rows[r], step));
      for (int c = 0; c < kTileVectors; c++) tile[r][c] = dot(tile[r][c], inputs, weights[c]);
    }
  }
#pragma GCC unroll 8  // gcc 12 would copy the sums to the stack first
  for (int r = 0; r < Rows; r++)
    for (int c = 0; c < kTileVectors; c++) tile[r][c].store(sums + r * kPanelColumns + c * kLanes);
}

// gcc 12 copies the intrinsic's sums between registers and memory at each step; this leaves them in place.
inline __attribute__((always_inline)) __m512i dot_bytes(__m512i sums, __m512i inputs, __m512i weights) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(inputs), "v"(weights));
  return sums;
}

// Sums of products of int8, int32 [Rows][64]; they begin with `first_sums`, one for each column.
template <int Rows, int Lines>
void multiply_bytes(const void* const* rows, const uint8_t* panel, int64_t steps, const uint8_t* ahead,
                    const int32_t* first_sums, int32_t* sums) {
  __m512i tile[Rows][kTileVectors];
  for (auto& row : tile)
    for (int c = 0; c < kTileVectors; c++) row[c] = _mm512_loadu_si512(first_sums + c * kLanes);
  for (int64_t step = 0; step < steps; step++, panel += kStepBytes) {
    fetch<Lines>(ahead, step);
    __m512i weights[kTileVectors];
    for (int c = 0; c < kTileVectors; c++) weights[c] = _mm512_loadu_si512(panel + 64 * c);
    for (int r = 0; r < Rows; r++) {
      const __m512i inputs = _mm512_set1_epi32(static_cast<int>(step_of(rows[r], step)));
      for (int c = 0; c < kTileVectors; c++) tile[r][c] = dot_bytes(tile[r][c], inputs, weights[c]);
    }
  }
#pragma GCC unroll 8  // gcc 12 would copy the sums to the stack first
  for (int r = 0; r < Rows; r++)
    for (int c = 0; c < kTileVectors; c++)
      _mm512_storeu_si512(sums + r * kPanelColumns + c * kLanes, tile[r][c]);
}
