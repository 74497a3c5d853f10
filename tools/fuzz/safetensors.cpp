// Any bytes as a safetensors file, from its header to the values of its tensors.
#include "base/json.h"
#include "fuzz.h"
#include "ggml/values.h"
#include "model/names.h"

namespace sdltx::fuzz {

namespace {

constexpr int64_t few = 1 << 12;

void open_one(const uint8_t* data, size_t size) {
    const ModelFiles files({file_of({reinterpret_cast<const char*>(data), size})}, ltx_naming());
    for (auto& file : files.files()) {
        check_tensors(*file);
        for (const TensorInfo& t : file->tensors())
            if (readable(t) && t.elements() <= few) {
                const Array values = to_float(t);
                expect(static_cast<int64_t>(values.data.size()) == t.elements(), "values were lost");
                number_of(t);
            }
    }
}

const Register as_safetensors("safetensors", open_one), as_gguf("gguf", open_one);

}  // namespace

}  // namespace sdltx::fuzz
