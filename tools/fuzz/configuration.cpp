// Any text as a configuration: of a checkpoint around the tensors that make its parts, and of a text encoder's folder.
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>

#include "base/json.h"
#include "fuzz.h"
#include "gemma4/config.h"
#include "model/inspect.h"

namespace sdltx::fuzz {

namespace {

// What parts are found by.
constexpr const char* of_checkpoint[] = {"model.diffusion_model.patchify_proj.weight",
                                         "vae.decoder.conv_in.conv.weight",
                                         "audio_vae.decoder.conv_in.conv.weight",
                                         "vocoder.vocoder.conv_pre.weight",
                                         "vae.encoder.conv_in.conv.weight",
                                         "duration_head.attention_pooler.query_tokens",
                                         "text_embedding_projection.aggregate_embed.weight"};
constexpr const char* of_gemma3[] = {"model.embed_tokens.weight", "model.layers.0.self_attn.q_norm.weight"};
constexpr const char* of_gemma4[] = {"model.embed_tokens.weight", "model.layers.0.layer_scalar"};

template <size_t N>
TensorFile around(const char* const (&names)[N]) {
    TensorFile file;
    for (const char* name : names) file.add(name, "F32", {4, 4}, std::string(64, '\1'));
    return file;
}

void describe(const std::string& path) { expect(Json::accept(inspect({path})), "an inspection is not JSON"); }

void of_model(const uint8_t* data, size_t size) {
    Bytes in(data, size);
    constexpr const char* versions[] = {"2.3.0", "2.0.0", "2.5.0", ""};
    TensorFile file = around(of_checkpoint);
    file.add_metadata("model_version", versions[in.below(4)]);
    constexpr const char* keys[] = {"config", "vae_config", "model_config", "sdltx.defaults"};
    const char* key = keys[in.below(4)];
    file.add_metadata(key, std::string(in.rest()));
    describe(file_of(file.bytes()));
}

std::string folder_of(const TensorFile& file) {
    char name[] = "/dev/shm/sdltx-fuzz-XXXXXX";
    expect(::mkdtemp(name) != nullptr, "no temporary folder");
    std::ofstream(std::string(name) + "/model.safetensors", std::ios::binary) << file.bytes();
    return name;
}

void of_text_encoder(const uint8_t* data, size_t size) {
    static const std::string gemma3 = folder_of(around(of_gemma3)), gemma4 = folder_of(around(of_gemma4));
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const std::string& folder = text.find("gemma4") == std::string_view::npos ? gemma3 : gemma4;
    std::ofstream(folder + "/config.json", std::ios::binary)
        .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
    describe(folder);
}

const Register model("configuration", of_model), text_encoder("text_encoder", of_text_encoder);

}  // namespace

}  // namespace sdltx::fuzz
