// The functions that Python calls: each checks what it is given, and turns what goes wrong into a message.

#include <algorithm>
#include <cstdio>

#include "pack.h"
#include "step.h"

namespace {

struct OpenModel {
  Model model;
  StepMemory memory;
};

// Nothing may be thrown across the border.
template <class Action>
int guarded(Message* message, const Action& action) {
  try {
    action();
    return 0;
  } catch (const std::exception& error) {
    std::snprintf(message->text, sizeof message->text, "%s", error.what());
    return 1;
  }
}

}  // namespace

int lectern_pack(const PackOrder* order, int64_t threads, Message* message) {
  return guarded(message, [&] { pack(checked_pack(*order), std::clamp<int64_t>(threads, 1, 1024)); });
}

int lectern_open(const ModelWeights* weights, void** model, Message* message) {
  return guarded(message, [&] { *model = new OpenModel{checked_model(*weights), {}}; });
}

int lectern_step(void* model, const StepRows* rows, Message* message) {
  return guarded(message, [&] {
    auto* open = static_cast<OpenModel*>(model);
    const Step step = checked_step(open->model, *rows);
    StepRun(open->model, step, open->memory).run();
  });
}

void lectern_close(void* model) { delete static_cast<OpenModel*>(model); }
