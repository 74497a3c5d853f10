// Picks the target by the name of the program, and tells errors that are meant from those that are not.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "base/log.h"
#include "fuzz.h"

namespace sdltx::fuzz {

namespace {

std::map<std::string, Target>& targets() {
    static std::map<std::string, Target> all;
    return all;
}

Target chosen = nullptr;

// One line for people: where, what, what to do.
void check_message(const Error& error) {
    const std::string text = error.what();
    expect(!text.empty() && text.front() == '[', "an error does not say where");
    expect(text.size() < 4096, "an error is longer than anybody reads");
}

}  // namespace

Register::Register(const char* name, Target target) { targets()[name] = target; }

void broken(const char* what) {
    std::fprintf(stderr, "broken: %s\n", what);
    std::abort();
}

}  // namespace sdltx::fuzz

using namespace sdltx;

extern "C" int LLVMFuzzerInitialize(int*, char*** arguments) {
    const char* path = (*arguments)[0];
    const char* slash = std::strrchr(path, '/');
    const auto found = fuzz::targets().find(slash ? slash + 1 : path);
    if (found == fuzz::targets().end()) {
        std::fprintf(stderr, "call it by the name of a target:");
        for (auto& [name, target] : fuzz::targets()) std::fprintf(stderr, " %s", name.c_str());
        std::fprintf(stderr, "\n");
        std::exit(2);
    }
    fuzz::chosen = found->second;
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        fuzz::chosen(data, size);
    } catch (const Error& error) {
        fuzz::check_message(error);
    }
    return 0;
}
