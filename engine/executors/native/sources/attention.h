// Attention over the block cache, for new tokens and for chunks of prompts alike.
//
// A task is one key head and some neighbouring rows of one sequence: rows × (heads ÷ key heads) queries,
// all of which look at the same keys. It goes through the keys in chunks, and each chunk is used by all
// queries while it lies in a near cache: a prompt's keys are read once for dozens of queries.
//
//                 chunk 0 (16 blocks)  chunk 1            last chunk: a row sees no later key than its own
//     queries 0-7   scores → softmax → values, then the next queries, then the next chunk
//     queries 8-…   scores → softmax → values
//
// Softmax is taken as the chunks come ("online"): what was summed up is made smaller when a greater score
// appears. Chunks begin at multiples of their size from the start of the text, and what a row may not see
// adds exactly 0, so that a row's result is the same to the bit in whatever step and company it is computed.
#pragma once

#include <algorithm>
#include <cmath>

#include "vectors.h"

constexpr int64_t kBlockTokens = 16;

// Keys of a chunk: so many that what is done once for each query and chunk is little beside their products,
// so few that they and their values (64 KB for heads of 64 numbers) stay in the second nearest cache.
constexpr int64_t kChunkKeys = 256;

// The largest head of a model.
constexpr int64_t kMostHeadSize = 512;

// Queries of a task, roughly: enough to use each key often, few enough that every thread gets a task. They
// make whole tiles of 8 where a row has 1, 2, 4, 7, 8, 14 or 16 queries.
constexpr int64_t kTaskQueries = 112;

// Score of a hidden key: below any real one, so that its share is exactly 0.
constexpr float kHiddenScore = -1e30f;

// One key head of one layer as one sequence sees it.
struct HeadCache {
  const bfloat16 *keys, *values;
  int64_t block_numbers;  // from one block to the next
  int64_t head_size;
  const int32_t* blocks;

  const bfloat16* key_block(int64_t index) const { return keys + blocks[index] * block_numbers; }
  const bfloat16* value_block(int64_t index) const { return values + blocks[index] * block_numbers; }
};

// What one thread needs for a task of up to `queries` queries.
struct AttentionScratch {
  float *sums, *total, *greatest;  // [queries][head size], [queries][kLanes], [queries]
  float* scores;                   // [kQueriesTogether][kChunkKeys]
  bfloat16 *shares, *last_values;  // [kQueriesTogether][kChunkKeys], one block of values

  static int64_t rounded_up(int64_t queries) {
    return (queries + kQueriesTogether - 1) / kQueriesTogether * kQueriesTogether;
  }
};

struct AttentionTask {
  HeadCache cache;
  const bfloat16* queries;  // the first row's first query
  bfloat16* attended;       // where its result goes
  int64_t row_numbers;      // from one row's queries to the next's, and the same for results
  int64_t rows, group;      // queries of each row
  int64_t first_limit;      // keys that the first row sees; each further row sees one more
  float scale;

  int64_t count() const { return rows * group; }
  int64_t limit(int64_t query) const { return first_limit + query / group; }
  int64_t place(int64_t query) const { return query / group * row_numbers + query % group * cache.head_size; }
};

// Products of some queries with the 16 keys of a block. The first queries that need a chunk ask for what
// comes soon, the next block's keys and this one's values: blocks lie anywhere in memory.
template <bool IsFirst, int Count>
void score_block(const bfloat16* const* queries, const bfloat16* keys, const bfloat16* next_keys,
                 const bfloat16* values, int64_t head_size, float* scores) {
  Floats sums[Count];
  for (auto& one : sums) one = Floats::zero();
  for (int64_t d = 0; d < head_size; d += 2) {
    if constexpr (IsFirst) {
      _mm_prefetch(reinterpret_cast<const char*>(next_keys + d * kBlockTokens), _MM_HINT_T1);
      _mm_prefetch(reinterpret_cast<const char*>(values + d * kBlockTokens), _MM_HINT_T1);
    }
    const Pairs of_keys = Pairs::load(keys + d * kBlockTokens);
    for (int q = 0; q < Count; q++) sums[q] = dot(sums[q], Pairs::all(pair_at(queries[q] + d)), of_keys);
  }
#pragma GCC unroll 8  // gcc 12 would copy the sums to the stack first
  for (int q = 0; q < Count; q++) sums[q].store(scores + q * kChunkKeys);
}

