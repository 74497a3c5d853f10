// Any bytes as an imatrix, in either format.
#include "model/convert/imatrix.h"

#include "fuzz.h"

namespace sdltx::fuzz {

namespace {

void read(const uint8_t* data, size_t size) {
    const Imatrix imatrix = Imatrix::load(file_of({reinterpret_cast<const char*>(data), size}));
    TensorInfo t{};
    t.name = "model.diffusion_model.a.weight";
    t.shape = {4, 4};
    imatrix.of(t);
}

const Register imatrix("imatrix", read);

}  // namespace

}  // namespace sdltx::fuzz
