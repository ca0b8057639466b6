// The same with AVX2 and FMA: two vectors of eight, pairs taken apart before they are multiplied.
#pragma once

// Tiles of attention: queries scored together; queries, and vectors of values, summed up together.
constexpr int kQueriesTogether = 4, kValueQueries = 2, kValueVectors = 2;

// bfloat16, rounded to the nearest, in the upper halves of the lanes; what is not a number stays so.
inline __m256i rounded_halves(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i not_a_number = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(up, _mm256_set1_epi32(0x7fc00000), not_a_number);
}

inline __m256 widened(const bfloat16* from) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

struct Floats {
  __m256 low, high;
  static Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Floats load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
  static Floats load(const bfloat16* from) { return {widened(from), widened(from + 8)}; }
  void store(float* to) const {
    _mm256_storeu_ps(to, low);
    _mm256_storeu_ps(to + 8, high);
  }
  void store(bfloat16* to) const {
    const __m256i a = _mm256_srli_epi32(rounded_halves(low), 16);
    const __m256i b = _mm256_srli_epi32(rounded_halves(high), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), packed);
  }
  float sum() const {
    return reduced(_mm256_add_ps(low, high), [](__m128 a, __m128 b) { return _mm_add_ps(a, b); });
  }
  float greatest() const {
    return reduced(_mm256_max_ps(low, high), [](__m128 a, __m128 b) { return _mm_max_ps(a, b); });
  }

 private:
  template <class Operation>
  static float reduced(__m256 v, Operation operation) {
    __m128 x = operation(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = operation(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(operation(x, _mm_movehdup_ps(x)));
  }
};

inline Floats operator+(Floats a, Floats b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Floats operator-(Floats a, Floats b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline Floats operator*(Floats a, Floats b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Floats operator/(Floats a, Floats b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Floats greater(Floats a, Floats b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
inline Floats magnitude(Floats a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
inline Floats rounded(Floats a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.low, kNearest), _mm256_round_ps(a.high, kNearest)};
}

// a · 2^n for n from -126 to 127, put into the exponent's bits; 0 below, infinite above.
inline __m256 times_power_of_two(__m256 a, __m256 n) {
  const __m256 least = _mm256_set1_ps(-126.0f);
  const __m256 bounded = _mm256_min_ps(_mm256_max_ps(n, least), _mm256_set1_ps(128.0f));
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(bounded), _mm256_set1_epi32(127));
  const __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  return _mm256_andnot_ps(_mm256_cmp_ps(n, least, _CMP_LT_OQ), _mm256_mul_ps(a, power));
}
inline Floats times_power_of_two(Floats a, Floats n) {
  return {times_power_of_two(a.low, n.low), times_power_of_two(a.high, n.high)};
}

// The first `count` numbers of a, behind them those of b.
inline Floats first(int64_t count, Floats a, Floats b) {
  const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const int bound = static_cast<int>(count > kLanes ? kLanes : count < 0 ? 0 : count);
  const __m256 in_low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(bound), place));
  const __m256 in_high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(bound - 8), place));
  return {_mm256_blendv_ps(b.low, a.low, in_low), _mm256_blendv_ps(b.high, a.high, in_high)};
}

inline __m256 first_of_pairs(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
inline __m256 second_of_pairs(__m256i pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}

struct Pairs {
  __m256i low, high;
  static Pairs load(const void* from) {
    const auto* halves = static_cast<const __m256i*>(from);
    return {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
  }
  static Pairs all(uint32_t pair) {
    return {_mm256_set1_epi32(static_cast<int>(pair)), _mm256_set1_epi32(static_cast<int>(pair))};
  }
};

inline __m256 dot(__m256 sums, __m256i a, __m256i b) {
  sums = _mm256_fmadd_ps(first_of_pairs(a), first_of_pairs(b), sums);
  return _mm256_fmadd_ps(second_of_pairs(a), second_of_pairs(b), sums);
}
// sums + a.first · b.first + a.second · b.second in each lane.
inline Floats dot(Floats sums, Pairs a, Pairs b) {
  return {dot(sums.low, a.low, b.low), dot(sums.high, a.high, b.high)};
}

// Activations of 8 bits are stored as they are, in two's complement.
constexpr int32_t kByteOffset = 0;

inline void store_whole(Floats whole, int8_t* to) {
  const __m256i a = _mm256_cvtps_epi32(whole.low), b = _mm256_cvtps_epi32(whole.high);
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
}

inline void store_bytes(Floats whole, uint8_t* to) { store_whole(whole, reinterpret_cast<int8_t*>(to)); }
