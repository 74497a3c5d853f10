// What can compute here, and what it is called. Drivers of GPUs are looked for when one is asked for.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ggml-backend.h"

namespace sdltx {

bool is_cpu(ggml_backend_dev_t dev);
bool is_gpu(ggml_backend_dev_t dev);
bool is_remote(ggml_backend_dev_t dev);
bool is_vulkan(ggml_backend_dev_t dev);
// "cpu", "gpu", "remote" or "accelerator"
std::string kind_of(ggml_backend_dev_t dev);
// What attention on a GPU of this machine gets keys and values as: BF16 where sums over them are floats then and that
// is not slow, else F16, whose sums are halves.
ggml_type keys_type_of(ggml_backend_dev_t dev);
// As people give it: "cpu", "cuda0", "vulkan0", "rpc:HOST:PORT".
std::string name_of(ggml_backend_dev_t dev);

// Makes the devices of this machine known, once. Afterwards ggml's list has them.
void look_for_gpus();
// Why there are none by Vulkan, for people; empty if there are, or if it is not built in.
const std::string& vulkan_problem();
bool vulkan_is_built_in();

// The devices of a list "a,b", each as Backend takes it; `workers` gets the right to use those that are remote. Throws
// Error(backend | invalid_request).
std::vector<ggml_backend_dev_t> find_all_devices(const std::string& list, std::vector<std::shared_ptr<void>>& workers);

}  // namespace sdltx
