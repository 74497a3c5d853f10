// Which type each tensor of a converted model gets: the one table of what is quantised, and how.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/export.h"
#include "ggml/model_file.h"

namespace sdltx {

// A kind of file, under the name that llama.cpp gives it.
struct Mix {
    const char* name;
    ggml_type base;      // of the large matrices; GGML_TYPE_COUNT: everything stays as it is stored
    ggml_type more;      // of those of them that suffer most
    uint32_t file_type;  // `general.file_type`; of no meaning where everything stays
};

// Throws Error(invalid_request) that lists the names.
const Mix& mix_of(const std::string& name);
SDLTX_EXPORT std::vector<std::string> mix_names();

// A pattern of names of matrices, as of a shell, and the name of a type: "*.to_v.weight", "q8_0".
using TypeRule = std::pair<std::string, std::string>;

// Decides for one model.
class Quantisation {
 public:
    // tensors: that are converted, under their canonical names. `rules` go before the table, the first that fits
    // counts. Throws Error(invalid_request) for unknown types.
    Quantisation(const Mix& mix, const std::vector<TypeRule>& rules, const std::vector<const TensorInfo*>& tensors);

    // Of a tensor under its canonical name.
    ggml_type type_of(const TensorInfo& t) const;
    // Rules that fitted no tensor so far.
    std::vector<std::string> unused_rules() const;

 private:
    struct Rule {
        std::string pattern;
        ggml_type type;
        mutable bool used = false;
    };
    ggml_type wanted(const TensorInfo& t) const;

    const Mix& mix_;
    std::vector<Rule> rules_;
    std::vector<int64_t> blocks_;  // of each kind of network
};

}  // namespace sdltx
