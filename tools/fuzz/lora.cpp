// Any bytes as a LoRA of a small transformer.
#include "fuzz.h"
#include "ltxv/lora_file.h"

namespace sdltx::fuzz {

namespace {

const std::vector<Weights::Tensor>& transformer() {
    static const std::vector<Weights::Tensor> tensors = [] {
        std::vector<Weights::Tensor> all;
        const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
            all.push_back({name, nullptr, std::move(shape), 0});
        };
        add("patchify_proj.weight", {8, 4});
        add("patchify_proj.bias", {8});
        add("adaln_single.linear.weight", {16, 8});
        add("scale_shift_table", {2, 8});
        for (const char* block : {"transformer_blocks.0.", "transformer_blocks.1."})
            for (const char* layer : {"attn1.to_q", "attn1.to_out.0", "audio_attn1.to_k", "ff.net.2"}) {
                add(std::string(block) + layer + ".weight", {8, 8});
                add(std::string(block) + layer + ".bias", {8});
            }
        return all;
    }();
    return tensors;
}

void read(const uint8_t* data, size_t size) {
    const auto file = ModelFile::open(file_of({reinterpret_cast<const char*>(data), size}));
    const LoraContents contents = read_lora(*file, transformer());
    for (auto& [name, additions] : contents.additions)
        for (const LoraAddition& a : additions) expect((a.down && a.up) || a.whole, "an addition of nothing");
}

const Register lora("lora", read);

}  // namespace

}  // namespace sdltx::fuzz