template <bool IsFirst, int Count>
void score_blocks(const HeadCache& cache, const bfloat16* const* queries, int count, int64_t first,
                  int64_t end, float* scores) {
  if constexpr (Count > 1)
    if (count < Count) return score_blocks<IsFirst, Count - 1>(cache, queries, count, first, end, scores);
  for (int64_t block = first; block < end; block++) {
    const bfloat16* next_keys = cache.key_block(std::min(block + 1, end - 1));
    score_block<IsFirst, Count>(queries, cache.key_block(block), next_keys, cache.value_block(block),
                                cache.head_size, scores + (block - first) * kBlockTokens);
  }
}

// Hide the scores of keys that come after a row.
inline void hide_scores(float* scores, int64_t keys, int64_t visible) {
  for (int64_t k = visible / kLanes * kLanes; k < keys; k += kLanes)
    first(visible - k, Floats::load(scores + k), Floats::all(kHiddenScore)).store(scores + k);
}

inline float greatest_score(const float* scores, int64_t keys) {
  Floats most = Floats::load(scores);
  for (int64_t k = kLanes; k < keys; k += kLanes) most = greater(most, Floats::load(scores + k));
  return most.greatest();
}

// Raise a query's greatest score to that of a chunk. Returns by what earlier sums must be multiplied: 1 for
// most chunks but a text's first ones.
inline float raise_greatest(const float* scores, int64_t keys, float scale, float* greatest) {
  const float before = *greatest;
  *greatest = std::max(before, greatest_score(scores, keys));
  if (*greatest == before) return 1.0f;
  alignas(64) float correction[kLanes];
  power_of_two(Floats::all((before - *greatest) * scale)).store(correction);
  return correction[0];
}

// Turn one query's scores of a chunk into shares of the sum, bfloat16: 2^((score - greatest) · scale). The
// sums of shares so far are `total`, for each lane. Returns by what earlier sums must be multiplied.
inline float take_shares(const float* scores, int64_t keys, float scale, float* greatest, float* total,
                         bfloat16* shares) {
  const float correction = raise_greatest(scores, keys, scale, greatest);
  Floats sum = Floats::load(total) * Floats::all(correction);
  const Floats factor = Floats::all(scale), below = Floats::all(-*greatest * scale);
  for (int64_t k = 0; k < keys; k += kLanes) {
    const Floats share = power_of_two(multiply_add(Floats::load(scores + k), factor, below));
    sum = sum + share;
    share.store(shares + k);
  }
  sum.store(total);
  return correction;
}

// Add shares · values to some columns of the sums of kValueQueries queries.
template <int Vectors, class ValuesOf>
void add_values(const ValuesOf& values_of, int64_t blocks, const bfloat16* shares, const float* corrections,
                float* sums, int64_t head_size) {
  Floats tile[kValueQueries][Vectors];
  for (int q = 0; q < kValueQueries; q++)
    for (int c = 0; c < Vectors; c++)
      tile[q][c] = Floats::load(sums + q * head_size + c * kLanes) * Floats::all(corrections[q]);
  for (int64_t block = 0; block < blocks; block++) {
    const bfloat16* values = values_of(block);
    for (int64_t token = 0; token < kBlockTokens; token += 2, values += 2 * head_size) {
      Pairs columns[Vectors];
      for (int c = 0; c < Vectors; c++) columns[c] = Pairs::load(values + 2 * c * kLanes);
      for (int q = 0; q < kValueQueries; q++) {
        const Pairs share = Pairs::all(pair_at(shares + q * kChunkKeys + block * kBlockTokens + token));
        for (int c = 0; c < Vectors; c++) tile[q][c] = dot(tile[q][c], share, columns[c]);
      }
    }
  }
#pragma GCC unroll 8  // gcc 12 would copy the sums to the stack first
  for (int q = 0; q < kValueQueries; q++)
    for (int c = 0; c < Vectors; c++) tile[q][c].store(sums + q * head_size + c * kLanes);
}

template <int Vectors, class ValuesOf>
int64_t add_columns(const ValuesOf& values_of, int64_t blocks, const bfloat16* shares,
                    const float* corrections, float* sums, int64_t head_size, int64_t column) {
  for (; column + Vectors * kLanes <= head_size; column += Vectors * kLanes)
    add_values<Vectors>([&](int64_t block) { return values_of(block) + 2 * column; }, blocks, shares,
                        corrections, sums + column, head_size);
  return column;
}

