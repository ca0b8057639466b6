// The register tile with AVX2: R × 16, four times for a panel.
#pragma once

constexpr int kTileRows = 4;

// Sums of products of bfloat16 pairs, float32 [Rows][64].
template <int Rows, int Lines>
void multiply_pairs(const void* const* rows, const uint8_t* panel, int64_t steps, const uint8_t* ahead,
                    float* sums) {
  for (int64_t column = 0; column < kPanelColumns; column += kLanes) {
    Floats tile[Rows];
    for (auto& one : tile) one = Floats::zero();
    const uint8_t* weights = panel + 4 * column;
    for (int64_t step = 0; step < steps; step++, weights += kStepBytes) {
      if (column == 0) fetch<Lines>(ahead, step);
      const Pairs of_columns = Pairs::load(weights);
      for (int r = 0; r < Rows; r++) tile[r] = dot(tile[r], Pairs::all(step_of(rows[r], step)), of_columns);
    }
    for (int r = 0; r < Rows; r++) tile[r].store(sums + r * kPanelColumns + column);
  }
}

// Four products of int8, added up. AVX2 multiplies unsigned by signed: the sign goes over to the weight,
// and no sum of two products of ±127 is beyond 16 bits.
inline __m256i dot_bytes(__m256i sums, __m256i inputs, __m256i magnitudes, __m256i weights) {
  const __m256i products = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(weights, inputs));
  return _mm256_add_epi32(sums, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
}

// Sums of products of int8, int32 [Rows][64]; they begin with `first_sums`, one for each column.
template <int Rows, int Lines>
void multiply_bytes(const void* const* rows, const uint8_t* panel, int64_t steps, const uint8_t* ahead,
                    const int32_t* first_sums, int32_t* sums) {
  for (int64_t column = 0; column < kPanelColumns; column += kLanes) {
    __m256i tile[Rows][2];
    const auto* begin = reinterpret_cast<const __m256i*>(first_sums + column);
    for (auto& row : tile)
      for (int half = 0; half < 2; half++) row[half] = _mm256_loadu_si256(begin + half);
    const uint8_t* weights = panel + 4 * column;
    for (int64_t step = 0; step < steps; step++, weights += kStepBytes) {
      if (column == 0) fetch<Lines>(ahead, step);
      const auto* of_columns = reinterpret_cast<const __m256i*>(weights);
      const __m256i left = _mm256_loadu_si256(of_columns), right = _mm256_loadu_si256(of_columns + 1);
      for (int r = 0; r < Rows; r++) {
        const __m256i inputs = _mm256_set1_epi32(static_cast<int>(step_of(rows[r], step)));
        const __m256i magnitudes = _mm256_abs_epi8(inputs);
        tile[r][0] = dot_bytes(tile[r][0], inputs, magnitudes, left);
        tile[r][1] = dot_bytes(tile[r][1], inputs, magnitudes, right);
      }
    }
    auto* to = reinterpret_cast<__m256i*>(sums + column);
    for (int r = 0; r < Rows; r++)
      for (int half = 0; half < 2; half++)
        _mm256_storeu_si256(to + r * kPanelColumns / 8 + half, tile[r][half]);
  }
}
