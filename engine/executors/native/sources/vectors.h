// Vectors of 16 numbers, as this processor has them: all that is computed below is written with these.
//
// A bfloat16 number is the upper half of a float32. Two neighbours in memory are a pair; a product of
// pairs multiplies both halves and adds both products, which AVX512-BF16 does in one instruction.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

using bfloat16 = uint16_t;

// Numbers of a vector.
constexpr int64_t kLanes = 16;

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
#include "vectors_avx512.h"
#else
#include "vectors_avx2.h"
#endif

// 2^x for each number, off by less than 3e-6 of it; exactly 1 for 0, exactly 0 where it is too small.
// 2^x = 2^n · 2^f with n whole and |f| ≤ 1/2; the polynomial's greatest error is the least of its degree.
inline Floats power_of_two(Floats x) {
  const Floats n = rounded(x);
  const Floats f = x - n;
  Floats p = Floats::all(9.5828500e-3f);
  p = multiply_add(p, f, Floats::all(5.5906430e-2f));
  p = multiply_add(p, f, Floats::all(2.4024099e-1f));
  p = multiply_add(p, f, Floats::all(6.9312420e-1f));
  p = multiply_add(p, f, Floats::all(1.0f));
  return times_power_of_two(p, n);
}

// log2(e): e^x = 2^(x · this).
constexpr float kLog2OfE = 1.44269504f;

inline uint32_t pair_at(const bfloat16* numbers) {
  uint32_t pair;
  std::memcpy(&pair, numbers, sizeof pair);
  return pair;
}