class Attention {
 public:
  Attention(const AttentionTask& task, const AttentionScratch& scratch)
      : task_(task), scratch_(scratch), context_(task.limit(task.count() - 1)) {}

  void run() {
    prepare();
    for (int64_t key = 0; key < context_; key += kChunkKeys)
      for (int64_t query = 0; query < task_.count(); query += kQueriesTogether)
        if (const int count = together(query); task_.limit(query + count - 1) > key)
          attend(key, query, count);
    finish();
  }

 private:
  int together(int64_t query) const {
    return static_cast<int>(std::min<int64_t>(kQueriesTogether, task_.count() - query));
  }

  // Nothing is summed up yet. Of the last block, only what is written counts: behind it there may be
  // anything, and 0 times what is not a number is not 0.
  void prepare() {
    const int64_t queries = AttentionScratch::rounded_up(task_.count()), size = task_.cache.head_size;
    std::fill_n(scratch_.sums, queries * size, 0.0f);
    std::fill_n(scratch_.greatest, queries, kHiddenScore);
    std::fill_n(scratch_.total, queries * kLanes, 0.0f);
    std::fill_n(scratch_.shares, kQueriesTogether * kChunkKeys, bfloat16{0});
    const int64_t written = context_ % kBlockTokens;
    if (written == 0) return;
    const bfloat16* last = task_.cache.value_block(context_ / kBlockTokens);
    const int64_t paired = written / 2 * 2 * size;  // two tokens beside each other
    std::copy_n(last, paired, scratch_.last_values);
    std::fill_n(scratch_.last_values + paired, kBlockTokens * size - paired, bfloat16{0});
    if (written % 2 == 1)
      for (int64_t d = 0; d < size; d++) scratch_.last_values[paired + 2 * d] = last[paired + 2 * d];
  }

  // Bring one chunk of keys, beginning at `key`, into the sums of some queries.
  void attend(int64_t key, int64_t query, int count) {
    const int64_t end = std::min(key + kChunkKeys, task_.limit(query + count - 1));
    const int64_t first_block = key / kBlockTokens, blocks = (end - key + kBlockTokens - 1) / kBlockTokens;
    const bfloat16* queries[kQueriesTogether];
    for (int q = 0; q < count; q++) queries[q] = task_.queries + task_.place(query + q);
    const auto score =
        query == 0 ? score_blocks<true, kQueriesTogether> : score_blocks<false, kQueriesTogether>;
    score(task_.cache, queries, count, first_block, first_block + blocks, scratch_.scores);
    float corrections[kQueriesTogether] = {};
    for (int q = 0; q < count; q++) {
      float* scores = scratch_.scores + q * kChunkKeys;
      const int64_t keys = blocks * kBlockTokens, visible = task_.limit(query + q) - key;
      if (visible < keys) hide_scores(scores, keys, std::max<int64_t>(visible, 0));
      corrections[q] = take_shares(scores, keys, task_.scale * kLog2OfE, scratch_.greatest + query + q,
                                   scratch_.total + (query + q) * kLanes, scratch_.shares + q * kChunkKeys);
    }
    add(first_block, blocks, query, count, corrections);
  }

  void add(int64_t first_block, int64_t blocks, int64_t query, int count, const float* corrections) {
    const auto values_of = [&](int64_t block) { return values(first_block + block); };
    const int64_t size = task_.cache.head_size;
    for (int q = 0; q < count; q += kValueQueries) {
      const bfloat16* shares = scratch_.shares + q * kChunkKeys;
      float* sums = scratch_.sums + (query + q) * size;
      const int64_t column =
          add_columns<kValueVectors>(values_of, blocks, shares, corrections + q, sums, size, 0);
      add_columns<1>(values_of, blocks, shares, corrections + q, sums, size, column);
    }
  }

  const bfloat16* values(int64_t block) const {
    const bool is_partly_written = (block + 1) * kBlockTokens > context_;
    return is_partly_written ? scratch_.last_values : task_.cache.value_block(block);
  }

  void finish() {
    const int64_t size = task_.cache.head_size;
    for (int64_t query = 0; query < task_.count(); query++) {
      const Floats total = Floats::all(Floats::load(scratch_.total + query * kLanes).sum());
      for (int64_t d = 0; d < size; d += kLanes)
        (Floats::load(scratch_.sums + query * size + d) / total)
            .store(task_.attended + task_.place(query) + d);
    }
  }

  const AttentionTask& task_;
  const AttentionScratch& scratch_;
  const int64_t context_;
};
