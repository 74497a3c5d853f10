// What files call the weights of these models, and what the networks call them.
#pragma once

#include "ggml/model_file.h"

namespace sdltx {

// Kinds of what changes a model or comes after it, as errors spell them.
inline constexpr const char *lora_kind = "a LoRA", *upscaler_kind = "a latent upscaler",
                            *diffusion_decoder_kind =
                                "the diffusion decoder of LTX-2.5, which this version does not run";

SDLTX_EXPORT const Naming& ltx_naming();

}  // namespace sdltx
