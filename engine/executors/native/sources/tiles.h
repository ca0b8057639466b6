// Products of a few rows with a panel of 64 columns: the register tile, where most of a step's time goes.
//
// A weight [columns, inputs] is stored as panels of 64 columns, inside them by steps of `g` inputs (2 of
// bfloat16, 4 of int8: 32 bits a column), so that a panel is read from its beginning to its end:
//
//      panel:   step 0                 step 1                 …  inputs ÷ g
//               c0 c1 c2 … c63         c0 c1 c2 … c63
//               ↑ g inputs of a column, 32 bits
//
// A tile holds the sums of R rows with these 64 columns in registers, and for each step reads 64 columns of
// weights once and one number of 32 bits per row, spread over a vector:
//
//                      W0       W1       W2       W3        4 vectors of weights: 64 columns, 256 bytes
//        row 0 ─x──▶  S00      S01      S02      S03
//        row 1 ─x──▶  S10      S11      S12      S13        R × 4 vectors of sums
//          …                                                (6 × 4 + 4 + 1 of AVX-512's 32 registers)
//        row 5 ─x──▶  S50      S51      S52      S53
//
// For one row the time is that of reading the weights from memory, for six it is not much more. AVX2 has
// registers for 4 rows × 16 columns and goes through the panel four times; its second to fourth time finds
// the weights in the nearest cache.
//
// Every sum is taken in the order of the inputs, whatever the number of rows: a row's result is the same to
// the bit alone and among others.
#pragma once

#include "vectors.h"

constexpr int64_t kPanelColumns = 64;
constexpr int64_t kStepBytes = kPanelColumns * 4;

constexpr int64_t kLineBytes = 64;
constexpr int kStepLines = kStepBytes / kLineBytes;

// What a tile asks from memory while it computes: `lines` (0, 1, 2 or 4) at each step, from here on. What
// lies behind the last panel is not there, and nothing happens.
struct Ahead {
  const uint8_t* from;
  int lines;
};

// A tile by itself asks for its own panel, so far ahead of its use: about what arrives while a few steps
// are computed.
constexpr int64_t kAheadBytes = 4096;

// Where a panel has several tiles, the last of them ask for the next panel: memory and registers are both
// busy all the time. Without, each panel's first tile would wait for memory and the others leave it idle.
//
//     memory    ▕ panel 1 ─────────▶▕ panel 2 ─────────▶▕        tile 0 finds its panel in the second
//     registers ▕ panel 0: t0 t1 t2 ▕ panel 1: t0 t1 t2 ▕        nearest cache, as the others do
inline Ahead ahead_of_tile(const uint8_t* panel, const uint8_t* next, int64_t steps, int64_t tile,
                           int64_t tiles) {
  if (tiles == 1) return {panel + kAheadBytes, kStepLines};
  const int64_t asking = tiles >= kStepLines ? kStepLines : 2, lines = kStepLines / asking;
  const int64_t place = tile - (tiles - asking);
  if (next == nullptr || place < 0) return {panel, 0};
  return {next + place * steps * lines * kLineBytes, static_cast<int>(lines)};
}

// A tile's own panel is fetched into the nearest cache, another one into the second nearest.
template <int Lines>
void fetch(const uint8_t* from, int64_t step) {
  constexpr _mm_hint kHint = Lines == kStepLines ? _MM_HINT_T0 : _MM_HINT_T1;
  for (int line = 0; line < Lines; line++)
    _mm_prefetch(reinterpret_cast<const char*>(from) + (step * Lines + line) * kLineBytes, kHint);
}

inline uint32_t step_of(const void* row, int64_t step) {
  uint32_t inputs;
  std::memcpy(&inputs, static_cast<const uint8_t*>(row) + 4 * step, sizeof inputs);
  return inputs;
}

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
#include "tiles_avx512.h"
#else
#include "tiles_avx2.h"
#endif
