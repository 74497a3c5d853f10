// Guidance (sampling.md section 4; ltx-core MultiModalGuider): a clean estimate is pushed away from what passes that
// lack something give. All on estimates of x0, per stream.
#pragma once

#include <cstdint>
#include <vector>

namespace sdltx {

// How strongly, for one stream. The defaults are neutral.
struct GuidanceScales {
    double cfg = 1;          // away from the negative prompt
    double stg = 0;          // away from a pass whose self-attention is left out in some blocks
    double modality = 1;     // away from a pass whose streams do not see each other
    double rescale = 0;      // 1: back to the standard deviation of the plain estimate, 0: as it comes
    int64_t skip_steps = 0;  // steps between two estimates, in which the last one is used again
};

// How the difference to the negative prompt is taken.
enum class CfgMethod {
    plain,  // all of it
    star,   // CFG*: the negative estimate is scaled to the other's length first
    apg,    // adaptive projected guidance: what is parallel to the estimate counts apg_eta times
};

struct Guidance {
    GuidanceScales video, audio;
    std::vector<int> stg_blocks;
    double lowest = 0, highest = 1;  // noise levels within which there is guidance at all
    CfgMethod method = CfgMethod::plain;
    double apg_eta = 1;
    double apg_threshold = 0;  // the longest difference, as an L2 norm; 0: any

    bool active(float sigma) const { return sigma >= lowest && sigma <= highest; }
    // Passes of a step besides the plain one.
    bool needs_negative() const { return video.cfg != 1 || audio.cfg != 1; }
    bool needs_perturbed() const { return video.stg != 0 || audio.stg != 0; }
    int passes() const { return 1 + needs_negative() + needs_perturbed() + needs_isolated(); }
    bool needs_isolated() const { return video.modality != 1 || audio.modality != 1; }
};

// Estimates of one stream by the passes, null where one has not been run.
struct PassEstimates {
    const std::vector<float>* plain = nullptr;
    const std::vector<float>* negative = nullptr;
    const std::vector<float>* perturbed = nullptr;
    const std::vector<float>* isolated = nullptr;
};

std::vector<float> guide(const Guidance& guidance, const GuidanceScales& scales, const PassEstimates& x0);

}  // namespace sdltx
