// The networks of a model.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "base/export.h"

namespace sdltx {

// A set of files may hold some of them. A clip from text needs all but the two encoders of pixels and sound, and the
// head.
enum class Part {
    transformer,
    text_encoder,
    text_projection,
    video_decoder,
    video_encoder,
    audio_decoder,
    vocoder,
    audio_encoder,
    duration_head
};
constexpr std::array<Part, 9> all_parts = {Part::transformer,   Part::text_encoder,  Part::text_projection,
                                           Part::video_decoder, Part::video_encoder, Part::audio_decoder,
                                           Part::vocoder,       Part::audio_encoder, Part::duration_head};
// "text encoder"
SDLTX_EXPORT const char* name_of(Part part);
// Throws Error(invalid_request).
SDLTX_EXPORT Part part_of(const std::string& name);

// Where a tensor of a model belongs.
struct Owner {
    const char* part;             // "transformer", "video encoder", "other"; also what this version has no use for
    std::optional<Part> network;  // of which every tensor has a use, if that network is there
};
Owner owner_of(const std::string& tensor);

}  // namespace sdltx
