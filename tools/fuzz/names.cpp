// Any bytes as a file of a model: its names, metadata and configurations, up to the networks that it is found to hold.
#include "base/json.h"
#include "fuzz.h"
#include "model/inspect.h"

namespace sdltx::fuzz {

namespace {

void describe(const uint8_t* data, size_t size) {
    const std::string told = inspect({file_of({reinterpret_cast<const char*>(data), size})});
    expect(Json::accept(told), "an inspection is not JSON");
}

const Register names("names", describe);

}  // namespace

}  // namespace sdltx::fuzz
