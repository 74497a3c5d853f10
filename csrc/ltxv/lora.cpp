#include "lora.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/log.h"
#include "base/parallel.h"
#include "ggml/values.h"
#include "lora_file.h"

namespace sdltx {

namespace {

// What is wrong with a file should not first show in the picture.
void check_finite(const ModelFile& file, const LoraContents& contents, int threads) {
    std::vector<const TensorInfo*> tensors;
    for (auto& [name, additions] : contents.additions)
        for (const LoraAddition& a : additions)
            for (const TensorInfo* t : {a.down, a.up, a.whole})
                if (t) tensors.push_back(t);
    parallel_for(
        threads, static_cast<int64_t>(tensors.size()),
        [&](int64_t i) {
            const TensorInfo& t = *tensors[static_cast<size_t>(i)];
            for (float v : to_float(t).data)
                if (!std::isfinite(v))
                    throw Error(ErrorCode::model_mismatch,
                                "[" + file.path() + "] '" + t.stored_name + "' holds values that are not finite");
        },
        [](int64_t) {});
}

void tell(const ModelFile& file, const LoraContents& contents) {
    const std::string start = "[lora] " + file.path();
    const auto others = static_cast<int64_t>(contents.unknown.size());
    log(20, start + ": " + std::to_string(contents.modules) + " of " + std::to_string(contents.modules + others) +
                " modules are applied");
    std::string named;
    size_t count = 0;
    for (const std::string& name : contents.unknown)
        if (count++ < 5) named += (named.empty() ? "'" : ", '") + name + "'";
    if (others)
        log(30, start + ": " + std::to_string(others) +
                    " modules are none of the transformer's and have no effect, such as " + named);
    for (const char* key : {"reference_downscale_factor", "reference_temporal_scale_factor"})
        if (const auto value = file.metadata(key)) {
            log(30, start + " is an IC-LoRA (" + key + " " + *value +
                        "): it wants a reference video, which no recipe of this version has");
            return;
        }
}

}  // namespace

Lora::Lora(const std::string& path, std::unique_ptr<ModelFiles> opened, const Weights& transformer)
    : path_(path), opened_(std::move(opened)) {
    const std::vector<Weights::Tensor> tensors = transformer.tensors();
    const ModelFile& file = *opened_->files().front();
    const LoraContents contents = read_lora(file, tensors);
    if (contents.additions.empty())
        throw Error(ErrorCode::model_mismatch,
                    "[" + file.path() + "] none of its " + std::to_string(contents.unknown.size()) +
                        " modules is one of this model's" +
                        (contents.unknown.empty() ? std::string() : ", such as '" + *contents.unknown.begin() + "'") +
                        "; it is for another model, or in a spelling that is not known");
    check_finite(file, contents, transformer.backend().threads());
    tell(file, contents);

    weights_ = std::make_unique<Weights>(*opened_, transformer.backend(), "LoRA", "");
    size_t group = 0;
    for (const Weights::Tensor& t : tensors) {
        for (; group < t.group; ++group) weights_->begin_block();
        const auto found = contents.additions.find(t.name);
        if (found == contents.additions.end()) continue;
        for (const LoraAddition& a : found->second) {
            Delta d;
            d.scale = a.scale;
            if (a.whole)
                d.whole = t.shape.size() == 2 && ends_with(t.name, ".weight")
                              ? weights_->matrix(a.whole->name, t.shape)
                              : weights_->vector(a.whole->name, t.shape);
            if (a.down) d.a = weights_->matrix(a.down->name, a.down->shape);
            if (a.up) d.b = weights_->matrix(a.up->name, a.up->shape);
            deltas_[t.tensor].push_back(d);
        }
    }
    for (const size_t blocks = transformer.num_blocks(); group < blocks; ++group) weights_->begin_block();
    check_weights({weights_.get()});
}

bool Lora::is_current() const { return opened_->files().front()->map().is_current(); }

Loras::Loras(std::vector<std::pair<std::shared_ptr<Lora>, float>> files) {
    for (auto& [file, strength] : files) {
        if (strength == 0) continue;
        for (auto& [weight, deltas] : file->deltas())
            for (Delta d : deltas) {
                d.scale *= strength;
                deltas_[weight].push_back(d);
            }
        if (std::find(files_.begin(), files_.end(), file) == files_.end()) files_.push_back(std::move(file));
    }
}

std::vector<Weights*> Loras::weights() const {
    std::vector<Weights*> all;
    for (auto& file : files_) all.push_back(&file->weights());
    return all;
}

}  // namespace sdltx
