// Vectors of AVX-512 with its bfloat16 and VNNI instructions.
#pragma once

// Tiles of attention: queries scored together; queries, and vectors of values, summed up together.
constexpr int kQueriesTogether = 8, kValueQueries = 4, kValueVectors = 4;

struct Floats {
  __m512 v;
  static Floats zero() { return {_mm512_setzero_ps()}; }
  static Floats all(float x) { return {_mm512_set1_ps(x)}; }
  static Floats load(const float* from) { return {_mm512_loadu_ps(from)}; }
  static Floats load(const bfloat16* from) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
  }
  void store(float* to) const { _mm512_storeu_ps(to, v); }
  void store(bfloat16* to) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(v));
  }
  float sum() const { return _mm512_reduce_add_ps(v); }
  float greatest() const { return _mm512_reduce_max_ps(v); }
};

inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats greater(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats magnitude(Floats a) { return {_mm512_abs_ps(a.v)}; }
inline Floats rounded(Floats a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT)}; }
inline Floats times_power_of_two(Floats a, Floats n) { return {_mm512_scalef_ps(a.v, n.v)}; }

// The first `count` numbers of a, behind them those of b.
inline Floats first(int64_t count, Floats a, Floats b) {
  const __mmask16 mask = count >= kLanes ? 0xffff : count <= 0 ? 0 : (1u << count) - 1;
  return {_mm512_mask_mov_ps(b.v, mask, a.v)};
}

struct Pairs {
  __m512bh v;
  static Pairs load(const void* from) { return {(__m512bh)_mm512_loadu_si512(from)}; }
  static Pairs all(uint32_t pair) { return {(__m512bh)_mm512_set1_epi32(static_cast<int>(pair))}; }
};

// sums + a.first · b.first + a.second · b.second in each lane.
inline Floats dot(Floats sums, Pairs a, Pairs b) { return {_mm512_dpbf16_ps(sums.v, a.v, b.v)}; }

// Activations of 8 bits are stored 128 too large: VNNI multiplies unsigned by signed numbers. What that
// adds to the sums, 128 times the sum of the weights, is where they begin.
constexpr int32_t kByteOffset = 128;

inline void store_whole(Floats whole, int8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(whole.v)));
}

inline void store_bytes(Floats whole, uint8_t* to) {
  const __m512i shifted = _mm512_add_epi32(_mm512_cvtps_epi32(whole.v), _mm512_set1_epi32(kByteOffset));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(shifted));
}
