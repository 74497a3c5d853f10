// What files call the weights of a model, and what the networks call them.
#pragma once

#include <string>
#include <vector>

#include "model_file.h"

namespace sdltx {

// Gives every tensor the name that the networks ask for. The files of a set are parts of one: what tells how its names
// are spelled is in any of them.
void normalise_names(const std::vector<ModelFile*>& set);

// What a file is that holds no part of a model but changes one or comes after it: "a LoRA", "a latent upscaler" and
// others; empty for all else.
std::string kind_of_addition(const ModelFile& file);

// A tensor that stands for a part: a model has one of each.
struct PartProbe {
    const char* probe;
    const char* name;
};

inline constexpr PartProbe part_probes[] = {
    {"model.diffusion_model.patchify_proj.weight", "transformer"},
    {"vae.decoder.conv_in.conv.weight", "video VAE"},
    {"audio_vae.decoder.conv_in.conv.weight", "audio VAE"},
    {"vocoder.vocoder.conv_pre.weight", "vocoder"},
    {"vocoder.conv_pre.weight", "vocoder"},
    {"language_model.model.embed_tokens.weight", "text encoder"},
};

}  // namespace sdltx
