// The loader of Vulkan's drivers, which is looked for when the first device of its kind is: nothing of it is linked,
// and where there is none everything else works.
#pragma once

#include <string>

namespace sdltx {

// Why there are no devices of Vulkan, for people; empty if a loader is there that can have some.
std::string vulkan_loader_problem();

}  // namespace sdltx
