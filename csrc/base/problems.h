// What is wrong with a set of model files: loading ends at the first problem, inspecting collects all of them.
#pragma once

#include <string>
#include <vector>

#include "error.h"

namespace sdltx {

using Problems = std::vector<std::string>;

// Runs `f` and returns whether it went well. Its Error is put into `problems`, or goes on if that is null.
template <typename F>
bool attempt(Problems* problems, F&& f) {
    if (!problems) {
        f();
        return true;
    }
    try {
        f();
        return true;
    } catch (const Error& e) {
        problems->push_back(e.what());
        return false;
    }
}

}  // namespace sdltx
