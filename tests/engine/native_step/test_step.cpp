// The native step under the sanitizers: a tiny model of random weights, computed in chunks of all sizes, and
// calls that must be refused. `make test-native-sanitized` compiles it with native.cpp and runs it.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "api.h"

namespace {

constexpr int64_t kBlock = 16;

int failures = 0;

void expect(bool is_so, const std::string& what) {
  if (is_so) return;
  std::fprintf(stderr, "not so: %s\n", what.c_str());
  failures++;
}

template <class Number>
Buffer buffer(const std::vector<Number>& numbers) {
  return {numbers.data(), static_cast<int64_t>(numbers.size() * sizeof(Number))};
}

// Each vector has memory of its own, so that a read or write beyond its end is found.
struct PackedLinear {
  std::vector<uint8_t> weights;
  std::vector<float> scales, bias;
  std::vector<int32_t> first_sums;
  int64_t inputs, outputs;

  LinearWeights given() const {
    return {buffer(weights), buffer(scales), buffer(first_sums), buffer(bias), inputs, outputs};
  }
};

uint16_t bfloat16_of(float number) {
  uint32_t bits;
  __builtin_memcpy(&bits, &number, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

class TinyModel {
 public:
  TinyModel(int64_t bits, int64_t heads, int64_t key_heads, int64_t head_size, int64_t intermediate) {
    const int64_t hidden = 48, vocabulary = 77, layer_count = 2, blocks = 40;
    shape = {bits,       layer_count, hidden, intermediate, heads, key_heads, head_size, head_size / 2,
             vocabulary, blocks,      2,      1e-5f,        0.25f};
    const int64_t both = (intermediate + 31) / 32 * 64;
    for (int64_t layer = 0; layer < layer_count; layer++) {
      linears.push_back(linear(hidden, (heads + 2 * key_heads) * head_size, true));
      linears.push_back(linear(heads * head_size, hidden, false));
      linears.push_back(linear(hidden, both, false));
      linears.push_back(linear(intermediate, hidden, true));
    }
    linears.push_back(linear(hidden, vocabulary, false));
    norm.assign(hidden, 1.0f);
    head_norm.assign(head_size, 1.0f);
    embedding = random_bfloat16(vocabulary * hidden);
    keys.assign(layer_count * blocks * kBlock * key_heads * head_size, 0x7fc0);
    values = keys;
  }

  ModelWeights given() {
    layers.clear();
    for (size_t layer = 0; layer < static_cast<size_t>(shape.layers); layer++)
      layers.push_back({buffer(norm),
                        buffer(head_norm),
                        buffer(head_norm),
                        buffer(norm),
                        buffer(norm),
                        {},
                        linears[4 * layer].given(),
                        linears[4 * layer + 1].given(),
                        linears[4 * layer + 2].given(),
                        linears[4 * layer + 3].given()});
    return {shape,        layers.data(),          shape.layers, buffer(embedding),
            buffer(norm), linears.back().given(), buffer(keys), buffer(values)};
  }

  Shape shape;
  std::vector<PackedLinear> linears;
  std::vector<LayerWeights> layers;
  std::vector<float> norm, head_norm;
  std::vector<uint16_t> embedding, keys, values;

 private:
  std::vector<uint16_t> random_bfloat16(int64_t count) {
    std::normal_distribution<float> normal(0.0f, 0.3f);
    std::vector<uint16_t> numbers(static_cast<size_t>(count));
    for (auto& number : numbers) number = bfloat16_of(normal(random_));
    return numbers;
  }

  // Random weights, packed by the step's own function in two sources.
  PackedLinear linear(int64_t inputs, int64_t outputs, bool has_bias) {
    const int64_t columns = (outputs + 63) / 64 * 64;
    const auto numbers = static_cast<size_t>(shape.bits == 8 ? columns : 0);
    PackedLinear packed{std::vector<uint8_t>(static_cast<size_t>(columns * inputs * shape.bits / 8)),
                        std::vector<float>(numbers),
                        {},
                        std::vector<int32_t>(numbers),
                        inputs,
                        outputs};
    std::vector<int32_t> order(static_cast<size_t>(columns), -1);
    for (int64_t column = 0; column < outputs; column++)
      order[static_cast<size_t>(column)] = static_cast<int32_t>(outputs - 1 - column);
    const int64_t first = outputs / 3;
    const std::vector<uint16_t> all = random_bfloat16(outputs * inputs);
    const auto* rest = all.data() + first * inputs;
    const PackOrder given{{{all.data(), first * inputs * 2}, {rest, (outputs - first) * inputs * 2}, {}},
                          buffer(order),
                          inputs,
                          16,
                          shape.bits,
                          buffer(packed.weights),
                          buffer(packed.scales),
                          buffer(packed.first_sums)};
    Message message{};
    expect(lectern_pack(&given, 2, &message) == 0, std::string("packed: ") + message.text);
    if (has_bias) packed.bias.assign(static_cast<size_t>(columns), 0.1f);
    return packed;
  }

  std::mt19937 random_{7};
};

// One text of a step: its rows from `begin` to `end`, in blocks that run backwards from `last_block`.
struct Part {
  int32_t text, begin, end, last_block;
};

struct StepArrays {
  std::vector<int32_t> tokens, positions, slots, spans, blocks, wanted;
  std::vector<float> cosines, sines, logits;

  StepArrays(const Shape& shape, const std::vector<Part>& parts) {
    for (const Part& part : parts) {
      spans.insert(spans.end(), {static_cast<int32_t>(tokens.size()), part.end - part.begin, part.end,
                                 static_cast<int32_t>(blocks.size())});
      for (int32_t block = 0; block * kBlock < part.end; block++) blocks.push_back(part.last_block - block);
      for (int32_t position = part.begin; position < part.end; position++) add(shape, part, position);
    }
    // What is reserved beyond the end would hide a read beyond it.
    for (auto* each : {&tokens, &positions, &slots, &spans, &blocks, &wanted}) each->shrink_to_fit();
    logits.assign(wanted.size() * static_cast<size_t>(shape.vocabulary), 0.0f);
  }

  void add(const Shape& shape, const Part& part, int32_t position) {
    wanted.push_back(static_cast<int32_t>(tokens.size()));
    tokens.push_back((position * 31 + part.text * 17) % static_cast<int32_t>(shape.vocabulary));
    positions.push_back(position);
    slots.push_back((part.last_block - position / 16) * 16 + position % 16);
    for (int64_t k = 0; k < shape.rotary_size / 2; k++) {
      const float angle = static_cast<float>(position) * std::pow(0.1f, static_cast<float>(k));
      cosines.push_back(std::cos(angle));
      sines.push_back(std::sin(angle));
    }
  }

  StepRows given() const {
    return {buffer(tokens), buffer(positions), buffer(slots),  buffer(cosines), buffer(sines),
            buffer(spans),  buffer(blocks),    buffer(wanted), buffer(logits)};
  }
};

class Opened {
 public:
  explicit Opened(TinyModel& model) : shape_(model.shape) {
    const ModelWeights given = model.given();
    Message message{};
    expect(lectern_open(&given, &handle_, &message) == 0, std::string("opened: ") + message.text);
  }
  ~Opened() { lectern_close(handle_); }
  Opened(const Opened&) = delete;

  std::vector<float> run(const std::vector<Part>& parts) {
    const StepArrays arrays(shape_, parts);
    const StepRows given = arrays.given();
    Message message{};
    expect(lectern_step(handle_, &given, &message) == 0, std::string("computed: ") + message.text);
    return arrays.logits;
  }

  void expect_refused(const StepArrays& arrays, const std::string& what) {
    const StepRows given = arrays.given();
    Message message{};
    expect(lectern_step(handle_, &given, &message) != 0 && message.text[0], "refused: " + what);
  }

 private:
  Shape shape_;
  void* handle_ = nullptr;
};

void append(std::vector<float>& all, const std::vector<float>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

void check_chunks(TinyModel& model) {
  Opened opened(model);
  const std::vector<float> whole = opened.run({{0, 0, 300, 18}});
  for (const float logit : whole) expect(std::isfinite(logit), "a logit is a number");
  std::vector<float> chunks;
  int32_t begin = 0;
  for (const int32_t end : {1, 2, 9, 16, 31, 129, 255, 256, 257, 299, 300}) {
    append(chunks, opened.run({{0, begin, end, 38}}));
    begin = end;
  }
  expect(chunks == whole, "chunks give what the whole text gives");
}

void check_neighbours(TinyModel& model) {
  Opened opened(model);
  opened.run({{0, 0, 99, 6}, {1, 0, 40, 13}, {2, 0, 7, 15}});
  const std::vector<float> together =
      opened.run({{0, 99, 100, 6}, {1, 40, 61, 13}, {2, 7, 9, 15}, {3, 0, 33, 20}});
  std::vector<float> alone = opened.run({{0, 0, 100, 30}});
  alone.erase(alone.begin(), alone.end() - static_cast<std::ptrdiff_t>(model.shape.vocabulary));
  expect(std::equal(alone.begin(), alone.end(), together.begin()), "neighbours make no difference");
}

void check_refusals(TinyModel& model) {
  Opened opened(model);
  const std::vector<std::function<void(StepArrays&)>> changes = {
      [](StepArrays& step) { step.tokens[1] = 1 << 20; },
      [](StepArrays& step) { step.tokens[0] = -1; },
      [](StepArrays& step) { step.tokens.pop_back(); },
      [](StepArrays& step) { step.positions[0] = 5; },
      [](StepArrays& step) { step.slots[2] = -7; },
      [](StepArrays& step) { step.blocks[0] = 40; },
      [](StepArrays& step) { step.blocks.clear(); },
      [](StepArrays& step) { step.spans[1] = 1 << 30; },
      [](StepArrays& step) { step.spans[2] = 0; },
      [](StepArrays& step) { step.spans[3] = -3; },
      [](StepArrays& step) { step.spans.pop_back(); },
      [](StepArrays& step) { step.wanted[0] = 3; },
      [](StepArrays& step) { step.spans[1] = step.spans[2] = 16; },
      [](StepArrays& step) { step.logits.pop_back(); },
      [](StepArrays& step) { step.cosines.pop_back(); },
  };
  for (size_t index = 0; index < changes.size(); index++) {
    StepArrays arrays(model.shape, {{0, 0, 3, 4}});
    changes[index](arrays);
    opened.expect_refused(arrays, "change " + std::to_string(index));
  }
}

void check_shapes(TinyModel& model) {
  for (int64_t Shape::* size :
       {&Shape::bits, &Shape::layers, &Shape::hidden, &Shape::intermediate, &Shape::heads, &Shape::key_heads,
        &Shape::head_size, &Shape::rotary_size, &Shape::vocabulary, &Shape::cache_blocks, &Shape::threads}) {
    for (const int64_t wrong : {int64_t{-16}, int64_t{17}, int64_t{1} << 62}) {
      if (size == &Shape::threads && wrong == 17) continue;  // any number of threads will do
      ModelWeights given = model.given();
      given.shape.*size = wrong;
      void* handle = nullptr;
      Message message{};
      expect(lectern_open(&given, &handle, &message) != 0, "a shape that cannot be is refused");
      lectern_close(handle);
    }
  }
}

void check_pack_refusals() {
  const std::vector<float> source(2 * 16);
  const std::vector<int32_t> order(64, 1);
  const std::vector<uint8_t> packed(64 * 16);
  const std::vector<float> scales(64);
  const std::vector<int32_t> first_sums(64);
  const std::vector<int32_t> wrong_order(64, 2);
  const PackOrder right{{buffer(source), {}, {}}, buffer(order),  16, 32, 8,
                        buffer(packed),           buffer(scales), buffer(first_sums)};
  const std::vector<std::function<void(PackOrder&)>> changes = {
      [](PackOrder&) {},
      [](PackOrder& given) { given.inputs = 0; },
      [](PackOrder& given) { given.inputs = 20; },
      [](PackOrder& given) { given.inputs = int64_t{1} << 62; },
      [](PackOrder& given) { given.source_bits = 8; },
      [](PackOrder& given) { given.bits = 16; },
      [](PackOrder& given) { given.bits = 4; },
      [](PackOrder& given) { given.sources[0].bytes -= 4; },
      [](PackOrder& given) { given.sources[0].data = nullptr; },
      [](PackOrder& given) { given.order.bytes -= 4; },
      [&](PackOrder& given) { given.order = buffer(wrong_order); },
      [](PackOrder& given) { given.packed.bytes -= 1; },
      [](PackOrder& given) { given.scales.bytes = 0; },
      [](PackOrder& given) { given.first_sums.data = nullptr; },
  };
  for (size_t index = 0; index < changes.size(); index++) {
    PackOrder given = right;
    changes[index](given);
    Message message{};
    const bool is_refused = lectern_pack(&given, 2, &message) != 0;
    expect(is_refused == (index > 0), "packing with change " + std::to_string(index));
  }
}

}  // namespace

int main() {
  check_pack_refusals();
  for (const int64_t bits : {16, 8}) {
    TinyModel models[] = {
        {bits, 6, 2, 16, 48}, {bits, 14, 2, 64, 112}, {bits, 3, 1, 80, 16}, {bits, 70, 1, 16, 32}};
    for (TinyModel& model : models) {
      check_chunks(model);
      check_neighbours(model);
      check_refusals(model);
      check_shapes(model);
    }
  }
  std::printf("%s\n", failures ? "failed" : "passed");
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
